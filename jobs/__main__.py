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

from jobs.words import say_demo, say_outcome, say_retry, say_too_many_failed
from pipeline.settings import ConfigError

if TYPE_CHECKING:
    from jobs.report.write import Report
    from pipeline.run import RunResult

FAILED, WRONG_SETTINGS, TOO_MANY_FAILED, INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    asked = _parser().parse_args(arguments)
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

    if asked.check:
        dataset, ids = _checked_alone(asked)
        _say(words.say_checked(asked.check, dataset, submit.check_file(asked.check, dataset, ids)))
        return 0
    if asked.output is None or asked.file is None:
        raise ConfigError("the command line", ["submit: found no OUTPUT or no FILE, expected both, or --check FILE"])
    output = output_reached(asked.output, asked.overrides)
    written = submit.submit(
        output, asked.file, benchmark=asked.benchmark, ids=asked.ids, allow_missing=asked.allow_missing
    )
    _say(words.say_submission(written))
    return 0


def _checked_alone(asked: argparse.Namespace) -> tuple[str, str]:
    """Return the data set and the ids that a file is checked for."""
    if asked.benchmark is None or asked.ids is None or asked.output is not None:
        fault = "submit --check FILE: expected --benchmark NAME and --ids FILE with it, and no OUTPUT"
        raise ConfigError("the command line", [fault])
    return asked.benchmark, asked.ids


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
    _add_score(
        commands.add_parser("score", parents=[common], help="score stored answers, ours or others', by any rule")
    )
    _add_compare(commands.add_parser("compare", parents=[common], help="two scored outputs: paired difference, gate"))
    _add_submit(commands.add_parser("submit", parents=[common], help="write or check a file for a benchmark's server"))
    demo = commands.add_parser("demo", parents=[common], help="the jobs on data and a small checkpoint that come along")
    demo.add_argument("folder", metavar="DIR", nargs="?", default="demo_output", help="default: demo_output")
    demo.add_argument("--quick", action="store_true", help="about 50 rows of each")
    demo.set_defaults(command=_demo)
    return parser


def _add_score(score: argparse.ArgumentParser) -> None:
    score.add_argument("predictions", metavar="PREDICTIONS", help="a run's output, or JSONL, JSON, CSV, TSV or Parquet")
    score.add_argument("overrides", metavar="key=value", nargs="*", help="e.g. job.benchmarks.gqa.columns.id=question")
    score.add_argument("--to", metavar="DIR", required=True, help="where the scored rows and their report are to stand")
    score.add_argument("--rule", metavar="[NAME=]ID", action="append", default=[], help="e.g. docvqa_val=anls/rrc")
    score.add_argument("--data", metavar="URI", help="the data set's shards, for answers of another tool")
    score.add_argument("--benchmark", metavar="NAME", help="which data set; without, rows of question and answers")
    score.add_argument(
        "--id", metavar="COLUMN", help="the answers' column of ids; `row`: the place in the data, from 0"
    )
    score.add_argument("--response", metavar="COLUMN", help="the answers' column of texts")
    score.add_argument("--model", metavar="WORDS", help="who has answered, for the report")
    score.add_argument("--preset", metavar="NAME", help="in whose wording the questions were asked, if that is known")
    score.add_argument("--end-token", metavar="TOKEN", action="append", default=[], help="to cut off the answers' ends")
    score.add_argument("--allow-missing", action="store_true", help="score what is there, with and without the rest")
    score.add_argument("--judge", metavar="MODEL", help="a checkpoint to ask about answers that no rule can read")
    score.set_defaults(command=_score)


def _add_compare(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("a", metavar="A", help="the folder of scored rows that is measured against")
    compare.add_argument("b", metavar="B", help="the one that is measured")
    compare.add_argument("overrides", metavar="key=value", nargs="*", help="write.storage.* reach both")
    compare.add_argument(
        "--benchmark", metavar="NAME", action="append", default=[], help="only this one; may be repeated"
    )
    compare.add_argument("--json", metavar="FILE", help="write everything that is known of the difference there")
    compare.add_argument("--markdown", metavar="FILE", help="write it as a table for people there")
    compare.add_argument(
        "--threshold", metavar="X", type=_share, help="exit with 1 if B's score is below A's by more, e.g. -0.01"
    )
    compare.add_argument(
        "--significant", action="store_true", help="only if the whole 95 %% interval is below the threshold"
    )
    compare.set_defaults(command=_compare)


def _add_submit(submit: argparse.ArgumentParser) -> None:
    submit.add_argument("output", metavar="OUTPUT", nargs="?", help="the folder of the answers")
    submit.add_argument("file", metavar="FILE", nargs="?", help="where the file is to stand")
    submit.add_argument("overrides", metavar="key=value", nargs="*", help="write.storage.* reach the output")
    submit.add_argument("--benchmark", metavar="NAME", help="whose answers, if the output has several")
    submit.add_argument("--ids", metavar="FILE", help="the ids that the server expects: a list, or a question file")
    submit.add_argument("--allow-missing", action="store_true", help='hand in "" for rows without an answer')
    submit.add_argument("--check", metavar="FILE", help="check a file that is there; --benchmark names its data set")
    submit.set_defaults(command=_submit)


def _share(text: str) -> float:
    share = float(text)
    if not -1 <= share <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a share from -1 to 1 (0.01 is one point)")
    return share


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
    from pipeline.rounds import RunError
    from pipeline.storage.store import StorageError

    return isinstance(error, ReportError | CaptionError | CheckpointError | RunError | StorageError)


def _say(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join([*lines, ""]))


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"triptych: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
