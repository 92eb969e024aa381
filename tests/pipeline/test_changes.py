"""A run that goes on refuses an input that is another than when it was planned; no file is opened to see that."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.input.read import read_unit
from pipeline.input.units import Unit
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.changes import refuse_changed_input
from pipeline.settings import ConfigError, check_settings
from pipeline.state.ledger import SETTINGS, Output
from pipeline.state.plan import cut_parts, freeze_plan, read_plan
from pipeline.storage.store import StorageSettings, Store
from tests.pipeline.inputs import plan_units, rows_as_members, tar_bytes, write
from tests.pipeline.test_chats import as_planned_before
from tests.pipeline.toys import ToyJob
from tests.proxy import proxy
from tests.s3 import S3


def shards(folder: Path, names: Sequence[str] = ("0.tar", "1.tar", "2.tar")) -> Path:
    for number, name in enumerate(names):
        write(folder / name, tar_bytes(rows_as_members({"key": f"{number}{n}", "txt": b"a"} for n in range(4))))
    return folder


def pictures(folder: Path) -> Path:
    for number in range(6):
        write(folder / f"{number}.png", b"%d" % number)
    return folder


def settings_of(uri: Path | str, **read: Any) -> PipelineSettings:
    values = {
        "read": {"uri": str(uri), **read},
        "model": {"path": "model"},
        "write": {"uri": "out", "unit_rows": 2, "rows_per_part": 4},
    }
    return check_settings(PipelineSettings, values)


def planned(settings: PipelineSettings, folder: Path) -> list[Unit]:
    """The plan as a later start finds it."""
    return freeze_plan(Store(str(folder / "out")), plan_units(settings.read, 2))


def faults(
    units: Sequence[Unit], settings: PipelineSettings, parts: Sequence[int] = (), committed: Sequence[str] = ()
) -> list[str]:
    output = Output((SETTINGS,), frozenset(parts), frozenset(committed), ())
    try:
        refuse_changed_input(output, cut_parts(units, settings.write, ToyJob()), settings, ToyJob())
    except ConfigError as error:
        return error.faults
    return []


def rewrite(path: Path) -> None:
    """Another content of the same size, a second later."""
    data, moment = path.read_bytes(), path.stat().st_mtime_ns + 10**9
    path.write_bytes(data.replace(b"a", b"b") if b"a" in data else data[::-1])
    os.utime(path, ns=(moment, moment))


def test_a_shard_of_other_content_and_the_same_size_is_refused_and_named(tmp_path: Path) -> None:
    settings = settings_of(shards(tmp_path / "in"))
    units = planned(settings, tmp_path)
    assert faults(units, settings) == []
    rewrite(tmp_path / "in" / "1.tar")
    fault, advice = faults(units, settings)
    assert fault.startswith(f"{tmp_path}/in/1.tar: found the planned size, but version 20")
    assert "cp -p" in advice and "write.on_existing=replace" in advice and "read.on_changed=accept" in advice


def test_conversations_that_an_older_version_has_planned_are_refused(tmp_path: Path) -> None:
    line = {"messages": [{"role": "user", "content": "Hi"}]}
    settings = settings_of(write(tmp_path / "a.jsonl", json.dumps(line).encode()))
    units = [as_planned_before(unit) for unit in planned(settings, tmp_path)]
    assert faults(planned(settings, tmp_path), settings) == []
    assert "a.jsonl: planned by an older version, which asked one turn" in faults(units, settings)[0]


def test_shards_that_are_gone_or_have_another_size_are_told_a_few_at_a_time(tmp_path: Path) -> None:
    settings = settings_of(shards(tmp_path / "in", [f"{n}.tar" for n in range(8)]))
    units = planned(settings, tmp_path)
    (tmp_path / "in" / "0.tar").unlink()
    write(tmp_path / "in" / "1.tar", b"short")
    gone, short, *_ = faults(units, settings)
    assert gone == f"{tmp_path}/in/0.tar: is missing" and "1.tar: found 5 bytes (version" in short
    shutil.rmtree(tmp_path / "in")
    assert len(faults(units, settings)) == 7 and faults(units, settings)[5] == "... and so on, 8 in all"


def test_of_units_that_are_committed_nothing_is_asked(tmp_path: Path) -> None:
    settings = settings_of(shards(tmp_path / "in"))
    units = planned(settings, tmp_path)
    (tmp_path / "in" / "0.tar").unlink()
    rewrite(tmp_path / "in" / "1.tar")
    assert faults(units, settings, parts=[0], committed=["00000002", "00000003"]) == []
    assert len(faults(units, settings, parts=[0], committed=["00000002"])) == 2
    shutil.rmtree(tmp_path / "in")
    assert faults(units, settings, parts=[0, 1, 2]) == []


def test_a_file_that_is_a_row_is_noticed_in_its_unit(tmp_path: Path) -> None:
    settings = settings_of(pictures(tmp_path / "in"))
    units = planned(settings, tmp_path)
    assert len({unit.etag for unit in units}) == 3 and [unit.size for unit in units] == [2, 2, 2]
    assert faults(units, settings) == []
    moment = (tmp_path / "in" / "3.png").stat().st_mtime_ns + 10**9
    os.utime(tmp_path / "in" / "3.png", ns=(moment, moment))
    write(tmp_path / "in" / "9.png", b"new files are no part of the run")
    fault, _ = faults(units, settings)
    assert fault.startswith(f"the 2 files from {tmp_path}/in/2.png to 3.png: found the planned size, but")
    assert faults(units, settings, committed=["00000001"]) == []
    (tmp_path / "in" / "4.png").unlink()
    (tmp_path / "in" / "5.png").unlink()
    assert faults(units, settings)[1] == f"{tmp_path}/in/4.png: is missing (and 1 more files of its unit)"


@pytest.mark.parametrize("make", [shards, pictures])
def test_copies_that_keep_their_times_are_what_was_planned_and_others_can_be_accepted(
    tmp_path: Path, make: Any
) -> None:
    settings = settings_of(make(tmp_path / "in"))
    units = planned(settings, tmp_path)
    shutil.move(tmp_path / "in", tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", tmp_path / "in")
    assert faults(units, settings) == []
    shutil.rmtree(tmp_path / "in")
    shutil.copytree(tmp_path / "aside", tmp_path / "in", copy_function=shutil.copyfile)
    assert len(faults(units, settings)) == 4
    accepting = settings_of(tmp_path / "in", on_changed="accept")
    assert faults(units, accepting) == []
    assert sum(read_unit(unit, accepting.read).num_rows for unit in units) == sum(unit.num_rows for unit in units)
    path = next(iter(sorted((tmp_path / "in").iterdir())))
    path.write_bytes(path.read_bytes() + b"more")
    assert len(faults(units, accepting)) == 2, "another size is never accepted"


def test_plans_of_versions_that_kept_no_times_go_on(tmp_path: Path) -> None:
    for make in (shards, pictures):
        settings = settings_of(make(tmp_path / make.__name__))
        units = [
            replace(unit, etag=None, size=0 if unit.paths else unit.size)
            for unit in planned(settings, tmp_path / f"out of {make.__name__}")
        ]
        for path in (tmp_path / make.__name__).iterdir():
            rewrite(path)
        assert faults(units, settings) == []


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/1.tar"])
def test_however_the_input_was_named_its_files_are_found_again(tmp_path: Path, pattern: str) -> None:
    settings = settings_of(f"{shards(tmp_path / 'in')}{pattern}")
    units = planned(settings, tmp_path)
    assert faults(units, settings) == []
    rewrite(tmp_path / "in" / "1.tar")
    assert len(faults(units, settings)) == 2


def test_on_s3_the_tags_tell_and_nothing_is_read_but_a_listing(s3: S3, tmp_path: Path) -> None:
    store = Store(f"{s3.uri}/in", s3.settings)
    for path in sorted(pictures(tmp_path / "in").iterdir()):
        store.publish(path.name, path.read_bytes())
    with proxy(s3.endpoint_url) as between:
        settings = settings_of(store.uri, storage=StorageSettings(endpoint_url=between.url).model_dump())
        units = planned(settings, tmp_path)
        store.replace("2.png", b"2")
        assert faults(units, settings) == [], "the same content once more is no change"
        store.replace("2.png", b"x")
        fault, _ = faults(units, settings)
        assert fault.startswith(f"the 2 files from {store.uri}/2.png to 3.png: found the planned size")
        assert between.count("GET", ".png") == between.count("HEAD", ".png") == 0
    assert read_plan(Store(str(tmp_path / "out"))) == units
