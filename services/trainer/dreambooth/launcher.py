"""Several processes of one run on this machine: started, told of SIGTERM, and answered by one exit code.

torchrun would do the same, but every failure of its children becomes exit code 1, and the codes of this program decide
what is tried again. The children get torchrun's variables, so `world` cannot tell the difference. Several machines each
start this with DARKROOM_NODES and MASTER_ADDR set, the number of the machine in JOB_COMPLETION_INDEX.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from dreambooth import exits
from dreambooth.exits import StopSignal

_PORT_OF_SEVERAL_MACHINES = 29500
_POLL_SECONDS = 0.1
_END_SECONDS = 30.0


def is_worker() -> bool:
    """Whether this process is one of several already."""
    return "RANK" in os.environ


def rank() -> int:
    """Number of this process among all of the run."""
    return int(os.environ.get("RANK", "0"))


def run(processes: int, arguments: Sequence[str], stop: StopSignal) -> int:
    """Start the processes and wait. The first failure ends the others and is the result."""
    children = [
        subprocess.Popen([sys.executable, "-m", "dreambooth", *arguments], env={**os.environ, **variables})
        for variables in _variables(processes)
    ]
    told = False
    while True:
        codes = [child.poll() for child in children]
        if stop.is_set() and not told:
            told = True
            for child in children:
                child.terminate()
        failed = [code for code in codes if code not in (None, 0)]
        if (failed and not told) or all(code is not None for code in codes):
            _end(children)
            return _shell_code(_telling(failed)) if failed else exits.FINISHED
        time.sleep(_POLL_SECONDS)


def _variables(processes: int) -> list[dict[str, str]]:
    nodes, node = int(os.environ.get("DARKROOM_NODES", "1")), int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    alone = nodes == 1
    shared = {
        "WORLD_SIZE": str(nodes * processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1" if alone else os.environ["MASTER_ADDR"],
        "MASTER_PORT": str(_free_port() if alone else _PORT_OF_SEVERAL_MACHINES),
    }
    first = node * processes if not alone else 0
    return [{**shared, "RANK": str(first + local), "LOCAL_RANK": str(local)} for local in range(processes)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _telling(codes: Sequence[int]) -> int:
    """Of several failures the one that says most: a process whose partner died only knows that it died."""
    return next((code for code in codes if code not in (exits.UNKNOWN,) and code > 0), codes[0])


def _shell_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _end(children: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ask those that still run to end, then end them: without its partners a process waits for ever."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + _END_SECONDS
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
