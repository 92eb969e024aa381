"""Do a step's work on a unit so that a row which kills the process costs that row alone.

Units are done as a whole, several at once. One that processes have died with is done row by row with nothing beside it,
and what is under way is marked in the crash ledger. It knows blocks of rows, and not what is done with them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pyarrow as pa

from pipeline.execution.crashes import CrashClient, CrashHistory
from pipeline.input.columns import ERROR
from pipeline.input.formats.rows import Fault
from pipeline.input.units import Unit
from pipeline.rows import IS_INPUT

# Before a unit is tried again, doubled each time: a machine short of memory needs a moment to recover.
PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
READ_DEATHS = 8

Step = Callable[[pa.Table], Awaitable[pa.Table]]


class HopelessStep(RuntimeError):
    """A step's process dies whatever it is given, so no row is to blame."""


class Guard:
    """Stands before one actor's step."""

    def __init__(self, stage: str, crashes: CrashClient) -> None:
        """Keep what all units share.

        Args:
            stage: Stands in the `error` of rows that killed the process.
            crashes: Where marks are made.
        """
        self._stage = stage
        self._crashes = crashes
        self._gate = Gate()

    async def run(self, step: Step, unit: str, block: pa.Table) -> pa.Table:
        """Do one unit.

        Raises:
            HopelessStep: It is of no use to go on.
        """
        history = await self._crashes.begin(unit)
        if history.is_hopeless:
            raise HopelessStep(
                f"the process of step {self._stage} dies again and again, whatever rows it gets; check the memory of "
                "its node and the model's files"
            )
        await asyncio.sleep(pause_s(history.deaths))
        if history.is_suspect:
            async with self._gate.alone():
                done = await self._row_by_row(step, unit, block, history)
        else:
            async with self._gate.together():
                done = await step(block)
        await self._crashes.end(unit)
        return done

    async def _row_by_row(self, step: Step, unit: str, block: pa.Table, history: CrashHistory) -> pa.Table:
        pieces = split_rows(block)
        done: dict[int, pa.Table] = {}
        for row in row_order(len(pieces), history):
            if row in history.blamed:
                done[row] = await step(blamed_row(pieces[row], self._stage, history.blamed[row]))
                continue
            await self._crashes.begin_row(unit, row)
            done[row] = await step(pieces[row])
            await self._crashes.end_row(unit, row)
        return pa.concat_tables([done[row] for row in range(len(pieces))]).combine_chunks()


async def read_guarded(unit: Unit, read: Callable[[Fault | None], pa.Table], crashes: CrashClient) -> pa.Table:
    """Read a unit; if that kills its process over and over, all of its rows have an error that says so.

    Which row it is cannot be told here: they are read as one. And processes that read are the first to be killed where
    memory is short, so it takes many deaths to blame anyone.

    Args:
        unit: What is read.
        read: Reads it, or, given a fault, opens nothing and gives all its rows that one.
        crashes: Where marks are made.
    """
    history = await crashes.begin(unit.name)
    await asyncio.sleep(pause_s(history.deaths))
    fault = None
    if history.deaths >= READ_DEATHS:
        why = f"{history.deaths} processes died while reading the {unit.num_rows} rows from {unit.start} on"
        fault = Fault("WorkerDied", why)
    table = read(fault)
    await crashes.end(unit.name)
    return table


class Gate:
    """Lets many in together, or one alone. Whoever waits to be alone goes before those who come later.

    It stays shut behind one who leaves with an error: the process is about to end, and whoever began a row now would be
    taken for its murderer.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._waiting = 0

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Enter beside others."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._inside >= 0 and not self._waiting)
            self._inside += 1
        yield
        async with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Enter when nobody is inside, and keep others out."""
        async with self._changed:
            self._waiting += 1
            await self._changed.wait_for(lambda: self._inside == 0)
            self._waiting -= 1
            self._inside = -1
        yield
        async with self._changed:
            self._inside = 0
            self._changed.notify_all()


def pause_s(deaths: int) -> float:
    """Return how long to wait before a unit is tried again with which so many processes have died."""
    return min(PAUSE_S * 2**deaths, LONGEST_PAUSE_S) if deaths else 0.0


def row_order(rows: int, history: CrashHistory) -> list[int]:
    """Say in which order to do a unit's rows one by one.

    Those that nothing is known of come first, then those that may have killed a process, for this one may not live to
    see the others done. But before a row is suspected again one that did no harm shows that the process can work.
    """
    known_well = sorted(history.cleared)
    proof, rest = (known_well[:1], known_well[1:]) if history.tried else ([], known_well)
    unknown = [row for row in range(rows) if row not in history.cleared and row not in history.tried]
    return [*proof, *unknown, *sorted(history.tried), *rest]


def split_rows(block: pa.Table) -> list[pa.Table]:
    """Cut a block into the input's rows, of which one that asks for several answers has several lines."""
    row_ids = list(zip(block["shard"].to_pylist(), block["index"].to_pylist(), strict=True))
    starts = [line for line, row in enumerate(row_ids) if line == 0 or row_ids[line - 1] != row]
    return [block.slice(start, stop - start) for start, stop in zip(starts, [*starts[1:], block.num_rows], strict=True)]


def blamed_row(row: pa.Table, stage: str, why: str) -> pa.Table:
    """Return a row so that no step works on it: with an error, and without what it was made ready to."""
    error = {"stage": stage, "type": "WorkerDied", "message": why}
    row = _set(row, "error", pa.array([error] * row.num_rows, ERROR))
    if IS_INPUT in row.column_names:
        row = _set(row, IS_INPUT, pa.nulls(row.num_rows, row.schema.field(IS_INPUT).type))
    return row


def _set(row: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return row.set_column(row.column_names.index(name), row.schema.field(name), column)
