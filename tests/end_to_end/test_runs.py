"""Whole runs through a real local Ray, on a tiny random checkpoint."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.execution.attempt import Attempt, CommitLog, Progress
from pipeline.execution.cluster.placement import Placement, StepActors
from pipeline.input.unit_files import units_from_parquet, units_to_parquet
from pipeline.preflight.check import check
from pipeline.run import run, work_of
from pipeline.settings import ConfigError
from pipeline.state import ledger
from pipeline.state.ledger import RunReplaced
from pipeline.steps.write import merge_part, plan_parts
from pipeline.storage.store import Store
from tests.end_to_end.shards import (
    WhereJob,
    caption,
    caption_job,
    results,
    settings_of,
    write_shards,
)
from tests.promise import part_faults, parts_in, table_faults
from tests.s3 import S3, SECRET_KEY

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars with 45 rows, of which number 20 is no image."""
    return write_shards(tmp_path_factory.mktemp("in"), shards=3, rows=15, broken=20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shards: Path, checkpoint: Path, ray_session: None) -> Path:
    """The output of one undisturbed run."""
    out = tmp_path_factory.mktemp("finished") / "out"
    result = caption(shards, checkpoint, out)
    assert (result.rows, result.failed, result.answered) == (45, 1, 45)
    return out


def test_every_row_has_one_place_in_input_order_and_a_bad_one_its_error(finished: Path) -> None:
    table = results(finished)
    assert table.column("key").to_pylist() == [f"{n:05d}" for n in range(45)]
    assert table.column("shard").to_pylist() == [f"{n // 15:03d}.tar" for n in range(45)]
    assert table.column("index").to_pylist() == [n % 15 for n in range(45)]
    failed = [row for row in table.to_pylist() if row["error"] is not None]
    assert [(row["key"], row["error"]["stage"], row["error"]["type"]) for row in failed] == [
        ("00020", "decode", "BadImage")
    ]
    assert all(row["output_token_ids"] for row in table.to_pylist() if row["error"] is None)


