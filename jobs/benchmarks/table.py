"""The published data sets that are known here, by name: where their columns are, what scores them.

Where copies lie, and what columns are called there, is a run's to say; row counts and hub names are in
docs/benchmarks.md.
"""

from collections.abc import Mapping
from dataclasses import replace

from jobs.benchmarks import captions, options, short_answers, texts, videos
from jobs.benchmarks.benchmark import Benchmark

_LETTERS = ("mcq/prefetch", "mcq/ranked")

_VQAV2 = Benchmark(
    key="vqav2_val",
    item=short_answers.vqav2,
    needed=("image_id", "question"),
    used=("question_type", "answer_type", "answers"),
    key_column="question_id",
    rule="vqa/always_norm",
    other_rules=("vqa/official_2021", "vqa/m4c"),
    asked_as="vqav2",
)
_TEXTVQA = Benchmark(
    key="textvqa_val",
    item=short_answers.textvqa,
    needed=("image_id", "question"),
    used=("answers", "ocr_tokens"),
    key_column="question_id",
    rule="vqa/m4c",
    other_rules=("vqa/always_norm", "vqa/vlmevalkit"),
    asked_as="textvqa",
)
_DOCVQA = Benchmark(
    key="docvqa_val",
    item=short_answers.docvqa,
    needed=("question", "docId"),
    used=("question_types", "answers"),
    key_column="questionId",
    rule="anls/rrc",
    asked_as="docvqa",
)
_INFOVQA = Benchmark(
    key="infovqa_val",
    item=short_answers.infovqa,
    needed=("question",),
    used=("answer_type", "evidence", "operation/reasoning", "answers"),
    key_column="questionId",
    rule="anls/rrc",
    asked_as="infovqa",
)
_SHORT_ANSWERS = (
    _VQAV2,
    replace(_VQAV2, key="vqav2_testdev"),
    replace(_VQAV2, key="vqav2_test"),
    Benchmark(
        key="gqa",
        item=short_answers.gqa,
        needed=("question", "imageId"),
        used=("answer", "types", "isBalanced"),
        key_column="id",
        images=("imageId",),
        join=("id", "image"),
        rule="exact/nocase_nopunct",
        other_rules=("exact/official", "exact/llava_submission"),
        asked_as="gqa",
    ),
    Benchmark(
        key="ok_vqa",
        item=short_answers.ok_vqa,
        needed=("question",),
        used=("answers", "question_type", "answer_type"),
        key_column="question_id",
        rule="vqa/m4c",
        other_rules=("vqa/always_norm",),
        asked_as="ok_vqa",
    ),
    _TEXTVQA,
    replace(_TEXTVQA, key="textvqa_test"),
    replace(
        _TEXTVQA,
        key="textvqa_val_ocr",
        needed=("image_id", "question", "ocr_tokens"),
        used=("answers",),
        asked_as="textvqa_ocr",
    ),
    _DOCVQA,
    replace(_DOCVQA, key="docvqa_test"),
    _INFOVQA,
    replace(_INFOVQA, key="infovqa_test"),
    Benchmark(
        key="chartqa",
        item=short_answers.chartqa,
        needed=("question", "answer", "type"),
        rule="relaxed/pix2struct",
        other_rules=("relaxed/mistral",),
        asked_as="chartqa",
    ),
    Benchmark(
        key="pope",
        item=short_answers.pope,
        needed=("question", "answer", "category"),
        used=("image_source",),
        key_column="id",
        rule="pope/official",
        other_rules=("pope/lmms", "pope/vlmevalkit"),
        asked_as="pope",
        total="yes_no",
    ),
    Benchmark(
        key="ocrbench",
        item=short_answers.ocrbench,
        needed=("dataset", "question", "question_type", "answer"),
        rule="ocrbench/official",
        other_rules=("ocrbench/lmms",),
        asked_as="ocrbench",
        total="points",
    ),
)

