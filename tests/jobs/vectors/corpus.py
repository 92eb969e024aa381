"""Checks of the vectors on whole sets: captions, pictures and statistics."""

import atexit
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from jobs.scoring import statistics
from jobs.scoring.captions.java import Meteor, running_meteor
from jobs.scoring.captions.metrics import CaptionScores, caption_metrics
from jobs.scoring.captions.tokens import tokenize
from jobs.scoring.pictures import clipscore, dpg, fid_kid, geneval
from jobs.scoring.pictures.fid_kid import kid

FOLDER = Path(os.environ.get("TRIPTYCH_VECTORS") or Path(__file__).parent.parent.parent / "data" / "vectors")

# What the vectors call a rule, and ours; None: the published rules name no such one.
VARIANTS: dict[str, dict[str, str | None]] = {
    "caption_metrics": {"vlmevalkit_untokenised": None},
    "clipscore": {"hessel_w2.5": "clipscore/official", "torchmetrics_x100": "clipscore/text_to_image"},
    "fid_kid": {"pytorch_fid": "fid", "torchmetrics": "fid"},
    # Each has one rule only.
    **{stem: {} for stem in ("ptb_tokenize", "geneval_image", "geneval_summary", "dpg_sample", "stats")},
}


def check_captions(line: Mapping[str, Any]) -> None:
    candidates = {str(place): text for place, text in enumerate(line["inputs"]["predictions"])}
    references = {str(place): texts for place, texts in enumerate(line["inputs"]["references"])}
    scores = caption_metrics(candidates, references, meteor=False)
    assert scores.tokenizer == "ptb"
    found = named(scores)
    if "METEOR" in line["expected"]:
        # One METEOR for all lines: each takes seconds to start.
        texts = iter(tokenize([text for one in candidates for text in (candidates[one], *references[one])]).texts)
        words = [[next(texts) for _ in range(1 + len(references[one]))] for one in candidates]
        whole, each = lasting_meteor().scores([row[0] for row in words], [row[1:] for row in words])
        found = {**found, "METEOR": whole, "per_image": {**found["per_image"], "METEOR": each}}
    close(found, line["expected"], 1e-6)


def named(scores: CaptionScores) -> dict[str, Any]:
    """Give scores the names that the vectors use."""
    images = list(scores.images.values())
    each = {
        "CIDEr": [image.cider_d for image in images],
        "ROUGE_L": [image.rouge_l for image in images],
        **{f"Bleu_{n + 1}": [image.bleu[n] for image in images] for n in range(4)},
    }
    bleu = {f"Bleu_{n + 1}": value for n, value in enumerate(scores.bleu)}
    return {**bleu, "ROUGE_L": scores.rouge_l, "CIDEr": scores.cider_d, "per_image": each}


def close(found: Any, expected: Any, tolerance: float, where: str = "") -> None:
    """Hold every number of `expected` against the one of the same name in `found`."""
    if isinstance(expected, Mapping):
        for name, value in expected.items():
            close(found[name], value, tolerance, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            close(found[place], value, tolerance, f"{where}[{place}]")
    elif unknown(expected):
        assert found is None, f"{where}: {found} instead of nothing"
    else:
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), where


def unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


@cache
def lasting_meteor() -> Meteor:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_meteor())


def check_tokens(line: Mapping[str, Any]) -> None:
    text = line["inputs"]["text"]
    assert tokens_of_all_lines().get(text) == line["expected"], text


