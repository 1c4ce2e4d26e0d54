"""What may happen to a training, each as a function that lets it happen and waits until its Job is over."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.harness.gpus import REAL_NODE_GPUS
from tests.cluster.harness.layout import NODE
from tests.cluster.harness.manifests import pod, probe, restricted_pod
from tests.cluster.harness.processes import NotReady, wait_until
from tests.cluster.jobs_outcome import Attempt, Result, result_of, starts_of
from tests.cluster.jobs_runs import RECIPE, Place, Training, conditions
from tests.cluster.jobs_store import switch

MIDDLE: Final = 15
"""Things happen when a resume point of this step is published: well before the last step, behind a whole stage."""

_TWO_SILENCES: Final = 180
"""Seconds after which a request must have failed that found the store silent, not gone: DARKROOM_S3_READ_TIMEOUT_SECONDS, twice."""
_INDEX: Final = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True)
class Case:
    """A Job that is over. attempts: its pods. starts: their first steps of the U-Net. result: None without a checkpoint."""

    job: dict[str, Any]
    attempts: list[Attempt]
    starts: list[int]
    result: Result | None

    @property
    def num_counted(self) -> int:
        """Failed pods that were held against the limit."""
        return int(self.job["status"].get("failed", 0))

    @property
    def end(self) -> str:
        """How the Job ended."""
        found = conditions(self.job)
        return "`Complete`" if "Complete" in found else f"`Failed`: `{found['Failed']}`"

    @property
    def is_whole(self) -> bool:
        """Whether every pod but the first went on where the one before had been, in the middle of the stage."""
        return self.starts[0] == 1 and all(MIDDLE < step <= RECIPE["unet"]["steps"] for step in self.starts[1:])


def in_the_middle(training: Training, happen: Callable[[Training], object]) -> Case:
    """Let something happen when the training is in the middle of its second stage."""

    def wait_and_let_happen(training: Training) -> None:
        training.wait_for_step(MIDDLE)
        happen(training)

    return carry_out(training, wait_and_let_happen)


def carry_out(training: Training, happen: Callable[[Training], object], read: bool = True) -> Case:
    """Start a training, let something happen and wait for the end. read: whether it gets as far as to write records."""
    with training.started():
        happen(training)
        job = training.wait_for_end()
    store = training.place.store
    whole = read and "Complete" in conditions(job)
    result = result_of(store, training.name, training.checkpoint) if whole else None
    return Case(job, training.attempts, starts_of(store, training.name) if read else [], result)


def undisturbed(place: Place, run: str = "undisturbed") -> Case:
    """Nothing happens."""
    return carry_out(place.training(run), lambda training: None)


def evicted(place: Place) -> Case:
    """Its pod is evicted, as by a controller that makes room."""
    return in_the_middle(place.training("evicted"), lambda training: evict(place, training.pods()[0]))


def drained(place: Place) -> Case:
    """Its node is drained, of nothing but this run, and given back when the next pod waits for one."""

    def drain(training: Training) -> None:
        options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={training.selector}")
        try:
            place.cluster.kubectl("drain", NODE, *options, "--timeout=120s", timeout=150)
            wait_until("the next pod waits for a node", lambda: is_waiting(training), 60)
        finally:
            place.cluster.kubectl("uncordon", NODE)

    return in_the_middle(place.training("drained"), drain)


def deleted(place: Place) -> Case:
    """Somebody deletes its pod."""
    return in_the_middle(
        place.training("deleted"),
        lambda training: training.kubectl("delete", "pod", f"--selector={training.selector}"),
    )


def killed(place: Place) -> Case:
    """Its process is killed without a word."""

    def kill(training: Training) -> None:
        os.kill(pid_of(training), signal.SIGKILL)

    return in_the_middle(place.training("killed"), kill)


def suspended(place: Place) -> Case:
    """The Job is suspended and, when nothing of it runs any more, resumed."""

    def suspend(training: Training) -> None:
        patch = ("patch", "job", training.job, "--type=merge", "--patch")
        training.kubectl(*patch, '{"spec": {"suspend": true}}')
        training.wait("it is suspended", lambda job: "Suspended" in conditions(job) and not job["status"].get("active"))
        wait_until("its pod is gone", lambda: not training.pods(), 120)
        training.kubectl(*patch, '{"spec": {"suspend": false}}')

    return in_the_middle(place.training("suspended"), suspend)


def store_away(place: Place) -> Case:
    """The store is switched off until the training has said that it goes on without, and some time longer."""

    def switch_off(training: Training) -> None:
        with paused(training):  # it would be over before a store that takes its time has ended
            switch(place.cluster, place.namespace, on=False)
        try:
            wait_until("it goes on", lambda: "resume points wait for the store" in log_of(training), _TWO_SILENCES)
        except NotReady as error:
            error.add_note(log_of(training)[-5000:])
            raise
        finally:
            switch(place.cluster, place.namespace, on=True)

    return in_the_middle(place.training("store-away"), switch_off)


def store_gone(place: Place) -> Case:
    """There never is a store. For a place whose store is switched off."""
    return carry_out(place.training("store-gone", backoffLimit=1), lambda training: None, read=False)


def out_of_memory(place: Place) -> Case:
    """Its memory limit does not even hold its libraries."""
    training = place.training("out-of-memory", resources={"cpu": "100m", "memory": "192Mi"}, backoffLimit=1)
    return carry_out(training, lambda training: None, read=False)


def too_large(place: Place) -> Case:
    """Its memory limit holds its libraries and its model, but not what the steps will need."""
    training = place.training("too-large", resources={"cpu": "100m", "memory": "450Mi"})
    return carry_out(training, lambda training: None, read=False)


def misconfigured(place: Place) -> Case:
    """A variable has a value that the program does not know."""
    training = place.training("misconfigured", env={"DARKROOM_LOG_LEVEL": "loud"})
    return carry_out(training, lambda training: None, read=False)


def preempted(place: Place) -> Case:
    """A pod of higher priority wants all GPUs of the node, and goes again when the next pod of the run waits."""
    name = f"urgent-{place.namespace}"
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1000}
    where = {"nodeSelector": {"kubernetes.io/hostname": NODE}, "priorityClassName": name}
    rival = pod("rival", restricted_pod(probe("sleep", gpus=REAL_NODE_GPUS), **where))
    here = ("--namespace", place.namespace)

    def preempt(training: Training) -> None:
        place.cluster.apply(rival, namespace=place.namespace)
        place.cluster.kubectl("wait", *here, "--for=condition=Ready", "pod/rival", "--timeout=120s", timeout=150)
        wait_until("the next pod waits for a GPU", lambda: is_waiting(training), 60)
        place.cluster.kubectl("delete", "pod", "rival", *here)

    place.cluster.apply(urgent)
    try:
        return in_the_middle(place.training("preempted"), preempt)
    finally:
        place.cluster.kubectl("delete", "priorityclass", name)


def evict(place: Place, victim: Mapping[str, Any]) -> None:
    """Ask for a pod's eviction."""
    name = victim["metadata"]["name"]
    about = {"name": name, "namespace": place.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about}
    path = f"/api/v1/namespaces/{place.namespace}/pods/{name}/eviction"
    place.cluster.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(body))


