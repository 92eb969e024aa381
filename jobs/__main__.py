"""The command line: `triptych run`, `retry`, `report`, `score`, `compare`, `submit` and `demo`.

Here, and nowhere else, words are printed and exit codes chosen: 0 done, 1 the run failed, 2 wrong settings, 3 done but
with more failed rows than allowed, 130 interrupted.
"""

import argparse
import importlib.metadata
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from jobs.evaluation import options
from jobs.words import say_demo, say_outcome, say_retry, say_too_many_failed
from pipeline.settings import ConfigError

if TYPE_CHECKING:
    from jobs.report.write import Report
    from pipeline.run import RunResult

FAILED, WRONG_SETTINGS, TOO_MANY_FAILED, INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    asked = _asked(arguments)
    _log(asked.verbose)
    try:
        with _interruptible():
            return int(asked.command(asked))
    except ConfigError as error:
        return _complain(str(error), WRONG_SETTINGS)
    except KeyboardInterrupt:
        return _complain("interrupted; what is committed stays, and the same command goes on from there", INTERRUPTED)
    except Exception as error:
        if not _is_for_people(error):
            raise
        return _complain(f"{type(error).__name__}: {error}", FAILED)


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; overrides and places may stand behind options, where argparse leaves them over."""
    parser = _parser()
    asked, left = parser.parse_known_args(arguments)
    if left and ("overrides" not in asked or any(word.startswith("-") for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        asked.overrides += left
    return asked


def _run(asked: argparse.Namespace) -> int:
    # Imported late: `--help` and a wrong file name need neither Ray nor Arrow.
    from jobs.config import RunSettings
    from jobs.start import run_and_report
    from pipeline.settings import load_settings

    settings = load_settings(RunSettings, asked.config, asked.overrides)
    outcome = run_and_report(settings)
    _say(say_outcome(outcome))
    return _judge(outcome.result, outcome.report, settings.limits.max_failed_share)


def _retry(asked: argparse.Namespace) -> int:
    from jobs.start import retry_and_report

    outcome = retry_and_report(asked.output, asked.overrides)
    _say(say_retry(outcome))
    return _judge(outcome.retried.result, outcome.report, outcome.max_failed_share)


def _judge(result: "RunResult", report: "Report", limit: float) -> int:
    """Return the exit code of what is finished; say why, if more rows have failed than may."""
    if result.failed_share <= limit:
        return 0
    return _complain(say_too_many_failed(result, report, limit), TOO_MANY_FAILED)


def _report(asked: argparse.Namespace) -> int:
    from jobs.report.again import report_again

    _say([report_again(asked.output, asked.overrides).page])
    return 0


def _demo(asked: argparse.Namespace) -> int:
    from jobs.demo.run import run_demo

    _say(say_demo(run_demo(Path(asked.folder), is_quick=asked.quick)))
    return 0


def _score(asked: argparse.Namespace) -> int:
    from jobs.evaluation import words
    from jobs.evaluation.score_command import score_as_asked

    _say(words.say_scored(score_as_asked(asked)))
    return 0


def _compare(asked: argparse.Namespace) -> int:
    from jobs.evaluation import compare, words
    from jobs.evaluation.files import output_reached, write_file
    from jobs.evaluation.table import markdown

    sides = [output_reached(uri, asked.overrides) for uri in (asked.a, asked.b)]
    found = compare.compare(sides[0], sides[1], asked.benchmark)
    if asked.json:
        compare.write_json(asked.json, sides[0], sides[1], found)
    if asked.markdown:
        write_file(asked.markdown, markdown(sides[0].name(""), sides[1].name(""), found).encode(), sides[0].settings)
    _say(words.say_comparisons(found))
    if asked.threshold is None:
        return 0
    fallen = compare.fallen_below(found, asked.threshold, only_sure=asked.significant)
    return _complain(words.say_fallen(fallen, asked.threshold), FAILED) if fallen else 0


def _submit(asked: argparse.Namespace) -> int:
    from jobs.evaluation import submit, words
    from jobs.evaluation.files import output_reached

    overrides = [word for word in asked.overrides if word.startswith("write.storage.")]
    places = [word for word in asked.overrides if word not in overrides]
    if asked.check:
        if asked.benchmark is None or asked.ids is None or places:
            fault = "submit --check FILE: expected --benchmark NAME and --ids FILE with it, and no OUTPUT"
            raise ConfigError("the command line", [fault])
        rows = submit.check_file(asked.check, asked.benchmark, asked.ids)
        _say(words.say_checked(asked.check, asked.benchmark, rows))
        return 0
    if len(places) != 2:
        found = ", ".join(places) or "nothing"
        raise ConfigError("the command line", [f"submit: found {found}, expected OUTPUT and FILE, or --check FILE"])
    written = submit.submit(
        output_reached(places[0], overrides),
        places[1],
        benchmark=asked.benchmark,
        ids=asked.ids,
        allow_missing=asked.allow_missing,
    )
    _say(words.say_submission(written))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="triptych", description="Offline multimodal batch inference on Ray.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"triptych {_version()}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--verbose", action="store_true", help="say what happens, Ray's own words included")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", parents=[common], help="run a job; run again, it goes on where it stopped")
    run.add_argument("config", metavar="CONFIG", help="a YAML file, see configs/")
    run.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. generate.sampling.max_new_tokens=32")
    run.set_defaults(command=_run)
    retry = commands.add_parser("retry", parents=[common], help="run a finished run's failed rows again, replace them")
    retry.add_argument("output", metavar="OUTPUT", help="the folder of the results")
    retry.add_argument(
        "overrides", metavar="key=value", nargs="*", help="that change no answer; write.storage.* reach the output"
    )
    retry.set_defaults(command=_retry)
    report = commands.add_parser("report", parents=[common], help="write the report of a run again")
    report.add_argument("output", metavar="OUTPUT", help="the folder of the results")
    report.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. write.storage.endpoint_url=http://...")
    report.set_defaults(command=_report)
    for name, add, command, what in (
        ("score", options.add_score, _score, "score stored answers, ours or others', by any rule"),
        ("compare", options.add_compare, _compare, "two scored outputs: paired difference, gate"),
        ("submit", options.add_submit, _submit, "write or check a file for a benchmark's server"),
    ):
        without_model = commands.add_parser(name, parents=[common], help=what)
        add(without_model)
        without_model.set_defaults(command=command)
    demo = commands.add_parser("demo", parents=[common], help="the jobs on data and a small checkpoint that come along")
    demo.add_argument("folder", metavar="DIR", nargs="?", default="demo_output", help="default: demo_output")
    demo.add_argument("--quick", action="store_true", help="about 50 rows of each")
    demo.set_defaults(command=_demo)
    return parser


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take SIGTERM, which machines send, as what Ctrl-C is; the second of either ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)
        raise KeyboardInterrupt

    kept = {name: signal.signal(name, interrupt) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in kept.items():
            signal.signal(name, handler)


def _version() -> str:
    try:
        return importlib.metadata.version("triptych")
    except importlib.metadata.PackageNotFoundError:
        return "from its sources, not installed"


def _log(is_verbose: bool) -> None:
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    if is_verbose:
        for room in ("jobs", "pipeline", "models"):
            logging.getLogger(room).setLevel(logging.DEBUG)


def _is_for_people(error: Exception) -> bool:
    """Whether an error is about the world (storage, input, a checkpoint) and its message says all there is to say."""
    from jobs.report.results import ReportError
    from jobs.scoring.captions.java import CaptionError
    from models.types import CheckpointError
    from pipeline.execution.attempt import RunError
    from pipeline.storage.store import StorageError

    return isinstance(error, ReportError | CaptionError | CheckpointError | RunError | StorageError)


def _say(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join([*lines, ""]))


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"triptych: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
