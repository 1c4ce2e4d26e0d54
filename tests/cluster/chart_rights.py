"""What ServiceAccounts may do: as the API server lists it, and with a real token of the account."""

import re
import subprocess
from typing import Final

from tests.cluster.harness.binaries import binary
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.layout import API_URL, PKI

_ROW: Final = re.compile(r"^(?P<resource>\S*)\s+\[(?P<urls>.*?)\]\s+\[(?P<names>.*?)\]\s+\[(?P<verbs>.*?)\]$")


def rights(cluster: Cluster, account: str, home: str, namespace: str) -> dict[str, set[str]]:
    """What an account of the namespace `home` may do in another, by resource, beyond what every account may.

    Resources are written as in docs/operators.md: group/resource/subresource, without the core group's empty name.
    """
    everybody = _listed(cluster, f"system:serviceaccount:{home}:nobody", namespace)
    return {
        _as_documented(resource): set(verbs.split())
        for resource, urls, names, verbs in _listed(cluster, f"system:serviceaccount:{home}:{account}", namespace)
        - everybody
        if not names and not urls
    }


def _listed(cluster: Cluster, user: str, namespace: str) -> set[tuple[str, str, str, str]]:
    printed = cluster.kubectl("auth", "can-i", "--list", "--namespace", namespace, "--as", user)
    rows = [_ROW.match(line.rstrip()) for line in printed.splitlines()[1:]]
    assert rows, printed
    assert all(rows), printed
    return {(row["resource"], row["urls"], row["names"], row["verbs"]) for row in rows if row}


def _as_documented(resource: str) -> str:
    """`jobs.batch` as `batch/jobs`; `pods/log` stays."""
    name, _, group = resource.partition(".")
    return f"{group}/{name}" if group else name


def as_account(cluster: Cluster, account: str, namespace: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run kubectl with nothing but a real token of the account."""
    token = cluster.kubectl("create", "token", account, "--namespace", namespace, "--duration=10m").strip()
    options = ["--kubeconfig=/dev/null", f"--server={API_URL}", f"--certificate-authority={PKI / 'ca.crt'}"]
    command = [str(binary("kubectl")), *options, f"--token={token}", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=cluster.env | {"KUBECONFIG": "/dev/null"}
    )
