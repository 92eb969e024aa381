"""Small published data sets as their hubs lay them out, for tests: real columns, drawn images, a few rows each."""

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pictures import plain

HUB_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(number: int) -> bytes:
    return plain((number * 20 % 256, 90, 200), (40 + number, 30))


def hub_image(number: int) -> dict[str, Any]:
    return {"bytes": png(number), "path": f"{number}.png"}


def write_parquet(path: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(rows[0])
    pq.write_table(pa.table({name: pa.array([row[name] for row in rows], types.get(name)) for name in names}), path)


def write_gqa(root: Path) -> None:
    """Five questions on two images, which lie in a table of their own."""
    questions = [
        {"id": f"20{n}", "imageId": f"n{n % 2}", "question": f"Is it {n}?", "answer": "yes", "isBalanced": True,
         "types": {"structural": "verify", "semantic": "attr", "detailed": "verify"}}
        for n in range(5)
    ]  # fmt: skip
    write_parquet(root / "GQA" / "instructions" / "testdev-0.parquet", questions)
    images = [{"id": f"n{n}", "image": hub_image(n)} for n in range(3)]
    write_parquet(root / "GQA" / "images" / "testdev-0.parquet", images, image=HUB_IMAGE)


def write_mmmu(root: Path) -> None:
    """Three questions: one image, two images and marks for both, an open one."""
    names = [f"image_{place}" for place in range(1, 8)]
    usual: dict[str, Any] = dict.fromkeys(names) | {"topic_difficulty": "Easy"}
    rows = [
        {"id": "validation_Art_1", "question": "What is <image 1>?", "options": "['a', 'b']", "answer": "A",
         "question_type": "multiple-choice", **usual, "image_1": hub_image(1)},
        {"id": "validation_Art_2", "question": "Is <image 2> like <image 1>?", "options": "['yes', 'no']",
         "answer": "B", "question_type": "multiple-choice", **usual, "image_1": hub_image(2), "image_2": hub_image(3)},
        {"id": "validation_Math_3", "question": "How much is <image 1>?", "options": "[]", "answer": "['7', '7.0']",
         "question_type": "open", **usual, "image_1": hub_image(4)},
    ]  # fmt: skip
    write_parquet(root / "MMMU" / "Art" / "validation-0.parquet", rows, **dict.fromkeys(names, HUB_IMAGE))


def write_mmbench_v11(root: Path) -> None:
    """Two questions in two rotations each, as a TSV whose second rotations name the rows of their images."""
    lines = ["index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit\timage"]
    for index in (3, 4):
        image = base64.b64encode(png(index)).decode()
        lines.append(f"{index}\twhere?\t\tnorth\tsouth\t\t\tA\tc\tl\tdev\t{image}")
        lines.append(f"{index + 1_000_000}\twhere?\t\tsouth\tnorth\t\t\tB\tc\tl\tdev\t{index}")
    (root / "MMBench").mkdir(parents=True, exist_ok=True)
    (root / "MMBench" / "MMBench_DEV_EN_V11.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_mmlu(root: Path) -> None:
    """Six questions in words only."""
    rows = [
        {"question": f"{n} + 1 =", "subject": "arithmetic" if n % 2 else "algebra",
         "choices": [str(n), str(n + 1), "0", "9"], "answer": 1}
        for n in range(6)
    ]  # fmt: skip
    write_parquet(root / "mmlu" / "test.parquet", rows)


def write_vqav2(root: Path) -> None:
    """Six questions on two images with ten answers each; the last one has lost its image."""
    rows = [
        {"question_id": 1000 * (n // 3) + n, "image_id": n // 3, "question": f"What is {n}?",
         "question_type": "what is", "answer_type": "other" if n % 2 else "number",
         "answers": [{"answer": str(n), "answer_confidence": "yes", "answer_id": i} for i in range(10)],
         "image": None if n == 5 else hub_image(n // 3)}
        for n in range(6)
    ]  # fmt: skip
    write_parquet(root / "VQAv2" / "validation-0.parquet", rows, image=HUB_IMAGE)


def write_longvideobench(root: Path, video: bytes) -> None:
    """One question about a video with subtitles, and one whose video is not there."""
    folder = root / "LongVideoBench"
    for name in ("videos", "subtitles"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "videos" / "a.mp4").write_bytes(video)
    lines = [{"start": "00:00:00.000", "end": "00:00:01.000", "line": "Hello there."}]
    for name in ("a", "b"):
        (folder / "subtitles" / f"{name}_en.json").write_text(json.dumps(lines))
    rows = [
        {"id": f"{name}_0", "video_id": name, "video_path": f"{name}.mp4", "subtitle_path": f"{name}_en.json",
         "question": "What is said?", "option0": "Hello", "option1": "Bye", "option2": "N/A", "option3": "N/A",
         "option4": "N/A", "correct_choice": 0, "duration_group": 15, "question_category": "T2A", "duration": 2.0,
         "starting_timestamp_for_subtitles": 0}
        for name in ("a", "b")
    ]  # fmt: skip
    write_parquet(folder / "validation.parquet", rows)
