"""Executions in YAML: a file of its own (DARKROOM_EXECUTION of the trainer), or the block of a run file. One schema."""

from typing import Any, Final

from jobs import execution_rules, yaml_document
from jobs.execution import DEVICES, Execution, Gpu, Resources, StoreAddress, StoreSecret
from jobs.fields import Fields

_SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL_NAME: Final = r"([A-Za-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_VALUE: Final = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_NAME: Final = "a name of lower-case letters, digits, '-' and '.'"

FIELDS: Final = (
    "image",
    "imagePullPolicy",
    "imagePullSecrets",
    "namespace",
    "serviceAccountName",
    "storeSecret",
    "store",
    "gpu",
    "device",
    "resources",
    "tmpSize",
    "shmSize",
    "graceSeconds",
    "backoffLimit",
    "deadlineSeconds",
    "ttlSeconds",
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "topologySpreadConstraints",
    "queueName",
    "queuePriorityClass",
    "nodes",
    "labels",
    "annotations",
    "env",
    "runAsUser",
    "runAsGroup",
    "fsGroup",
    "hostUsers",
)
GPU: Final = (
    "enabled",
    "count",
    "resourceName",
    "runtimeClassName",
    "minMemoryMiB",
    "products",
    "allowShared",
    "resourceClaimTemplateName",
)
_IDS: Final = (10_000, 2**31 - 1)  # the lower ones may be those of a host's users
NODES: Final = (1, 64)
"""Least and most pods that train together."""
GPUS: Final = (1, 16)
"""Least and most GPUs of a pod."""
STORE: Final = ("endpoint", "bucket", "region")
STORE_SECRET: Final = ("name", "accessKey", "secretKey")
RESOURCES: Final = ("cpu", "memory")
_TOLERATION: Final = ("key", "operator", "value", "effect", "tolerationSeconds")
_AFFINITY: Final = ("nodeAffinity", "podAffinity", "podAntiAffinity")
_SPREAD: Final = (
    "maxSkew",
    "topologyKey",
    "whenUnsatisfiable",
    "labelSelector",
    "minDomains",
    "nodeAffinityPolicy",
    "nodeTaintsPolicy",
    "matchLabelKeys",
)


def read_execution(text: str, source: str) -> Execution:
    """The execution of a whole file. source: its name, for messages. Raises FileInvalid with every mistake."""
    document = yaml_document.load(text, source)
    problems: list[tuple[str, str]] = []
    execution = execution_of(document.value, "", problems)
    if problems:
        raise document.error(problems)
    return execution


def execution_of(value: Any, path: str, problems: list[tuple[str, str]]) -> Execution:
    """The execution of a block of a document; adds to problems."""
    known = len(problems)
    fields = Fields({} if value is None else value, path, FIELDS, problems)
    execution = _read(fields)
    if len(problems) == known:  # a default that stands in for a mistake would only look like another one
        for where, text in execution_rules.problems(execution):
            fields.problem(where, text)
    return execution


