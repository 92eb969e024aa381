"""What `triptych list` shows: names that settings take, a line each."""

from collections.abc import Iterable

from jobs.benchmarks.benchmark import Benchmark
from jobs.benchmarks.datasets import BENCHMARKS
from jobs.benchmarks.presets import PRESETS
from jobs.scoring.rules import NAMES, describe
from jobs.starters import starters, summary
from pipeline import FORMATS


def name_lines(what: str) -> list[str]:
    """Return the names of one kind, each with what it is: `benchmarks`, `rules`, `presets`, `formats`, `configs`."""
    match what:
        case "benchmarks":
            return _table((key, benchmark.rule, _columns(benchmark)) for key, benchmark in BENCHMARKS.items())
        case "rules":
            return _table((name, describe(name)) for name in NAMES)
        case "presets":
            return _table(PRESETS.items())
        case "formats":
            return _table((name, " ".join(f".{one}" for one in traits.extensions)) for name, traits in FORMATS.items())
        case _:
            return _table((name, summary(path)) for name, path in starters().items())


def _columns(benchmark: Benchmark) -> str:
    """Name the columns that a data set cannot do without, and where what is looked at lies."""
    sight = [benchmark.video] if benchmark.video else list(benchmark.images[:1])
    more = ", …" if len(benchmark.images) > 1 and not benchmark.video else ""
    return ", ".join(dict.fromkeys([*benchmark.needed, *sight])) + more


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Set columns beside each other; the last one is as long as it is."""
    cells = list(rows)
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]) - 1)]
    return ["  ".join([*map(str.ljust, row, widths), row[-1]]) for row in cells]
