"""A stand-in for the training program: a real process with the same environment, records and exit codes, in no time.

What it does is told by the first word of each sample prompt of its recipe, one item for each attempt:
    "steps 3"   records 3 steps and goes on      "exit 64"    ends with that code
    "hold"      works until SIGTERM, then 143    "crash"      kills itself
    "stubborn"  works on through SIGTERM         "litter"     makes a temporary file and leaves it
    "point 3"   saves a resume point of step 3   "inexact"    ends with 69 unless an inexact run is accepted
    "publish"   publishes its checkpoint
An attempt beyond the last item does what the last one says.
"""

import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime

from artifacts.checkpoints import Checkpoints
from artifacts.errors import NotFound
from artifacts.store import ObjectStore, StoreConfig


class Program:
    def __init__(self) -> None:
        self.run = os.environ["DARKROOM_RUN"]
        self.recipe = json.loads(os.environ["DARKROOM_RECIPE"])
        names = {"endpoint": "ENDPOINT", "access_key": "ACCESS_KEY", "secret_key": "SECRET_KEY", "bucket": "BUCKET"}
        self.store = ObjectStore(StoreConfig(**{k: os.environ[f"DARKROOM_S3_{v}"] for k, v in names.items()}))
        earlier = [stat.key.rsplit("/", 1)[1] for stat in self.store.list(f"{self.run}/events/")]
        self.attempt = max((int(name.split("-")[0]) for name in earlier), default=0) + 1
        self.number = 0

    def write(self, *records: dict) -> None:
        self.number += 1
        now = datetime.now(UTC).isoformat()
        lines = "".join(json.dumps({**record, "time": now}) + "\n" for record in records)
        self.store.put(f"{self.run}/events/{self.attempt:02d}-{self.number:08d}.jsonl", lines.encode())

    def step(self, step: int) -> dict:
        numbers = {"loss": 1 / step, "smoothed_loss": 2 / step, "learning_rate": 1e-3}
        pace = {"images_per_second": 5.0, "eta_seconds": 0.5}
        steps = self.recipe["unet"]["steps"]
        return {"kind": "progress", "stage": "unet", "step": step, "num_steps": steps, **numbers, **pace}

    @property
    def is_inexact(self) -> bool:
        return os.environ.get("DARKROOM_ACCEPT_INEXACT") == "true"

    def save_point(self, step: int) -> dict:
        """What `dreambooth.resume_points` leaves behind; the record that tells of it."""
        name = f"{self.attempt}-1-{step:07d}"
        folder = f"{self.run}/resume_points/{name}/"
        manifest = {"schema": 1, "stage": "unet", "stage_index": 1, "step": step, "token": self.attempt}
        manifest |= {"time": datetime.now(UTC).isoformat(), "about": {"inexact": self.is_inexact}}
        manifest["files"] = [
            {"path": "unet.safetensors", "size_bytes": 4, "sha256": hashlib.sha256(b"unet").hexdigest()}
        ]
        data = json.dumps(manifest).encode()
        self.store.put(f"{folder}unet.safetensors", b"unet")
        self.store.put(f"{folder}manifest.json", data)
        try:
            points = json.loads(self.store.get(f"{self.run}/writer.json"))["points"]
        except NotFound:
            points = []
        points.append({"name": name, "stage": "unet", "step": step, "sha256": hashlib.sha256(data).hexdigest()})
        self.store.put(f"{self.run}/writer.json", json.dumps({"schema": 1, "points": points}).encode())
        place = {"stage": "unet", "step": step, "object": folder}
        return {"kind": "resume_point", **place, "size_bytes": 4, "stall_seconds": 0.25}

    def publish(self) -> None:
        facts = {"format": "diffusers", "architecture": "sd15", "kind": "dreambooth", "precision": "fp32"}
        facts |= {"prediction_type": "epsilon", "resolution": 64, "base_model": self.recipe["base_model"]}
        with Checkpoints(self.store).begin(self.recipe["checkpoint"], **facts) as writer:
            writer.add_bytes("unet.safetensors", b"unet")
            writer.publish({"inexact": self.is_inexact})

    def work(self) -> int:
        self.write({"kind": "message", "text": f"attempt {self.attempt}", "level": "info"})
        plan = self.recipe["sample_prompts"]
        print(f"attempt {self.attempt} of {plan}", flush=True)
        for word, _, number in (item.partition(" ") for item in plan[min(self.attempt, len(plan)) - 1].split(", ")):
            code = self.do(word, number) if word in ("exit", "inexact", "point", "publish") else self.act(word, number)
            if code is not None:
                return code
        self.write({"kind": "finished", "checkpoint": self.recipe["checkpoint"]})
        return 0

    def act(self, word: str, number: str) -> None:
        match word:
            case "steps":
                for step in range(1, int(number) + 1):
                    self.write(self.step(step))
            case "sample":
                key = f"{self.run}/samples/unet-{number}-0.png"
                self.store.put(key, b"picture")
                place = {"stage": "unet", "step": int(number)}
                self.write({"kind": "sample", **place, "prompt": "a robot", "object": key})
            case "hold":
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
                self.write({"kind": "message", "text": f"holding as {os.getpid()}", "level": "info"})
                time.sleep(600)
            case "stubborn":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                self.write({"kind": "message", "text": f"holding as {os.getpid()}", "level": "info"})
                time.sleep(600)
            case "litter":
                print(tempfile.mkstemp()[1], flush=True)
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)

    def do(self, word: str, number: str) -> int | None:
        match word:
            case "point":
                self.write(self.save_point(int(number)))
            case "publish":
                self.publish()
            case "inexact" if not self.is_inexact:
                self.write({"kind": "message", "text": "the images changed", "level": "error"})
                return 69
            case "exit":
                if number != "0":
                    self.write({"kind": "message", "text": f"no luck with {number}", "level": "error"})
                return int(number)
        return None


if __name__ == "__main__":
    sys.exit(Program().work())
