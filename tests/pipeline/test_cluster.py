import pytest

from pipeline.cluster import RaySettings
from pipeline.settings import ConfigError, check_settings


def test_settings_of_a_local_ray_are_refused_for_a_cluster() -> None:
    with pytest.raises(ConfigError, match="object_store_bytes is for a local Ray"):
        check_settings(RaySettings, {"address": "auto", "object_store_bytes": 10**9})
    with pytest.raises(ConfigError, match="expected host:port"):
        check_settings(RaySettings, {"address": "ray://head:10001"})
