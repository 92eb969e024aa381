"""What the commands that need no model take on the command line. It imports nothing that `--help` would wait for."""

import argparse


def add_score(score: argparse.ArgumentParser) -> None:
    """Add what `triptych score` takes."""
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


def add_compare(compare: argparse.ArgumentParser) -> None:
    """Add what `triptych compare` takes."""
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


def add_submit(submit: argparse.ArgumentParser) -> None:
    """Add what `triptych submit` takes."""
    submit.add_argument(
        "overrides",
        metavar="OUTPUT FILE key=value",
        nargs="*",
        help="the folder of the answers, where the file is to stand; write.storage.* reach both",
    )
    submit.add_argument("--benchmark", metavar="NAME", help="whose answers, if the output has several")
    submit.add_argument("--ids", metavar="FILE", help="the ids that the server expects: a list, or a question file")
    submit.add_argument("--allow-missing", action="store_true", help='hand in "" for rows without an answer')
    submit.add_argument("--check", metavar="FILE", help="check a file that is there; --benchmark names its data set")


def _share(text: str) -> float:
    share = float(text)
    if not -1 <= share <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a share from -1 to 1 (0.01 is one point)")
    return share
