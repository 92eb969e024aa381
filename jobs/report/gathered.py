"""What a report needs of a run's parts, gathered in one pass that has one part in memory at a time.

It knows what is wanted of each part; what is counted, shown and summarized of it, others know.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from jobs.report.candidates import FOUND_BY, Candidates
from jobs.report.counts import COUNTED, Counts
from jobs.report.parts import OpenPart, open_parts
from jobs.report.pictures import Pictures
from jobs.report.shown import ShownJob
from jobs.report.told import TOLD, Told, as_judged
from jobs.report.unread import FOUND_BY as UNREAD_BY
from jobs.report.unread import Unread
from pipeline import Store, Unit, has_pictures, oddities_in


@dataclass(frozen=True)
class Gathered:
    """What is kept of all parts. Of every row it is a few bytes, and no text but of rows that are shown or listed.

    Attributes:
        counts: Of rows, tokens, endings and failures.
        candidates: The rows that the gallery may show.
        narrow: What the job's `summarize` needs, a line for each row of the results.
        judged: The same with what a judge has said in place of what no rule could read; None where none was asked.
        num_right: Rows whose verdict is True.
        num_wrong: Rows whose verdict is False.
        oddities: What was odd about pictures and was settled while they were decoded, and how often.
        pictures: Where the drawn pictures are; None for a job that draws none.
        told: What is told of each benchmark; None for a job that asks none.
        unread: The rows whose answers could not be read, of such a job.
    """

    counts: Counts
    candidates: Candidates
    narrow: pa.Table
    judged: pa.Table | None
    num_right: int
    num_wrong: int
    oddities: Mapping[str, int]
    pictures: Pictures | None
    told: Told | None
    unread: Unread | None


def gather(store: Store, units: Sequence[Unit], job: ShownJob) -> Gathered:
    """Look through the finished parts, at least one.

    Raises:
        StorageError: A part cannot be read.
    """
    counts, candidates = Counts(), Candidates(units)
    told, unread = (Told(), Unread()) if "benchmark" in job.schema.names else (None, None)
    verdicts: Counter[bool | None] = Counter()
    oddities: Counter[str] = Counter()
    narrow: list[pa.Table] = []
    with_judge: list[pa.Table] = []
    sizes: dict[str, int] = {}
    are_drawn = False
    for part in open_parts(store):
        rows = part.read(_wanted(part, job))
        judged = job.verdicts(rows)
        counts.add(rows)
        candidates.add(part, rows, judged)
        if told and unread:
            told.add(rows, judged)
            unread.add(part, rows)
        verdicts.update(judged)
        narrow.append(job.narrow(rows))
        if "judged_score" in rows.column_names:
            with_judge.append(job.narrow(as_judged(rows)))
        oddities += oddities_in(part.schema)
        sizes[part.path] = rows.num_rows
        are_drawn = are_drawn or has_pictures(part.schema)
    pictures = Pictures(store, sizes) if are_drawn else None
    return Gathered(
        counts=counts,
        candidates=candidates,
        narrow=_together(narrow),
        judged=_together(with_judge) if with_judge else None,
        num_right=verdicts[True],
        num_wrong=verdicts[False],
        oddities=oddities,
        pictures=pictures,
        told=told,
        unread=unread,
    )


def _together(narrow: Sequence[pa.Table]) -> pa.Table:
    # Each part has words of its own for the numbers that stand for them.
    return pa.concat_tables(narrow).unify_dictionaries()


def _wanted(part: OpenPart, job: ShownJob) -> set[str]:
    """Name the columns that are read of every row."""
    of_benchmarks = (*TOLD, *UNREAD_BY) if "benchmark" in job.schema.names else ()
    return {*COUNTED, *FOUND_BY, *of_benchmarks, *job.summarized(part.schema.names)}
