"""Why a run does not work now, in the words of the cluster. Pure.

The scheduler says it in the pod's condition, the kubelet in the container's state, quotas and policies only in events.
"""

from collections.abc import Sequence

from trainer.cluster.live import Happening, LiveJob, LivePod

_NORMAL = ("", "ContainerCreating", "PodInitializing")
_ENDS = ("BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy")
_LONGEST = 600


def working(job: LiveJob, pods: Sequence[LivePod]) -> bool:
    """Whether all pods that train together run, or have done their part: as long as one is missing the others wait for it."""
    return len({pod.index for pod in pods if _works(pod)}) >= job.num_pods


def asks_events(job: LiveJob, pods: Sequence[LivePod]) -> str:
    """Uid of the object whose events may say more than its status does; "" for none."""
    if job.suspended or working(job, pods):
        return ""
    waiting = [pod for pod in pods if _is_waiting(pod)]
    if not waiting:
        return job.uid
    return "" if _of_status(waiting[0]) else waiting[0].uid


def reason(job: LiveJob, pods: Sequence[LivePod], events: Sequence[Happening], known: str = "") -> str:
    """One sentence; "" while the program runs in all pods, for a run a person suspended, and where nobody knows.

    known: what was said before. It stands where there is no pod any more that could say something else.
    """
    if job.ended or working(job, pods):
        return ""
    if job.being_deleted:
        return "its Job is being deleted"
    if job.suspended:
        return f"waits in queue {job.queue!r} of Kueue" if job.queue else ""
    waiting = [pod for pod in pods if _is_waiting(pod)]
    told = next(filter(None, map(_of_status, waiting)), "")
    if "ErrImagePull" in told and "ImagePullBackOff" in known:  # the two take turns, and say the same
        return known
    return (told or _of_events(events))[:_LONGEST] or ("" if waiting else known)


def _works(pod: LivePod) -> bool:
    if pod.termination:
        return pod.termination.exit_code == 0
    return pod.start_time is not None and pod.phase != "Failed"


def _is_waiting(pod: LivePod) -> bool:
    return pod.phase == "Pending" and not pod.start_time and not pod.being_deleted


def _of_status(pod: LivePod) -> str:
    if pod.unschedulable:
        return f"no node for its pod: {pod.unschedulable}"
    name, message = pod.waiting
    if name in _NORMAL:
        return ""
    return f"its container cannot start: {name}: {message}" if message else f"its container cannot start: {name}"


def _of_events(events: Sequence[Happening]) -> str:
    warnings = [event for event in events if event.is_warning and event.reason not in _ENDS]
    warnings.sort(key=lambda event: event.time)
    return f"{warnings[-1].reason}: {warnings[-1].message}" if warnings else ""
