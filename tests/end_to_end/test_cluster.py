"""A run on a cluster of several nodes, each with a folder, a cache and processes of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.execution.cluster.start import nodes as cluster_nodes
from pipeline.preflight.nodes import probe_nodes
from pipeline.storage.store import Store
from tests import s3 as s3_server
from tests.cluster import Cluster, Node, cluster
from tests.end_to_end.shards import caption_job, write_shards
from tests.promise import part_faults
from tests.proxy import Proxy, proxy
from tests.s3 import S3

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
ROWS, UNIT_ROWS, PART_ROWS = 320, 8, 32
PATIENCE_S = 480.0


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str) -> Iterator[S3]:
    """A bucket for all runs here, with its credentials in the environment as a user's would be."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.ENVIRONMENT.items():
            patch.setenv(name, value)
        s3_server.make_bucket(s3_endpoint, "cluster")
        yield S3(s3_endpoint, "cluster", dict(s3_server.ENVIRONMENT))


@pytest.fixture(scope="module")
def server(bucket: S3) -> Iterator[Proxy]:
    """The store as the runs reach it: it notes what is asked of it."""
    with proxy(bucket.endpoint_url) as counted:
        yield counted


@pytest.fixture(scope="module")
def inputs(bucket: S3, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Shards and weights in the bucket; nothing of them lies where a node could find it by a path."""
    store = Store(bucket.uri, bucket.settings)
    shards = write_shards(tmp_path_factory.mktemp("shards"), shards=2, rows=ROWS // 2)
    for path in [*sorted(shards.iterdir()), *sorted(checkpoint.iterdir())]:
        store.publish(f"{'weights' if path.parent == checkpoint else 'in'}/{path.name}", path.read_bytes())
    return store


@pytest.fixture(scope="module")
def nodes(bucket: S3) -> Iterator[Cluster]:
    """Two nodes of one CPU each, which know this code as little as they know the user's folder."""
    with cluster(1, 1, RAY_AUTH_MODE="disabled") as started:
        yield started


WITH_A_WORKING_DIR = """
import sys
import ray
from jobs.__main__ import main

options = {"logging_level": "ERROR", "log_to_driver": False}
ray.init(address=sys.argv[1], runtime_env={"working_dir": sys.argv[2]}, **options)
sys.exit(main(["run", "run.yaml"]))
"""


class Run:
    """The command line, started somewhere else than in the repository, on a cluster."""

    def __init__(
        self,
        folder: Path,
        nodes: Cluster,
        server: Proxy,
        name: str,
        working_dir: Path | None = None,
        **sections: dict[str, Any],
    ) -> None:
        folder.mkdir()
        storage = {"endpoint_url": server.url}
        settings = {
            "read": {"uri": "s3://cluster/in", "storage": storage},
            "model": {"path": "s3://cluster/weights", "device": "cpu"},
            "generate": {"slots": 2, "sampling": {"max_new_tokens": 60, "temperature": 1.0, "seed": 5}},
            "write": {
                "uri": f"s3://cluster/{name}",
                "unit_rows": UNIT_ROWS,
                "rows_per_part": PART_ROWS,
                "storage": storage,
            },
            "ray": {"address": nodes.address},
            "job": {"kind": "caption", "prompt": "Describe this image."},
        }
        merged = {section: {**values, **sections.get(section, {})} for section, values in settings.items()}
        (folder / "run.yaml").write_text(yaml.safe_dump(merged))
        self.output = name
        command = ["-m", "jobs", "run", "run.yaml"]
        if working_dir:
            command = ["-c", WITH_A_WORKING_DIR, nodes.address, str(working_dir)]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={
                **nodes.environment,
                "PYTHONPATH": str(working_dir or ROOT),
                "TRIPTYCH_CACHE": str(folder / "cache"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        nodes.runs.append(self.process)

    def wait_for_plan(self, store: Store) -> None:
        """Return when the run has begun, and nothing is answered yet."""
        self._wait(lambda: "_triptych/plan.parquet" in names(store, self.output), "plan")

    def wait_for_units(self, store: Store, number: int) -> None:
        """Return when so many units are committed."""
        self._wait(lambda: _rows_done(store, self.output) >= number * UNIT_ROWS, f"{number} units")

    def finish(self) -> str:
        """Wait for the end; return what was said."""
        try:
            said, _ = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            said, _ = self.process.communicate()
        assert self.process.returncode == 0, said
        return said

    def _wait(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert self.process.poll() is None, f"the run ended before {what}: {self.process.communicate()[0]}"
            assert time.monotonic() < deadline, f"no {what} in {PATIENCE_S:g} s"
            time.sleep(0.1)


def _rows_done(store: Store, output: str) -> int:
    """Count the rows that stand in units and parts."""
    paths = [entry.path for entry in store.list(output)]
    parts = sum("/part-" in path for path in paths)
    return parts * PART_ROWS + sum("/_triptych/units/" in path for path in paths) * UNIT_ROWS


def parts_of(store: Store, output: str) -> dict[str, bytes]:
    """The content of every part."""
    return {path: store.read(f"{output}/{path}") for path in names(store, output) if path.startswith("part-")}


def names(store: Store, output: str) -> list[str]:
    """Every file of an output."""
    return [entry.path.removeprefix(f"{output}/") for entry in store.list(output)]


def weights_in(node: Node) -> list[str]:
    """The checkpoints that a node has fetched."""
    return [path.parent.name for path in node.cache.glob("*/model.safetensors")]


@pytest.fixture(scope="module")
def undisturbed(nodes: Cluster, server: Proxy, inputs: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with an engine on each of two nodes; returns its output."""
    run = Run(tmp_path_factory.mktemp("user") / "elsewhere", nodes, server, "undisturbed", generate={"actors": 2})
    run.finish()
    return run.output


def test_code_and_weights_reach_every_node_and_the_weights_once(
    undisturbed: str, nodes: Cluster, server: Proxy, inputs: Store
) -> None:
    assert [len(weights_in(node)) for node in nodes.nodes] == [1, 1]
    fetched = [line for line in server.requests if line.startswith("GET") and "model.safetensors" in line]
    assert len(fetched) == 3, "once for each node, and once where the run was started"


@pytest.mark.chaos
def test_a_lost_node_costs_no_row_whatever_it_had_in_hand(
    undisturbed: str, nodes: Cluster, server: Proxy, inputs: Store, tmp_path: Path
) -> None:
    run = Run(tmp_path / "elsewhere", nodes, server, "lost", generate={"actors": 2})
    run.wait_for_units(inputs, 8)
    nodes.nodes[1].kill()
    run.finish()  # with what is left, or with less if actors of the lost node find no room there
    assert part_faults(parts_of(inputs, "lost"), parts_of(inputs, undisturbed)) == []


@pytest.mark.chaos
def test_a_node_that_joins_a_run_shipped_by_working_dir_gets_work(
    undisturbed: str, nodes: Cluster, server: Proxy, inputs: Store, tmp_path: Path
) -> None:
    for room in ("models", "pipeline", "jobs"):
        shutil.copytree(ROOT / room, tmp_path / "code" / room, ignore=shutil.ignore_patterns("__pycache__", "demo"))
    actors = {"actors": [1, 4]}
    run = Run(tmp_path / "elsewhere", nodes, server, "joined", working_dir=tmp_path / "code", generate=actors)
    run.wait_for_plan(inputs)  # and so for its share of the nodes that were there
    joined = nodes.add(1)
    run.finish()
    assert len(weights_in(joined)) == 1, "an engine was loaded there"
    assert part_faults(parts_of(inputs, "joined"), parts_of(inputs, undisturbed)) == []


def test_what_a_node_does_not_have_is_said_before_anything_starts(ray_session: None) -> None:
    there = cluster_nodes()
    absent = {"/nowhere/weights": "model.path", str(ROOT): "read.uri"}
    (fault,) = probe_nodes(there, caption_job(), absent, {})
    assert fault == (
        f"model.path: /nowhere/weights does not exist on node {there[0].name}; expected the same path on every node, "
        "or a store such as s3://"
    )
