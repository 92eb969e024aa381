"""The crash ledger and the guard, with processes that die as a test lets them."""

import asyncio
import functools
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pyarrow as pa
import pytest

from pipeline.execution import guard
from pipeline.execution.crashes import HOPELESS_ROWS, CrashClient, CrashHistory, CrashLedger
from pipeline.execution.guard import (
    READ_DEATHS,
    Gate,
    Guard,
    HopelessStep,
    pause_s,
    read_guarded,
    row_order,
    split_rows,
)
from pipeline.input.columns import ERROR
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings
from tests.pipeline.inputs import plan_units, write

ATTEMPTS = 4


class Death(BaseException):
    """The process ends; nothing that it wanted to do afterwards is done."""


class Actor(CrashClient):
    """One actor's way to the ledger; and the process it lives in, which may be started again."""

    def __init__(self, ledger: CrashLedger, step: str = "generate", name: str = "one") -> None:
        async def call(method: str, *arguments: Any) -> Any:
            return getattr(ledger, method)(*arguments)

        super().__init__(call, step, name)
        self.ledger, self.step, self.name = ledger, step, name
        self.starts = 0


FIRST_PAUSE_S, LONGEST_PAUSE_S = guard.PAUSE_S, guard.LONGEST_PAUSE_S


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.execution.guard.PAUSE_S", 0.0)


def block_of(keys: str, unit: str = "u") -> pa.Table:
    """A row for every letter; one that stands twice in a row is a row with two lines."""
    index = [sum(a != b for a, b in itertools.pairwise(keys[: i + 1])) for i in range(len(keys))]
    return pa.table(
        {
            "shard": [unit] * len(keys),
            "index": pa.array(index, pa.int64()),
            "key": list(keys),
            "error": pa.nulls(len(keys), ERROR),
            "input.token_ids": pa.array([[1]] * len(keys), pa.list_(pa.int32())),
        }
    )


def deadly(
    *keys: str, kills: Callable[[], bool] = lambda: False
) -> Callable[[pa.Table], Coroutine[Any, Any, pa.Table]]:
    """A step that dies of some keys, and whenever `kills` says so."""

    async def step(block: pa.Table) -> pa.Table:
        await asyncio.sleep(0)
        well = zip(block["key"].to_pylist(), block["input.token_ids"].to_pylist(), strict=True)
        if any(key in keys and tokens is not None for key, tokens in well) or kills():
            raise Death
        return block

    return step


async def live(actor: Actor, step: Any, blocks: dict[str, pa.Table], most_starts: int = 40) -> dict[str, pa.Table]:
    """Do all blocks at once, in a new process as often as one dies, as Ray does."""
    done: dict[str, pa.Table] = {}
    for _ in range(most_starts):
        actor.starts += 1
        actor.ledger.starting(actor.name)
        actor.ledger.ready(actor.name, actor.step)
        guard = Guard(actor.step, actor)
        tasks = {unit: asyncio.create_task(guard.run(step, unit, block)) for unit, block in blocks.items()}
        try:
            for unit, task in tasks.items():
                done[unit] = await task
                blocks = {name: block for name, block in blocks.items() if name != unit}
            return done
        except Death:
            pass
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
    raise AssertionError(f"{most_starts} processes were not enough")


def failed(block: pa.Table) -> dict[str, str]:
    return {row["key"]: row["error"]["type"] for row in block.to_pylist() if row["error"]}


def test_the_row_that_kills_is_blamed_after_so_many_tries_and_no_other() -> None:
    actor = Actor(CrashLedger(ATTEMPTS))
    done = asyncio.run(live(actor, deadly("c"), {"u": block_of("abcdef"), "v": block_of("ghij", "v")}))
    assert failed(done["u"]) == {"c": "WorkerDied"} and failed(done["v"]) == {}
    assert done["u"]["key"].to_pylist() == list("abcdef")
    assert actor.starts == ATTEMPTS + 1
    row = done["u"].slice(2, 1).to_pylist()[0]
    assert row["error"]["stage"] == "generate" and "died 4 times with this row" in row["error"]["message"]
    assert row["input.token_ids"] is None


