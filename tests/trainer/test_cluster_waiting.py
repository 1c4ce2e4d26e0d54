"""Why a run does not work yet."""

from typing import Any

import pytest
from jobs.names import QUEUE_LABEL
from trainer.cluster.live import Happening, LiveJob
from trainer.cluster.waiting import asks_events, reason

from tests.trainer.cluster_objects import NOW, UID, condition, ended, live_job, live_pod, running

SAID = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": SAID}


def waiting(name: str, message: str = "") -> Any:
    return live_pod("a", "Pending", {"waiting": {"reason": name, "message": message}})


def warning(name: str, text: str) -> Happening:
    return Happening(name, text, True, NOW)


def test_the_schedulers_words() -> None:
    pod = live_pod("a", "Pending", conditions=[UNSCHEDULABLE])
    assert reason(live_job(), [pod], ()) == f"no node for its pod: {SAID}"
    assert asks_events(live_job(), [pod]) == ""


@pytest.mark.parametrize("name", ["ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError", "InvalidImageName"])
def test_a_container_that_cannot_start(name: str) -> None:
    assert reason(live_job(), [waiting(name, "because")], ()) == f"its container cannot start: {name}: because"


def test_events_say_what_no_status_says() -> None:
    creating = waiting("ContainerCreating")
    mount = [Happening("Pulled", "fine", False, NOW), warning("FailedMount", 'secret "store" not found')]
    assert asks_events(live_job(), [creating]) == "uid-a"
    assert reason(live_job(), [creating], mount) == 'FailedMount: secret "store" not found'
    assert asks_events(live_job(), []) == UID
    assert reason(live_job(), [], [warning("FailedCreate", "exceeded quota")]) == "FailedCreate: exceeded quota"
    assert reason(live_job(), [], [warning("BackoffLimitExceeded", "no more")]) == ""


def test_nothing_is_said_while_the_program_works() -> None:
    pods = [live_pod("a", "Failed", ended(1)), live_pod("b", state=running())]
    assert reason(live_job(), pods, [warning("FailedCreate", "before")], "before") == ""
    assert asks_events(live_job(), pods) == ""
    assert reason(live_job(condition("Complete")), [], (), "before") == ""


def test_as_long_as_a_pod_of_several_is_missing_it_is_said_why() -> None:
    job = live_job(completionMode="Indexed", completions=2)
    first = live_pod("a", state=running())
    second = live_pod("b", "Pending", conditions=[UNSCHEDULABLE], index=1)
    assert reason(job, [first, second], ()) == f"no node for its pod: {SAID}"
    creating = live_pod("b", "Pending", {"waiting": {"reason": "ContainerCreating", "message": ""}}, index=1)
    assert asks_events(job, [first, creating]) == "uid-b"
    assert reason(job, [first], [warning("FailedCreate", "exceeded quota")]) == "FailedCreate: exceeded quota"
    for other in (live_pod("b", state=running(), index=1), live_pod("b", "Succeeded", ended(0), index=1)):
        assert reason(job, [first, other], (), "no node") == ""
        assert asks_events(job, [first, other]) == ""
    again = live_pod("c", state=running(), index=0)
    assert reason(job, [live_pod("a", "Failed", ended(1)), again, second], ()) == f"no node for its pod: {SAID}"


def test_what_was_known_stands_until_a_pod_says_something_else() -> None:
    assert reason(live_job(), [], (), "no node") == "no node"
    assert reason(live_job(), [waiting("ContainerCreating")], (), "no node") == ""


def test_the_two_words_for_a_failed_pull_do_not_take_turns() -> None:
    known = reason(
        live_job(), [waiting("ImagePullBackOff", "Back-off")], (), "its container cannot start: ErrImagePull"
    )
    assert known == "its container cannot start: ImagePullBackOff: Back-off"
    assert reason(live_job(), [waiting("ErrImagePull", "no such image")], (), known) == known


def test_suspended_by_a_queue_or_by_a_person() -> None:
    queued = live_job(suspend=True)
    queued = LiveJob.of({**queued.raw, "metadata": {**queued.raw["metadata"], "labels": {QUEUE_LABEL: "gpus"}}})
    assert reason(queued, [], ()) == "waits in queue 'gpus' of Kueue"
    assert reason(live_job(suspend=True), [], (), "no node") == ""
