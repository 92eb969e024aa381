import pytest

from pipeline.execution.cluster.placement import (
    LEAST_ACTOR_CPUS,
    READ_CPUS,
    WRITE_CPUS,
    Node,
    Placement,
    PlacementError,
    place_actors,
)
from pipeline.execution.stream import units_in_flight
from tests.pipeline.drivers import engine

Actors = int | tuple[int, int] | None


def alike(cpus: float, *gpus: float) -> list[Node]:
    """Nodes with these GPUs, or one without any, that have so many CPUs together."""
    return [Node(f"node {place}", cpus / max(1, len(gpus)), each) for place, each in enumerate(gpus or (0.0,))]


def placed(
    cpus: float, *gpus: float, preprocess: Actors = None, device: str = "auto", **generate: float | tuple[int, int]
) -> Placement:
    return placed_on(alike(cpus, *gpus), preprocess, device, **generate)


def placed_on(
    nodes: list[Node], preprocess: Actors = None, device: str = "auto", **generate: float | tuple[int, int]
) -> Placement:
    placement = place_actors(nodes, engine(device=device, generate=generate, preprocess={"actors": preprocess}))
    used = placement.preprocess.least * placement.preprocess.cpus + placement.generate.least * placement.generate.cpus
    cpus = sum(node.cpus - READ_CPUS - WRITE_CPUS for node in nodes)
    assert used <= cpus + 1e-9, "a task of each other step must fit beside all actors"
    return placement


@pytest.mark.parametrize(
    ("cpus", "gpus"),
    # Four engines on one CPU are refused, see below.
    [
        (cpus, gpus)
        for cpus in (1, 2, 3, 4, 7, 16, 64)
        for gpus in ((), (1.0,), (2.0, 2.0))
        if cpus > 1 or len(gpus) < 2
    ],
)
def test_whatever_there_is_the_default_leaves_room_for_every_step(cpus: int, gpus: tuple[float, ...]) -> None:
    placement = placed(cpus, *gpus)
    assert placement.generate.least == max(1, int(sum(gpus)))


def test_two_engines_share_a_small_machine() -> None:
    placement = placed(2, actors=2)
    assert placement.preprocess.least == 1 and placement.generate.cpus >= 0.5 and placement.generate.gpus == 0


def test_an_engine_on_the_cpu_gets_the_cpus_that_are_left() -> None:
    assert placed(16).generate.cpus == 14


def test_a_gpu_is_fed_by_many_cpus() -> None:
    placement = placed(16, 1.0)
    assert placement.preprocess.least == 14 and placement.generate.gpus == 1