def test_several_such_rows_of_several_units_are_each_found() -> None:
    actor = Actor(CrashLedger(ATTEMPTS))
    blocks = {"u": block_of("abc"), "v": block_of("def", "v"), "w": block_of("ghi", "w")}
    done = asyncio.run(live(actor, deadly("b", "c", "h"), blocks))
    assert {**failed(done["u"]), **failed(done["v"]), **failed(done["w"])} == dict.fromkeys("bch", "WorkerDied")


def test_a_process_killed_from_outside_costs_no_row() -> None:
    for kill_at in range(1, 40):
        calls = iter(range(10**6))
        actor = Actor(CrashLedger(ATTEMPTS))
        kills = [False] * kill_at + [True]
        step = deadly(kills=lambda calls=calls, kills=kills: (n := next(calls)) < len(kills) and kills[n])
        done = asyncio.run(live(actor, step, {"u": block_of("abcd"), "v": block_of("efgh", "v")}))
        assert failed(done["u"]) == {} and failed(done["v"]) == {}, kill_at


def test_the_same_row_must_have_been_alone_twice() -> None:
    ledger = CrashLedger(ATTEMPTS)
    for _ in range(3):
        history = ledger.begin("s", "u", "a")
    assert history.is_suspect and not history.blamed
    ledger.begin_row("s", "u", 7)
    assert not ledger.begin("s", "u", "a").blamed
    ledger.begin_row("s", "u", 3)
    assert not ledger.begin("s", "u", "a").blamed
    ledger.begin_row("s", "u", 7)
    assert list(ledger.begin("s", "u", "a").blamed) == [7]


def test_rows_done_alone_are_not_done_first_the_next_time() -> None:
    seen: list[str] = []

    async def step(block: pa.Table) -> pa.Table:
        seen.append(block["key"][0].as_py())
        return block

    ledger = CrashLedger(3)
    for _ in range(2):
        ledger.begin("generate", "u", "one")
    ledger.begin_row("generate", "u", 0)
    ledger.end_row("generate", "u", 0, "one")
    asyncio.run(Guard("generate", Actor(ledger)).run(step, "u", block_of("abc")))
    assert seen == ["b", "c", "a"]


def test_a_row_that_did_no_harm_goes_before_those_that_may_have_killed() -> None:
    history = CrashHistory(is_suspect=True, cleared=frozenset({5, 6}), tried=frozenset({0, 1}), blamed={2: "it died"})
    assert row_order(8, history) == [5, 2, 3, 4, 7, 0, 1, 6]
    assert row_order(3, CrashHistory(is_suspect=True)) == [0, 1, 2]


def test_many_rows_that_kill_may_stand_side_by_side() -> None:
    actor = Actor(CrashLedger(ATTEMPTS))
    killers = "abcdefgh"
    done = asyncio.run(live(actor, deadly(*killers), {"u": block_of(f"{killers}xyz"), "v": block_of("uvw", "v")}))
    assert failed(done["u"]) == dict.fromkeys(killers, "WorkerDied") and failed(done["v"]) == {}


def test_a_row_that_did_no_harm_is_never_blamed_for_a_process_that_fails_later() -> None:
    ledger = CrashLedger(ATTEMPTS)
    for _ in range(3):
        ledger.begin("s", "u", "a")
    ledger.begin_row("s", "u", 4)
    ledger.end_row("s", "u", 4, "a")
    for _ in range(6):
        ledger.begin_row("s", "u", 4)
        history = ledger.begin("s", "u", "a")
    assert not history.blamed and not history.tried


def test_a_small_unit_blamed_as_a_whole_does_not_hide_a_step_that_can_do_nothing() -> None:
    actor = Actor(CrashLedger(ATTEMPTS))
    blocks = {name: block_of("ab", name) for name in "uvwxyz"}
    with pytest.raises(HopelessStep, match="dies again and again"):
        asyncio.run(live(actor, deadly("a", "b"), blocks))


def test_what_the_end_of_a_round_stops_has_killed_nothing() -> None:
    ledger = CrashLedger(ATTEMPTS)
    for _ in range(20):
        history = ledger.begin("s", "u", "a")
        ledger.begin_row("s", "u", 0)
        ledger.new_round()
    assert history == CrashHistory()


