"""Write the report of an output again from what stands in it alone. It needs no configuration file."""

from jobs.config import RunSettings
from jobs.report.results import ReportError
from jobs.report.write import Report, write_report
from pipeline import ledger
from pipeline.settings import check_settings
from pipeline.storage.store import NotFound, Store


def report_again(uri: str) -> Report:
    """Write report.json and report.html of an output with the settings that its run has frozen.

    Raises:
        ReportError: There is no run, or it has no results yet.
        StorageError: The output cannot be read or written.
    """
    store = Store(uri)
    try:
        frozen = ledger.read_settings(store)
    except NotFound as error:
        raise ReportError(f"found no run in {store.uri} ({ledger.SETTINGS} is missing), expected its output") from error
    settings = check_settings(RunSettings, frozen["settings"], store.name(ledger.SETTINGS))
    return write_report(store, settings.job.build(), settings.read)
