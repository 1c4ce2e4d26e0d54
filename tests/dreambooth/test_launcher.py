"""One exit code for several workers. They are stand-ins here; test_world has real ones."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chassis import config as settings
from dreambooth import exits, launcher, workers
from dreambooth.config import ProgramConfig
from dreambooth.errors import PartnersAbsent, Stopped
from dreambooth.exits import StopSignal
from dreambooth.workers import Place

# What a worker does: "exit 3", "die" by SIGKILL, "wait" for ever, "obey 143" SIGTERM with this code; "late" does it later.
STAND_IN = f"""#!{sys.executable} -IS
import json, os, signal, sys, time
rank = os.environ["RANK"]
words = json.loads(os.environ["PLAN"])[int(rank)].split()
variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS", "DARKROOM_LAUNCHER")
with open(os.path.join(os.environ["SEEN"], rank), "w") as file:
    json.dump({{"pid": os.getpid(), "argv": sys.argv[1:], **{{name: os.environ[name] for name in variables}}}}, file)
if words[0] == "late":
    time.sleep(0.5)
    words = words[1:]
if words[0] == "exit":
    sys.exit(int(words[1]))
if words[0] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if words[0] == "obey":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(int(words[1])))
    open(os.path.join(os.environ["SEEN"], "ready"), "w").close()
time.sleep(600)
"""
ENVIRONMENT = {
    "DARKROOM_RUN": "sessions/toy/runs/first",
    "DARKROOM_RECIPE": "{}",
    "DARKROOM_S3_ENDPOINT": "127.0.0.1:1",
    "DARKROOM_S3_ACCESS_KEY": "x",
    "DARKROOM_S3_SECRET_KEY": "x",
    "DARKROOM_PROCESSES": "2",
}
Launch = Callable[..., int]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Run workers that act as planned, one for each argument."""
    script = tmp_path / "worker"
    script.write_text(STAND_IN)
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setenv("SEEN", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def begin(*plan: str, stop: StopSignal | None = None, **variables: str) -> int:
        monkeypatch.setenv("PLAN", json.dumps(plan))
        config = settings.read(ProgramConfig, {**ENVIRONMENT, **variables})
        return launcher.run(config, ["--accept-inexact"], stop or StopSignal())

    return begin


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (("exit 0", "exit 0"), 0),
        (("exit 0", "wait"), 0),  # finished already: the others were never needed
        (("exit 64", "wait"), 64),
        (("exit 65", "exit 65"), 65),
        (("late exit 76", "die"), 137),
        (("late exit 76", "exit 77"), 77),
        (("late exit 76", "exit 76"), 76),
        (("late exit 0", "die"), 0),  # what it trained is published
        (("late exit 69", "exit 76"), 69),
        (("die", "wait"), 137),
    ],
)
def test_the_code_is_that_of_the_worker_that_knows(launch: Launch, plan: tuple[str, ...], code: int) -> None:
    assert launch(*plan) == code


def test_a_leader_that_does_not_notice_is_ended(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_LEADER_SECONDS", 0.2)
    assert launch("wait", "exit 77") == 77


def test_workers_know_their_place_and_none_is_left(launch: Launch, tmp_path: Path) -> None:
    assert launch("late exit 0", "wait", JOB_COMPLETION_INDEX="3") == 0
    seen = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    assert [(each["RANK"], each["LOCAL_RANK"], each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"]) for each in seen] == [
        ("0", "0", "2", "2"),
        ("1", "1", "2", "2"),
    ]
    assert seen[0]["argv"] == ["-m", "dreambooth", "--accept-inexact"]
    assert seen[0]["DARKROOM_LAUNCHER"] == str(os.getpid())
    assert int(seen[0]["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)
    with pytest.raises(ProcessLookupError):
        os.kill(seen[1]["pid"], 0)


@pytest.mark.parametrize("ends", [("obey 143", "obey 76"), ("obey 76", "obey 76"), ("obey 76", "obey 143")])
def test_sigterm_is_passed_on_and_the_answer_says_so(launch: Launch, tmp_path: Path, ends: tuple[str, str]) -> None:
    stop = StopSignal()

    def ask() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        stop.set()

    asking = threading.Thread(target=ask)
    asking.start()
    assert launch(*ends, stop=stop) == 143
    asking.join()


def test_a_second_machine_counts_on(launch: Launch, tmp_path: Path) -> None:
    of_second = {"DARKROOM_NODES": "3", "JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "node-0"}
    assert launch("exit 1", "exit 1", "late exit 0", "wait", **of_second) == 0
    seen = [json.loads((tmp_path / str(rank)).read_text()) for rank in (2, 3)]
    assert [(each["LOCAL_RANK"], each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"]) for each in seen] == [
        ("0", "6", "2"),
        ("1", "6", "2"),
    ]


def test_what_several_machines_need_is_named() -> None:
    with pytest.raises(settings.ConfigError, match="MASTER_ADDR is not set: expected the address of machine 0"):
        settings.read(ProgramConfig, {**ENVIRONMENT, "DARKROOM_NODES": "2"})
    wrong = {"DARKROOM_NODES": "2", "JOB_COMPLETION_INDEX": "2", "MASTER_ADDR": "node-0"}
    with pytest.raises(settings.ConfigError, match="JOB_COMPLETION_INDEX is 2: expected less than DARKROOM_NODES, 2"):
        settings.read(ProgramConfig, {**ENVIRONMENT, **wrong})


def test_on_another_machine_a_worker_waits_until_it_is_wanted_or_the_run_is_over(tmp_path: Path) -> None:
    nowhere = Place(1, 2, 0, 1, tmp_path, ("127.0.0.1", 1))
    assert workers.wait_for_writer(nowhere, StopSignal(), lambda: True) is False
    stop = StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        workers.wait_for_writer(nowhere, stop, lambda: False)
    with pytest.raises(PartnersAbsent, match=r"nobody listens at 127\.0\.0\.1:1 after 0\.3 s") as caught:
        workers.wait_for_writer(nowhere, StopSignal(), lambda: False, limit_seconds=0.3)
    assert exits.code(caught.value) == 75  # counted: 76 would let the pods try until the Job's deadline


def test_on_one_machine_it_waits_for_the_file(tmp_path: Path) -> None:
    place = Place(1, 2, 1, 2, tmp_path, None)
    threading.Timer(0.3, place.meeting_file.touch).start()
    assert workers.wait_for_writer(place, StopSignal(), lambda: False) is True


def test_without_a_launcher_there_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")  # of somebody else's launcher
    assert workers.here() is None
