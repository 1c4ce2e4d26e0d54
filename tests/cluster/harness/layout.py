"""Where the cluster lives on this machine: folders, addresses, ports, names. One cluster fits on a machine."""

from pathlib import Path
from typing import Final

STATE: Final = Path("/var/lib/darkroom-cluster")
"""Everything the running cluster writes. It exists exactly while a cluster is up, or half up, or half down."""
READY: Final = STATE / "ready"
"""A file that is there from when everything is up until `down` begins."""
LOGS: Final = STATE / "logs"
PKI: Final = STATE / "pki"
KUBECONFIG: Final = STATE / "kubeconfig"
CONTAINERD_SOCKET: Final = STATE / "run" / "containerd.sock"

HOST_LINK: Final = "dkr-host"
POD_LINK: Final = "dkr-pods"
HOST_ADDRESS: Final = "10.250.0.1"
"""API server, kubelet and DNS listen here: an address of this host only, which no packet leaves."""
SERVICE_RANGE: Final = "10.0.0.0/24"
API_SERVICE_ADDRESS: Final = "10.0.0.1"
POD_RANGE: Final = "10.244.0.0/16"
NODE_POD_RANGE: Final = "10.244.0.0/24"
FAKE_POD_RANGE: Final = "10.245.0.0/16"
"""Made-up pods on made-up nodes get made-up addresses from here; nothing answers there."""

API_PORT: Final = 6443
ETCD_PORT: Final = 23790
ETCD_PEER_PORT: Final = 23800
API_URL: Final = f"https://{HOST_ADDRESS}:{API_PORT}"

NODE: Final = "darkroom-node"
"""The one real node."""
DNS_DOMAIN: Final = "cluster.local"

PAUSE_IMAGE: Final = "localhost/darkroom-pause:1"
PROBE_IMAGE: Final = "localhost/darkroom-probe:1"
MINIO_IMAGE: Final = "localhost/darkroom-minio:1"