def is_waiting(training: Training) -> bool:
    """Whether its newest pod has no node, because the scheduler found none."""
    pods = training.pods()
    return bool(pods and why_waiting(pods[-1]))


def why_waiting(pod: Mapping[str, Any]) -> str:
    """Why the scheduler has no node for a pod, "" if it has or has not looked yet."""
    found = pod["status"].get("conditions", ())
    return "".join(each["message"] for each in found if each["type"] == "PodScheduled" and each["status"] == "False")


def pid_of(training: Training, index: int = 0) -> int:
    """Id, on the node, of the run's program. index: the pod's number, if it has several."""
    (pid,) = (pid for pid, variables in _programs(training.name) if int(variables.get(_INDEX, "0")) == index)
    return pid


@contextmanager
def paused(training: Training) -> Iterator[None]:
    """Its program stands still inside the block."""
    pid = pid_of(training)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _programs(run: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The programs of a run and their environment; what they have started for themselves is left out."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = path.read_bytes().decode(errors="replace")
            is_helper = b"dreambooth.helper" in path.with_name("cmdline").read_bytes()
        except OSError:  # it has ended, or is none that this test may look into
            continue
        variables = dict(pair.partition("=")[::2] for pair in text.split("\0"))
        if variables.get("DARKROOM_RUN") == run and "DARKROOM_LAUNCHER" not in variables and not is_helper:
            yield int(path.parent.name), variables


def log_of(training: Training) -> str:
    """What its newest pod has printed."""
    return training.kubectl("logs", training.pods()[-1]["metadata"]["name"])