@pytest.mark.parametrize(
    ("gpus", "generate", "message"),
    [
        (
            (2.0,),
            {"actors": 3, "gpus": 1},
            r"found 3 engines with 1 GPU each, but Ray has 2 GPUs; lower generate.actors or generate.gpus",
        ),
        ((1.0, 1.0), {"actors": 1, "gpus": 2}, r"found 1 engine with 2 GPUs each, but Ray has 1 \+ 1 GPUs"),
        ((), {"gpus": 1}, r"but Ray has 0 GPUs"),
        ((), {"actors": 9}, r"found 1 \+ 9 actors, but Ray has 2 CPUs"),
    ],
)
def test_more_than_there_is_is_refused(gpus: tuple[float, ...], generate: dict[str, float], message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        placed(2, *gpus, **generate)


def test_a_wanted_gpu_is_never_replaced_by_the_cpu() -> None:
    with pytest.raises(PlacementError, match="Ray has 0 GPUs"):
        placed(8, device="cuda")
    with pytest.raises(PlacementError, match=r"found 'cuda' with generate.gpus=0"):
        placed(8, 1.0, device="cuda", gpus=0)


def test_gpus_that_nothing_would_run_on_are_refused() -> None:
    with pytest.raises(PlacementError, match=r"generate.gpus: found 4 with model.device='cpu', expected 0 or null"):
        placed(16, 4.0, device="cpu", gpus=4)
    assert placed(16, 4.0, device="cpu").generate.gpus == placed(16, 4.0, device="cpu", gpus=0).generate.gpus == 0


def test_parts_of_a_gpu_are_shared() -> None:
    assert placed(8, 1.0, gpus=0.5).generate.least == 2
    assert placed(8, 1.0, gpus=0.4, actors=2).generate.least == 2
    with pytest.raises(PlacementError):
        placed(8, 1.0, gpus=0.4, actors=3)


def test_each_actor_has_at_least_a_share_that_lets_it_work() -> None:
    assert placed(8, preprocess=20).preprocess.cpus >= LEAST_ACTOR_CPUS


def test_units_in_flight_hold_twice_the_slots() -> None:
    assert units_in_flight(slots=32, unit_rows=32) == 2
    assert units_in_flight(slots=64, unit_rows=16) == 8
    assert units_in_flight(slots=8, unit_rows=512) == 2


def checking(cpus: float, *gpus: float, generate: dict[str, float] | None = None, **check: float) -> Placement:
    return place_actors(alike(cpus, *gpus), engine(generate=generate or {}), engine(where="check.", generate=check))


def test_a_model_that_checks_gets_one_engine_and_leaves_the_other_gpus() -> None:
    placement = checking(16, 4.0, 4.0)
    assert (placement.generate.least, placement.generate.gpus) == (7, 1.0)
    assert (placement.check.least, placement.check.gpus) == (1, 1.0)
    assert placement.generate.least + placement.check.least + placement.preprocess.least <= 16


def test_two_models_may_share_one_gpu() -> None:
    placement = checking(8, 1.0, generate={"gpus": 0.75}, gpus=0.25)
    assert (placement.generate.least, placement.check.least) == (1, 1)


def test_without_gpus_two_models_share_the_cpus() -> None:
    placement = checking(2)
    used = placement.preprocess.cpus + placement.generate.cpus + placement.check.cpus
    assert placement.check.least == 1 and used <= 2 - READ_CPUS - WRITE_CPUS + 1e-9
    assert min(placement.preprocess.cpus, placement.generate.cpus, placement.check.cpus) >= LEAST_ACTOR_CPUS


def test_a_single_gpu_is_too_few_for_two_whole_engines_and_the_message_says_what_to_do() -> None:
    with pytest.raises(PlacementError, match=r"beside those of the model that checks; .*generate.gpus=0.8"):
        checking(8, 1.0)
    with pytest.raises(PlacementError, match=r"check.generate: found 2 engines with 1 GPU each"):
        checking(8, 1.0, actors=2)


@pytest.mark.parametrize("cpus", [2, 4, 16])
def test_a_pool_that_may_grow_gets_shares_that_let_it(cpus: int) -> None:
    placement = placed(cpus, actors=(1, 2))
    assert (placement.generate.least, placement.generate.most) == (1, 2)
    used = placement.preprocess.cpus + 2 * placement.generate.cpus
    assert used <= cpus - READ_CPUS - WRITE_CPUS + 1e-9 and placement.generate.cpus >= 0.5


def test_a_pool_may_grow_beyond_what_is_there() -> None:
    placement = placed(1, preprocess=(1, 9), actors=(1, 50))
    assert (placement.preprocess.most, placement.generate.most) == (9, 50)
    assert placement.preprocess.cpus == placement.generate.cpus == 0.4
    on_gpus = placed(8, 1.0, actors=(1, 4), gpus=1)
    assert (on_gpus.generate.least, on_gpus.generate.most) == (1, 4)


def test_the_least_of_a_pool_must_fit() -> None:
    with pytest.raises(PlacementError, match="found 3 engines with 1 GPU each, but Ray has 2 GPUs"):
        placed(8, 2.0, actors=(3, 9), gpus=1)


def test_a_fixed_pool_does_not_grow() -> None:
    placement = placed(8, preprocess=2, actors=3)
    assert (placement.preprocess.most, placement.generate.most) == (2, 3)


def test_no_actor_is_larger_than_a_node() -> None:
    assert placed_on([Node(f"{place}", 4) for place in range(4)]).generate.cpus == 3
    small = placed_on([Node("a", 1), Node("b", 1)], actors=2)
    assert LEAST_ACTOR_CPUS <= small.generate.cpus <= 0.4


def test_actors_that_fit_the_sum_of_the_nodes_but_no_single_one_are_refused() -> None:
    with pytest.raises(PlacementError, match=r"found 1 \+ 3 actors, but Ray has 0.4 \+ 0.4 \+ 0.4 \+ 0.4 CPUs"):
        placed_on([Node(f"{place}", 0.4) for place in range(4)], actors=3)


def test_many_nodes_are_placed_at_once_and_told_in_few_words() -> None:
    nodes = [Node(f"{place}", 64, 8.0) for place in range(500)]
    assert placed_on(nodes).generate.least == 4000
    with pytest.raises(PlacementError, match="Ray has 500 x 8 GPUs"):
        placed_on(nodes, actors=5000)
