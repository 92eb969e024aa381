import logging

import pytest

from pipeline.execution.cluster.placement import Node
from pipeline.preflight.memory import CpuEngines, store_faults, weights_faults

GB = 10**9


def node(memory: int = 16 * GB, store: int = 2 * GB) -> Node:
    return Node("n", 8, memory_bytes=memory, object_store_bytes=store)


def test_weights_that_fit_are_no_fault() -> None:
    assert weights_faults([node()], [CpuEngines("", 3, "auto", GB)]) == []
    assert weights_faults([node(), node()], [CpuEngines("", 2, "bfloat16", 8 * GB)]) == []


def test_engines_on_the_cpu_whose_weights_do_not_fit_are_told_what_would() -> None:
    (fault,) = weights_faults([node()], [CpuEngines("", 3, "auto", 2 * GB)])
    assert fault == (
        "generate.actors: the weights take 8.0 GB in float32 for each of 3 engines on the CPU, but the nodes have "
        "16.0 GB free; expected a node with more memory, or a GPU, or generate.actors=2, or model.dtype=bfloat16 "
        "(half of it, and slower on most)"
    )


def test_an_engine_is_not_spread_over_nodes() -> None:
    (fault,) = weights_faults([node(6 * GB), node(6 * GB)], [CpuEngines("", 1, "bfloat16", 4 * GB)])
    assert "8.0 GB in bfloat16" in fault and "6.0 GB + 6.0 GB free" in fault and "dtype" not in fault.split("free;")[1]


def test_the_model_that_checks_takes_its_memory_too() -> None:
    engines = [CpuEngines("", 1, "float32", 2 * GB), CpuEngines("job.check.", 1, "float32", 3 * GB)]
    (fault,) = weights_faults([node()], engines)
    assert "8.0 GB in float32 for each of 1 engines" in fault
    assert weights_faults([node(), node()], engines) == []


def test_nodes_that_do_not_say_how_much_memory_they_have_are_believed() -> None:
    assert weights_faults([node(0)], [CpuEngines("", 9, "float32", GB)]) == []


def test_a_unit_too_large_for_the_object_store_is_a_fault() -> None:
    (fault,) = store_faults([node(store=200 * 10**6)], row_bytes=4 * 10**6, unit_rows=32, units=8)
    assert fault.startswith("write.unit_rows: two units of 32 rows take 256 MB as they are read or made ready for the")
    assert "the largest object store has 200 MB" in fault and "ray.object_store_bytes" in fault


def test_more_units_than_the_object_store_holds_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert store_faults([node(), node()], row_bytes=4 * 10**6, unit_rows=32, units=32) == []
    assert "up to 32 units of 128 MB" in caplog.text and "4.0 GB together" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert store_faults([node(), node()], row_bytes=4 * 10**6, unit_rows=32, units=31) == []
    assert caplog.text == ""