def test_an_output_holds_nothing_but_parts_and_what_readers_skip(finished: Path) -> None:
    names = sorted(path.name for path in finished.iterdir())
    assert names == ["_SUCCESS", "_triptych", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    inside = sorted(path.relative_to(finished / "_triptych").parts[0] for path in finished.glob("_triptych/**/*.*"))
    assert set(inside) == {"attempts", "plan.parquet", "progress.json", "settings.json"}


def test_two_engines_see_one_device_each_and_answer_like_one(
    tmp_path: Path, shards: Path, checkpoint: Path, finished: Path
) -> None:
    # This Ray's books have GPUs that the machine has not. The settings refuse to keep GPUs for engines on the CPU, so
    # the engines are placed past them.
    settings = settings_of(shards, checkpoint, tmp_path / "out", generate=sampling(slots=7))
    store = Store(settings.write.uri)
    ready = check(settings, WhereJob(), store)
    parts = plan_parts(ready.plan.units, settings.write.rows_per_part)
    work = work_of(settings, WhereJob(), store, ready, {"device": "cpu", "check_device": ""})
    placement = Placement(StepActors(1, 1, 0.5), StepActors(2, 2, 0.5, 1.0))
    Attempt(parts, work, placement, None, CommitLog(ledger.read_output, merge_part, {})).run()
    table = results(tmp_path / "out")
    answered = [row for row in table.to_pylist() if row["error"] is None]
    assert {row["devices"] for row in answered} == {"0", "1"}
    assert len({(row["process"], row["devices"]) for row in answered}) == 2
    one = results(finished)
    same = [name for name in one.column_names if name != "caption"]
    assert table_faults(table.select(same), one.select(same)) == []


def test_a_resumed_run_opens_no_input_that_is_finished(
    tmp_path: Path, shards: Path, checkpoint: Path, finished: Path
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    left = shutil.copytree(shards, tmp_path / "in")
    frozen = out / "_triptych" / "settings.json"
    frozen.write_text(frozen.read_text().replace(str(shards), str(left)))
    plan = out / "_triptych" / "plan.parquet"
    moved = [replace(unit, root=str(left)) for unit in units_from_parquet(plan.read_bytes())]
    plan.write_bytes(units_to_parquet(moved))
    (out / "_SUCCESS").unlink()
    (out / "part-00002.parquet").unlink()
    (left / "000.tar").unlink()
    result = caption(left, checkpoint, out)
    assert (result.rows, result.answered) == (45, 15)
    assert part_faults(parts_in(out), parts_in(finished)) == []


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(
    shards: Path, checkpoint: Path, finished: Path
) -> None:
    before = parts_in(finished)
    again = caption(shards, checkpoint, finished, generate=sampling(slots=9))
    assert (again.answered, again.rows, again.failed) == (0, 45, 1)
    with pytest.raises(ConfigError, match=r"generate.sampling.seed: was 11, now 12"):
        caption(shards, checkpoint, finished, generate=sampling(seed=12))
    with pytest.raises(ConfigError, match=r"found results in .*, and the setting is 'fail'"):
        caption(shards, checkpoint, finished, write={"on_existing": "fail"})
    assert parts_in(finished) == before


def test_replacing_starts_over(tmp_path: Path, checkpoint: Path, finished: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    new = write_shards(tmp_path / "new", shards=1, rows=8)
    assert caption(new, checkpoint, out, write={"on_existing": "replace"}).rows == 8
    assert results(out).num_rows == 8


def test_a_run_whose_output_another_takes_ends_and_the_other_one_is_as_if_it_had_never_been(
    tmp_path: Path, shards: Path, checkpoint: Path, finished: Path
) -> None:
    out = tmp_path / "out"
    store = Store(str(out))

    def taken(progress: Progress) -> None:
        """When the first unit has come, do as another start does that replaces."""
        if progress.answered and ledger.read_output(store).run != "another":
            frozen = ledger.read_settings(store) | {"run": "another"}
            ledger.clear(store, ledger.read_output(store))
            ledger.freeze_settings(store, frozen)

    with pytest.raises(RunReplaced, match="another run has replaced this one"):
        run(settings_of(shards, checkpoint, out), caption_job(), progress=taken)
    assert [entry.path for entry in store.list() if "/units/" not in entry.path] == [ledger.SETTINGS]
    assert caption(shards, checkpoint, out).answered == 45
    assert part_faults(parts_in(out), parts_in(finished)) == []
    assert {path.parts[-2] for path in out.rglob("*.*")} == {"out", "_triptych", "attempts"}


def test_what_would_stop_the_run_is_listed_at_once_and_nothing_is_written(tmp_path: Path, checkpoint: Path) -> None:
    settings = settings_of(tmp_path / "absent", tmp_path / "no model", tmp_path / "out")
    with pytest.raises(ConfigError) as caught:
        run(settings, caption_job())
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["model.path", "read"]
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_are_found_before_anything_starts(tmp_path: Path, checkpoint: Path) -> None:
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    config = (broken / "config.json").read_text()
    (broken / "config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 64'))
    with pytest.raises(ConfigError, match=r"model.path: "):
        caption(write_shards(tmp_path / "in", 1, 4), broken, tmp_path / "out")


def test_more_devices_than_there_are_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    shards = write_shards(tmp_path / "in", shards=1, rows=8)
    with pytest.raises(ConfigError, match="found 3 engines with 1 GPU each, but Ray has 2 GPUs"):
        generate = sampling(actors=3, gpus=1)
        caption(shards, checkpoint, tmp_path / "out", model={"device": "auto"}, generate=generate)
    assert not (tmp_path / "out").exists()


def test_a_real_object_store_gives_shards_and_takes_parts(
    shards: Path, checkpoint: Path, finished: Path, s3: S3, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(shards.iterdir()):
        Store(s3.uri, s3.settings).publish(f"in/{path.name}", path.read_bytes())
    storage = {"storage": {"endpoint_url": s3.endpoint_url}}
    result = caption(f"{s3.uri}/in/*.tar", checkpoint, f"{s3.uri}/out", read=storage, write=storage)
    assert (result.rows, result.failed) == (45, 1)
    table = results("", Store(f"{s3.uri}/out", s3.settings))
    for name in ("key", "shard", "index", "output_token_ids", "caption"):
        assert table.column(name) == results(finished).column(name)
    assert SECRET_KEY not in "".join([*capfd.readouterr(), *_written(Store(f"{s3.uri}/out", s3.settings))])


def _written(store: Store) -> Iterator[str]:
    """All that a run has left, as text, compressed columns and footers too."""
    for entry in store.list():
        data = store.read(entry.path)
        yield data.decode("latin-1")
        if entry.path.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            yield f"{table.to_pylist()} {table.schema.metadata}"


def sampling(**generate: int) -> dict[str, object]:
    """The generate section with some settings changed; those that are sampling's go there."""
    seed = generate.pop("seed", 11)
    return {"slots": 4, **generate, "sampling": {"max_new_tokens": 4, "temperature": 1.0, "seed": seed}}
