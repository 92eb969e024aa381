"""What a report needs of a run's parts, gathered in one pass that has one part in memory at a time.

It knows what is wanted of each part; what is counted, shown and summarized of it, others know.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from jobs.report.candidates import FOUND_BY, Candidates
from jobs.report.counts import COUNTED, Counts
from jobs.report.parts import open_parts
from jobs.report.pictures import Pictures
from jobs.report.shown import ShownJob
from pipeline.storage.store import Store
from pipeline.tars import has_pictures
from pipeline.units import Unit
from pipeline.write import oddities_in


@dataclass(frozen=True)
class Gathered:
    """What is kept of all parts. Of every row it is a few bytes, and no text.

    Attributes:
        counts: Of rows, tokens, endings and failures.
        candidates: The rows that the gallery may show.
        narrow: What the job's `summarize` needs, a line for each row of the results.
        num_right: Rows whose verdict is True.
        num_wrong: Rows whose verdict is False.
        oddities: What was odd about pictures and was settled while they were decoded, and how often.
        pictures: Where the drawn pictures are; None for a job that draws none.
    """

    counts: Counts
    candidates: Candidates
    narrow: pa.Table
    num_right: int
    num_wrong: int
    oddities: Mapping[str, int]
    pictures: Pictures | None


def gather(store: Store, units: Sequence[Unit], job: ShownJob) -> Gathered:
    """Look through the finished parts, at least one.

    Raises:
        StorageError: A part cannot be read.
    """
    counts, candidates = Counts(), Candidates(units)
    verdicts: Counter[bool | None] = Counter()
    oddities: Counter[str] = Counter()
    narrow: list[pa.Table] = []
    sizes: dict[str, int] = {}
    are_drawn = False
    for part in open_parts(store):
        rows = part.read({*COUNTED, *FOUND_BY, *job.summarized(part.schema.names)})
        judged = job.verdicts(rows)
        counts.add(rows)
        candidates.add(part, rows, judged)
        verdicts.update(judged)
        narrow.append(job.narrow(rows))
        oddities += oddities_in(part.schema)
        sizes[part.path] = rows.num_rows
        are_drawn = are_drawn or has_pictures(part.schema)
    # Each part has words of its own for the numbers that stand for them.
    together = pa.concat_tables(narrow).unify_dictionaries()
    pictures = Pictures(store, sizes) if are_drawn else None
    return Gathered(counts, candidates, together, verdicts[True], verdicts[False], oddities, pictures)
