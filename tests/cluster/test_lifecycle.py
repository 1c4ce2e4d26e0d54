"""Starting and removing clusters: what is refused, and that the machine is afterwards as it was before."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import harness
from tests.cluster.harness import network, policies, requirements, store
from tests.cluster.harness.binaries import cache_folder
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import NODE, STATE
from tests.cluster.harness.processes import recorded, wait_gone, wait_until
from tests.cluster.harness.requirements import Unusable, require_machine
from tests.cluster.harness.teardown import FIXED_PATHS, pod_cgroups, shims

# Where Kubernetes, containerd and network plugins write by default, besides the paths that are cleaned.
OTHER_PATHS = tuple(
    map(Path, ("/usr/libexec/kubernetes", "/run/nri", "/run/netns", "/run/runc", "/etc/cdi", "/opt/cni"))
)
NO_WAY_IN = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "no-way-in"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}
FILTER_RULE = ("FORWARD", "-s", "203.0.113.7/32", "-j", "DROP")


@pytest.fixture
def free_machine() -> None:
    """These tests start clusters of their own."""
    if STATE.exists():
        pytest.skip(
            "a cluster is up already (`make cluster`); these tests start and remove one: `make cluster-down` first"
        )


@pytest.fixture
def foreign_rule() -> Iterator[None]:
    """A packet filter rule that is none of ours."""
    subprocess.run(["iptables", "-A", *FILTER_RULE], check=True)
    yield
    subprocess.run(["iptables", "-D", *FILTER_RULE], check=True)


def machine() -> dict[str, object]:
    """Everything that a cluster changes on a machine."""
    return {
        "programs": sorted(programs()),
        "mounts": sorted(point for point in mount_points() if not point.startswith("/var/lib/containers/")),
        "links": sorted(os.listdir("/sys/class/net")),
        "rules": [line for tool in ("iptables", "ip6tables") for line in rules(tool)],
        "sets of addresses": network.policy_sets(),
        "kernel settings": network.kernel_settings(),
        "control groups": pod_cgroups(),
        "paths": {str(path): path.exists() for path in (STATE, *FIXED_PATHS, *OTHER_PATHS)},
    }


def programs() -> list[str]:
    """Programs that run out of the harness's cache, and containers of it; without those of control_plane's tests."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/exe"):
        try:
            target = os.readlink(entry)
            command = entry.with_name("cmdline").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # a kernel thread, or it has just ended
            continue
        # Those tests keep their data in the temporary folder, a cluster never does.
        ours = target.startswith(str(cache_folder())) and tempfile.gettempdir() not in command
        if ours or target in ("/minio", "/pause", "/probe"):
            found.append(target)
    return found


def mount_points() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def rules(tool: str) -> list[str]:
    """Rules and chains, without counters and comments."""
    saved = subprocess.run([f"{tool}-save"], capture_output=True, text=True, check=True).stdout
    lines = [line.partition(" [")[0] for line in saved.splitlines()]
    return [
        f"{tool} {line}" for line in lines if line.startswith("-") or (line.startswith(":") and line.endswith(" -"))
    ]


def test_down_leaves_the_machine_as_found(free_machine: None, foreign_rule: None) -> None:
    before = machine()
    assert any("203.0.113.7" in str(rule) for rule in before["rules"])
    harness("up")
    assert machine() != before
    assert harness("status").stdout.startswith("up\n")
    second = harness("up", check=False)
    assert second.returncode == 1
    assert second.stderr == f"A cluster is up ({STATE}). `make cluster-down` removes it.\n"
    assert Cluster().get("node", NODE)["metadata"]["name"] == NODE
    harness("down")
    assert machine() == before
    assert harness("status", check=False).stdout == "no cluster\n"
    harness("down")  # nothing to do


def test_down_after_a_crash_leaves_the_machine_as_found(free_machine: None) -> None:
    before = machine()
    harness("up")
    Cluster().apply(NO_WAY_IN, namespace=store.NAMESPACE)
    policies.enforce()
    wait_until("the policy is in force", lambda: bool(network.policy_sets()), 30)
    processes = recorded()
    assert len(processes) == 10
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    wait_gone(processes)
    assert shims()  # containers outlive their runtime
    assert "/minio" in programs()
    assert harness("status", check=False).stdout.startswith("half up\n")
    second = harness("up", check=False)
    assert second.returncode == 1
    assert "A cluster is half up" in second.stderr
    harness("down")
    assert machine() == before


def test_up_that_fails_removes_what_it_started_and_keeps_the_logs(free_machine: None, tmp_path: Path) -> None:
    before = machine()
    holder = "import socket, time; s = socket.create_server(('127.0.0.1', 23790)); print('bound', flush=True); time.sleep(99)"
    with subprocess.Popen(["python3", "-c", holder], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"bound\n"
            failed = harness("up", check=False)
        finally:
            process.kill()
    assert failed.returncode == 1
    assert "etcd" in failed.stdout.split("Programs that ended: ")[1].split(". Logs")[0]
    kept = Path(failed.stdout.split("Logs: ")[1].strip())
    assert "address already in use" in (kept / "logs/etcd.log").read_text()
    assert machine() == before


def test_another_kubernetes_is_in_the_way(free_machine: None) -> None:
    subprocess.run(["iptables", "-N", "KUBE-OF-SOMEBODY"], check=True)
    try:
        refused = harness("up", check=False)
    finally:
        subprocess.run(["iptables", "-X", "KUBE-OF-SOMEBODY"], check=True)
    assert refused.returncode == 1
    assert "Another Kubernetes" in refused.stderr
    assert "iptables/filter/KUBE-OF-SOMEBODY" in refused.stderr
    assert not STATE.exists()


def test_everything_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(requirements, "_SBIN", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # the only way to be somebody else in this process
    with pytest.raises(Unusable) as told:
        require_machine()
    message = str(told.value)
    assert "No Go" in message
    assert "uid 1000" in message
    assert "apt-get install runc buildah debootstrap iptables ipset conntrack iproute2" in message


def test_old_go_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go version go1.24.1 linux/amd64\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(
        Unusable, match=r"Go is too old: found `go version go1\.24\.1 linux/amd64`, needed 1\.26 or newer"
    ):
        require_machine()
