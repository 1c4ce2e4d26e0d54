"""What became of a training: the exits of its pods, the losses of all steps, the weights that it published."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore
from jobs.names import CONTAINER

from tests.dreambooth.torture import curve_of


@dataclass(frozen=True)
class Attempt:
    """One pod. exit_code: -1 if its container never ended. disruption: reason of the condition DisruptionTarget, or ""."""

    phase: str
    exit_code: int
    reason: str
    disruption: str


@dataclass(frozen=True)
class Result:
    """What a run became. losses: by stage and step, as exact text. digests: of the checkpoint's files."""

    losses: Mapping[tuple[str, int], str]
    digests: Mapping[str, str]


def attempts_of(watched: str) -> list[Attempt]:
    """The last state of each pod of a stream of JSON objects, in the order in which the pods came."""
    last = {pod["metadata"]["name"]: pod for pod in _objects(watched)}
    return [_attempt(pod["status"]) for pod in last.values()]


def result_of(store: ObjectStore, run: str, checkpoint: str) -> Result:
    """Read a finished run. Raises AssertionError if a repeated step had another loss, or the curve has gaps."""
    losses: dict[tuple[str, int], str] = {}
    for line in records_of(store, run):
        if line["kind"] == "progress":
            place, loss = (line["stage"], line["step"]), repr(line["loss"])
            assert losses.setdefault(place, loss) == loss, f"{run}: {place} had the loss {losses[place]}, then {loss}"
    shown = [(tag.split("/")[0], step) for tag, step, _ in curve_of(store, run)]
    assert sorted(shown) == sorted(losses), f"{run}: the TensorBoard curve shows {shown}"
    checkpoints = Checkpoints(store)
    manifest = checkpoints.verify(checkpoint)
    digests = {e.path: _digest(e.path, checkpoints.read_file(manifest, e.path)) for e in manifest.files}
    return Result(losses, digests)


def records_of(store: ObjectStore, run: str) -> Iterator[dict[str, Any]]:
    """Every line of every attempt."""
    for found in store.list(f"{run}/events/"):
        for line in store.get(found.key).splitlines():
            yield json.loads(line)


def starts_of(store: ObjectStore, run: str) -> list[int]:
    """For each attempt that computed: the first U-Net step it recorded."""
    firsts: dict[str, int] = {}
    for found in store.list(f"{run}/events/"):
        attempt = found.key.rsplit("/", 1)[1].partition("-")[0]
        for line in map(json.loads, store.get(found.key).splitlines()):
            if line["kind"] == "progress" and line["stage"] == "unet":
                firsts.setdefault(attempt, line["step"])
    return list(firsts.values())


def _attempt(status: Mapping[str, Any]) -> Attempt:
    containers = [each for each in status.get("containerStatuses", ()) if each["name"] == CONTAINER]
    ended = containers[0]["state"].get("terminated", {}) if containers else {}
    disruptions = [each["reason"] for each in status.get("conditions", ()) if each["type"] == "DisruptionTarget"]
    return Attempt(status["phase"], ended.get("exitCode", -1), ended.get("reason", ""), "".join(disruptions))


def _objects(stream: str) -> Iterator[dict[str, Any]]:
    decoder, at = json.JSONDecoder(), 0
    while rest := stream[at:].lstrip():
        at = len(stream) - len(rest)
        try:
            found, at = decoder.raw_decode(stream, at)
        except ValueError:  # cut off when the watch was ended
            return
        yield found


def _digest(path: str, content: bytes) -> str:
    """sha256 of a file; of weights without their metadata, which name the checkpoint."""
    if path.endswith(".safetensors"):
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        content = json.dumps(header, sort_keys=True).encode() + content[8 + length :]
    return hashlib.sha256(content).hexdigest()
