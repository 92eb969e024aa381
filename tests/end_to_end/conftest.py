"""One Ray for all end-to-end tests: two CPUs, and two GPUs that exist only in Ray's books."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.execution.cluster.start import start_ray
from pipeline.pipeline_settings import RaySettings
from tests import s3 as s3_server


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start Ray as a run would, but with GPUs in its books and with what an S3 user has in the environment."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", s3_server.ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.SECRET_KEY)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        start_ray(RaySettings(object_store_bytes=500 * 2**20), num_cpus=2, num_gpus=2)
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def checkpoint(aria: Path) -> Path:
    """The checkpoint of runs that any family would do for."""
    return aria


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Ray Data warn itself of its own settings, which it does whenever it copies them."""
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"))
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"))
