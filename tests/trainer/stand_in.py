"""A stand-in for the training program: a real process with the same environment, records and exit codes, in no time.

What it does is told by the first word of each sample prompt of its recipe, one item for each attempt:
    "steps 3"   records 3 steps and goes on      "exit 64"    ends with that code
    "hold"      works until SIGTERM, then 143    "crash"      kills itself
    "stubborn"  works on through SIGTERM         "litter"     makes a temporary file and leaves it
An attempt beyond the last item does what the last one says.
"""

import json
import os
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime

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

    def work(self) -> int:
        self.write({"kind": "message", "text": f"attempt {self.attempt}", "level": "info"})
        plan = self.recipe["sample_prompts"]
        print(f"attempt {self.attempt} of {plan}", flush=True)
        for word, _, number in (item.partition(" ") for item in plan[min(self.attempt, len(plan)) - 1].split(", ")):
            match word:
                case "steps":
                    for step in range(1, int(number) + 1):
                        self.write(self.step(step))
                case "sample":
                    key = f"{self.run}/samples/unet-{number}-0.png"
                    self.store.put(key, b"picture")
                    place = {"stage": "unet", "step": int(number)}
                    self.write({"kind": "sample", **place, "prompt": "a robot", "object": key})
                case "exit":
                    if number != "0":
                        self.write({"kind": "message", "text": f"no luck with {number}", "level": "error"})
                    return int(number)
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
        self.write({"kind": "finished", "checkpoint": self.recipe["checkpoint"]})
        return 0


if __name__ == "__main__":
    sys.exit(Program().work())
