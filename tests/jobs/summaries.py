"""What a job makes of results as the report asks it: from the columns that it names, by way of what it keeps."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from jobs.report.job import ReportedJob


def summary_of(job: ReportedJob, results: pa.Table) -> Mapping[str, Any]:
    """Return a job's own numbers."""
    return job.summarize(job.summary_rows(results.select(job.summary_columns(results.column_names))))
