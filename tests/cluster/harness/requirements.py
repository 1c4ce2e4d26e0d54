"""What this machine must have before a cluster can be built and started on it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_GO: Final = (1, 26)
_PACKAGES: Final = {
    # A file or command → the Debian package that brings it.
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "iptables-save": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
}
_SBIN: Final = "/usr/sbin:/sbin"


class Unusable(Exception):
    """The machine lacks something, or something on it is in the way. The message is for the person at the terminal."""


def require_machine() -> None:
    """Raise Unusable with everything that is missing, at once."""
    missing = [sentence for sentence in (_platform(), _root(), _go(), _packages()) if sentence]
    if missing:
        raise Unusable("This machine cannot run the cluster:\n" + "\n".join(f"- {sentence}" for sentence in missing))


def _platform() -> str:
    if sys.platform == "linux":
        return ""
    return f"It needs Linux with network namespaces and cgroups; this is {sys.platform}."


def _root() -> str:
    if os.geteuid() == 0:
        return ""
    return f"It must be started by root (mounts, network links, cgroups); this is uid {os.geteuid()}."


def _go() -> str:
    wanted = ".".join(map(str, _GO))
    if shutil.which("go") is None:
        return f"No Go: `go` {wanted} or newer must be on the PATH; it compiles the programs of the cluster."
    printed = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", printed)
    if found and (int(found[1]), int(found[2])) >= _GO:
        return ""
    return f"Go is too old: found `{printed.strip()}`, needed {wanted} or newer."


def _packages() -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), _SBIN])
    missing = {name: package for name, package in _PACKAGES.items() if not _there(name, path)}
    if not missing:
        return ""
    return f"Not found: {', '.join(missing)}. On Debian: apt-get install {' '.join(missing.values())}"


def _there(name: str, path: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name, path=path) is not None
