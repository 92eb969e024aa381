"""The command-line arguments of every command. Nothing slow is imported, so `--help` is quick.

What a command does stands in jobs/__main__.py. Those that score stored answers have theirs in their own room.
"""

import argparse
import importlib.metadata
from collections.abc import Sequence

from jobs.evaluation.arguments import add_compare, add_score, add_submit
from jobs.starters import OF_JOBS, starters

# What `list` can list; jobs/names.py knows how.
LISTED = ("benchmarks", "rules", "presets", "formats", "configs")


def parse(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; `key=value` may stand behind options too, where argparse does not look for it."""
    parser = command_parser()
    arguments, rest = parser.parse_known_args(command_line)
    if rest and ("overrides" not in arguments or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of every command; what it parsed has the command's name as `command`."""
    parser = argparse.ArgumentParser(
        prog="triptych", description="Run vision-language models over many images and texts on Ray.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"triptych {_version()}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--verbose", action="store_true", help="log what happens, with Ray's own messages")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, add_arguments, summary in (
        ("run", _add_run, "run a job, or continue it where it stopped"),
        ("plan", _add_plan, "say what a run will read, take and cost, by a timed sample of it"),
        ("retry", _add_retry, "run the failed rows of a finished run again"),
        ("status", _add_status, "say how a run stands, from any machine"),
        ("report", _add_report, "write the report of a run again"),
        ("verify", _add_verify, "look whether a run's output is whole, and compute some of its rows again"),
        ("view", _add_view, "look at all rows of a run in a browser on this machine"),
        ("export", _add_export, "write a run's texts for trainers: metadata.jsonl, or one beside each image"),
        ("score", add_score, "score stored answers, from a run or from another tool"),
        ("compare", add_compare, "compare two scored outputs row by row"),
        ("submit", add_submit, "write or check a file for a benchmark's server"),
        ("demo", _add_demo, "run every job on data and toy checkpoints of the package"),
        ("init", _add_init, "write a commented settings file to start from"),
        ("settings", _add_settings, "say what each setting is, and what it trades"),
        ("list", _add_list, "list names that settings take"),
        ("completion", _add_completion, "print what completes commands and settings in a shell"),
    ):
        subparser = commands.add_parser(name, parents=[common], help=summary, description=f"{summary.capitalize()}.")
        add_arguments(subparser)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "config", metavar="CONFIG", help="a YAML file with settings, or one of ours, such as caption (`list configs`)"
    )
    _add_progress(run)
    _add_overrides(run, "settings that replace those of CONFIG, such as generate.sampling.max_new_tokens=32")


def _add_plan(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("config", metavar="CONFIG", help="as for `run`; nothing is written")
    plan.add_argument("--seconds", type=float, default=60.0, help="how long the sample is timed; 60 if left out")
    plan.add_argument("--json", action="store_true", help="say all numbers as JSON; `report --plan` takes them")
    _add_overrides(plan, "settings that replace those of CONFIG, as for `run`; plan.price_per_device_hour")


def _add_retry(retry: argparse.ArgumentParser) -> None:
    _add_output(retry)
    _add_progress(retry)
    _add_overrides(retry, "settings that change no answer; write.storage.* say how to reach OUTPUT")


def _add_status(status: argparse.ArgumentParser) -> None:
    _add_output(status)
    status.add_argument("--watch", action="store_true", help="say it every few seconds until the run has ended")
    status.add_argument("--json", action="store_true", help="say all numbers as one line of JSON")
    _add_overrides(status, "how to reach OUTPUT, such as write.storage.endpoint_url=http://...")


def _add_view(view: argparse.ArgumentParser) -> None:
    _add_output(view)
    view.add_argument("--port", type=int, default=0, help="where to listen, on this machine only; any if left out")
    _add_overrides(view, "how to reach OUTPUT and the input: write.storage.endpoint_url=http://...")


def _add_report(report: argparse.ArgumentParser) -> None:
    _add_output(report)
    report.add_argument(
        "--plan", metavar="FILE", help="what `triptych plan --json` said before the run: is set against what it did"
    )
    _add_overrides(report, "how to reach OUTPUT: write.storage.endpoint_url=http://...; plan.price_per_device_hour")


def _add_verify(verify: argparse.ArgumentParser) -> None:
    _add_output(verify)
    verify.add_argument(
        "--rows", metavar="N", type=_count, default=8, help="compute so many rows again; 8 if left out, 0 for none"
    )
    verify.add_argument("--seed", metavar="N", type=_count, default=0, help="another seed takes other rows")
    verify.add_argument("--json", action="store_true", help="say everything as one line of JSON")
    _add_overrides(verify, "how to reach OUTPUT and input, such as write.storage.endpoint_url=http://...; model.device")


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


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"found {text}, expected 0 or more")
    return count


def _add_overrides(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument("overrides", metavar="key=value", nargs="*", help=help_text)


def _version() -> str:
    try:
        return importlib.metadata.version("triptych")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed, run from a checkout)"
