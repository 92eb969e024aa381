"""Show a run's progress to Prometheus, while it runs, at http://HOST:PORT/metrics."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline import ConfigError

# Names of the numbers that stand alone, and what each is.
GAUGES = {
    "rows": "rows of the whole run",
    "done": "rows committed",
    "failed": "error rows of this start",
    "prompt_tokens": "tokens read by this start",
    "output_tokens": "tokens written by this start",
    "seconds": "seconds since this start",
    "seconds_left": "seconds until the last commit",
    "rows_per_s": "rows committed a second, of late",
    "prompt_tokens_per_s": "tokens read a second, of late",
    "output_tokens_per_s": "tokens written a second, of late",
}


@contextmanager
def served_metrics(port: int, numbers: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Answer Prometheus as long as the context stands.

    Args:
        port: Where; 0 takes any that is free.
        numbers: Gives the present numbers; see `pipeline.run.progress_numbers`.

    Raises:
        ConfigError: The port is taken.
    """
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Numbers(Collector):
        def collect(self) -> Iterator[GaugeMetricFamily]:
            now = numbers()
            for name, what in GAUGES.items():
                if now.get(name) is not None:
                    yield GaugeMetricFamily(f"triptych_{name}", what, value=now[name])
            busy = GaugeMetricFamily(
                "triptych_busy", "share of its time that a step was busy, of late", labels=["step"]
            )
            for step, share in now.get("busy", {}).items():
                busy.add_metric([step], share)
            yield busy
            failures = GaugeMetricFamily("triptych_failures", "error rows of a kind", labels=["stage", "type"])
            for kind in now.get("failures", ()):
                failures.add_metric([kind["stage"], kind["type"]], kind["count"])
            yield failures

    registry = CollectorRegistry()
    registry.register(Numbers())
    try:
        server, thread = start_http_server(port, registry=registry)
    except OSError as error:
        raise ConfigError(
            "the command line", [f"--metrics-port {port}: {error.strerror}; name another port"]
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
