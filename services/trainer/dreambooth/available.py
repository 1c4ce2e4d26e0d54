"""The memory that is there for this process: on the GPU, or in the machine and within the limits of its containers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

_ROOT: Final = Path("/")
_NO_LIMIT: Final = 2**60  # cgroup v1 writes an absurd number for "none"


def of(device: torch.device, loaded_bytes: int, root: Path = _ROOT) -> int:
    """Bytes that this process may hold in all: what is free now, and what it holds already.

    loaded_bytes: of weights in this process. root: where /proc and /sys are.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    # The processes of a run on this machine share what is free; the launcher says how many they are.
    return free_bytes(root) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) + loaded_bytes


def free_bytes(root: Path = _ROOT) -> int:
    """The least of what the machine has and what each cgroup around this process still allows."""
    return max(0, min(_of_machine(root), *_of_cgroups(root), _NO_LIMIT))


def _of_machine(root: Path) -> int:
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():  # macOS does not say what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _of_cgroups(root: Path) -> Iterator[int]:
    joined = root / "proc/self/cgroup"
    for line in joined.read_text().splitlines() if joined.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "sys/fs/cgroup/memory", path, *names)


def _left(mount: Path, path: str, limit: str, usage: str, cached: str) -> Iterator[int]:
    """What a group and those around it still allow. In a container the path may be that of the host: then the mount
    itself is the group."""
    group = mount / path.lstrip("/")
    for folder in (group, *group.parents):
        if (folder / limit).exists() and (folder / usage).exists():
            most = (folder / limit).read_text().strip()
            if most != "max" and int(most) < _NO_LIMIT:
                yield int(most) - int((folder / usage).read_text()) + _cached(folder / "memory.stat", cached)
        if folder == mount:
            return


def _cached(stat: Path, name: str) -> int:
    """Pages of files, which the kernel gives back when memory runs short."""
    fields = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
    return int(fields.get(name, 0))
