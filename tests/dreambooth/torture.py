"""Kills trainings at named and at random moments and compares what they become with what they would have been, bit for bit.

    python -m tests.dreambooth.torture [--kills 40] [--seed 1] [--recipe NAME …]

Every recipe is trained once without disturbance. Then each is killed by SIGKILL at every moment of `torture_moments` that it
has, and again and again at random moments of its life (imports excluded: a process is forked from one that has imported
everything), each time started anew until it ends by itself. Losses of every step, weights of the checkpoint and the TensorBoard curve must be those of the undisturbed
training. In the last round the store is restarted meanwhile too.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from artifacts.checkpoints import Checkpoints
from artifacts.embedded import EmbeddedStore
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore, StoreConfig

from tests.dreambooth import torture_moments

_BOTH: Final = {
    "text_encoder": {"steps": 4, "learning_rate": 1e-4},
    "unet": {"steps": 6, "learning_rate": 1e-3, "schedule": "cosine", "warmup_steps": 2},
}
RECIPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "adamw": {**_BOTH, "sample_prompts": ["a toy"], "sample_every_steps": 3, "resume_point_every_steps": 3},
    "freeze": {
        **_BOTH,
        "stages": "joint_then_freeze",
        "ema_decay": 0.9,
        "min_snr_gamma": 5.0,
        "gradient_accumulation_steps": 3,
    },
    "discard": {**_BOTH, "stages": "joint_then_discard", "optimizer": "adamw_8bit", "precision": "bf16", "flip": True},
    "prior": {
        "text_encoder": {"steps": 0},
        "unet": {"steps": 6, "learning_rate": 1.0},
        "optimizer": "prodigy",
        "prior_preservation": {"class_prompt": "a toy", "num_class_images": 5},
        "min_snr_gamma": 5.0,
        "ema_decay": 0.99,
        "precision": "bf16",
    },
    "lora": {
        **_BOTH,
        "lora": {"rank": 4, "alpha": 2},
        "optimizer": "adafactor",
        "caption_dropout": 0.3,
        "offset_noise": 0.1,
        "crop": "buckets",
        "batch_size": 2,
        "resume_point_every_steps": 4,
    },
    "reference": {
        "text_encoder": {"steps": 0},
        "unet": {"steps": 8, "learning_rate": 5e-4, "schedule": "constant"},
        "reference_order": True,
        "gradient_accumulation_steps": 2,
        "precision": "bf16",
    },
}
_HELPED: Final = ("freeze",)
"""Their killed runs have all points uploaded by the helper, however small; the undisturbed one has none."""
_SESSION: Final = "toy"
_RESTARTS: Final = 60  # attempts of one training, a few of them without the store
_STORE_AWAY: Final = 75
_CONTEXT: Final = get_context("forkserver")


@dataclass(frozen=True)
class Result:
    """What a training became. losses: by stage and step, as exact text. digests: of the checkpoint's files."""

    losses: Mapping[tuple[str, int], str]
    digests: Mapping[str, str]


class Bench:
    """A store with a session and a base model, on which trainings run as processes of their own."""

    def __init__(self, folder: Path, base: Path, config: StoreConfig) -> None:
        self.folder = folder
        self._base = base
        self.config = config
        self.store = ObjectStore(config)
        _CONTEXT.set_forkserver_preload(["tests.dreambooth.torture_preload"])
        warm = _CONTEXT.Process(target=int)  # the imports belong to nobody's time
        warm.start()
        warm.join()

    def start(self, recipe: Mapping[str, Any], run: str, moment: str = "") -> BaseProcess:
        """One attempt at a run. moment: one of `torture_moments`, at which it is killed."""
        order = {
            "base_model": "micro",
            "base_model_source": str(self._base),
            "checkpoint": f"{_SESSION}-{run}",
            "resolution_px": 64,
            "resume_point_every_steps": 1,
            **recipe,
        }
        environment = {
            "DARKROOM_RUN": f"sessions/{_SESSION}/runs/{run}",
            "DARKROOM_RECIPE": json.dumps(order),
            "DARKROOM_S3_ENDPOINT": self.config.endpoint,
            "DARKROOM_S3_ACCESS_KEY": self.config.access_key,
            "DARKROOM_S3_SECRET_KEY": self.config.secret_key,
            "DARKROOM_S3_BUCKET": self.config.bucket,
            "DARKROOM_LOG_FORMAT": "text",
        }
        recipe_name, is_disturbed, _ = run.partition("-")
        is_helped = bool(is_disturbed) and recipe_name in _HELPED
        log = str(self.folder / f"{run}.log")
        process = _CONTEXT.Process(target=attempt, args=(environment, log, moment, is_helped))
        process.start()
        return process

    def result(self, run: str) -> Result:
        """What the run became. Raises if it is not whole."""
        losses: dict[tuple[str, int], str] = {}
        for found in self.store.list(f"sessions/{_SESSION}/runs/{run}/events/"):
            for line in self.store.get(found.key).splitlines():
                record = json.loads(line)
                if record["kind"] == "progress":
                    place, loss = (record["stage"], record["step"]), repr(record["loss"])
                    if losses.setdefault(place, loss) != loss:
                        raise AssertionError(f"{run}: {place} had the loss {losses[place]}, then {loss}")
        manifest = Checkpoints(self.store).verify(f"{_SESSION}-{run}")
        checkpoints = Checkpoints(self.store)
        return Result(
            losses, {e.path: _digest(e.path, checkpoints.read_file(manifest, e.path)) for e in manifest.files}
        )


