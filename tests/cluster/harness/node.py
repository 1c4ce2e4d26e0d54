"""The one real node: containerd with runc and bridge networking, and the kubelet."""

import json
from pathlib import Path
from typing import Any, Final

from tests.cluster.harness import pki
from tests.cluster.harness.binaries import binary
from tests.cluster.harness.layout import (
    CONTAINERD_SOCKET,
    DNS_DOMAIN,
    HOST_ADDRESS,
    NODE,
    NODE_POD_RANGE,
    PAUSE_IMAGE,
    POD_LINK,
    STATE,
)
from tests.cluster.harness.processes import Process, start, wait_until

_CONTAINERD: Final = STATE / "containerd"
_CNI: Final = STATE / "cni"
_KUBELET: Final = STATE / "kubelet"

_CONTAINERD_CONFIG: Final = f"""\
version = 3
root = "{_CONTAINERD}/root"
state = "{_CONTAINERD}/state"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins.'io.containerd.shim.v1.manager']
  socket_dir = "{STATE}/run/s"

[plugins.'io.containerd.internal.v1.opt']
  path = "{_CONTAINERD}/opt"

[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
  # A machine that is itself confined may not lower the score that tells the kernel whom to kill first.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{_CNI}"
"""


def start_containerd() -> Process:
    """Start the container runtime and wait for its socket."""
    CONTAINERD_SOCKET.parent.mkdir(parents=True, exist_ok=True)
    _CNI.mkdir(parents=True, exist_ok=True)
    (_CNI / "10-darkroom.conflist").write_text(json.dumps(_cni_config(), indent=2))
    config = STATE / "containerd.toml"
    config.write_text(_CONTAINERD_CONFIG)
    process = start("containerd", [binary("containerd"), "--config", config])
    wait_until("containerd listens", CONTAINERD_SOCKET.exists, 60, process)
    return process


def start_kubelet() -> Process:
    """Start the kubelet; it registers the node by itself."""
    _KUBELET.mkdir(parents=True, exist_ok=True)
    config = STATE / "kubelet.json"
    config.write_text(json.dumps(_kubelet_config(), indent=2))
    return start(
        "kubelet",
        [
            binary("kubelet"),
            f"--config={config}",
            f"--kubeconfig={pki.kubeconfig('node')}",
            f"--root-dir={_KUBELET}",
            f"--cert-dir={_KUBELET / 'pki'}",
            f"--hostname-override={NODE}",
            f"--node-ip={HOST_ADDRESS}",
        ],
    )


def _cni_config() -> dict[str, Any]:
    """A bridge for the pods, without masquerading: pods reach each other and this host, not the internet."""
    ipam = {
        "type": "host-local",
        "dataDir": str(STATE / "cni-addresses"),
        "ranges": [[{"subnet": NODE_POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": POD_LINK, "isGateway": True, "ipMasq": False, "hairpinMode": True}
    return {
        "cniVersion": "1.0.0",
        "name": "darkroom",
        "plugins": [{**bridge, "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def _kubelet_config() -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": HOST_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.certificate("ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [HOST_ADDRESS],
        "clusterDomain": DNS_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "enforceNodeAllocatable": ["pods"],
        # A test machine may be nearly full: evict late, and never throw away an image that no registry can give back.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "failCgroupV1": False,
        "failSwapOn": False,
        "podLogsDir": str(STATE / "pod-logs"),
        "resolvConf": str(_resolv_conf()),
        "tlsCertFile": str(pki.certificate("node")),
        "tlsPrivateKeyFile": str(pki.key("node")),
        "volumePluginDir": str(_KUBELET / "volume-plugins"),
    }


def _resolv_conf() -> Path:
    """Not the host's file: its search domains would leak into every pod."""
    path = STATE / "resolv.conf"
    path.write_text(f"nameserver {HOST_ADDRESS}\n")
    return path
