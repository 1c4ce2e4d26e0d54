"""Several pods that train one run: when one is lost, the others let go, and all of them go on together, bit for bit."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster
from tests.cluster.jobs_cases import Case, carry_out, evict, in_the_middle, pid_of
from tests.cluster.jobs_runs import RECIPE, Place, Training, bucket

pytestmark = pytest.mark.timeout(600)

RECIPE_OF_TWO: Mapping[str, Any] = {**RECIPE, "textEncoder": {"steps": 2, "learningRate": 1e-5}, "batchSize": 2}
Cases = Callable[[str], Case]


def undisturbed(place: Place) -> Case:
    """Nothing happens."""
    return carry_out(pair(place, "undisturbed"), lambda training: None)


def helper_killed(place: Place) -> Case:
    """The pod that only computes is killed without a word."""
    return in_the_middle(pair(place, "helper-killed"), lambda training: os.kill(pid_of(training, 1), signal.SIGKILL))


def writer_evicted(place: Place) -> Case:
    """The pod that writes is evicted."""

    def evict_writer(training: Training) -> None:
        index = "batch.kubernetes.io/job-completion-index"
        (writer,) = (pod for pod in training.pods() if pod["metadata"]["annotations"][index] == "0")
        evict(place, writer)

    return in_the_middle(pair(place, "writer-evicted"), evict_writer)


def pair(place: Place, run: str) -> Training:
    """A training by two pods without GPUs."""
    return place.training(run, RECIPE_OF_TWO, nodes=2, gpu={"enabled": False})


@pytest.fixture(scope="module")
def cases(cluster: Cluster, images_on_node: Callable[[str], str]) -> Iterator[Cases]:
    """Every case by the name of its function; waits until it is over."""
    images_on_node("dreambooth")
    with (
        cluster.namespace("jobs-pods") as namespace,
        bucket(cluster) as store,
        ThreadPoolExecutor(2) as pool,
    ):
        cluster.apply(minio.credentials(namespace))
        place = Place(cluster, namespace, store)
        named = (undisturbed, helper_killed, writer_evicted)
        found: dict[str, Future[Case]] = {each.__name__: pool.submit(each, place) for each in named}
        yield lambda name: found[name].result()


def codes(case: Case) -> Counter[int]:
    """How often pods ended with each exit code."""
    return Counter(attempt.exit_code for attempt in case.attempts)


def test_two_pods_train_to_the_end(cases: Cases) -> None:
    case = cases("undisturbed")
    assert case.end == "`Complete`"
    assert codes(case) == {0: 2}
    assert case.starts == [1]


def test_one_killed_pod_counts_once_and_both_go_on(cases: Cases) -> None:
    case = cases("helper_killed")
    print(case.starts, case.attempts)
    assert case.end == "`Complete`"
    assert codes(case) == {137: 1, 76: 1, 0: 2}
    assert case.num_counted == 1
    assert case.is_whole
    assert case.result == cases("undisturbed").result


def test_one_evicted_pod_counts_nothing_and_both_go_on(cases: Cases) -> None:
    case = cases("writer_evicted")
    print(case.starts, case.attempts)
    assert case.end == "`Complete`"
    assert codes(case) == {143: 1, 76: 1, 0: 2}
    assert case.num_counted == 0
    assert case.is_whole
    assert case.result == cases("undisturbed").result
