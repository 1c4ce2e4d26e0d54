"""The program while its store goes away for a while, or no longer accepts its credentials."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import embedded_state
from artifacts.embedded import EmbeddedStore
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore

from tests.dreambooth.conftest import RUN, encoded, picture, read_records


@pytest.fixture(scope="session")
def micro(shallow: Path) -> Path:
    return shallow


Order = Callable[..., dict[str, Any]]
ENDLESS = {"steps": 1_000_000, "learning_rate": 1e-6}
PATIENCE_SECONDS = 120


@dataclass
class Training:
    """A program that trains on a store of its own."""

    server: EmbeddedStore
    store: ObjectStore
    process: "subprocess.Popen[bytes]"
    log: Path

    def newest_step(self) -> int:
        """Of the last progress record that arrived."""
        return max((line["step"] for line in read_records(self.store) if line["kind"] == "progress"), default=0)

    def num_points(self) -> int:
        """Resume points that were told to be complete."""
        return sum(line["kind"] == "resume_point" for line in read_records(self.store))

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def end(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def training(order: Order, tmp_path: Path) -> Iterator[Training]:
    """One that has saved its first resume point."""
    server = EmbeddedStore(tmp_path / "store")
    config = server.start()
    store = ObjectStore(config)
    Sessions(store).create("toy")
    Sessions(store).put_image("toy", "toy.png", encoded(picture(0)), 64, 64)
    wanted = order(text_encoder={"steps": 0}, unet=ENDLESS, resume_point_every_steps=40)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DARKROOM_LOG_FORMAT": "text",
        "DARKROOM_RUN": RUN,
        "DARKROOM_RECIPE": json.dumps(wanted),
        "DARKROOM_S3_ENDPOINT": config.endpoint,
        "DARKROOM_S3_ACCESS_KEY": config.access_key,
        "DARKROOM_S3_SECRET_KEY": config.secret_key,
        "DARKROOM_S3_BUCKET": config.bucket,
        "DARKROOM_S3_RETRIES": "1",
    }
    log = tmp_path / "log.txt"
    with log.open("wb") as said:
        process = subprocess.Popen([sys.executable, "-m", "dreambooth"], env=environment, stderr=said)
    found = Training(server, store, process, log)
    try:
        found.wait_until(lambda: found.num_points() > 0)
        yield found
    finally:
        process.kill()
        process.wait()
        server.stop(kill=True)


@pytest.mark.long
def test_training_goes_on_without_the_store_and_saving_catches_up(training: Training) -> None:
    before = training.newest_step()
    training.server.stop(kill=True)
    training.wait_until(lambda: "wait for the store" in training.log.read_text())
    time.sleep(3)  # steps of the outage
    training.server.start()
    training.wait_until(lambda: training.newest_step() > before)
    points = training.num_points()
    training.wait_until(lambda: training.num_points() > points)
    training.process.terminate()
    assert training.end() == 143
    steps = [line["step"] for line in read_records(training.store) if line["kind"] == "progress"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > before


@pytest.mark.long
def test_credentials_that_are_taken_back_end_it_with_68_and_cost_no_point(training: Training) -> None:
    points = training.num_points()
    training.server.stop(kill=True)
    folder = training.server.folder
    changed = replace(embedded_state.load(folder), secret_key="f" * 40)
    embedded_state.save(folder, changed)
    other = EmbeddedStore(folder)
    try:
        config = other.start()
        assert config.endpoint == training.store.config.endpoint
        assert training.end() == 68, training.log.read_text()
        seen = ObjectStore(config)
        assert sum(line["kind"] == "resume_point" for line in read_records(seen)) >= points
        assert "check DARKROOM_S3_ACCESS_KEY" in training.log.read_text()
    finally:
        other.stop(kill=True)