_AI2D = Benchmark(
    key="ai2d",
    item=options.ai2d,
    needed=("question", "options", "answer"),
    rule="ai2d/letter",
    other_rules=_LETTERS,
    asked_as="ai2d",
)
_SCIENCEQA = Benchmark(
    key="scienceqa_img",
    item=options.scienceqa,
    needed=("question", "choices", "answer"),
    used=("hint", "grade", "subject", "topic", "category"),
    rule="scienceqa/lmms",
    other_rules=("scienceqa/llava", "mcq/prefetch"),
    asked_as="scienceqa",
)
_MMMU = Benchmark(
    key="mmmu_val",
    item=options.mmmu,
    needed=("question", "options", "question_type"),
    used=("answer", "topic_difficulty"),
    key_column="id",
    images=tuple(f"image_{place}" for place in range(1, 8)),
    rule="mmmu/official",
    other_rules=("mmmu/lmms",),
    asked_as="mmmu",
)
_MATHVISTA = Benchmark(
    key="mathvista_testmini",
    item=options.mathvista,
    needed=("question", "query", "question_type", "answer_type", "choices", "precision"),
    used=("answer", "unit", "metadata"),
    key_column="pid",
    images=("decoded_image",),
    rule="mathvista/official",
    other_rules=("mathvista/rule_extract",),
    asked_as="mathvista",
)
_MMBENCH = Benchmark(
    key="mmbench_en_dev",
    item=options.mmbench,
    needed=("question", "A", "B"),
    used=("hint", "answer", "C", "D", "E", "category", "L2-category", "l2-category", "source", "split"),
    key_column="index",
    rule="mcq/prefetch",
    other_rules=("mcq/ranked",),
    asked_as="mmbench_en",
    total="circular",
)
# A short cell of version 1.1's image column is the index of the row that holds the picture.
_MMBENCH_V11 = replace(_MMBENCH, key="mmbench_dev_en_v11", join=("index", "image"))
_OPTIONS = (
    _AI2D,
    replace(_AI2D, key="ai2d_no_mask"),
    _SCIENCEQA,
    replace(_SCIENCEQA, key="scienceqa_full", may_lack_images=True),
    _MMMU,
    replace(_MMMU, key="mmmu_test", asked_as="mmmu_test"),
    _MATHVISTA,
    replace(_MATHVISTA, key="mathvista_test"),
    _MMBENCH,
    replace(_MMBENCH, key="mmbench_en_test"),
    replace(_MMBENCH, key="mmbench_cn_dev", asked_as="mmbench_cn"),
    replace(_MMBENCH, key="mmbench_cn_test", asked_as="mmbench_cn"),
    _MMBENCH_V11,
    replace(_MMBENCH_V11, key="mmbench_test_en_v11"),
    replace(_MMBENCH_V11, key="mmbench_dev_cn_v11", asked_as="mmbench_cn"),
    replace(_MMBENCH_V11, key="mmbench_test_cn_v11", asked_as="mmbench_cn"),
    Benchmark(
        key="realworldqa",
        item=options.realworldqa,
        needed=("question", "answer"),
        rule="realworldqa/ranked",
        asked_as="realworldqa",
    ),
    Benchmark(
        key="mmstar",
        item=options.mmstar,
        needed=("question", "answer"),
        used=("category", "l2_category"),
        key_column="index",
        rule="mmstar/official",
        other_rules=_LETTERS,
        asked_as="mmstar",
    ),
)

_LONGVIDEOBENCH = Benchmark(
    key="longvideobench_val",
    item=videos.longvideobench,
    needed=("question", "option0", "option1", "option2", "option3"),
    used=(
        *("option4", "correct_choice", "duration_group", "question_category", "video_id", "video_path"),
        *("starting_timestamp_for_subtitles", "duration", "frame_times", "subtitles"),
    ),
    key_column="id",
    images=(),
    video="video_path",
    subtitles="subtitle_path",
    rule="mcq/first_letter",
    other_rules=_LETTERS,
    asked_as="longvideobench",
)
_VIDEOS = (_LONGVIDEOBENCH, replace(_LONGVIDEOBENCH, key="longvideobench_test"))

_COCO = Benchmark(
    key="coco_caption",
    item=captions.coco,
    needed=(),
    used=("answer",),
    key_column="question_id",
    rule="captions/coco",
    asked_as="coco_caption",
    total="captions",
)
_CAPTIONS = (
    _COCO,
    replace(
        _COCO,
        key="coco_karpathy",
        item=captions.karpathy,
        used=("sentences",),
        key_column="filename",
        images=("url",),
        asked_as="caption",
    ),
    replace(
        _COCO,
        key="nocaps",
        item=captions.nocaps,
        used=("annotations_captions", "image_domain"),
        key_column="image_id",
        asked_as="caption",
    ),
    replace(
        _COCO, key="flickr30k", item=captions.flickr30k, used=("caption",), key_column="img_id", asked_as="caption"
    ),
    replace(
        _COCO, key="textcaps", item=captions.textcaps, used=("caption_str",), key_column="image_id", asked_as="caption"
    ),
)

_MMLU = Benchmark(
    key="mmlu",
    item=texts.mmlu,
    needed=("question", "subject", "choices", "answer", "examples"),
    images=(),
    rule="likelihood/sum",
    other_rules=("mcq/prefetch",),
    asked_as="mmlu",
    has_continuations=True,
    total="subjects",
)
_ARC = Benchmark(
    key="arc_challenge",
    item=texts.arc,
    needed=("question", "choices"),
    used=("answerKey",),
    key_column="id",
    images=(),
    rule="mcq/prefetch",
    asked_as="arc_challenge",
    has_continuations=True,
)
_TEXTS = (
    _MMLU,
    replace(
        _MMLU,
        key="mmlu_without_examples",
        item=texts.mmlu_without_examples,
        needed=("question", "subject", "choices", "answer"),
    ),
    _ARC,
    replace(
        _ARC,
        key="arc_challenge_continued",
        item=texts.arc_continued,
        rule="likelihood/per_character",
        asked_as="arc_challenge_continued",
    ),
    Benchmark(
        key="math",
        item=texts.math,
        needed=("problem",),
        used=("solution", "answer", "type", "subject", "level"),
        images=(),
        rule="math/hendrycks",
        asked_as="math",
    ),
    Benchmark(
        key="humaneval",
        item=texts.humaneval,
        needed=("prompt",),
        used=("entry_point",),
        key_column="task_id",
        images=(),
        rule="text/kept",
        asked_as="humaneval",
    ),
)

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.key: benchmark for benchmark in (*_SHORT_ANSWERS, *_OPTIONS, *_VIDEOS, *_CAPTIONS, *_TEXTS)
}
