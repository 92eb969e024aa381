"""Where CPU time goes, and what is computed, in code that is not to be changed for it. Knows no model."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

# What to watch: an owner (module, class or object) and the name of its function, by what their time is called.
Parts = Mapping[str, Sequence[tuple[Any, str]]]


class Stopwatch:
    """CPU seconds of each part, without those of parts inside it."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._inner: list[float] = []  # of each call that runs, what parts inside it took so far

    @contextmanager
    def watching(self, parts: Parts) -> Iterator[None]:
        """Wrap the functions for a while; what none of them takes is the part `rest`."""
        with pytest.MonkeyPatch.context() as patch:
            for part, places in parts.items():
                for owner, name in places:
                    patch.setattr(owner, name, self._timed(part, getattr(owner, name)))
            with self._part("rest"):
                yield

    def percent(self) -> dict[str, float]:
        """Return each part's share of the time, the greatest first."""
        total = sum(self._seconds.values())
        shares = {part: round(100 * seconds / total, 1) for part, seconds in self._seconds.items()}
        return dict(sorted(shares.items(), key=lambda share: -share[1]))

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            with self._part(part):
                return function(*args, **options)

        return timed

    @contextmanager
    def _part(self, part: str) -> Iterator[None]:
        self._inner.append(0.0)
        started = time.process_time()
        try:
            yield
        finally:
            took = time.process_time() - started
            self._seconds[part] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took


@contextmanager
def seen(owner: Any, name: str, look: Callable[[Sequence[Any], Any], T]) -> Iterator[list[T]]:
    """Give what `look` makes of the arguments and the result of each call of a function, for a while."""
    function = getattr(owner, name)
    found: list[T] = []

    def looked_at(*args: Any, **options: Any) -> Any:
        result = function(*args, **options)
        found.append(look(args, result))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, looked_at)
        yield found
