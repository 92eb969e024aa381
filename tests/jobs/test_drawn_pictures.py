"""What the demo draws: its texts, what the toy that looks is asked, and how rule and toy are counted together."""

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.check import PictureCheck, PictureCheckSettings
from jobs.console_text import demo_lines
from jobs.demo.drawn_pictures import DrawnPictures, read_drawn_pictures
from jobs.demo.picture_rule import read_caption
from jobs.demo.pieces import ANSWERS, PIECES, settings_of
from jobs.demo.prompts import NUM_PROMPTS, SIDE, describe, prompts, write_prompts
from jobs.demo.run import Demo
from jobs.demo.shapes import COLORS, KINDS, Shape
from jobs.prompt import fill
from jobs.synthesize import SCHEMA
from models import Sampling, ask
from pipeline.input.units import ReadSettings
from pipeline.state import ledger
from pipeline.state.plan import freeze_plan
from pipeline.storage.store import Store
from tests.pictures import encoded
from tests.pipeline.inputs import plan_units
from tests.pipeline.toys import part_columns
from training.questions import vocabulary
from training.scenes import LARGE_GROUND, draw_large_scene, paint

CHECKPOINTS = Path(__file__).parent.parent.parent / "jobs/demo/checkpoints"
DRAWS = PIECES["synthesize"]
BOXES = {"left": (6, 20, 26, 40), "right": (38, 20, 58, 40), "low": (22, 42, 42, 62)}


def png(*shapes: tuple[str, str, str]) -> bytes:
    """Paint (color, kind, place)."""
    scene = paint(tuple(Shape(kind, color, BOXES[place]) for color, kind, place in shapes), (SIDE, SIDE), LARGE_GROUND)
    return encoded(scene.picture)


RED, BLUE = ("red", "circle", "left"), ("blue", "rectangle", "right")
TEXT = "a red circle left of a blue rectangle"
# Text, picture, whether the toy kept it, what the rule finds wrong.
ROWS: list[tuple[str, bytes | None, bool | None, list[str]]] = [
    (TEXT, png(RED, BLUE), True, []),
    (TEXT, png(RED, BLUE), False, []),
    ("a blue rectangle right of a red circle", png(RED, BLUE), True, []),
    ("a red circle right of a blue rectangle", png(RED, BLUE), True, ["place"]),
    ("a red circle left of a blue triangle", png(RED, BLUE), False, ["outline"]),
    ("a red circle left of a green rectangle", png(RED, BLUE), True, ["colours"]),
    (TEXT, png(RED, BLUE, ("red", "circle", "low")), True, ["too many"]),
    (TEXT, png(RED), False, ["too few"]),
    (TEXT, None, None, ["too few"]),
]


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> DrawnPictures:
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "p.txt").write_text("".join(f"{text}\n" for text, *_ in ROWS))
    store = Store(str(folder / "out"))
    ledger.freeze_settings(store, {"settings": {}, "device": "cpu", "weights": "sha256:0", "versions": {}})
    freeze_plan(store, plan_units(ReadSettings(uri=str(folder / "p.txt")), 99))
    same = {"shard": "p.txt", "finish_reason": "stop", "image_index": 0}
    rows = [
        {**same, "key": str(place), "index": place, "caption_in": text, "image": picture, "keep": is_kept}
        for place, (text, picture, is_kept, _) in enumerate(ROWS)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([*part_columns(), *SCHEMA])), sink, row_group_size=4)
    store.publish("part-00000.parquet", sink.getvalue())
    return read_drawn_pictures(store.uri)


def test_each_picture_is_looked_at_under_its_own_text(looked_at: DrawnPictures) -> None:
    assert [(one.text, one.faults, one.is_kept) for one in looked_at.pictures] == [
        (text, faults, is_kept) for text, _, is_kept, faults in ROWS
    ]
    assert [one.picture is None for one in looked_at.pictures] == [picture is None for _, picture, *_ in ROWS]


def test_shares_count_every_picture_and_one_that_failed_as_wrong(looked_at: DrawnPictures) -> None:
    scores = looked_at.scores
    assert {name: (round(score["score"] * score["n"]), score["n"]) for name, score in scores.items()} == {
        "colours": (5, 9),
        "places": (4, 9),
        "outlines": (4, 9),
        # The toy is not asked for places or thirds, and cannot agree about a picture that is not there.
        "agreement": (6, 8),
    }


