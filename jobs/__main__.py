"""The command line: what `triptych` can be told, and what it says.

Only this file prints results and chooses exit codes: 0 done, 1 failed, 2 wrong settings, 3 done but with more failed
rows than allowed, or stopped because of them, 130 interrupted.
"""

import argparse
import importlib.metadata
import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from jobs.console_text import demo_lines, retry_lines, run_lines, stopped_message, too_many_failed_message
from jobs.evaluation.arguments import add_compare, add_score, add_submit
from jobs.starters import OF_JOBS, find_config, starter_text, starters

if TYPE_CHECKING:
    from jobs.report.writer import Report
    from pipeline.run import RunResult

# What `compare` and `submit` may override: how outputs are reached.
STORAGE = ("write.storage",)
# What `list` can list; jobs/names.py knows how.
LISTED = ("benchmarks", "rules", "presets", "formats", "configs")
FAILED, WRONG_SETTINGS, TOO_MANY_FAILED, INTERRUPTED = 1, 2, 3, 130


def main(command_line: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = _parse(command_line)
    _set_up_logging(arguments.verbose)
    try:
        with _interruptible():
            return int(arguments.command(arguments))
    except KeyboardInterrupt:
        return _print_error("interrupted; what is committed stays, and the same command continues there", INTERRUPTED)
    except Exception as error:
        from pipeline import ConfigError
        from pipeline.run import TooManyFailed

        if isinstance(error, ConfigError):
            return _print_error(str(error), WRONG_SETTINGS)
        if isinstance(error, TooManyFailed):
            return _print_error(stopped_message(error), TOO_MANY_FAILED)
        if not _is_user_error(error):
            raise
        return _print_error(f"{type(error).__name__}: {error}", FAILED)


def _parse(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; `key=value` may stand behind options too, where argparse does not look for it."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(command_line)
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    # Imported late: `--help` and a wrong file name need neither Ray nor Arrow.
    from jobs.start import load_run, run_and_report

    settings = load_run(find_config(arguments.config), arguments.overrides)
    outcome = run_and_report(settings, style=arguments.progress, metrics_port=arguments.metrics_port)
    _print_lines(run_lines(outcome))
    return _exit_code(outcome.result, outcome.report, settings.limits.max_failed_share)


def _retry(arguments: argparse.Namespace) -> int:
    from jobs.start import retry_and_report

    outcome = retry_and_report(
        arguments.output, arguments.overrides, style=arguments.progress, metrics_port=arguments.metrics_port
    )
    _print_lines(retry_lines(outcome))
    return _exit_code(outcome.retried.result, outcome.report, outcome.max_failed_share)


def _exit_code(result: "RunResult", report: "Report", limit: float) -> int:
    """Return the exit code of a finished run; if too many rows failed, print how many and why."""
    if result.failed_share <= limit:
        return 0
    return _print_error(too_many_failed_message(result, report, limit), TOO_MANY_FAILED)


def _report(arguments: argparse.Namespace) -> int:
    from jobs.report.writer import rewrite_report

    _print_lines([rewrite_report(arguments.output, arguments.overrides).page])
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from jobs.config import output_at
    from jobs.console_text import export_lines, kept_texts_message
    from jobs.export import export
    from pipeline import Store

    output = output_at(arguments.output, arguments.overrides, allowed=STORAGE)
    folder = Store(arguments.to, output.settings)
    done = export(output, folder, arguments.form, overwrites=arguments.overwrite)
    _print_lines(export_lines(done))
    return _print_error(kept_texts_message(done), FAILED) if done.differing else 0


def _status(arguments: argparse.Namespace) -> int:
    from jobs.config import output_at
    from jobs.status import read_status, status_lines, watch

    store = output_at(arguments.output, arguments.overrides, allowed=STORAGE)

    def show(status: Mapping[str, Any]) -> None:
        _print_lines([json.dumps(status)] if arguments.json else status_lines(status))
        sys.stdout.flush()

    if arguments.watch:
        watch(store, show)
    else:
        show(read_status(store))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from jobs.demo.run import run_demo

    shown = {"style": arguments.progress, "metrics_port": arguments.metrics_port}
    _print_lines(demo_lines(run_demo(Path(arguments.folder), is_quick=arguments.quick, **shown)))
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from jobs.evaluation.console import describe_scored
    from jobs.evaluation.score import run_command

    _print_lines(describe_scored(run_command(arguments)))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from jobs.config import output_at
    from jobs.evaluation import compare, console
    from jobs.evaluation.outputs import write_file

    a, b = (output_at(uri, arguments.overrides, allowed=STORAGE) for uri in (arguments.a, arguments.b))
    comparisons = compare.compare(a, b, arguments.benchmark)
    if arguments.json:
        compare.write_json(arguments.json, a, b, comparisons)
    if arguments.markdown:
        write_file(arguments.markdown, console.markdown(a.name(""), b.name(""), comparisons).encode(), a.settings)
    _print_lines(console.describe_comparisons(comparisons))
    if arguments.threshold is None:
        return 0
    below = compare.below_threshold(comparisons, arguments.threshold, only_sure=arguments.significant)
    return _print_error(console.describe_below(below, arguments.threshold), FAILED) if below else 0


def _submit(arguments: argparse.Namespace) -> int:
    from jobs.config import output_at
    from jobs.evaluation import console, submit
    from pipeline import ConfigError

    overrides = [word for word in arguments.overrides if word.startswith("write.storage.")]
    paths = [word for word in arguments.overrides if word not in overrides]
    if arguments.check:
        if arguments.benchmark is None or arguments.ids is None or paths:
            fault = "submit --check FILE: expected --benchmark NAME and --ids FILE with it, and no OUTPUT"
            raise ConfigError("the command line", [fault])
        rows = submit.check_file(arguments.check, arguments.benchmark, arguments.ids)
        _print_lines(console.describe_checked(arguments.check, arguments.benchmark, rows))
        return 0
    if len(paths) != 2:
        found = ", ".join(paths) or "nothing"
        raise ConfigError("the command line", [f"submit: found {found}, expected OUTPUT and FILE, or --check FILE"])
    written = submit.submit(
        output_at(paths[0], overrides),
        paths[1],
        benchmark=arguments.benchmark,
        ids=arguments.ids,
        allow_missing=arguments.allow_missing,
    )
    _print_lines(console.describe_submission(written))
    return 0


def _settings(arguments: argparse.Namespace) -> int:
    from jobs import settings_help

    if arguments.json_schema:
        _print_lines([json.dumps(settings_help.json_schema(), indent=1, ensure_ascii=False)])
    elif arguments.markdown:
        _print_lines([settings_help.settings_page().removesuffix("\n")])
    else:
        word = arguments.word
        found = settings_help.find_settings(word) if word else settings_help.all_settings()
        _print_lines(settings_help.setting_lines(found))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from jobs.names import name_lines

    _print_lines(name_lines(arguments.what))
    return 0


def _init(arguments: argparse.Namespace) -> int:
    from pipeline import ConfigError

    path = Path(arguments.to or f"{arguments.name}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter_text(arguments.name, str(path)))
    except FileExistsError as error:
        raise ConfigError("the command line", [f"init: {path} is there already; --to FILE names another"]) from error
    _print_lines([f"wrote {path}", f"next: triptych run {path} model.path=... read.uri=... write.uri=..."])
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    from jobs.completion import completion_script

    _print_lines([completion_script(_parser()).removesuffix("\n")])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="triptych", description="Run vision-language models over many images and texts on Ray.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"triptych {_version()}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--verbose", action="store_true", help="log what happens, with Ray's own messages")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add_arguments, command, summary in (
        ("run", _add_run, _run, "run a job, or continue it where it stopped"),
        ("retry", _add_retry, _retry, "run the failed rows of a finished run again"),
        ("status", _add_status, _status, "say how a run stands, from any machine"),
        ("report", _add_report, _report, "write the report of a run again"),
        ("export", _add_export, _export, "write a run's texts for trainers: metadata.jsonl, or one beside each image"),
        ("score", add_score, _score, "score stored answers, from a run or from another tool"),
        ("compare", add_compare, _compare, "compare two scored outputs row by row"),
        ("submit", add_submit, _submit, "write or check a file for a benchmark's server"),
        ("demo", _add_demo, _demo, "run every job on data and toy checkpoints of the package"),
        ("init", _add_init, _init, "write a commented settings file to start from"),
        ("settings", _add_settings, _settings, "say what each setting is, and what it trades"),
        ("list", _add_list, _list, "list names that settings take"),
        ("completion", _add_completion, _completion, "print what completes commands and settings in a shell"),
    ):
        subparser = commands.add_parser(name, parents=[common], help=summary, description=f"{summary.capitalize()}.")
        add_arguments(subparser)
        subparser.set_defaults(command=command)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "config", metavar="CONFIG", help="a YAML file with settings, or one of ours, such as caption (`list configs`)"
    )
    _add_progress(run)
    _add_overrides(run, "settings that replace those of CONFIG, such as generate.sampling.max_new_tokens=32")


def _add_retry(retry: argparse.ArgumentParser) -> None:
    _add_output(retry)
    _add_progress(retry)
    _add_overrides(retry, "settings that change no answer; write.storage.* say how to reach OUTPUT")


def _add_status(status: argparse.ArgumentParser) -> None:
    _add_output(status)
    status.add_argument("--watch", action="store_true", help="say it every few seconds until the run has ended")
    status.add_argument("--json", action="store_true", help="say all numbers as one line of JSON")
    _add_overrides(status, "how to reach OUTPUT, such as write.storage.endpoint_url=http://...")


def _add_report(report: argparse.ArgumentParser) -> None:
    _add_output(report)
    _add_overrides(report, "how to reach OUTPUT, such as write.storage.endpoint_url=http://...")


def _add_export(export: argparse.ArgumentParser) -> None:
    _add_output(export)
    _add_overrides(export, "write.storage.*: how to reach OUTPUT and FOLDER")
    export.add_argument("--to", metavar="FOLDER", required=True, help="where to write: the images' folder, or another")
    export.add_argument(
        "--as",
        dest="form",
        required=True,
        choices=("metadata", "sidecars"),
        help="metadata: one metadata.jsonl of file_name and text; sidecars: a .txt for each image",
    )
    export.add_argument("--overwrite", action="store_true", help="replace sidecars that say something else")


def _add_demo(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "folder", metavar="DIR", nargs="?", default="demo_output", help="where to write; demo_output if left out"
    )
    _add_progress(demo)
    demo.add_argument("--quick", action="store_true", help="run about 50 rows of each job")


def _add_init(init: argparse.ArgumentParser) -> None:
    names = list(dict.fromkeys([*OF_JOBS, *starters()]))
    init.add_argument("name", metavar="NAME", choices=names, help=f"a job, or one of ours: {', '.join(names)}")
    init.add_argument("--to", metavar="FILE", help="where to write it; NAME.yaml if left out")


def _add_settings(settings: argparse.ArgumentParser) -> None:
    settings.add_argument("word", metavar="WORD", nargs="?", help="a setting's name, a job, or a word to look for")
    how = settings.add_mutually_exclusive_group()
    how.add_argument("--json-schema", action="store_true", help="print the JSON Schema of the YAML, for editors")
    how.add_argument("--markdown", action="store_true", help="print docs/settings.md")


def _add_list(names: argparse.ArgumentParser) -> None:
    names.add_argument("what", choices=LISTED, help="what to list")


def _add_completion(completion: argparse.ArgumentParser) -> None:
    completion.epilog = 'For bash and zsh: eval "$(triptych completion)", also in ~/.bashrc or ~/.zshrc.'


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUTPUT", help="the folder with a run's results")


def _add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        choices=("auto", "bar", "lines", "json"),
        default="auto",
        help="how progress is shown; auto: a bar on a terminal, elsewhere a line every 30 s",
    )
    parser.add_argument("--metrics-port", metavar="PORT", type=int, help="show it to Prometheus, too, at this port")


