"""The command line: what `triptych` does and says; what it can be told stands in jobs/arguments.py.

Only this file prints results and chooses exit codes: 0 done, 1 failed, 2 wrong settings, 3 done but with more failed
rows than allowed, or stopped because of them, 130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.arguments import command_parser, parse
from jobs.console_text import demo_lines, program, retry_lines, run_lines, stopped_message, too_many_failed_message
from jobs.process import interruptible, set_up_logging
from jobs.starters import find_config, starter_text

if TYPE_CHECKING:
    from jobs.report.writer import Report
    from pipeline.run import RunResult

# What `compare` and `submit` may override: how outputs are reached.
STORAGE = ("write.storage",)
FAILED, WRONG_SETTINGS, TOO_MANY_FAILED, INTERRUPTED = 1, 2, 3, 130


def main(command_line: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = parse(command_line)
    set_up_logging(arguments.verbose)
    try:
        with interruptible():
            return COMMANDS[arguments.command](arguments)
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


def _run(arguments: argparse.Namespace) -> int:
    # Imported late: `--help` and a wrong file name need neither Ray nor Arrow.
    from jobs.start import load_run, run_and_report

    settings = load_run(find_config(arguments.config), arguments.overrides)
    outcome = run_and_report(settings, style=arguments.progress, metrics_port=arguments.metrics_port, ends_ray=True)
    _print_lines(run_lines(outcome))
    return _exit_code(outcome.result, outcome.report, settings.limits.max_failed_share)


def _plan(arguments: argparse.Namespace) -> int:
    from jobs.plan import plan_lines, plan_numbers
    from jobs.start import estimate_run, load_run

    settings = load_run(find_config(arguments.config), arguments.overrides)
    sys.stderr.write(f"checks, loads the model, and times a sample for about {arguments.seconds:g} s ...\n")
    estimate = estimate_run(settings, arguments.seconds)
    price = settings.plan.price_per_device_hour
    numbers = json.dumps(plan_numbers(estimate, price), indent=1, ensure_ascii=False)
    _print_lines([numbers] if arguments.json else plan_lines(estimate, price))
    return 0


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


def _view(arguments: argparse.Namespace) -> int:
    from jobs.view.server import serve, view_of

    def say(address: str) -> None:
        _print_lines([f"open {address}", "Ctrl-C ends it. From elsewhere: ssh -L PORT:127.0.0.1:PORT, with that port"])
        sys.stdout.flush()

    serve(lambda: view_of(arguments.output, arguments.overrides), arguments.port, say)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from jobs.console_text import report_lines
    from jobs.report.writer import rewrite_report

    _print_lines(report_lines(rewrite_report(arguments.output, arguments.overrides, arguments.plan)))
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


def _verify(arguments: argparse.Namespace) -> int:
    from jobs.verify import verified_numbers, verify_lines, verify_run

    verified = verify_run(arguments.output, arguments.overrides, rows=arguments.rows, seed=arguments.seed)
    _print_lines([json.dumps(verified_numbers(verified))] if arguments.json else verify_lines(verified))
    return FAILED if verified.faults else 0


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
    _print_lines([f"wrote {path}", f"next: {program()} run {path} model.path=... read.uri=... write.uri=..."])
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    from jobs.completion import completion_script

    _print_lines([completion_script(command_parser()).removesuffix("\n")])
    return 0


# What each command does, in the order of jobs/arguments.py, which says what it takes.
COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "plan": _plan,
    "retry": _retry,
    "status": _status,
    "report": _report,
    "verify": _verify,
    "view": _view,
    "export": _export,
    "score": _score,
    "compare": _compare,
    "submit": _submit,
    "demo": _demo,
    "init": _init,
    "settings": _settings,
    "list": _list,
    "completion": _completion,
}


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
