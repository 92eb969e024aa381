"""Published and hand-made cases of every scoring rule, and whole small data sets with the reports they must give.

They stand in tests/data/vectors; TRIPTYCH_VECTORS names another folder of the same layout. A file or a set that no
check here knows is a failure, and so is a variant of a rule of which the tables do not say which rule of ours it is.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.vectors import bulk, corpus, options, short

STORED = Path(__file__).parent.parent / "data" / "vectors"
FOLDER = Path(os.environ.get("TRIPTYCH_VECTORS") or STORED)
PARTS = (short, options, corpus)
CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    stem: check for part in PARTS for stem, check in part.CHECKS.items()
}
VARIANTS = {stem: variants for part in PARTS for stem, variants in part.VARIANTS.items()}


def cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if line.strip():
                yield pytest.param(path.stem, line, id=f"{path.stem}-{number}")


def sets() -> list[Path]:
    return sorted(path for path in (FOLDER / "bulk").glob("*") if path.is_dir())


@pytest.mark.parametrize(("stem", "line"), list(cases()))
def test_a_published_case_comes_out_as_published(stem, line):
    assert stem in CHECKS, f"no check knows {stem}.jsonl; known are {', '.join(CHECKS)}"
    case = json.loads(line)
    unknown = set(case.get("expected_by_rule", {})) - set(VARIANTS[stem])
    assert not unknown, f"the table of variants does not name {', '.join(sorted(unknown))} of {stem}"
    CHECKS[stem](case)


@pytest.mark.parametrize("folder", sets(), ids=lambda folder: folder.name)
def test_replayed_predictions_give_the_expected_report(folder, tmp_path):
    bulk.check(folder, tmp_path)


def test_there_is_something_to_check():
    assert list(cases())
    assert FOLDER != STORED or len(list(cases())) == 256


def test_the_stored_copy_has_a_file_for_every_check_and_every_set():
    assert {path.stem for path in STORED.glob("*.jsonl")} == set(CHECKS)
    assert {path.name for path in (STORED / "bulk").iterdir()} == set(bulk.CHECKS)
