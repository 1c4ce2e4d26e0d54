"""The workers of one run on this machine: started, told of SIGTERM, and answered by one exit code.

torchrun would do the same, but every failure of its children becomes exit code 1, and the codes of this program decide
what is tried again. What a worker does is in `workers`.

The leader is the worker with the lowest rank of this machine; on the first machine it is the one that writes the run. It
notices by itself if another one is gone, and may still have something to save. The others have nothing to lose: they are
killed as soon as the leader has ended.

Several machines each start this program with the same DARKROOM_NODES, DARKROOM_PROCESSES and MASTER_ADDR, and the number
of the machine in JOB_COMPLETION_INDEX, as the pods of an Indexed Job have it.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Final

from dreambooth import cores, exits, workers
from dreambooth.config import ProgramConfig
from dreambooth.exits import StopSignal

_POLL_SECONDS: Final = 0.1
_LEADER_SECONDS: Final = 120.0  # in which the leader notices that another worker is gone

Child = subprocess.Popen[bytes]


def run(config: ProgramConfig, arguments: Sequence[str], stop: StopSignal) -> int:
    """Start the workers of this machine, wait for their end and return the program's exit code."""
    children: list[Child] = []
    with tempfile.TemporaryDirectory(prefix="dreambooth-") as folder:
        try:
            children.extend(_start(arguments, variables) for variables in _variables(config, folder))
            code = _code(_ends(children, stop))
        finally:
            _kill(children)
    # Of the workers that were all asked to end some hear of it from another one first.
    return exits.STOPPED if code == exits.PARTNER_LOST and stop.is_set() else code


def _variables(config: ProgramConfig, folder: str) -> list[dict[str, str]]:
    """What each worker finds in its environment beside what is there already."""
    shared = {
        workers.LAUNCHER: str(os.getpid()),
        workers.FOLDER: folder,
        "WORLD_SIZE": str(config.num_workers),
        "LOCAL_WORLD_SIZE": str(config.processes),
        "MASTER_PORT": str(config.master_port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores.count() // config.processes)),
    }
    if config.nodes == 1 and sys.platform == "linux":
        shared["GLOO_SOCKET_IFNAME"] = "lo"  # nothing to do on the network
    first = config.node * config.processes if config.nodes > 1 else 0  # any Indexed Job has a number
    return [{**shared, "RANK": str(first + local), "LOCAL_RANK": str(local)} for local in range(config.processes)]


def _start(arguments: Sequence[str], variables: Mapping[str, str]) -> Child:
    return subprocess.Popen([sys.executable, "-m", "dreambooth", *arguments], env={**os.environ, **variables})


def _ends(children: Sequence[Child], stop: StopSignal) -> list[int]:
    """Wait until the leader has ended: its exit status, then those of the others that ended by themselves."""
    leader, *others = children
    told, deadline = False, float("inf")
    while leader.poll() is None and time.monotonic() < deadline:
        if stop.is_set() and not told:
            told = True
            for child in children:
                child.terminate()
        if any(other.poll() for other in others):
            deadline = min(deadline, time.monotonic() + _LEADER_SECONDS)
        time.sleep(_POLL_SECONDS)
    of_leader = exits.PARTNER_LOST if leader.returncode is None else leader.returncode
    return [of_leader, *(other.returncode for other in others if other.poll() is not None)]


def _code(ends: Sequence[int]) -> int:
    """The program's exit code: the leader's, unless that only says that another worker had ended."""
    codes = [end if end >= 0 else 128 - end for end in ends]
    telling = [code for code in codes if code not in (exits.FINISHED, exits.PARTNER_LOST)]
    return codes[0] if codes[0] == exits.FINISHED or not telling else telling[0]


def _kill(children: Sequence[Child]) -> None:
    for child in children:
        child.kill()
    for child in children:
        child.wait()
