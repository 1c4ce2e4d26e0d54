"""What a training survives, and how: docs/training-jobs.md, row by row, on a real node.

All cases begin together and are then looked at one by one; the node's GPUs decide how many train at once.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
from jobs.failures import FATAL_EXIT_CODES

from tests.cluster import jobs_cases
from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import NODE
from tests.cluster.jobs_cases import Case
from tests.cluster.jobs_runs import Place, bucket
from tests.cluster.jobs_store import lasting_store, switch
from tests.cluster.jobs_table import documented, line_of, row_of

pytestmark = pytest.mark.timeout(900)

_AT_ONCE = 3
_SIDE_BY_SIDE = (
    jobs_cases.undisturbed,
    jobs_cases.killed,  # its successor waits for the lease: the longest
    jobs_cases.misconfigured,
    jobs_cases.out_of_memory,
    jobs_cases.deleted,
    jobs_cases.evicted,
    jobs_cases.too_large,
    jobs_cases.drained,
    jobs_cases.suspended,
)
_ON_OWN_STORE = ("store_away", "store_gone")
Cases = Callable[[str], Case]


@pytest.fixture(scope="module")
def cases(cluster: Cluster, images_on_node: Callable[[str], str]) -> Iterator[Cases]:
    """Every case by the name of its function; waits until it is over."""
    images_on_node("dreambooth")
    with (
        cluster.namespace("jobs") as namespace,
        cluster.namespace("jobs-own-store") as with_store,
        bucket(cluster) as store,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        cluster.apply(minio.credentials(namespace))
        place = Place(cluster, namespace, store)
        of_store = pool.submit(_store_cases, cluster, with_store)
        found = {each.__name__: pool.submit(each, place) for each in _SIDE_BY_SIDE}
        # It takes all GPUs away, so it comes when nobody else trains.
        found["preempted"] = pool.submit(_last, [of_store, *found.values()], place)
        yield lambda name: of_store.result()[name] if name in _ON_OWN_STORE else found[name].result()


def _last(before: "list[Future[Any]]", place: Place) -> Case:
    wait(before)
    return jobs_cases.preempted(place)


def _store_cases(cluster: Cluster, namespace: str) -> dict[str, Case]:
    """Those that need a store of their own: it is away for a while, and it never is there."""
    with lasting_store(cluster, namespace):
        endpoint = f"http://{minio.SERVICE}.{namespace}:{minio.PORT}"
        with bucket(cluster, namespace) as store:
            place = Place(cluster, namespace, store, endpoint)
            away = jobs_cases.store_away(place)
        switch(cluster, namespace, on=False)
        return {"store_away": away, "store_gone": jobs_cases.store_gone(place)}


GOES_ON = {
    "undisturbed": "nothing",
    "evicted": "eviction by the Eviction API",
    "drained": "drain of its node",
    "deleted": "`kubectl delete pod`",
    "killed": "SIGKILL of the program",
    "preempted": "preemption by a pod of higher priority",
    "suspended": "the Job is suspended and resumed",
    "store_away": "the store is away for a while",
}
ENDS = {
    "out_of_memory": "more memory than its limit",
    "too_large": "less memory than the training will need",
    "misconfigured": "a wrong setting",
    "store_gone": "the store is never there",
}


@pytest.mark.parametrize("name", GOES_ON)
def test_goes_on_where_it_was(cases: Cases, name: str) -> None:
    case, reference = cases(name), cases("undisturbed").result
    assert reference is not None
    row = row_of(GOES_ON[name], case, reference)
    print(f"{line_of(row)} first steps of its pods: {case.starts}")
    assert row == documented()[row.cause]
    assert row.training == "bit-equal"
    assert case.is_whole, case.starts
    one_pod = name in ("undisturbed", "store_away")
    assert len(case.attempts) == len(case.starts) == (1 if one_pod else 2)


@pytest.mark.parametrize("name", ENDS)
def test_ends_without_a_checkpoint(cases: Cases, name: str) -> None:
    case, reference = cases(name), cases("undisturbed").result
    assert reference is not None
    row = row_of(ENDS[name], case, reference)
    print(line_of(row))
    assert row == documented()[row.cause]
    limit = case.job["spec"]["backoffLimit"]
    assert (
        len(case.attempts) == case.num_counted == (1 if case.attempts[0].exit_code in FATAL_EXIT_CODES else limit + 1)
    )


def test_suspended_job_says_so_and_counts_no_failure(cases: Cases) -> None:
    conditions = {each["type"]: each for each in cases("suspended").job["status"]["conditions"]}
    assert (conditions["Suspended"]["status"], conditions["Suspended"]["reason"]) == ("False", "JobResumed")


def test_wrong_setting_is_explained_by_the_job(cases: Cases) -> None:
    conditions = {each["type"]: each for each in cases("misconfigured").job["status"]["conditions"]}
    assert "failed with exit code 64 matching FailJob rule" in conditions["Failed"]["message"]


def test_drain_leaves_a_node_that_takes_pods(cases: Cases, cluster: Cluster) -> None:
    cases("drained")
    assert "unschedulable" not in cluster.get("node", NODE)["spec"]


def test_every_documented_row_is_tested() -> None:
    assert set(documented()) == {*GOES_ON.values(), *ENDS.values()}
