"""The rules over short answers by the names that are stored with their scores."""

from collections.abc import Mapping

from jobs.scoring.answers import anls, exact, ocr, relaxed, vqa, yes_no
from jobs.scoring.rule import Rule

RULES: Mapping[str, Rule] = {
    exact.NAME: exact.nocase_nopunct,
    "exact/official": exact.official,
    "exact/llava_submission": exact.llava_submission,
    "vqa/always_norm": vqa.always_norm,
    "vqa/official_2021": vqa.official_2021,
    "vqa/m4c": vqa.m4c,
    "vqa/vlmevalkit": vqa.vlmevalkit,
    "anls/rrc": anls.rrc,
    "relaxed/pix2struct": relaxed.pix2struct,
    "relaxed/mistral": relaxed.mistral,
    "pope/official": yes_no.official,
    "pope/lmms": yes_no.lmms,
    "pope/vlmevalkit": yes_no.vlmevalkit,
    "ocrbench/official": ocr.official,
    "ocrbench/lmms": ocr.lmms,
}
