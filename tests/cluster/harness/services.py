"""Service addresses and names: kube-proxy and CoreDNS, both as programs of the host."""

from typing import Any, Final

from tests.cluster.harness import pki
from tests.cluster.harness.binaries import binary
from tests.cluster.harness.layout import DNS_DOMAIN, HOST_ADDRESS, NODE, POD_RANGE, STATE
from tests.cluster.harness.processes import Process, start

_COREDNS: Final = "system:coredns"


def start_proxy() -> Process:
    """kube-proxy with iptables; the zeros keep it from changing connection tracking on the host."""
    return start(
        "kube-proxy",
        [
            binary("kube-proxy"),
            f"--kubeconfig={pki.kubeconfig('proxy')}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_RANGE}",
            f"--hostname-override={NODE}",
            "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
            "--iptables-localhost-nodeports=false",
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ],
    )


def start_dns() -> Process:
    """CoreDNS for the cluster's names; every other name does not exist, as on a cluster without internet."""
    corefile = STATE / "Corefile"
    corefile.write_text(f"""\
{DNS_DOMAIN} in-addr.arpa {{
    bind {HOST_ADDRESS}
    errors
    kubernetes {DNS_DOMAIN} in-addr.arpa {{
        kubeconfig {pki.kubeconfig("coredns")}
        ttl 5
    }}
}}
. {{
    bind {HOST_ADDRESS}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
""")
    return start("coredns", [binary("coredns"), "-conf", corefile])


def dns_permissions() -> list[dict[str, Any]]:
    """What CoreDNS may read of the API."""
    rbac = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["namespaces", "services", "pods"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": _COREDNS}, "rules": rules}
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": _COREDNS},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": _COREDNS},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": _COREDNS}],
    }
    return [role, binding]
