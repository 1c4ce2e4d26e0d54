"""NetworkPolicies with an effect: kube-router's firewall, for the tests that want it. It is gone without a trace afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.cluster.harness import network
from tests.cluster.harness.binaries import binary
from tests.cluster.harness.layout import KUBECONFIG, NODE, SERVICE_RANGE
from tests.cluster.harness.processes import start, stop, wait_until

_NAME: Final = "kube-router"
_START_SECONDS: Final = 60


@contextmanager
def enforced() -> Iterator[None]:
    """Policies are enforced for the pods of the real node. What this machine itself sends to pods is always let through.

    A pod is reached by everybody in its first second, until kube-router has seen it.
    """
    try:
        enforce()
        yield
    finally:
        stop(_NAME)
        network.remove_policy_chains()


def enforce() -> None:
    """Begin to, until the cluster is removed. Raises NotReady."""
    process = start(
        _NAME,
        [
            binary("kube-router"),
            f"--kubeconfig={KUBECONFIG}",
            f"--hostname-override={NODE}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            "--enable-cni=false",
            "--health-port=0",
        ],
    )
    wait_until("NetworkPolicies are enforced", network.has_policy_chains, _START_SECONDS, process)
