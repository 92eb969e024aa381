"""Look at every node of a cluster before a run starts: it has the code, and reaches what the settings name.

Last part of the preflight; small tasks, one on each node. It knows Ray, and nothing of rows.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.execution.cluster.placement import Node
from pipeline.job import Job
from pipeline.state import ledger
from pipeline.storage.faults import is_of_bucket
from pipeline.storage.file_systems import scheme_of
from pipeline.storage.probes import probe
from pipeline.storage.store import WITHOUT_RANGES, NotFound, StorageError, Store

log = logging.getLogger(__name__)

# A node that has just joined starts its first process, and fetches the code, in a few seconds.
ANSWERS_WITHIN_S = 300.0

# A store and a file of it.
StoredFile = tuple[Store, str]
# Which paths are missing; why a setting's store cannot be used; the packages' versions.
NodeReport = tuple[list[str], dict[str, str], dict[str, str]]


def probe_nodes(
    nodes: Sequence[Node], job: Job, paths: Mapping[str, str], files: Mapping[str, StoredFile]
) -> list[str]:
    """Ask each node; return what is wrong with it.

    Args:
        nodes: Those of the running Ray.
        job: Sent to each node, to see whether the code that it needs is there.
        paths: Local paths that each node must find, and the setting that each comes from.
        files: For each setting that names a store in a network, what each node asks it for; a file that is not
            there is an answer, too.
    """
    import ray

    # A web server may answer with all of a file, and asks nobody who they are.
    probed = {name: file for name, file in files.items() if _is_asked(file[0])}
    answers = [_asks(node).remote(job, list(paths), probed) for node in nodes]
    faults: list[str] = []
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    for node, answer in zip(nodes, answers, strict=True):
        try:
            missing, troubles, versions = ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            faults.append(f"ray: node {node.name} did not answer within {ANSWERS_WITHIN_S:g} s; is it overloaded?")
            continue
        except Exception as error:  # Ray wraps an import error in several classes
            faults.append(_code_fault(node, error))
            continue
        faults += [_path_fault(paths[path], path, node) for path in missing]
        faults += [f"{setting}: node {node.name} {trouble}" for setting, trouble in troubles.items()]
        _compare(versions, node)
    # The same code is missing everywhere, and the same path on most nodes: say it a few times, not a thousand.
    return faults if len(faults) <= 5 else [*faults[:5], f"... and {len(faults) - 5} more faults of this kind"]


@contextmanager
def marked(store: Store) -> Iterator[dict[str, str]]:
    """Put a file into a local output for the others to find; give its path, and the setting that it comes from."""
    if not store.is_local:
        yield {}
        return
    with probe(store) as name:
        store.publish(name, b"")
        yield {f"{store.uri}/{name}": "write.uri"}


def _asks(node: Node) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    look: Any = ray.remote(num_cpus=0)(probe_from_node)
    return look.options(scheduling_strategy=there)


def probe_from_node(job: Job, paths: list[str], files: Mapping[str, StoredFile]) -> NodeReport:
    """Say, from where this is done, what is missing, which stores refuse, and which versions the packages have."""
    assert job.kind
    troubles = {setting: trouble for setting, file in files.items() if (trouble := _trouble(*file))}
    return [path for path in paths if not os.path.exists(path)], troubles, ledger.versions()


def _is_asked(store: Store) -> bool:
    return not store.is_local and scheme_of(store.uri) not in WITHOUT_RANGES


def _trouble(store: Store, path: str) -> str | None:
    try:
        store.while_looking().read(path, 0, 1)
    except StorageError as error:
        return None if isinstance(error, NotFound) and not is_of_bucket(error) else str(error)
    return None


def _code_fault(node: Node, error: Exception) -> str:
    cause = str(error).strip().splitlines()[-1]
    return (
        f"ray: the workers on node {node.name} cannot load this code ({cause}); if you started Ray before the run, "
        "give it runtime_env={'env_vars': {'PYTHONPATH': '<folder of the packages>'}}, or let the run start it; on a "
        "cluster install the same packages on every node"
    )


def _path_fault(setting: str, path: str, node: Node) -> str:
    if setting == "write.uri":
        missing = f"a file written here is missing on node {node.name}"
        return f"write.uri: {missing}; expected a folder that all nodes share, or a store such as s3://"
    return (
        f"{setting}: {path} does not exist on node {node.name}; expected the same path on every node, or a store such "
        "as s3://"
    )


def _compare(versions: Mapping[str, str], node: Node) -> None:
    here = ledger.versions()
    other = [f"{name} {version} (here {here[name]})" for name, version in versions.items() if here.get(name) != version]
    if other and all(name in here for name in versions):
        log.warning("node %s has %s: answers may differ from those of other nodes", node.name, ", ".join(other))