def _read(fields: Fields) -> Execution:
    default = Execution()
    if not fields.has("image"):
        fields.missing("image", "the image that holds `python -m dreambooth`")
    return Execution(
        image=fields.text("image", default.image, pattern=r"\S+", expected="an image without blanks"),
        image_pull_policy=fields.choice(
            "imagePullPolicy", ("IfNotPresent", "Always", "Never"), default.image_pull_policy
        ),
        image_pull_secrets=_pull_secrets(fields),
        namespace=fields.text("namespace", pattern=r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", expected="a namespace"),
        service_account_name=_name(fields, "serviceAccountName"),
        store=_store(fields.nested("store", STORE)),
        store_secret=_store_secret(fields.nested("storeSecret", STORE_SECRET)),
        gpu=_gpu(fields.nested("gpu", GPU)),
        device=fields.choice("device", DEVICES, default.device),
        resources=_resources(fields.nested("resources", RESOURCES)),
        tmp_size=fields.quantity("tmpSize", default.tmp_size),
        shm_size=fields.quantity("shmSize", default.shm_size),
        grace_seconds=fields.integer("graceSeconds", default.grace_seconds, 1, 3600),
        backoff_limit=fields.integer("backoffLimit", default.backoff_limit, 0, 100),
        deadline_seconds=fields.integer("deadlineSeconds", default.deadline_seconds, 0, 366 * 86400),
        ttl_seconds=fields.integer("ttlSeconds", default.ttl_seconds, 300, 366 * 86400),
        node_selector=fields.pairs("nodeSelector", _LABEL_NAME, _LABEL_VALUE, "a label and its value"),
        tolerations=fields.objects("tolerations", _TOLERATION),
        affinity=fields.object("affinity", _AFFINITY),
        priority_class_name=_name(fields, "priorityClassName"),
        topology_spread_constraints=fields.objects("topologySpreadConstraints", _SPREAD),
        queue_name=_name(fields, "queueName"),
        queue_priority_class=_name(fields, "queuePriorityClass"),
        nodes=fields.integer("nodes", default.nodes, *NODES),
        labels=fields.pairs("labels", _LABEL_NAME, _LABEL_VALUE, "a label and its value, at most 63 characters each"),
        annotations=fields.pairs("annotations", _LABEL_NAME, r"[\s\S]*", "the name of an annotation and a text"),
        env=fields.pairs("env", r"[A-Za-z_][A-Za-z0-9_]*", r"[\s\S]*", "the name of a variable and its text"),
        run_as_user=fields.integer_or_null("runAsUser", default.run_as_user, *_IDS),
        run_as_group=fields.integer_or_null("runAsGroup", default.run_as_group, *_IDS),
        fs_group=fields.integer_or_null("fsGroup", default.fs_group, *_IDS),
        host_users=fields.flag("hostUsers", default.host_users),
    )


def _pull_secrets(fields: Fields) -> tuple[str, ...]:
    """Names, or objects with a name as a pod has them."""
    found = []
    for index, item in enumerate(fields.items("imagePullSecrets")):
        where = f"imagePullSecrets[{index}]"
        part = Fields({"name": item} if isinstance(item, str) else item, fields.at(where), ("name",), fields.problems)
        if name := _name(part, "name", required=True):
            found.append(name)
    return tuple(found)


def _store(fields: Fields) -> StoreAddress:
    if not fields.has("endpoint"):
        fields.missing("endpoint", "host:port or http(s)://host:port of the object store, as pods reach it")
    return StoreAddress(
        fields.text("endpoint", "missing"),
        fields.text("bucket", StoreAddress.bucket),
        fields.text("region", StoreAddress.region),
    )


def _store_secret(fields: Fields) -> StoreSecret:
    key, expected = r"[-._A-Za-z0-9]{1,253}", "a key of the Secret"
    return StoreSecret(
        _name(fields, "name", required=True),
        fields.text("accessKey", StoreSecret.access_key, pattern=key, expected=expected),
        fields.text("secretKey", StoreSecret.secret_key, pattern=key, expected=expected),
    )


def _gpu(fields: Fields) -> Gpu:
    return Gpu(
        enabled=fields.flag("enabled"),
        count=fields.integer("count", Gpu.count, *GPUS),
        resource_name=fields.text(
            "resourceName",
            Gpu.resource_name,
            pattern=rf"{_SUBDOMAIN}/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?",
            expected="a resource such as nvidia.com/gpu, nvidia.com/mig-3g.20gb or amd.com/gpu",
        ),
        runtime_class_name=_name(fields, "runtimeClassName"),
        min_memory_mib=fields.integer("minMemoryMiB", 0, 0, 10_000_000),
        products=fields.texts("products", most=50, longest=63),
        allow_shared=fields.flag("allowShared"),
        resource_claim_template_name=_name(fields, "resourceClaimTemplateName"),
    )


def _resources(fields: Fields) -> Resources:
    return Resources(fields.quantity("cpu", Resources.cpu), fields.quantity("memory", Resources.memory))


def _name(fields: Fields, name: str, required: bool = False) -> str:
    if required and not fields.has(name):
        fields.missing(name, _NAME)
    return fields.text(name, pattern=_SUBDOMAIN, expected=_NAME)
