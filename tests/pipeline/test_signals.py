"""A signal that somebody's code has swallowed is not lost."""

import contextlib
import os
import signal

import pytest

from pipeline.execution.cluster.signals import heard_signals


def ask(name: signal.Signals) -> None:
    os.kill(os.getpid(), name)


def test_an_interrupt_that_was_swallowed_is_raised_at_the_next_look() -> None:
    with heard_signals() as check:
        check()
        with contextlib.suppress(KeyboardInterrupt):
            ask(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_program_does_at_a_second_signal_stays_as_it_wants_it() -> None:
    heard: list[int] = []

    def first(number: int, frame: object) -> None:
        heard.append(number)
        signal.signal(signal.SIGTERM, second)

    def second(number: int, frame: object) -> None:
        heard.append(-number)

    kept = signal.signal(signal.SIGTERM, first)
    try:
        with heard_signals():
            ask(signal.SIGTERM)
            ask(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is second
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert heard == [signal.SIGTERM, -signal.SIGTERM]
