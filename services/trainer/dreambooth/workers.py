"""A worker: one of several processes that train a run together. Which one it is, when it starts, and how it ends.

`launcher` starts workers with the variables of torchrun: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, and MASTER_ADDR
and MASTER_PORT if there are several machines. Two more are its own: DARKROOM_LAUNCHER is its process id, and
DARKROOM_WORKER_FOLDER a folder that the workers of this machine share.

The worker with rank 0 writes the run. The others import what they need and wait until it wants them, so that what is
refused is refused once, and by the process that can record why. No torch here.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dreambooth.errors import PartnersAbsent
from dreambooth.exits import StopSignal

LAUNCHER: Final = "DARKROOM_LAUNCHER"
FOLDER: Final = "DARKROOM_WORKER_FOLDER"
_PR_SET_PDEATHSIG: Final = 1
MEETING_SECONDS: Final = 1800.0
"""How long processes of one machine wait for those of the others, before they have met. docs/training-jobs.md states it."""
_LOOK_SECONDS: Final = 0.2
_ASK_SECONDS: Final = 5.0
_CONNECT_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Place:
    """This worker among all. rank: 0 writes. size: workers on all machines; local_*: those of this machine.

    folder: shared by the workers of this machine. master: address and port at which several machines meet.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    folder: Path
    master: tuple[str, int] | None

    @property
    def meeting_file(self) -> Path:
        """Where the workers of one machine meet."""
        return self.folder / "rendezvous"


def here() -> Place | None:
    """This worker's place; None in a process that trains alone."""
    if LAUNCHER not in os.environ:
        return None
    rank, size, local_rank, local_size = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    master = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])) if size > local_size else None
    return Place(rank, size, local_rank, local_size, Path(os.environ[FOLDER]), master)


def end_with_launcher() -> None:
    """From now on this process does not outlive its launcher, however that ends. For the beginning of the program."""
    launcher = int(os.environ[LAUNCHER])
    if sys.platform == "linux":  # at once, so that a run that is started again finds no writer alive
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == launcher:  # it may have died before the line above
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="launcher-watch", daemon=True).start()


def wait_for_writer(
    place: Place, stop: StopSignal, is_finished: Callable[[], bool], limit_seconds: float = MEETING_SECONDS
) -> bool:
    """Wait until the process that writes wants the others. False if the run is finished and will never want them.

    On one machine the launcher ends those who wait in vain. With several, is_finished is asked from time to time, SIGTERM ends
    the wait (raises Stopped), and so does the limit: raises PartnersAbsent.
    """
    asked, begun = 0.0, time.monotonic()
    while not _is_there(place):
        if place.master:
            stop.check()
            if time.monotonic() - asked > _ASK_SECONDS:
                asked = time.monotonic()
                if is_finished():
                    return False
            if time.monotonic() - begun > limit_seconds:
                address, port = place.master
                raise PartnersAbsent(
                    f"nobody listens at {address}:{port} after {limit_seconds:g} s, where machine 0 of this run should: "
                    "see why its pod does not run, or give the run one machine"
                )
        time.sleep(_LOOK_SECONDS)
    return True


def _is_there(place: Place) -> bool:
    if place.master is None:
        return place.meeting_file.exists()
    try:
        socket.create_connection(place.master, _CONNECT_SECONDS).close()
    except OSError:  # no such name yet, nobody listens yet
        return False
    return True
