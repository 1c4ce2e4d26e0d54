from pathlib import Path

import pytest
import torch
from dreambooth import available

MIB = 2**20
GIB = 2**30


def written(root: Path, files: dict[str, str]) -> Path:
    """A machine's /proc and /sys with 8 GiB available, and these files."""
    for name, content in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8388608 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert available.free_bytes(written(tmp_path, {})) == 8 * GIB
    assert available.free_bytes(written(tmp_path, {"proc/self/cgroup": "0::/\n"})) == 8 * GIB


def test_cgroup_v2_limits_of_all_levels_count_and_cached_files_are_free(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pods/training\n",
        "sys/fs/cgroup/pods/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/pods/memory.current": f"{2 * GIB}\n",
        "sys/fs/cgroup/pods/memory.stat": f"anon 1\ninactive_file {512 * MIB}\n",
        "sys/fs/cgroup/pods/training/memory.max": "max\n",
        "sys/fs/cgroup/pods/training/memory.current": "7\n",
    }
    assert available.free_bytes(written(tmp_path, files)) == 2 * GIB + 512 * MIB


def test_in_a_container_the_mount_is_the_group(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/kubepods/pod1/not-visible-here\n",
        "sys/fs/cgroup/memory.max": f"{3 * GIB}\n",
        "sys/fs/cgroup/memory.current": f"{1 * GIB}\n",
    }
    assert available.free_bytes(written(tmp_path, files)) == 2 * GIB


def test_cgroup_v1_limits_count(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/docker/a\n",
        "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes": f"{1 * GIB}\n",
        "sys/fs/cgroup/memory/docker/a/memory.stat": f"inactive_file 5\ntotal_inactive_file {256 * MIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1 * GIB}\n",
    }
    assert available.free_bytes(written(tmp_path, files)) == 1 * GIB + 256 * MIB


def test_processes_share_what_is_free_but_not_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cpu = written(tmp_path, {}), torch.device("cpu")
    assert available.of(cpu, 100, root) == 8 * GIB + 100
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available.of(cpu, 100, root) == 2 * GIB + 100


def test_this_machine_has_some() -> None:
    assert available.free_bytes() > 100 * MIB
