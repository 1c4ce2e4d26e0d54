"""Children of the launcher: revived when they die, given up when they keep dying, gone with everything they started."""

import os
import sys
import time
from pathlib import Path

import pytest
from darkroom_cli.launcher.child import MAX_DEATHS, Child, ChildFailed, tail

PATIENCE_SECONDS = 30


def child(tmp_path: Path, module: str, code: str) -> Child:
    (tmp_path / f"{module}.py").write_text(code)
    env = {"PYTHONPATH": str(tmp_path)}
    return Child(module, module, env, tmp_path / "logs" / f"{module}.log", tmp_path / f"{module}.json")


def until(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_dead_child_is_started_again(tmp_path: Path) -> None:
    made = child(tmp_path, "sleeper", "import time; time.sleep(60)")
    made.start()
    first = made.pid
    os.kill(first, 9)
    code: list[int | None] = []
    until(lambda: (code.append(made.revive()), code[-1])[1] is not None)
    assert code[-1] == -9
    assert made.pid != first
    made.wait_stopped(0)


def test_one_that_keeps_dying_is_given_up_with_its_log(tmp_path: Path) -> None:
    made = child(tmp_path, "failing", "import sys; print('no model here'); sys.exit(3)")
    made.start()

    def dies() -> bool:
        made.revive()
        return False

    with pytest.raises(ChildFailed, match="no model here") as caught:
        until(dies)
    assert caught.value.exit_code == 3
    assert made.num_restarts == MAX_DEATHS - 1


def test_nothing_that_a_child_started_is_left(tmp_path: Path) -> None:
    code = f"""
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(60)"])
print(grandchild.pid, flush=True)
time.sleep(60)
"""
    made = child(tmp_path, "parent", code)
    made.start()
    until(lambda: tail(made.log_file).strip().isdigit())
    grandchild = int(tail(made.log_file))
    made.ask_to_stop()
    made.wait_stopped(0.1)
    until(lambda: not alive(grandchild))
    assert not alive(made.pid)


def test_a_start_forgets_the_endpoint_of_the_one_before(tmp_path: Path) -> None:
    made = child(tmp_path, "quick", "")
    made.endpoint_file.write_text("{}")
    made.start()
    assert not made.endpoint_file.exists()
    made.wait_stopped()
