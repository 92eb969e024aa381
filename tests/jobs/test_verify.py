"""A sound output is verified, and each kind of damage to one is found, named and said how to mend."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from pipeline.state import ledger
from pipeline.steps.write import parquet_bytes
from tests.end_to_end.shards import write_shards
from tests.jobs.benchmark_folders import write_gqa
from tests.pipeline.outputs import RUN, leave_output, settings_of
from tests.s3 import S3

CAPTION = {"kind": "caption"}
PART, SECOND, TAR = "part-00000.parquet", "part-00001.parquet", "_webdataset/part-00000.tar"
UNITS = ledger.units_folder(RUN)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, aria: Path) -> Path:
    """Two shards of five images, one broken, captioned into three parts, each with a tar."""
    folder = tmp_path_factory.mktemp("verify")
    write_shards(folder / "in", shards=2, rows=5, broken=3)
    leave_output(settings_of(folder / "in", aria, folder / "out", CAPTION, write={"webdataset": True}))
    leave_output(settings_of(folder / "in", aria, folder / "half", CAPTION), units_done=3)
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


@pytest.fixture
def half(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "half", tmp_path / "half"))


def found(out: Path | str, capsys: pytest.CaptureFixture[str], rows: int = 0, *overrides: str) -> dict[str, Any]:
    code = main(["verify", str(out), "--rows", str(rows), "--json", *overrides])
    verified: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == (1 if verified["faults"] else 0)
    assert all(all(fault.values()) for fault in verified["faults"]), "each says what, where and how to mend it"
    return verified


def kinds(verified: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault["kind"], fault["where"]) for fault in verified["faults"]]


def rewrite(path: Path, change: Any) -> None:
    path.write_bytes(parquet_bytes(change(pq.read_table(path))))


def with_column(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = rows.column_names.index(name)
    return rows.set_column(place, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))


def test_a_sound_output_is_well_and_all_its_rows_come_out_again(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verified = found(out, capsys, rows=100)
    assert verified["well"] and verified["finished"]
    assert (verified["rows"], verified["planned_rows"], verified["failed"]) == (10, 10, 1)
    assert (verified["whole_parts"], verified["planned_parts"], verified["whole_tars"]) == (3, 3, 3)
    again = verified["again"]
    assert (again["rows"], again["agreeing"], again["must_be_equal"]) == (9, 9, True)
    assert again["largest_logprob_gap"] <= 1e-5
    assert main(["verify", str(out), "--rows", "2"]) == 0
    words = capsys.readouterr().out
    assert "10 of 10 planned rows are there and whole, in 3 of 3 parts, 3 tars" in words
    assert "2 of 2 rows agree (100%)" in words and words.endswith("all well\n")


def test_an_unfinished_run_is_well_as_far_as_it_is(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verified = found(half, capsys, rows=3)
    assert verified["well"] and not verified["finished"]
    assert (verified["rows"], verified["whole_parts"], verified["whole_units"]) == (5, 1, 1)
    assert verified["again"]["agreeing"] == 3


def test_a_part_that_is_gone(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / SECOND).unlink()
    verified = found(out, capsys)
    assert kinds(verified) == [("missing part", SECOND)]
    assert "_SUCCESS" in verified["faults"][0]["mend"] and "_webdataset/part-00001.tar" in verified["faults"][0]["mend"]


def test_a_part_that_was_overwritten_by_a_copy_of_another(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(out / PART, out / SECOND)
    verified = found(out, capsys)
    assert kinds(verified) == [("foreign rows", SECOND)]
    assert verified["faults"][0]["found"] == f"4 rows of others, first 000.tar#0, a row of {PART}"


def test_a_part_that_was_cut_short(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (out / PART).read_bytes()
    (out / PART).write_bytes(data[: len(data) // 2])
    assert kinds(found(out, capsys)) == [("unreadable", PART)]
    (out / PART).write_bytes(b"")
    assert kinds(found(out, capsys)) == [("unreadable", PART)]
    (out / PART).write_bytes(data[:200] + bytes(400) + data[600:])
    assert kinds(found(out, capsys))[0][0] in ("unreadable", "other tokens")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda rows: rows.slice(1), "other rows"),
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "doubled rows"),
        (lambda rows: rows.take([1, 0, 2, 3]), "other order"),
        (lambda rows: rows.drop_columns(["caption"]), "other columns"),
        (lambda rows: rows.append_column("note", pa.nulls(rows.num_rows, pa.string())), "other columns"),
        (lambda rows: with_column(rows, "model", ["other"] * rows.num_rows), "another model"),
        (lambda rows: with_column(rows, "output_tokens", [99] * rows.num_rows), "other tokens"),
        (lambda rows: with_column(rows, "key", [None] * rows.num_rows), "no keys"),
    ],
)
def test_a_part_with_other_rows_or_columns(
    out: Path, capsys: pytest.CaptureFixture[str], change: Any, kind: str
) -> None:
    rewrite(out / PART, change)
    assert kinds(found(out, capsys)) == [(kind, PART)]


def test_files_that_no_plan_knows(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = ["part-00007.parquet", "more.parquet", "_webdataset/part-00007.tar"]
    for name in strange:
        shutil.copy(out / PART, out / name)
    assert sorted(kinds(found(out, capsys))) == sorted(("foreign file", name) for name in strange)


def test_a_plan_of_another_run(out: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.state.plan import cut_parts, freeze_plan
    from pipeline.storage.store import Store
    from tests.pipeline.inputs import plan_units

    shards = write_shards(tmp_path / "other", shards=3, rows=4)
    (shards / "000.tar").rename(shards / "x.tar")
    (shards / "001.tar").rename(shards / "y.tar")
    (shards / "002.tar").rename(shards / "z.tar")
    settings = settings_of(shards, made, tmp_path / "planned", CAPTION)
    units = plan_units(settings.read, 2)
    freeze_plan(Store(str(tmp_path / "planned")), units, (), cut_parts(units, settings.write, settings.job.build()))
    shutil.copy(tmp_path / "planned" / ledger.PLAN, out / ledger.PLAN)
    assert kinds(found(out, capsys)) == [("plan", ledger.PLAN)]
    (out / ledger.PLAN).write_bytes(b"no plan")
    assert kinds(found(out, capsys)) == [("plan", ledger.PLAN)]
    (out / ledger.PLAN).unlink()
    assert kinds(found(out, capsys)) == [("plan", ledger.PLAN)]


def test_tars_that_are_not_those_of_their_parts(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (out / TAR).read_bytes()
    for damaged in (data[:700], data[:1536], b"no tar", (out / "_webdataset/part-00001.tar").read_bytes()):
        (out / TAR).write_bytes(damaged)
        assert kinds(found(out, capsys)) == [("tar", TAR)]
    caption = pq.read_table(out / PART)["caption"][0].as_py().encode()
    (out / TAR).write_bytes(data.replace(caption, b"?" * len(caption), 1))
    assert kinds(found(out, capsys)) == [("tar", TAR)]
    (out / TAR).unlink()
    assert kinds(found(out, capsys)) == [("tar", TAR)]


def test_a_row_that_was_changed_afterwards_does_not_come_out_again(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(out / SECOND, lambda rows: with_column(rows, "prompt", ["?"] * rows.num_rows))
    verified = found(out, capsys, rows=100)
    assert {kind for kind, _ in kinds(verified)} == {"another row"}
    assert verified["again"]["agreement"] < 1
    assert "prompt '?'" in verified["faults"][0]["found"]


def test_committed_units_are_looked_at_like_parts(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (unit,) = (half / UNITS).iterdir()
    where = f"{UNITS}/{unit.name}"
    shutil.copy(unit, unit.with_name("00000099.parquet"))
    assert kinds(found(half, capsys)) == [("foreign file", f"{UNITS}/00000099.parquet")]
    unit.with_name("00000099.parquet").unlink()
    unit.write_bytes(unit.read_bytes()[:-10])
    assert kinds(found(half, capsys)) == [("unreadable", where)]
    unit.unlink()
    assert found(half, capsys)["well"], "what is not there is not committed"
    (half / ledger.PROGRESS).write_text(json.dumps({"state": "interrupted", "done": 5}))
    assert kinds(found(half, capsys)) == [("missing rows", ledger.PROGRESS)]


def test_what_a_run_that_goes_on_commits_meanwhile_is_not_missed(
    half: Path, made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.verification import output

    looked = output.check_file

    def while_it_goes_on(*about: Any, **options: Any) -> Any:
        (half / ledger.PROGRESS).write_text(json.dumps({"state": "answering", "done": 9}))
        return looked(*about, **options)

    (half / ledger.PROGRESS).write_text(json.dumps({"state": "answering", "done": 5}))
    monkeypatch.setattr(output, "check_file", while_it_goes_on)
    assert found(half, capsys)["well"]
    monkeypatch.undo()
    assert kinds(found(half, capsys)) == [("missing rows", ledger.PROGRESS)]


def test_an_output_in_a_bucket_is_looked_at_in_the_same_way(
    s3: S3, aria: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(tmp_path / "in", shards=2, rows=5)
    out, storage = f"{s3.uri}/out", {"endpoint_url": s3.endpoint_url}
    write = {"uri": out, "storage": storage, "webdataset": True}
    store = leave_output(settings_of(tmp_path / "in", aria, out, CAPTION, write=write), units_done=3)
    reach = f"write.storage.endpoint_url={s3.endpoint_url}"
    verified = found(out, capsys, 2, reach)
    assert not verified["finished"]
    assert (verified["rows"], verified["whole_parts"], verified["whole_units"]) == (5, 1, 1)
    assert verified["again"]["agreeing"] == 2
    part, tar = store.read(PART), store.read(TAR)
    store.replace(TAR, tar[:700])
    assert kinds(found(out, capsys, 0, reach)) == [("tar", TAR)]
    store.replace(TAR, tar)
    store.replace(PART, part[: len(part) // 2])
    assert kinds(found(out, capsys, 0, reach)) == [("unreadable", PART)]
    store.replace(SECOND, part)
    assert kinds(found(out, capsys, 0, reach))[1] == ("foreign rows", SECOND)
    store.replace(PART, part)
    store.delete([SECOND])
    store.publish(ledger.SUCCESS, b"")
    assert main(["verify", out, "--rows", "0", reach]) == 1
    said = capsys.readouterr().out
    assert f"fault (missing part) in {SECOND}:" in said
    assert "expected 3 rows, those of units" in said and f"{ledger.SUCCESS} and give the run's command again" in said


def test_other_weights_and_a_lost_input_are_said(out: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frozen = json.loads((out / ledger.SETTINGS).read_text())
    (out / ledger.SETTINGS).write_text(json.dumps({**frozen, "weights": "sha256:0"}))
    assert [kind for kind, _ in kinds(found(out, capsys, rows=1))] == ["model"]
    assert found(out, capsys)["well"], "no model is looked at where no row is computed again"
    (out / ledger.SETTINGS).write_text(json.dumps(frozen))
    (made / "in").rename(made / "away")
    try:
        verified = found(out, capsys, rows=1)
    finally:
        (made / "away").rename(made / "in")
    assert [kind for kind, _ in kinds(verified)] == ["not computed"]


def test_marks_and_report_say_what_stands_there(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(out)]) == 0
    capsys.readouterr()
    assert found(out, capsys)["well"]
    report = out / "_report/report.json"
    report.write_text(report.read_text().replace('"failed": 1', '"failed": 0'))
    assert kinds(found(out, capsys)) == [("report", "_report/report.json")]
    (out / ledger.TOO_MANY_FAILED).write_text("1 of 10")
    assert kinds(found(out, capsys)) == [("marks", "_SUCCESS and _TOO_MANY_FAILED")]


def test_wrong_use(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert "expected the folder of its results" in capsys.readouterr().err
    assert main(["verify", str(out), "generate.sampling.seed=3"]) == 2
    for rows in ("-1", "many"):
        with pytest.raises(SystemExit, match="2"):
            main(["verify", str(out), "--rows", rows])


def test_drawn_pictures_and_what_a_check_found_come_out_again(
    tmp_path: Path, emu3: Path, aria: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n\na blue square\n")
    check = {
        "model": {"path": str(aria), "device": "cpu"},
        "generate": {"slots": 2, "sampling": {"max_new_tokens": 2}},
        "questions": [{"ask": "Is it red?", "expect": "yes"}],
    }
    job = {"kind": "synthesize", "area": 256, "num_images": 2, "image_format": "jpeg", "check": check}
    sections = {"generate": {"slots": 6, "max_length": 256, "sampling": {}}, "write": {"webdataset": True}}
    leave_output(settings_of(tmp_path / "prompts.txt", emu3, tmp_path / "out", job, **sections))
    verified = found(tmp_path / "out", capsys, rows=5)
    assert (verified["rows"], verified["answers"], verified["whole_tars"]) == (2, 4, 1)
    assert verified["again"]["differing"] == [] and verified["again"]["rows"] == 2
    rewrite(tmp_path / "out" / PART, lambda rows: with_column(rows, "seed", [1, 2, 3, 4]))
    faults = found(tmp_path / "out", capsys, rows=5)["faults"]
    assert {fault["found"] for fault in faults if fault["kind"] == "another row"} >= {"seed 1", "seed 4"}


def test_a_unit_that_is_merged_while_it_is_looked_at_is_counted_once(
    half: Path, made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.verification import output

    (unit,) = (half / UNITS).iterdir()
    looked = output.check_file

    def merged_meanwhile(file: Any, path: str, *rest: Any, **options: Any) -> Any:
        samples = looked(file, path, *rest, **options)
        if path == f"{UNITS}/{unit.name}":
            shutil.copy(made / "out" / SECOND, half / SECOND)
            (half / UNITS / "00000003.parquet").unlink()
        return samples

    shutil.copy(unit, half / UNITS / "00000003.parquet")
    monkeypatch.setattr(output, "check_file", merged_meanwhile)
    verified = found(half, capsys, rows=100)
    assert (verified["well"], verified["rows"], verified["whole_parts"], verified["whole_units"]) == (True, 7, 2, 0)
    assert verified["rows_with_an_earlier_key"] == {}


def test_keys_stand_once_in_each_data_set(tmp_path: Path, aria: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = [{"key": "a", "question": "Is it 1?"}, {"key": "b", "question": "2?"}, {"key": "a", "question": "3?"}]
    lines = [json.dumps({**question, "answers": ["yes"]}) for question in questions]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    leave_output(settings_of(tmp_path / "in.jsonl", aria, tmp_path / "vqa", {"kind": "vqa"}))
    verified = found(tmp_path / "vqa", capsys, rows=3)
    assert kinds(verified) == [("doubled keys", "key")] and verified["again"]["agreeing"] == 3
    assert verified["rows_with_an_earlier_key"] == {"": 1}
    captions = write_shards(tmp_path / "tars", shards=2, rows=2)
    shutil.copy(captions / "000.tar", captions / "002.tar")
    leave_output(settings_of(captions, aria, tmp_path / "captions", CAPTION))
    assert main(["verify", str(tmp_path / "captions"), "--rows", "0"]) == 0
    assert "2 rows have the same key as an earlier row, as in the input" in capsys.readouterr().out


def test_data_sets_of_one_run_are_told_apart(tmp_path: Path, aria: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        write_gqa(tmp_path / name)
    job = {
        "kind": "vqa",
        "preset": "lmms",
        "benchmarks": {
            name: {"dataset": "gqa", "path": f"{name}/GQA/instructions", "images": f"{name}/GQA/images"}
            for name in ("first", "second")
        },
    }
    generate = {"sampling": {}}
    settings = settings_of(tmp_path, aria, tmp_path / "out", job, generate=generate)
    leave_output(settings)
    verified = found(tmp_path / "out", capsys, rows=4)
    assert (verified["well"], verified["rows"], verified["again"]["agreeing"]) == (True, 10, 4)
    assert verified["rows_with_an_earlier_key"] == {}
