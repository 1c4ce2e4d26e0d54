"""The process beside the one that trains: what it answers, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifacts.errors import NotFound
from dreambooth.helper import Helper

Reports = list[tuple[str, str]]

_OWNER = """
import sys
from dreambooth.helper import Helper
from tests.dreambooth import test_helper

helper = Helper(print)
print(helper.call(test_helper.process_id), flush=True)
helper.call(test_helper.wait_for, sys.argv[1])
"""


def process_id() -> int:
    return os.getpid()


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def say(text: str) -> str:
    print(text, flush=True)
    return text


def fail(name: str) -> None:
    raise NotFound("object", name, "the bucket")


def wait_for(path: str) -> None:
    """Work without an end, unless a file comes to be."""
    Path(f"{path}.begun").touch()
    while not Path(path).exists():
        time.sleep(0.01)


def until(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # Nobody may have collected it yet.
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def helper(reports: Reports) -> Iterator[Helper]:
    with Helper(lambda text, level: reports.append((text, level))) as made:
        yield made


def test_work_is_done_in_one_other_process_of_lower_priority(helper: Helper, reports: Reports) -> None:
    process = helper.call(process_id)
    assert process != os.getpid()
    assert helper.call(process_id) == process
    assert helper.call(priority) == min(19, priority() + 5)
    assert reports == []


def test_what_a_library_prints_is_no_answer(helper: Helper, capfd: pytest.CaptureFixture[str]) -> None:
    assert helper.call(say, "loading ...") == "loading ..."
    assert "loading ..." in capfd.readouterr().err


def test_what_the_work_raises_arrives_with_where_it_was(helper: Helper) -> None:
    with pytest.raises(NotFound, match="'weights' does not exist in the bucket") as raised:
        helper.call(fail, "weights")
    assert (raised.value.what, raised.value.name) == ("object", "weights")
    assert ", in fail" in raised.value.__notes__[0]
    assert helper.call(say, "and it goes on") == "and it goes on"


def test_a_helper_that_was_killed_is_told_once_and_its_work_is_done_here(helper: Helper, reports: Reports) -> None:
    os.kill(helper.call(process_id), signal.SIGKILL)
    assert helper.call(process_id) == os.getpid()
    assert helper.call(process_id) == os.getpid()
    [(text, level)] = reports
    assert "the helper process has ended (exit status -9)" in text
    assert level == "warning"


def test_sigterm_is_left_to_the_training_process(helper: Helper, reports: Reports) -> None:
    process = helper.call(process_id)
    os.kill(process, signal.SIGTERM)
    assert helper.call(process_id) == process
    assert reports == []


def test_closing_ends_work_that_still_goes_on(helper: Helper, reports: Reports, tmp_path: Path) -> None:
    process = helper.call(process_id)
    raised: list[BaseException] = []

    def work() -> None:
        with pytest.raises(RuntimeError, match="was closed") as closed:
            helper.call(wait_for, str(tmp_path / "never"))
        raised.append(closed.value)

    thread = threading.Thread(target=work)
    thread.start()
    until(tmp_path / "never.begun")
    helper.close()
    thread.join()
    assert len(raised) == 1
    assert not is_alive(process)
    assert reports == []
    with pytest.raises(RuntimeError, match="is closed"):
        helper.call(process_id)


def test_it_does_not_outlive_a_training_process_that_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path / "never")], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert owner.stdout is not None
    process = int(owner.stdout.readline())
    until(tmp_path / "never.begun")  # in the middle of its work
    owner.kill()
    owner.wait()
    owner.stdout.close()
    while is_alive(process):
        time.sleep(0.01)