def curve_of(store: ObjectStore, run: str) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every loss in the TensorBoard files of "sessions/<session>/runs/<run>"."""
    from tensorboardX.proto.event_pb2 import Event

    found: list[tuple[str, int, float]] = []
    for listed in store.list(f"{run}/tensorboard/events"):
        for data in _tf_records(store.get(listed.key)):
            event = Event.FromString(data)
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value if v.tag.endswith("/loss")]
    return found


def attempt(environment: Mapping[str, str], log: str, moment: str, is_helped: bool) -> None:
    """The program, in a forked process: from here on as `python -m dreambooth`."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    sys.argv = ["dreambooth"]
    from dreambooth.__main__ import main

    if is_helped:
        from dreambooth import point_files

        point_files.MIN_HELPED_BYTES = 0  # type: ignore[misc]
    if moment:
        torture_moments.arm(moment)
    os._exit(main())


def survive(bench: Bench, name: str, run: str, chance: random.Random, seconds: float, kills: int) -> int:
    """Carry out a run, killing it at most `kills` times at random moments; how often it was killed."""
    killed = 0
    for _ in range(_RESTARTS):
        process = bench.start(RECIPES[name], run)
        process.join(chance.uniform(0.1, 1) * seconds if killed < kills else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
        elif process.exitcode == 0:
            return killed
        elif process.exitcode != _STORE_AWAY:
            log = (bench.folder / f"{run}.log").read_text()[-2000:]
            raise AssertionError(f"{run} ended with exit code {process.exitcode}: {log}")
    raise AssertionError(f"{run} did not end in {_RESTARTS} attempts")


def moments_of(name: str) -> list[str]:
    """The named moments that a recipe has, in an order in which one run can be killed at all of them."""
    recipe = RECIPES[name]
    absent = set()
    if "prior_preservation" not in recipe:
        absent.add("drawing the third class image")
    if recipe.get("gradient_accumulation_steps", 1) == 1:
        absent.add("inside an accumulation")
    if recipe["text_encoder"]["steps"] == 0:
        absent.add("between the stages")
    return [moment for moment in torture_moments.MOMENTS if moment not in absent]


def survive_moments(bench: Bench, name: str, run: str, moments: Sequence[str]) -> None:
    """Carry out a run that is killed once at each of these moments, in their order."""
    bench.store.delete_prefix(f"sessions/{_SESSION}/class_images/")  # of runs before
    for moment in moments:
        process = bench.start(RECIPES[name], run, moment)
        process.join()
        if process.exitcode != -signal.SIGKILL:
            log = (bench.folder / f"{run}.log").read_text()[-2000:]
            raise AssertionError(f"{run} never came to {moment!r}, it ended with {process.exitcode}: {log}")
    survive(bench, name, run, random.Random(0), 0, kills=0)


def undisturbed(bench: Bench, name: str) -> tuple[Result, float]:
    """A run without kills: what it became, and how many seconds it took."""
    began = time.monotonic()
    survive(bench, name, name, random.Random(0), 0, kills=0)
    return bench.result(name), time.monotonic() - began


def require_equal(bench: Bench, run: str, wanted: Result) -> None:
    """Raise AssertionError unless the run became exactly what was wanted, with a curve without gap and duplicate."""
    found = bench.result(run)
    if found.losses != wanted.losses:
        steps = sorted({*found.losses, *wanted.losses})
        different = [step for step in steps if found.losses.get(step) != wanted.losses.get(step)]
        raise AssertionError(f"{run}: other losses at {different}")
    if found.digests != wanted.digests:
        raise AssertionError(
            f"{run}: other weights in {sorted(set(found.digests.items()) ^ set(wanted.digests.items()))}"
        )
    steps = [(tag.split("/")[0], step) for tag, step, _ in curve_of(bench.store, f"sessions/{_SESSION}/runs/{run}")]
    if sorted(steps) != sorted(wanted.losses):
        raise AssertionError(f"{run}: the TensorBoard curve shows {steps}")


def main() -> None:
    """Torture all recipes and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="random kills in all, at least (default 40)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    parser.add_argument("--recipe", action="append", choices=RECIPES, help="only this one; may be repeated")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        server = EmbeddedStore(folder / "store")
        try:
            torture(folder, server, arguments.kills, arguments.seed, arguments.recipe or list(RECIPES))
        finally:
            server.stop(kill=True)


def torture(folder: Path, server: EmbeddedStore, least_kills: int, seed: int, names: Sequence[str]) -> None:
    """Kill at every named moment, at random ones until there were enough over all recipes, then once more while the store is restarted."""
    from tests.dreambooth.torture_preload import build_base

    bench = prepared(folder, build_base(folder / "base"), server.start())
    chance, total, rounds = random.Random(seed), 0, 0
    wanted = {name: undisturbed(bench, name) for name in names}
    for name in names:
        moments = moments_of(name)
        survive_moments(bench, name, f"{name}-moments", moments)
        total += len(moments)
        require_equal(bench, f"{name}-moments", wanted[name][0])
        print(f"{name}-moments: equal after a kill at each named moment ({total} kills)", file=sys.stderr, flush=True)
    at_moments = total
    while total - at_moments < least_kills:
        rounds += 1
        for name in names:
            run = f"{name}-{rounds}"
            killed = survive(bench, name, run, chance, wanted[name][1], kills=4)
            require_equal(bench, run, wanted[name][0])
            total += killed
            print(f"{run}: killed {killed} times at random, equal ({total} kills)", file=sys.stderr, flush=True)
    with_restarts = 0
    for name in names:
        with Restarting(server, chance):
            with_restarts += survive(bench, name, f"{name}-away", chance, wanted[name][1] + 2, kills=2)
        require_equal(bench, f"{name}-away", wanted[name][0])
        print(f"{name}-away: equal while the store was restarted", file=sys.stderr, flush=True)
    report = {
        "recipes": len(names),
        "kills": total,
        "kills_at_named_moments": at_moments,
        "kills_while_store_restarts": with_restarts,
        "seed": seed,
    }
    print(json.dumps({"bench": "torture", **report, "all_equal": True}))


def prepared(folder: Path, base: Path, config: StoreConfig) -> Bench:
    """A bench with a session of three images."""
    from tests.dreambooth.torture_preload import picture_bytes

    bench = Bench(folder, base, replace(config, retries=2))
    sessions = Sessions(bench.store)
    sessions.create(_SESSION)
    for number, size in enumerate(((64, 64), (96, 64), (64, 80))):
        sessions.put_image(_SESSION, f"sks_toy ({number}).png", picture_bytes(number, size), *size)
    return bench


class Restarting:
    """Restarts the store again and again, in a thread, until the block ends."""

    def __init__(self, server: EmbeddedStore, chance: random.Random) -> None:
        self._server = server
        self._pauses = [chance.uniform(0.5, 2.0) for _ in range(100)]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        for pause in self._pauses:
            if self._end.wait(pause):
                return
            self._server.stop(kill=False)
            time.sleep(pause / 4)
            self._server.start()


def _digest(path: str, content: bytes) -> str:
    """sha256 of a file; of weights without their metadata, which name the checkpoint."""
    if path.endswith(".safetensors"):
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        content = json.dumps(header, sort_keys=True).encode() + content[8 + length :]
    return hashlib.sha256(content).hexdigest()


def _tf_records(data: bytes) -> list[bytes]:
    """The payloads of a TFRecord file: length (8 bytes), checksum (4), payload, checksum (4)."""
    found, offset = [], 0
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 8], "little")
        found.append(data[offset + 12 : offset + 12 + length])
        offset += 16 + length
    return found


if __name__ == "__main__":
    main()