def test_a_ledger_that_was_killed_itself_takes_marks_in_the_middle() -> None:
    ledger = CrashLedger(ATTEMPTS)
    ledger.begin_row("s", "u", 0)
    ledger.end_row("s", "v", 0, "a")
    ledger.end("s", "w", "a")


def test_last_words_stand_in_the_error() -> None:
    ledger = CrashLedger(3)
    for _ in range(4):
        ledger.begin("s", "u", "a")
        ledger.begin_row("s", "u", 0)
        ledger.dying("a", "the engine died: CUDA error")
    assert "the engine died: CUDA error" in ledger.begin("s", "u", "a").blamed[0]


def test_a_step_that_dies_of_everything_is_given_up() -> None:
    actor = Actor(CrashLedger(ATTEMPTS))
    blocks = {name: block_of("abcdefgh", name) for name in "uvw"}
    with pytest.raises(HopelessStep, match="dies again and again"):
        asyncio.run(live(actor, deadly(*"abcdefgh"), blocks))
    assert actor.starts <= HOPELESS_ROWS * ATTEMPTS + 1


def test_an_actor_that_dies_while_loading_is_counted_until_it_is_ready() -> None:
    ledger = CrashLedger(ATTEMPTS)
    assert [ledger.starting("a") for _ in range(3)] == [0, 1, 2]
    ledger.ready("a", "generate")
    assert ledger.starting("a") == 0


def test_the_first_process_of_a_step_that_is_ready_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("pipeline.execution.crashes.time.monotonic", lambda: now[-1])
    ledger = CrashLedger(ATTEMPTS)
    assert ledger.seconds_ready("generate") is None
    for moment, actor, step in ((110.0, "p", "preprocess"), (120.0, "a", "generate"), (150.0, "b", "generate")):
        now.append(moment)
        ledger.ready(actor, step)
    now.append(160.0)
    assert ledger.seconds_ready("generate") == 40.0
    ledger.ready("d", "generate", (41, "41 slots, since"))
    assert ledger.slots() == {"generate": (41, "41 slots, since")}


def test_whoever_is_alone_has_nobody_beside() -> None:
    inside: set[str] = set()
    most: dict[str, int] = {}

    async def visit(gate: Gate, name: str, alone: bool) -> None:
        async with gate.alone() if alone else gate.together():
            inside.add(name)
            for _ in range(3):
                most[name] = max(most.get(name, 0), len(inside))
                await asyncio.sleep(0)
            inside.discard(name)

    async def visits() -> None:
        gate = Gate()
        await asyncio.gather(*(visit(gate, f"{n}", alone=n in (3, 5)) for n in range(9)))

    asyncio.run(visits())
    assert most["3"] == most["5"] == 1 and most["0"] > 1 and len(most) == 9


def test_lines_of_one_row_stay_together() -> None:
    assert [piece["key"].to_pylist() for piece in split_rows(block_of("aabccc"))] == [
        ["a", "a"],
        ["b"],
        ["c", "c", "c"],
    ]


def test_pauses_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.execution.guard.PAUSE_S", FIRST_PAUSE_S)
    pauses = [pause_s(deaths) for deaths in range(12)]
    assert pauses[0] == 0.0 and pauses[1] > 0.0
    assert all(after == min(2 * before, LONGEST_PAUSE_S) for before, after in itertools.pairwise(pauses[1:]))
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_unit_whose_reading_kills_over_and_over_becomes_error_rows(tmp_path: Any) -> None:
    write(tmp_path / "in.txt", "one\ntwo\n")
    settings = ReadSettings(uri=str(tmp_path / "in.txt"))
    (unit,) = plan_units(settings, 9)
    read = functools.partial(read_unit, unit, settings)
    ledger = CrashLedger(ATTEMPTS)
    for _ in range(READ_DEATHS - 1):
        ledger.begin("fetch", unit.name, "None")
    rows = asyncio.run(read_guarded(unit, read, Actor(ledger, "fetch", "None")))
    assert failed(rows) == {}
    for _ in range(READ_DEATHS):
        ledger.begin("fetch", unit.name, "None")
    (tmp_path / "in.txt").unlink()
    rows = asyncio.run(read_guarded(unit, read, Actor(ledger, "fetch", "None")))
    assert failed(rows) == {"in.txt#0": "WorkerDied", "in.txt#1": "WorkerDied"}
    assert rows.schema == unit.table_schema
