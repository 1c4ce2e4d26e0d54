"""How and where runs are executed, the same for all runs of one service or one file; `execution_file` reads it from YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.errors import FieldsInvalid
from jobs.recipe import Recipe

Objects = Sequence[Mapping[str, Any]]
"""Objects of Kubernetes, passed through as they are."""

AUTO: Final = "auto"
CUDA: Final = "cuda"
DEVICES: Final = (AUTO, "cpu", CUDA)


@dataclass(frozen=True)
class StoreAddress:
    """The bucket as pods see it. endpoint: host:port or http(s)://host:port."""

    endpoint: str
    bucket: str = "darkroom"
    region: str = "us-east-1"


@dataclass(frozen=True)
class StoreSecret:
    """A Secret with the store's credentials. access_key, secret_key: the keys inside it that hold them."""

    name: str
    access_key: str = "access-key"
    secret_key: str = "secret-key"


@dataclass(frozen=True)
class Gpu:
    """GPUs of one pod. Not enabled: none, and no other field counts.

    count: one process each. resource_name: as a device plugin offers it. min_memory_mib: 0 for any. products: of
    which one is needed, empty for any. allow_shared: also GPUs that other pods use at the same time.
    resource_claim_template_name: GPUs by a claim (DRA) instead of the resource; it then chooses them.
    """

    enabled: bool = False
    count: int = 1
    resource_name: str = "nvidia.com/gpu"
    runtime_class_name: str = ""
    min_memory_mib: int = 0
    products: Sequence[str] = ()
    allow_shared: bool = False
    resource_claim_template_name: str = ""

    @property
    def num_gpus(self) -> int:
        """GPUs of a pod, 0 if they are off."""
        return self.count if self.enabled else 0


@dataclass(frozen=True)
class Resources:
    """Of one pod, as Kubernetes writes quantities. cpu is requested; memory is request and limit."""

    cpu: str = "2"
    memory: str = "16Gi"


@dataclass(frozen=True)
class Execution:
    """Everything of a Job that is not the run itself.

    store, store_secret: None on one machine, whose programs have the credentials of the service. command: as a list.
    device: auto, cpu or cuda, where the program computes; with GPUs auto means cuda.
    tmp_size, shm_size: limits of /tmp (disk) and /dev/shm (memory). grace_seconds: from SIGTERM to SIGKILL. deadline_seconds:
    longest life of the Job, 0 for any; ttl_seconds: how long it stays after its end. nodes: pods that
    train one run together. env: variables of the program beside ours. run_as_user, run_as_group, fs_group: ids of the
    processes and of the volumes' group, None to write none, for platforms that assign them. host_users: False for a user
    namespace of the pod's own.
    """

    image: str = "localhost/darkroom-dreambooth:0.1.0"
    command: Sequence[str] = ("python", "-m", "dreambooth")
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: Sequence[str] = ()
    namespace: str = ""
    service_account_name: str = ""
    store: StoreAddress | None = None
    store_secret: StoreSecret | None = None
    gpu: Gpu = Gpu()
    device: str = AUTO
    resources: Resources = Resources()
    tmp_size: str = "32Gi"
    shm_size: str = "1Gi"
    grace_seconds: int = 300
    backoff_limit: int = 3
    deadline_seconds: int = 7 * 86400
    ttl_seconds: int = 86400
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Objects = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)
    priority_class_name: str = ""
    topology_spread_constraints: Objects = ()
    queue_name: str = ""
    queue_priority_class: str = ""
    nodes: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    run_as_user: int | None = 10001
    run_as_group: int | None = 10001
    fs_group: int | None = 10001
    host_users: bool = True

    @property
    def num_processes(self) -> int:
        """Processes that train one run together, in all pods."""
        return self.nodes * max(self.gpu.num_gpus, 1)

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise FieldsInvalid for a recipe that contradicts itself, or cannot be carried out this way."""
        recipe.check()
        if recipe.reference_order and self.num_processes > 1:
            problem = f"draws for one process, and runs here have {self.num_processes}, one for each GPU of each pod"
            raise FieldsInvalid(("recipe.reference_order", problem))
