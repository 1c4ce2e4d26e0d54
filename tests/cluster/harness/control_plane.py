"""etcd, the API server, the controllers and the scheduler."""

from tests.cluster.harness import pki
from tests.cluster.harness.binaries import binary
from tests.cluster.harness.layout import (
    API_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    HOST_ADDRESS,
    PKI,
    POD_RANGE,
    SERVICE_RANGE,
    STATE,
)
from tests.cluster.harness.processes import Process, start

_ETCD_URL = f"http://127.0.0.1:{ETCD_PORT}"
_ETCD_PEER_URL = f"http://127.0.0.1:{ETCD_PEER_PORT}"


def start_etcd() -> Process:
    """One member, on loopback, without waiting for the disk: this data need not survive a power cut."""
    return start(
        "etcd",
        [
            binary("etcd"),
            f"--data-dir={STATE / 'etcd'}",
            f"--listen-client-urls={_ETCD_URL}",
            f"--advertise-client-urls={_ETCD_URL}",
            f"--listen-peer-urls={_ETCD_PEER_URL}",
            f"--initial-advertise-peer-urls={_ETCD_PEER_URL}",
            f"--initial-cluster=default={_ETCD_PEER_URL}",
            "--unsafe-no-fsync",
        ],
    )


def start_api_server() -> Process:
    """Authorization and admission as in a usual cluster: Node, RBAC, NodeRestriction, Pod Security."""
    return start(
        "kube-apiserver",
        [
            binary("kube-apiserver"),
            f"--etcd-servers={_ETCD_URL}",
            f"--bind-address={HOST_ADDRESS}",
            f"--advertise-address={HOST_ADDRESS}",
            f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={PKI / 'service-accounts.pub'}",
            f"--service-account-signing-key-file={pki.key('service-accounts')}",
            f"--client-ca-file={pki.certificate('ca')}",
            f"--tls-cert-file={pki.certificate('apiserver')}",
            f"--tls-private-key-file={pki.key('apiserver')}",
            f"--kubelet-client-certificate={pki.certificate('apiserver-kubelet')}",
            f"--kubelet-client-key={pki.key('apiserver-kubelet')}",
            f"--kubelet-certificate-authority={pki.certificate('ca')}",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
        ],
    )


def start_controllers() -> Process:
    """The controllers, each with the permissions of its own account."""
    kubeconfig = pki.kubeconfig("controller-manager")
    return start(
        "kube-controller-manager",
        [
            binary("kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--use-service-account-credentials",
            f"--root-ca-file={pki.certificate('ca')}",
            f"--service-account-private-key-file={pki.key('service-accounts')}",
            "--leader-elect=false",
            "--allocate-node-cidrs=false",
            f"--cluster-cidr={POD_RANGE}",
            f"--flex-volume-plugin-dir={STATE / 'volume-plugins'}",  # or it makes a folder under /usr/libexec
        ],
    )


def start_scheduler() -> Process:
    """The default scheduler with the default profile: preemption, affinity, taints, topology spread."""
    kubeconfig = pki.kubeconfig("scheduler")
    return start(
        "kube-scheduler",
        [
            binary("kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
    )