def _add_overrides(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument("overrides", metavar="key=value", nargs="*", help=help_text)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C; the second of either ends the process at once."""
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
        return "(not installed, run from a checkout)"


class _NotesAsSentences(logging.Formatter):
    """Leaves level and origin away where nothing is wrong."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage() if record.levelno == logging.INFO else super().format(record)


def _set_up_logging(is_verbose: bool) -> None:
    form = "%(levelname)s %(name)s: %(message)s"
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(form) if is_verbose else _NotesAsSentences(form))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("pipeline.preflight.inputs").setLevel(logging.INFO)  # it says which layout the input has
    if is_verbose:
        for room in ("jobs", "pipeline", "models"):
            logging.getLogger(room).setLevel(logging.DEBUG)


def _is_user_error(error: Exception) -> bool:
    """Whether an error concerns storage, input or a checkpoint, so that its message says enough without a traceback."""
    from jobs.report.results import ReportError
    from jobs.scoring.captions.java import CaptionError
    from models.types import CheckpointError
    from pipeline import RunError, StorageError

    return isinstance(error, ReportError | CaptionError | CheckpointError | RunError | StorageError)


def _print_lines(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join([*lines, ""]))


def _print_error(message: str, code: int) -> int:
    sys.stderr.write(f"triptych: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
