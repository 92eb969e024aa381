"""Write the report of an output again from what stands in it alone. It needs no configuration file."""

from collections.abc import Sequence

from jobs.config import frozen_settings, output_at
from jobs.report.write import Report, write_report
from pipeline import ConfigError

# How the output and the input (for its pictures) are reached; the rest of a report is what the run was.
REACHING = ("read.storage", "write.storage")


def report_again(uri: str, overrides: Sequence[str] = ()) -> Report:
    """Write the report of an output with the settings that its run has frozen.

    Args:
        uri: The output, wherever it stands now.
        overrides: `dotted.key=value` each, of settings that say how to reach a store.

    Raises:
        ReportError: There is no run, or it has no results yet.
        ConfigError: An override is none, or of another setting.
        StorageError: The output cannot be read or written.
    """
    expected = " and ".join(f"{section}.*" for section in REACHING)
    if others := [override for override in overrides if not _is_reaching(override)]:
        faults = [
            f"override {override!r}: a report takes only {expected}, the rest is as it was" for override in others
        ]
        raise ConfigError("the command line", faults)
    output = output_at(uri, overrides)
    settings = frozen_settings(output, overrides)
    return write_report(output, settings.job.build(), settings.read)


def _is_reaching(override: str) -> bool:
    return f"{override.partition('=')[0]}.".startswith(tuple(f"{section}." for section in REACHING))
