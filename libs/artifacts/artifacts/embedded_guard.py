"""Runs one program and makes sure that it ends with the process that asked for it. Started only by `embedded`.

    python embedded_guard.py LOCK_FD LEFTOVERS program arguments...

LEFTOVERS: files that the program makes outside its folder, joined by os.pathsep; they go when it ends.
stdin is a pipe that the asking process never writes to: its end means that this process is gone, however it died.
The program inherits LOCK_FD, so the lock on its folder is held exactly as long as it runs.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    # Should this guard itself be killed, Linux kills the program. Elsewhere nobody is left to do it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_at_end_of_input(child: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):
        pass
    with contextlib.suppress(ProcessLookupError):
        child.kill()


def main(arguments: list[str]) -> int:
    """Run the program and return its exit status (128 + signal number if killed)."""
    lock_fd, leftovers, program = int(arguments[0]), arguments[1].split(os.pathsep), arguments[2:]
    # The whole group gets the stop signals; the program acts on them, the guard waits for it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # preexec_fn is safe here: this process has a single thread, which also outlives the child.
    child = subprocess.Popen(program, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent, pass_fds=(lock_fd,))
    os.close(lock_fd)
    threading.Thread(target=_kill_at_end_of_input, args=(child,), daemon=True).start()
    status = child.wait()
    for file in leftovers:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
