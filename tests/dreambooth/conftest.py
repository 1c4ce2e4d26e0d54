"""Fixtures of the training program: micro models, sessions with drawn images, whole runs in this process."""

import io
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from PIL import Image, ImageDraw

RUN = "sessions/toy/runs/first"


def _load_micro_model() -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location("micro_model", Path(__file__).with_name("micro_model.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def _single_thread() -> None:
    """Tiny tensors: more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build_micro() -> Callable[..., Path]:
    """`micro_model.build`."""
    build: Callable[..., Path] = _load_micro_model().build
    return build


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory, build_micro: Callable[..., Path]) -> Path:
    """A random fp32 base model that predicts noise. Read only."""
    return build_micro(tmp_path_factory.mktemp("base") / "micro")


@pytest.fixture(scope="session")
def shallow(tmp_path_factory: pytest.TempPathFactory, build_micro: Callable[..., Path]) -> Path:
    """The same without layers in the text encoder: a tenth of the bytes, for tests that save and publish a lot. Read only."""
    return build_micro(tmp_path_factory.mktemp("base") / "shallow", topology=_load_micro_model().SHALLOW)


def picture(number: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A coloured disc, another one for each number."""
    image = Image.new("RGB", size, (40 * number % 256, 90, 120))
    ImageDraw.Draw(image).ellipse((8, 8 + number, 40, 40 + number), fill=(250, 60 * number % 256, 20))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def sessions(store: ObjectStore) -> Sessions:
    """Sessions of a fresh bucket, among them "toy" with three images."""
    found = Sessions(store)
    found.create("toy")
    for number in range(3):
        found.put_image("toy", f"sks_toy ({number}).png", encoded(picture(number)), 64, 64)
    return found


@pytest.fixture
def order(micro: Path) -> Callable[..., dict[str, Any]]:
    """A small recipe as JSON object; arguments replace fields."""

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "base_model": "micro",
            "base_model_source": str(micro),
            "checkpoint": "toy-first",
            "text_encoder": {"steps": 2, "learning_rate": 1e-4},
            "unet": {"steps": 3, "learning_rate": 1e-3},
            "resolution_px": 64,
            **changes,
        }

    return make


@dataclass
class Outcome:
    """What one run left in the bucket."""

    store: ObjectStore
    records: list[dict[str, Any]]
    checkpoint: str
    _read: dict[str, Any] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest:
        """The published manifest."""
        return Checkpoints(self.store).get(self.checkpoint)

    def digests(self) -> dict[str, str]:
        """sha256 of every file of the checkpoint."""
        return {entry.path: entry.sha256 for entry in self.manifest.files}

    def losses(self) -> list[float]:
        """The loss of every step of both stages."""
        return [line["loss"] for line in self.records if line["kind"] == "progress"]

    def messages(self, level: str) -> str:
        """All messages of one level, one a line."""
        return "\n".join(line["text"] for line in self.records if line["kind"] == "message" and line["level"] == level)


def read_records(store: ObjectStore, run: str = RUN) -> list[dict[str, Any]]:
    """Every line of every attempt."""
    keys = [found.key for found in store.list(f"{run}/events/")]
    return [json.loads(line) for key in keys for line in store.get(key).splitlines()]


def fields_of(
    store: ObjectStore,
    scratch: Path,
    wanted: Mapping[str, Any],
    run: str = RUN,
    warn: Callable[[str], None] = print,
) -> Any:
    """An order without the right to write, from a recipe's JSON object."""
    from dreambooth import inputs
    from dreambooth.order import Order
    from dreambooth.recipe import parse
    from dreambooth.world import World

    recipe = parse(json.dumps(wanted))
    found = inputs.gather(store, "toy", recipe, scratch, warn)
    return Order(run, recipe, found, store, scratch, World(0, 1, torch.device("cpu")))


@pytest.fixture
def train(sessions: Sessions, tmp_path: Path) -> Callable[..., Outcome]:
    """Carry out an order in this process, each as a run of its own unless `run` says which."""
    from dataclasses import replace

    from dreambooth import training
    from dreambooth.exits import StopSignal
    from dreambooth.lease import Lease
    from dreambooth.records import Records

    store = sessions.store
    lock = threading.Lock()
    count = 0

    def carry_out(
        wanted: Mapping[str, Any], run: str = "", stop: StopSignal | None = None, accept_inexact: bool = False
    ) -> Outcome:
        nonlocal count
        with lock:
            count += 1
        run = run or f"sessions/toy/runs/run-{count}"
        checkpoint = f"toy-{run.rsplit('/', 1)[1]}"
        scratch = tmp_path / f"scratch-{count}"
        scratch.mkdir()
        stop = stop or StopSignal()
        with Lease.acquire(store, f"{run}/", stop) as lease:
            records = Records(store, f"{run}/")
            try:
                order = {**wanted, "checkpoint": checkpoint}
                made = fields_of(store, scratch, order, run, lambda text: records.message(text, "warning"))
                made = replace(made, records=records, lease=lease, accept_inexact=accept_inexact)
                training.run(made, stop)
            finally:
                records.close(30)
        return Outcome(store, read_records(store, run), checkpoint)

    return carry_out
