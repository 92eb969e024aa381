import pytest
import ray

from pipeline.execution.cluster.start import ClusterError, start_ray
from pipeline.pipeline_settings import RaySettings
from pipeline.settings import ConfigError, check_settings


def test_settings_of_a_local_ray_are_refused_for_a_cluster() -> None:
    with pytest.raises(ConfigError, match="object_store_bytes is for a local Ray"):
        check_settings(RaySettings, {"address": "auto", "object_store_bytes": 10**9})
    with pytest.raises(ConfigError, match="expected host:port"):
        check_settings(RaySettings, {"address": "ray://head:10001"})


def test_an_address_where_nothing_listens_is_said_at_once() -> None:
    if ray.is_initialized():
        pytest.skip("this process has a Ray already, of other tests")
    for address in ("127.0.0.1:1", "head", "127.0.0.1:port"):
        with pytest.raises(ClusterError, match=f"ray.address: nothing answers at '{address}'"):
            start_ray(RaySettings(address=address))


def test_a_ray_that_takes_too_long_to_start_is_a_fault_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(**options: object) -> None:
        raise Exception("The current node timed out during startup.")  # what Ray 2.60 raises, and how

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", slow)
    with pytest.raises(ClusterError, match=r"cannot start a local Ray: .* timed out .*; this machine may be too busy"):
        start_ray(RaySettings())
