"""The host's side of the cluster's network, and putting it back: links, kernel settings, packet filter rules."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cluster.harness.layout import HOST_ADDRESS, HOST_LINK, POD_LINK

_SYSCTLS: Final = (
    # The bridge plugin turns forwarding on, kube-proxy wants bridged packets filtered, the kubelet sets the others.
    "net.ipv4.ip_forward",
    "net.bridge.bridge-nf-call-iptables",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
_OUR_CHAIN: Final = re.compile(r"^:((?:KUBE|CNI)-\S+) ")
_POLICY_CHAIN: Final = re.compile(r"^:(KUBE-(?:ROUTER|POD-FW|NWPLCY)-\S+) ")
_POLICY_SET: Final = re.compile(r"^(?:inet6:)?KUBE-(?:SRC|DST)-")
_FILTERS: Final = ("iptables", "ip6tables")


def kernel_settings() -> dict[str, str]:
    """The present values of every kernel setting that a running cluster changes."""
    return {name: path.read_text().strip() for name in _SYSCTLS if (path := _sysctl_path(name)).exists()}


def restore_kernel_settings(values: Mapping[str, str]) -> None:
    """Write back what `kernel_settings` gave; only where it differs."""
    for name, value in values.items():
        if _sysctl_path(name).read_text().strip() != value:
            _sysctl_path(name).write_text(value)


def add_host_link() -> None:
    """Make the address that API server, kubelet and DNS listen on. (The kubelet refuses a loopback address.)"""
    _ip("link", "add", HOST_LINK, "type", "bridge")
    _ip("address", "add", f"{HOST_ADDRESS}/32", "dev", HOST_LINK)
    _ip("link", "set", HOST_LINK, "up")


def remove_links() -> None:
    """Remove the cluster's links where they are; the pods' own ends go with their network namespaces."""
    for name in (POD_LINK, HOST_LINK):
        if has_link(name):
            _ip("link", "delete", name)


def has_link(name: str) -> bool:
    """Whether a network link of this name is on the host."""
    return Path(f"/sys/class/net/{name}").exists()


def kubernetes_chains() -> list[str]:
    """Packet filter chains of Kubernetes and of its network plugins, of any cluster, as `tool/table/CHAIN`."""
    return _chains(_OUR_CHAIN)


def remove_kubernetes_chains() -> None:
    """Remove those chains and every rule that leads to them, and nothing else."""
    _remove_chains(_OUR_CHAIN)
    _remove_policy_sets()


def has_policy_chains() -> bool:
    """Whether something enforces NetworkPolicies, see `policies`."""
    return bool(_chains(_POLICY_CHAIN))


def remove_policy_chains() -> None:
    """Remove what enforces NetworkPolicies; everything else of the cluster stays."""
    _remove_chains(_POLICY_CHAIN)
    _remove_policy_sets()


def _chains(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for tool in _FILTERS:
        for table, lines in _tables(tool).items():
            found += [f"{tool}/{table}/{match[1]}" for line in lines if (match := pattern.match(line))]
    return found


def _remove_chains(pattern: re.Pattern[str]) -> None:
    for tool in _FILTERS:
        commands = []
        for table, lines in _tables(tool).items():
            commands += [f"*{table}", *_removal(lines, pattern), "COMMIT"]
        restore = [f"{tool}-restore", "--noflush"]
        subprocess.run(restore, input="\n".join(commands) + "\n", text=True, check=True, capture_output=True)


def policy_sets() -> list[str]:
    """The sets of addresses that rules of policies name."""
    listed = subprocess.run(["ipset", "list", "-name"], capture_output=True, text=True, check=True).stdout
    return list(filter(_POLICY_SET.match, listed.split()))


def _remove_policy_sets() -> None:
    for name in policy_sets():
        subprocess.run(["ipset", "destroy", name], check=True)


def _removal(lines: list[str], pattern: re.Pattern[str]) -> list[str]:
    chains = [match[1] for line in lines if (match := pattern.match(line))]
    outer = [line for line in lines if line.startswith("-A") and line.split()[1] not in chains]
    leading = [line for line in outer if any(jump in chains for jump in re.findall(r" -[jg] (\S+)", line))]
    return [
        *(f"-D {line.removeprefix('-A ')}" for line in leading),
        *(f"-F {chain}" for chain in chains),
        *(f"-X {chain}" for chain in chains),
    ]


def _tables(tool: str) -> dict[str, list[str]]:
    """The lines of `iptables-save` by table."""
    saved = subprocess.run([f"{tool}-save"], capture_output=True, text=True, check=True).stdout
    tables: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            lines = tables.setdefault(line[1:], [])
        elif line.startswith((":", "-")):
            lines.append(line)
    return tables


def _sysctl_path(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
