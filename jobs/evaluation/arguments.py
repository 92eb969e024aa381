"""The command-line arguments of `score`, `compare` and `submit`. Nothing slow is imported, so `--help` is quick."""

import argparse


def add_score(score: argparse.ArgumentParser) -> None:
    """Add what `triptych score` takes."""
    score.add_argument(
        "predictions", metavar="PREDICTIONS", help="answers: a run's output, or a JSONL, JSON, CSV, TSV or Parquet file"
    )
    score.add_argument(
        "overrides", metavar="key=value", nargs="*", help="settings, such as job.benchmarks.gqa.columns.id=question"
    )
    score.add_argument("--to", metavar="DIR", required=True, help="where to write the scored rows and their report")
    score.add_argument(
        "--rule",
        metavar="[NAME=]ID",
        action="append",
        default=[],
        help="score by another rule, such as docvqa_val=anls/rrc",
    )
    score.add_argument("--data", metavar="URI", help="the data set's shards; needed for answers of another tool")
    score.add_argument(
        "--benchmark", metavar="NAME", help="the data set; if left out, --data has `question` and `answers`"
    )
    score.add_argument(
        "--id", metavar="COLUMN", help="the column of PREDICTIONS with ids; `row` means row numbers of the data, from 0"
    )
    score.add_argument("--response", metavar="COLUMN", help="the column of PREDICTIONS with the answers' texts")
    score.add_argument("--model", metavar="WORDS", help="the name of the model that answered, for the report")
    score.add_argument("--preset", metavar="NAME", help="the preset that worded the questions, if it is known")
    score.add_argument(
        "--end-token", metavar="TOKEN", action="append", default=[], help="a token to cut off the answers' ends"
    )
    score.add_argument("--allow-missing", action="store_true", help="score what is there, even if answers are missing")
    score.add_argument("--judge", metavar="MODEL", help="a checkpoint to ask about answers that no rule can read")


def add_compare(compare: argparse.ArgumentParser) -> None:
    """Add what `triptych compare` takes."""
    compare.add_argument("a", metavar="A", help="a folder of scored rows: the baseline")
    compare.add_argument("b", metavar="B", help="a folder of scored rows, compared with A")
    compare.add_argument("overrides", metavar="key=value", nargs="*", help="write.storage.*: how to reach A and B")
    compare.add_argument(
        "--benchmark", metavar="NAME", action="append", default=[], help="compare this benchmark only; may be repeated"
    )
    compare.add_argument("--json", metavar="FILE", help="write all numbers of the comparison to FILE")
    compare.add_argument("--markdown", metavar="FILE", help="write the comparison as a table to FILE")
    compare.add_argument("--threshold", metavar="X", type=_share, help="exit with 1 if B - A is below X, such as -0.01")
    compare.add_argument(
        "--significant", action="store_true", help="with --threshold: only if the whole 95 %% interval is below X"
    )


def add_submit(submit: argparse.ArgumentParser) -> None:
    """Add what `triptych submit` takes."""
    submit.add_argument(
        "overrides",
        metavar="OUTPUT FILE key=value",
        nargs="*",
        help="a run's output, and where to write the file; write.storage.* say how to reach both",
    )
    submit.add_argument("--benchmark", metavar="NAME", help="the benchmark, if OUTPUT has several")
    submit.add_argument("--ids", metavar="FILE", help="the ids that the server expects: a list, or a question file")
    submit.add_argument("--allow-missing", action="store_true", help='write "" for rows without an answer')
    submit.add_argument(
        "--check", metavar="FILE", help="check FILE instead of writing one; needs --benchmark and --ids"
    )


def _share(text: str) -> float:
    share = float(text)
    if not -1 <= share <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a share from -1 to 1 (0.01 is one point)")
    return share
