"""What `triptych plan` prints and refuses; a sample on a real Ray is in tests/end_to_end/test_plan.py."""

import json
from dataclasses import replace

import pytest

from jobs.__main__ import main
from jobs.plan import plan_lines, plan_numbers
from jobs.report.formatting import amount, size
from pipeline.estimate import Estimate, Spread, StepTime
from pipeline.execution.cluster.placement import Node
from pipeline.execution.progress import FailureKind
from pipeline.preflight.memory import EngineMemory, engines_in_memory
from pipeline.preflight.pictures import Pictures

ESTIMATE = Estimate(
    rows=1_000_000,
    rows_left=900_000,
    units=2000,
    unit_rows=512,
    shards=40,
    input_bytes=25_000_000_000,
    formats={"webdataset": 2000},
    columns={f"column_{number}": "string" for number in range(14)},
    warnings=["a.tar: ends in the middle of a member"],
    pictures=Pictures(
        images=200,
        formats={"JPEG": 186, "PNG": 12, "none": 2},
        least_bytes=900,
        median_bytes=120_000,
        most_bytes=4_100_000,
        least_pixels=(64, 48),
        median_pixels=(640, 480),
        most_pixels=(4032, 3024),
    ),
    engines={"generate": EngineMemory(64, 4096, 50 * 10**9, 10**10, 40_000, 2 * 10**8, 10**9, 125 * 10**7)},
    sample_rows=5000,
    sample_seconds=60.5,
    failed_share=0.01,
    failures=[FailureKind("decode", "BadImage", 50, "k", "not an image")],
    oddities={"exif_turned": 3},
    tokens={name: Spread(100.0, 180) for name in ("prompt_tokens", "image_tokens", "output_tokens")},
    output_bytes=12_000_000,
    check_seconds=30.0,
    start_seconds=90.0,
    rows_per_s=100.0,
    seconds=9090.0,
    seconds_least=8000.0,
    seconds_most=10000.0,
    steps={"read": StepTime(0, 0.001, 900.0), "generate": StepTime(8, 0.08, 72000.0)},
    bottleneck="generate",
    devices=8.0,
    has_gpus=True,
    device_hours=20.2,
)


def test_a_plan_says_what_is_read_what_it_takes_and_what_it_costs() -> None:
    said = "\n".join(plan_lines(ESTIMATE, 2.5))
    for words in (
        "1,000,000 rows, 900,000 of them left to do, in 2,000 units of at most 512; 40 files (webdataset), 25.0 GB",
        "column_11 and 2 more",
        "warning: a.tar: ends",
        "decode BadImage (50), such as row k",
        "3 x exif turned",
        "images: of 200 of the sample JPEG 93%, PNG 6%, no image 1%; 64 x 48 to 4,032 x 3,024 pixels, median "
        "640 x 480; 900 bytes to 4.1 MB, median 120.0 kB",
        "prompt 100 (at most 180)",
        "cache: 10.0 GB, 64 slots of 4,096 tokens, 40.0 kB a token; the longest prompt of the sample has 180",
        "memory of an engine: 50.0 GB of weights, the cache, 12.8 GB of images in all slots at most (200.0 MB each), "
        "1.0 GB of images seen lately at most, 1.2 GB of prompts' beginnings that others share at most: 75.0 GB in "
        "all; the sample was answered with it",
        "2:31:30 expected (2:13:20 to 2:46:40), 1:30 of it before the first rows are there; 100 rows/s; generate",
        "8 x GPU, 20.20 device-hours, 50.50 at 2.5 an hour",
        "output: about 12.0 MB",
    ):
        assert words in said
    assert "any" in said and "an hour" not in "\n".join(plan_lines(ESTIMATE, None))


def test_all_numbers_are_json_with_the_cost() -> None:
    numbers = json.loads(json.dumps(plan_numbers(replace(ESTIMATE, device_hours=2.0), 3.0)))
    assert (numbers["cost"], numbers["rows"], numbers["steps"]["generate"]["actors"]) == (6.0, 1_000_000, 8)
    assert numbers["price_per_device_hour"] == 3.0 and numbers["engines"]["generate"]["total"] == 75_050_000_000
    assert plan_numbers(ESTIMATE, None)["cost"] is None


def test_a_plan_says_what_does_not_fit_on_cpus_and_nothing_of_images_that_there_are_none_of() -> None:
    small = EngineMemory(8, 1024, 10**9, 2 * 10**9, 1000, 0, 0, 25 * 10**7)
    engines = engines_in_memory([(small, 2, True), (small, 1, True)], [Node("n", 8, memory_bytes=8 * 10**9)])
    assert [(engine.free, engine.fits) for engine in engines] == [(8 * 10**9, True), (15 * 10**8, False)]
    planned = replace(ESTIMATE, engines=dict(zip(("generate", "check"), engines, strict=True)), pictures=None)
    said = "\n".join(plan_lines(planned, None))
    assert "1.0 GB of weights, the cache, 250.0 MB of prompts' beginnings that others share at most: 3.2 GB in" in said
    assert "in all; it fits: the nodes have 8.0 GB free" in said
    assert "memory of an engine (check): " in said and "DOES NOT FIT once every slot is filled" in said
    assert "images:" not in said
    on_gpu = engines_in_memory([(small, 1, False)], [Node("n", 8, gpus=1, memory_bytes=10)])
    assert [engine.fits for engine in on_gpu] == [None]
    known = replace(ESTIMATE, engines={"generate": replace(small, why="8 slots: there is room for 8")})
    assert "answered with it, 8 slots: there is room for 8" in "\n".join(plan_lines(known, None))


def test_bytes_are_written_as_people_do() -> None:
    assert [size(count) for count in (0, 999, 1000, 2.5e9, 3e13)] == [
        "0 bytes", "999 bytes", "1.0 kB", "2.5 GB", "30.0 TB"
    ]  # fmt: skip


def test_money_has_two_decimals_and_small_amounts_two_digits() -> None:
    assert [amount(number, ",") for number in (0, 0.195, 0.0839, 0.00012, 12345.678)] == [
        "0.00", "0.20", "0.084", "0.00012", "12,345.68"
    ]  # fmt: skip


def test_a_plan_lists_the_faults_of_the_run_and_writes_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        "{read: {uri: nowhere}, model: {path: nowhere}, write: {uri: out}, job: {kind: caption}}"
    )
    said = []
    for command in ("run", "plan"):
        assert main([command, "run.yaml"]) == 2
        said.append(capsys.readouterr().err.partition("triptych: ")[2])
    assert said[0] == said[1] != ""
    assert [path.name for path in tmp_path.rglob("*")] == ["run.yaml"]


def test_settings_may_be_a_mapping_that_stays_as_it_was() -> None:
    from jobs.start import load_run

    given = {
        "read": {"uri": "in"}, "model": {"path": "m"}, "write": {"uri": "out"}, "job": {"kind": "caption"}
    }  # fmt: skip
    settings = load_run(given, ["generate.slots=7"])
    assert settings.generate.slots == 7 and "generate" not in given


def test_wrong_settings_of_a_mapping_are_said_as_those_of_a_file() -> None:
    from jobs import run
    from pipeline import ConfigError

    with pytest.raises(ConfigError, match="raed"):
        run({"raed": {}})
