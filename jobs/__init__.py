"""Jobs: what is asked and kept - settings, prompts, scoring, reports and the command line.

`run` does from Python what `triptych run` does. Nothing else is loaded before it is called.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.start import Outcome


def run(config: str | Mapping[str, Any], *overrides: str) -> "Outcome":
    """Run a job over its input, or what is left of it, and write its report, as `triptych run` does.

    A finished run is left alone, so that a notebook may call this again for its numbers. More failed rows than
    `limits.max_failed_share` allows are no exception once all rows are done: see `outcome.result.failed_share`.

    Args:
        config: A YAML file, one of ours by its name (`caption`, `vqa`, `synthesize`), or the settings themselves:
            nested mappings, as YAML has them.
        overrides: `dotted.key=value` each, such as "generate.slots=8".

    Returns:
        `result` has the counts of the run (see `pipeline.run.RunResult`), `report.numbers` the content of report.json,
        `report.page` where report.html is. The rows are in the Parquet files of `result.uri`.

    Raises:
        ConfigError: Something would keep the run from working: every fault is listed, and nothing has started.
        RunError: The run could not be finished; what is committed stays, and the same call goes on there.
        StorageError: The output cannot be read or written.
    """
    from jobs.start import load_run, run_and_report
    from jobs.starters import find_config

    return run_and_report(load_run(find_config(config) if isinstance(config, str) else config, overrides))
