"""The program as it runs: a child process, its environment and its exit code."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from artifacts.checkpoints import Checkpoints
from artifacts.sessions import Sessions


@pytest.fixture(scope="session")
def micro(shallow: Path) -> Path:
    return shallow


RUN = "sessions/toy/runs/first"
Order = Callable[..., dict[str, Any]]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(sessions: Sessions) -> Start:
    """Start the program with an order; wrapper is a command before it, keyword arguments replace variables."""
    config = sessions.store.config

    def begin(order: object, wrapper: Sequence[str] = (), **changes: str) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "DARKROOM_RUN": RUN,
            "DARKROOM_RECIPE": order if isinstance(order, str) else json.dumps(order),
            "DARKROOM_S3_ENDPOINT": config.endpoint,
            "DARKROOM_S3_ACCESS_KEY": config.access_key,
            "DARKROOM_S3_SECRET_KEY": config.secret_key,
            "DARKROOM_S3_BUCKET": config.bucket,
            **changes,
        }
        return subprocess.Popen(
            [*wrapper, sys.executable, "-m", "dreambooth"], env=environment, stderr=subprocess.PIPE, text=True
        )

    return begin


def end_of(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and what it said."""
    _, said = process.communicate(timeout=280)
    return process.returncode, said


def records_of(sessions: Sessions) -> list[dict[str, Any]]:
    keys = [found.key for found in sessions.store.list(f"{RUN}/events/")]
    return [json.loads(line) for key in keys for line in sessions.store.get(key).splitlines()]


def test_a_run_trains_publishes_and_ends_with_0_also_when_repeated(
    start: Start, order: Order, sessions: Sessions, tiny_models: Path
) -> None:
    source = str(tiny_models / "sd15-tiny")
    settings = {"text_encoder": {"steps": 1, "learning_rate": 1e-5}, "unet": {"steps": 2, "learning_rate": 1e-4}}
    wanted = order(
        base_model="sd15-tiny", base_model_source=source, resolution_px=0, sample_prompts=["toy"], **settings
    )
    code, said = end_of(start(wanted))
    assert code == 0, said
    records = records_of(sessions)
    assert [(r["stage"], r["step"]) for r in records if r["kind"] == "progress"] == [
        ("text_encoder", 1),
        ("unet", 1),
        ("unet", 2),
    ]
    kinds = [r["kind"] for r in records]
    assert kinds[-2:] == ["resume_point", "finished"]
    assert kinds.count("sample") == 1  # before or after a resume point that was on its way
    manifest = Checkpoints(sessions.store).verify("toy-first")
    assert (manifest.base_model, manifest.resolution, manifest.run) == ("sd15-tiny", 64, "first")
    assert len(list(sessions.store.list(f"{RUN}/tensorboard/"))) == 2

    code, said = end_of(start(wanted))
    assert code == 0, said
    assert Checkpoints(sessions.store).get("toy-first") == manifest
    again = records_of(sessions)[len(records) :]
    assert [record["kind"] for record in again] == ["message", "finished"]


@pytest.mark.long
def test_two_processes_are_one_program(start: Start, order: Order, sessions: Sessions) -> None:
    code, said = end_of(start(order(), DARKROOM_PROCESSES="2"))
    assert code == 0, said
    records = records_of(sessions)
    steps = [(r["stage"], r["step"]) for r in records if r["kind"] == "progress"]
    assert steps == [("text_encoder", 1), ("text_encoder", 2), ("unet", 1), ("unet", 2), ("unet", 3)]
    assert records[-1]["kind"] == "finished"
    assert Checkpoints(sessions.store).verify("toy-first").run == "first"


def test_sigterm_ends_with_143_and_nothing_published(start: Start, order: Order, sessions: Sessions) -> None:
    process = start(order(unet={"steps": 1_000_000, "learning_rate": 1e-6}), DARKROOM_LOG_FORMAT="text")
    said: list[str] = []
    training = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if "training the unet" in line:
                training.set()
        training.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert training.wait(280)
    process.terminate()
    listener.join(60)
    assert process.wait(60) == 143, "".join(said)
    assert list(Checkpoints(sessions.store).list()) == []
    assert list(sessions.store.list("checkpoints/")) == []
    assert "stopped by SIGTERM" in records_of(sessions)[-1]["text"]


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"unet": {"steps": 2, "learning_rate": 0}}, 64, "unet.learning_rate is 0"),
        ({"resolution_px": 68}, 65, "resolution 68 px: base model 'micro' needs a multiple of 8 px"),
        ({"base_model_source": "/nowhere"}, 66, "base model 'micro': the folder '/nowhere' does not exist"),
    ],
)
def test_wrong_orders_end_with_their_code_and_a_recorded_reason(
    start: Start, order: Order, sessions: Sessions, changes: dict[str, Any], code: int, reason: str
) -> None:
    found, said = end_of(start(order(**changes)))
    assert found == code, said
    last = records_of(sessions)[-1]
    assert last["level"] == "error"
    assert reason in last["text"]
    assert "Traceback" not in said


