"""The engine's own thread and who waits for it: questions that are taken back harm no others."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import pytest

from models.types import ModelInput, Sampling
from pipeline.steps.engine_thread import Ended, EngineDied, EngineThread
from tests.pipeline.toys import ToyEngine, ToySequence


@dataclass
class HeldEngine(ToyEngine):
    """Takes its first step only when it is let go, or when the test is over."""

    go: threading.Event = field(default_factory=threading.Event)

    def step(self) -> list[ToySequence]:
        assert self.go.wait(60)
        return super().step()


def asked(thread: EngineThread, prompt: str) -> "Future[Ended]":
    given = ModelInput(prompt, np.arange(len(prompt), dtype=np.int32))
    return thread.answer("key", given, Sampling(), frozenset(), None)


def with_a_question(engine: HeldEngine) -> tuple[EngineThread, "Future[Ended]"]:
    """Return the engine's thread and a question that the engine has got and not yet answered."""
    thread, pause = EngineThread(engine, ToySequence), threading.Event()
    first = asked(thread, "a")
    while not engine.prompts:
        pause.wait(0.01)
    return thread, first


@pytest.mark.timeout(60)
def test_a_question_that_is_taken_back_before_its_turn_is_not_asked_and_the_others_are() -> None:
    engine = HeldEngine()
    thread, first = with_a_question(engine)
    second, third = asked(thread, "taken back"), asked(thread, "abc")
    assert second.cancel()
    engine.go.set()
    assert first.result(30).error is None and third.result(30).error is None
    assert engine.prompts == ["a", "abc"]


@pytest.mark.timeout(60)
def test_a_question_under_way_cannot_be_taken_back_and_its_answer_harms_nobody() -> None:
    engine = HeldEngine()
    thread, first = with_a_question(engine)
    assert not first.cancel()
    engine.go.set()
    assert first.result(30).error is None
    assert asked(thread, "ab").result(30).error is None


@pytest.mark.timeout(60)
def test_a_death_is_told_to_all_who_still_wait_whoever_has_gone() -> None:
    engine = HeldEngine(dies_on="a")
    thread, first = with_a_question(engine)
    gone, waiting = asked(thread, "ab"), asked(thread, "abc")
    assert gone.cancel()
    engine.go.set()
    for one in (first, waiting):
        with pytest.raises(EngineDied, match="device-side assert"):
            one.result(30)
