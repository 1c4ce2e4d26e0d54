"""Takes the cluster down and leaves the machine as it was found. Works from what is on disk, so after a crash as well.

Nothing here asks the API server or the container runtime for help: after a crash neither is there. Processes are ended by
recorded pid, or because they are inside the pods' control groups, or because they are container shims of our own runtime.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.cluster.harness import network
from tests.cluster.harness.layout import CONTAINERD_SOCKET, READY, STATE
from tests.cluster.harness.processes import Process, began, recorded, stop, wait_gone, wait_until

_ORDER: Final = (
    # The kubelet first, or it would start again what is stopped; the API server before etcd, or it would wait for it.
    "kubelet",
    "kwok",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-proxy",
    "coredns",
    "kube-apiserver",
    "etcd",
    "containerd",
)
_CGROUPS: Final = Path("/sys/fs/cgroup")
_CGROUP_SECONDS: Final = 30
_BEFORE: Final = STATE / "before.json"
FIXED_PATHS: Final = tuple(
    # Written by programs of the cluster, wherever their own folders are.
    Path(path)
    for path in (
        "/var/lib/kubelet",
        "/var/lib/cni",
        "/var/log/containers",
        "/var/log/pods",
        "/run/containerd",
        "/opt/containerd",
    )
)


@dataclass(frozen=True)
class Before:
    """What the machine looked like before the cluster was started."""

    kernel_settings: Mapping[str, str]
    absent_paths: Sequence[str]
    """Those of FIXED_PATHS that were not there."""

    def write(self) -> None:
        _BEFORE.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls) -> "Before":
        return cls(**json.loads(_BEFORE.read_text())) if _BEFORE.exists() else cls({}, [])


def tear_down() -> None:
    """Stop everything and remove every trace. Without a cluster it does nothing."""
    if not STATE.exists():
        return
    before = Before.read()
    READY.unlink(missing_ok=True)
    for name in _ORDER:
        stop(name)
    for process in recorded():
        stop(process.name)
    _kill(shims())
    _kill(_pod_processes())
    for path in pod_cgroups():
        wait_until(f"control group {path} is empty", partial(_remove_cgroup, path), _CGROUP_SECONDS)
    _unmount([STATE, *map(Path, before.absent_paths)])
    network.remove_links()
    network.remove_kubernetes_chains()
    network.restore_kernel_settings(before.kernel_settings)
    for name in before.absent_paths:
        _remove(Path(name))
    shutil.rmtree(STATE)


def pod_cgroups() -> list[Path]:
    """The control groups that hold pods: one for each controller of version 1, or one for all."""
    return sorted(path for pattern in ("kubepods", "*/kubepods") for path in _CGROUPS.glob(pattern) if path.is_dir())


def shims() -> list[Process]:
    """The container shims of our runtime; they outlive it."""
    mark = f"\0-address\0{CONTAINERD_SOCKET}\0"
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "containerd-shim-runc-v2" in line and mark in line:
            found.append(_process("containerd-shim", int(entry.name)))
    return [process for process in found if process.began]


def _pod_processes() -> list[Process]:
    pids = {
        int(pid)
        for group in pod_cgroups()
        for listing in group.rglob("cgroup.procs")
        for pid in listing.read_text().split()
    }
    return [process for pid in sorted(pids) if (process := _process("pod", pid)).began]


def _process(name: str, pid: int) -> Process:
    return Process(name, pid, began(pid) or 0)


def _kill(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.alive:
            os.kill(process.pid, signal.SIGKILL)
    wait_gone(processes)


def _unmount(roots: Sequence[Path]) -> None:
    """Unmount everything below these folders, innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounted = [Path(line.split()[4].replace(r"\040", " ")) for line in lines]
    inside = [path for path in mounted if any(path.is_relative_to(root) for root in roots)]
    for path in reversed(inside):  # later mounts lie on top of earlier ones
        subprocess.run(["umount", str(path)], check=True)


def _remove_cgroup(path: Path) -> bool:
    """Control groups are removed like empty folders, children first. False while a killed process is not quite gone."""
    try:
        for folder, _, _ in os.walk(path, topdown=False):
            os.rmdir(folder)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