def test_a_session_without_images_ends_with_67(start: Start, order: Order, sessions: Sessions) -> None:
    sessions.create("empty")
    code, said = end_of(start(order(), DARKROOM_RUN="sessions/empty/runs/first"))
    assert code == 67, said
    assert "session 'empty' has no images" in said


def test_a_bad_image_ends_with_65_naming_it(start: Start, order: Order, sessions: Sessions) -> None:
    sessions.store.put("sessions/toy/instance_images/notes.png", b"no picture")
    code, said = end_of(start(order()))
    assert code == 65, said
    assert "notes.png: is not an image" in records_of(sessions)[-1]["text"]


def test_wrong_environment_ends_with_64_naming_every_variable(start: Start) -> None:
    code, said = end_of(start("{}", DARKROOM_RUN="", DARKROOM_S3_SECRET_KEY=""))
    assert code == 64
    assert "DARKROOM_RUN is not set" in said
    assert "DARKROOM_S3_SECRET_KEY is not set" in said


def test_a_run_that_is_no_run_ends_with_64(start: Start) -> None:
    code, said = end_of(start("{}", DARKROOM_RUN="first"))
    assert code == 64
    assert "DARKROOM_RUN is 'first': expected" in said


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_gpu_that_is_not_there_ends_with_64(start: Start, order: Order, sessions: Sessions, processes: str) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    code, said = end_of(start(order(), DARKROOM_DEVICE="cuda", DARKROOM_PROCESSES=processes, **hidden))
    assert code == 64, said
    assert "DARKROOM_DEVICE is 'cuda', but torch cannot compute on GPU 0" in records_of(sessions)[-1]["text"]
    assert "Traceback" not in said


def test_store_away_ends_with_75(start: Start, order: Order) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code, said = end_of(start(order(), DARKROOM_S3_ENDPOINT=f"127.0.0.1:{port}", DARKROOM_S3_RETRIES="0"))
    assert code == 75, said
    assert "is not available" in said


def test_wrong_credentials_end_with_68(start: Start, order: Order) -> None:
    code, said = end_of(start(order(), DARKROOM_S3_SECRET_KEY="wrong"))
    assert code == 68, said


def test_a_full_disk_ends_with_69_and_says_which_one(
    start: Start, order: Order, sessions: Sessions, tmp_path: Path
) -> None:
    small = ["unshare", "--user", "--map-root-user", "--mount"]  # a file system of its own, which needs no privilege
    if subprocess.run([*small, "true"], check=False).returncode:
        pytest.skip("the system allows no user namespaces, and so no small file system")
    mounted = ["sh", "-c", f'mount -t tmpfs -o size=16k none {tmp_path} && exec "$@"', "-"]
    process = start(order(), [*small, *mounted], TMPDIR=str(tmp_path))
    code, said = end_of(process)
    assert code == 69, said
    reason = records_of(sessions)[-1]["text"]
    assert reason.startswith(f"the disk of {tmp_path}/dreambooth-")
    assert "is full: [Errno 28] No space left on device; free space there, or let TMPDIR name a folder" in reason


def test_another_runs_checkpoint_ends_with_64(start: Start, order: Order, sessions: Sessions) -> None:
    fields = {"format": "diffusers", "architecture": "sd15", "kind": "dreambooth", "precision": "fp32"}
    origin = {"prediction_type": "epsilon", "resolution": 64, "base_model": "micro", "session": "toy", "run": "other"}
    with Checkpoints(sessions.store).begin("toy-first", **fields, **origin) as writer:
        writer.add_bytes("model_index.json", b"{}")
        writer.publish()
    code, said = end_of(start(order()))
    assert code == 64, said
    assert "published by sessions/toy/runs/other, not by sessions/toy/runs/first" in said