@cache
def tokens_of_all_lines() -> dict[str, str]:
    """Tokenise the file's texts together: one Java process, and no line may shift another."""
    with (FOLDER / "ptb_tokenize.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["inputs"]["text"] for line in lines if line.strip()]
    tokens = tokenize(texts)
    assert tokens.tokenizer == "ptb"
    return dict(zip(texts, tokens.texts, strict=True))


def check_clipscore(line: Mapping[str, Any]) -> None:
    inputs, expected = line["inputs"], line["expected"]
    pictures, texts = inputs["image_embeds"], inputs["text_embeds"]
    scores = clipscore.clipscore(pictures, texts)
    found: dict[str, Any] = {"clipscore": scores.tolist(), "mean": float(scores.mean())}
    if "refclipscore" in expected:
        found["refclipscore"] = clipscore.reference_clipscore(pictures, texts, inputs["reference_embeds"])
    # The vectors hold eight decimals (six of scores times 100).
    close(found, expected, 1e-8)
    variants = {"clipscore/official": scores, "clipscore/text_to_image": clipscore.text_to_image_score(pictures, texts)}
    for variant, values in line.get("expected_by_rule", {}).items():
        rule = VARIANTS["clipscore"][variant]
        assert rule is not None
        close(variants[rule].tolist(), values, 1e-8 if rule == "clipscore/official" else 1e-6)


def check_fid(line: Mapping[str, Any]) -> None:
    one, other = line["inputs"]["features_a"], line["inputs"]["features_b"]
    if unknown(line["expected"]["fid"]):
        with pytest.raises(ValueError, match="expected"):
            fid_kid.frechet_distance(fid_kid.gaussian(one), fid_kid.gaussian(other))
        return
    found = fid_kid.frechet_distance(fid_kid.gaussian(one), fid_kid.gaussian(other))
    # Near 0 rounding is all there is: FID is printed with two decimals.
    assert found == pytest.approx(line["expected"]["fid"], rel=1e-4, abs=1e-4)
    for variant, expected in line.get("expected_by_rule", {}).items():
        assert VARIANTS["fid_kid"][variant] == "fid"
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    if line["expected"].get("kid") is not None:
        close(kid(one, other, seed=0).value, line["expected"]["kid"], 1e-8)


def check_geneval(line: Mapping[str, Any]) -> None:
    found = {
        name: [geneval.Box(tuple(box["box"]), box["score"], box.get("color")) for box in boxes]
        for name, boxes in line["inputs"]["detections"].items()
    }
    decision = geneval.decide(line["inputs"]["metadata"], found)
    expected = line["expected"]
    assert decision.correct == expected["correct"]
    assert len(decision.reasons) == expected["n_reasons"]
    assert same_reasons("\n".join(decision.reasons)) == same_reasons(expected["reason"])


def same_reasons(text: str) -> list[list[str]]:
    """Two relations between objects have no order: the official script takes them out of a set."""
    return [
        sorted(line.replace(" target", "").replace("found ", "found and ").split(" and ")) for line in text.split("\n")
    ]


def check_geneval_summary(line: Mapping[str, Any]) -> None:
    rows = line["inputs"]["rows"]
    found = geneval.summarize((row["tag"], row["metadata"], row["correct"]) for row in rows)
    expected = line["expected"]
    assert (found.pictures, found.prompts) == (expected["total_images"], expected["total_prompts"])
    assert list(found.tasks) == list(expected["tasks"])
    # Printed with two decimals of a percent, and the overall score with five decimals.
    percents = {tag: 100 * share for tag, share in found.tasks.items()}
    assert percents == pytest.approx(expected["tasks"], abs=0.005 + 1e-9)
    assert 100 * found.correct_pictures == pytest.approx(expected["pct_correct_images"], abs=0.005 + 1e-9)
    assert 100 * found.correct_prompts == pytest.approx(expected["pct_correct_prompts"], abs=0.005 + 1e-9)
    assert found.overall == pytest.approx(expected["overall"], abs=0.000005 + 1e-9)


def check_dpg(line: Mapping[str, Any]) -> None:
    inputs, expected = line["inputs"], line["expected"]
    questions = {
        int(number): dpg.Question(inputs["tuple"][number], tuple(parents))
        for number, parents in inputs["dependency"].items()
    }
    crops = [{int(number): answer for number, answer in crop.items()} for crop in inputs["answers_per_crop"]]
    found = dpg.score_picture(questions, crops)
    close(found.score, expected["score"], 1e-9)
    close(list(found.crops), expected["per_crop"], 1e-9)
    assert found.categories == expected["category_scores_last_crop_before_zeroing"]


def check_statistics(line: Mapping[str, Any]) -> None:
    inputs, expected = line["inputs"], line["expected"]
    close(dict(statistics_of(inputs["a"], inputs["b"], inputs["clusters"], expected)), expected, 1e-9)


def statistics_of(
    a: Sequence[float], b: Sequence[float], clusters: Sequence[Any], asked: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    whole, paired = statistics.estimate(a), statistics.paired_difference(a, b)
    yield "mean", whole.mean
    yield "stderr_clt", statistics.standard_error(a)
    yield "stderr_clustered", statistics.clustered_error(a, clusters)
    names = {"mean_diff": "mean", "se_diff": "error", "ci_lower": "low", "ci_upper": "high", "t_stat": "t"}
    yield "paired", {"p_value": paired.p_value, "n": paired.n, **{key: getattr(paired, names[key]) for key in names}}
    if "mcnemar_exact_p" in asked:
        test = statistics.mcnemar(a, b)
        yield from [("mcnemar_exact_p", test.p_value), ("n10", test.only_first), ("n01", test.only_second)]
    if "wilson95" in asked:
        yield "wilson95", [whole.low, whole.high]


CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "caption_metrics": check_captions,
    "ptb_tokenize": check_tokens,
    "clipscore": check_clipscore,
    "fid_kid": check_fid,
    "geneval_image": check_geneval,
    "geneval_summary": check_geneval_summary,
    "dpg_sample": check_dpg,
    "stats": check_statistics,
}