def test_the_toy_is_counted_against_just_what_it_was_asked(looked_at: DrawnPictures) -> None:
    assert looked_at.num_kept(shows_named_shapes=True) == (4, 5)
    assert looked_at.num_kept(shows_named_shapes=False) == (1, 3)


def test_the_command_line_sums_up_what_the_rule_finds(looked_at: DrawnPictures) -> None:
    lines = demo_lines(Demo({}, looked_at, Path("out/index.html")))
    start = lines.index("Drawn pictures, measured by rule:")
    assert lines[start + 1 : start + 5] == [
        "  both colours right   55.6 % of 9 pictures (95 % interval 26.7–81.1)",
        "  place right          44.4 % of 9 pictures (95 % interval 18.9–73.3)",
        "  both outlines right  44.4 % of 9 pictures (95 % interval 18.9–73.3)",
        "The toy that checks and the rule agree on whether both shapes are there: "
        "75.0 % of 8 pictures (95 % interval 40.9–92.9).",
    ]
    assert "Open out/index.html" in lines


def test_texts_are_many_and_different_and_a_shorter_demo_begins_with_the_same() -> None:
    texts = prompts(NUM_PROMPTS)
    assert len(set(texts)) == NUM_PROMPTS == 64
    assert prompts(16) == texts[:16]
    places = [read_caption(text)[1] for text in texts]
    assert all(places.count(place) >= 8 for place in ("left of", "right of", "above", "below"))


def test_a_shard_says_which_shapes_a_text_names(tmp_path: Path) -> None:
    write_prompts(tmp_path, NUM_PROMPTS)
    rows = pq.read_table(tmp_path).to_pylist()
    assert [row["text"] for row in rows] == prompts(NUM_PROMPTS)
    for row in rows:
        assert row["text"].startswith(f"a {row['first']} ") and row["text"].endswith(f" a {row['second']}")


def test_the_toy_that_looks_is_asked_in_words_that_it_was_taught() -> None:
    known = set(vocabulary())
    columns = {"first": "red circle", "second": "blue rectangle"}
    asked = [fill(question["ask"], columns) for question in DRAWS.questions]
    assert asked == ["is there a red circle?", "is there a blue rectangle?"]
    assert set(asked) <= known


def test_the_settings_of_every_piece_hold() -> None:
    checkpoints = {family: CHECKPOINTS / family for family in ("aria", "mllama", "emu3")}
    for name in PIECES:
        settings_of(Path("out"), name, checkpoints, is_quick=True)


def test_the_toy_that_looks_can_tell() -> None:
    """Of pictures as they should be it keeps nearly all, and few whose text has one wrong word."""
    check = PictureCheck(
        PictureCheckSettings.model_validate(
            {"model": {"path": "mllama"}, "generate": ANSWERS, "questions": DRAWS.questions}
        )
    )
    rng = random.Random(5)
    rows = []
    for _ in range(40):
        scene = draw_large_scene(rng, 2)
        text, picture = describe(scene.shapes, rng), encoded(scene.picture)
        rows += [_row(text, picture), _row(_with_a_wrong_word(text, rng), picture)]
    requests = [check.requests(row, Sampling(max_new_tokens=8)) for row in rows]
    assert DRAWS.judge is not None
    answers = iter(ask(str(CHECKPOINTS / DRAWS.judge), [one for asked in requests for one in asked]))
    kept = [
        check.record(row, [next(answers) for _ in asked])["keep"] for row, asked in zip(rows, requests, strict=True)
    ]
    assert sum(kept[::2]) >= 0.9 * 40
    assert sum(kept[1::2]) <= 0.2 * 40


def _row(text: str, picture: bytes) -> dict[str, Any]:
    (first, second), _ = read_caption(text)
    return {"key": text, "caption_in": text, "image": picture, "first": " ".join(first), "second": " ".join(second)}


def _with_a_wrong_word(text: str, rng: random.Random) -> str:
    """Change a colour or a kind to one that the text does not name with it."""
    (first, *_), _ = read_caption(text)
    words = KINDS if rng.random() < 0.5 else tuple(COLORS)
    (old,) = set(first) & set(words)
    new = rng.choice([word for word in words if word not in text])
    return text.replace(f"a {' '.join(first)}", f"a {' '.join(first).replace(old, new)}", 1)
