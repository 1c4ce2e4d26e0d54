"""What no single field of an execution can say; `execution_file` asks when all fields are read."""

import re
from collections.abc import Iterator

from artifacts.config import StoreConfig

from jobs import names
from jobs.execution import Execution, Gpu, StoreAddress
from jobs.fields import to_number
from jobs.placement import is_mig, vendor

_RESERVED_ENV = re.compile(
    r"DARKROOM_(RUN|RECIPE|SAVE_SECONDS|DEVICE|PROCESSES|NODES|LAUNCHER|WORKER_FOLDER|S3_ENDPOINT|S3_BUCKET|S3_REGION"
    r"|S3_ACCESS_KEY(_FILE)?|S3_SECRET_KEY(_FILE)?)|MASTER_ADDR|MASTER_PORT|JOB_COMPLETION_INDEX"
)
_RESERVED_NOTES = ("app.kubernetes.io/", f"{names.DOMAIN}/", "batch.kubernetes.io/", "kueue.x-k8s.io/")
_MIG_SIZE = re.compile(r"nvidia\.com/mig-\d+g\.(?P<gigabytes>\d+)gb(\..+)?")

Problem = tuple[str, str]
"""Path below the execution, and what is wrong."""


def problems(execution: Execution) -> Iterator[Problem]:
    """Everything that contradicts something else, or could never work."""
    yield from _gpu(execution.gpu)
    yield from _store(execution.store)
    if to_number(execution.shm_size) >= to_number(execution.resources.memory):
        yield (
            "shmSize",
            f"is {execution.shm_size}: expected less than resources.memory, {execution.resources.memory}, of which it is a part",
        )
    if execution.queue_priority_class and not execution.queue_name:
        yield "queuePriorityClass", f"is {execution.queue_priority_class!r} without queueName: name the queue, too"
    for field, given in (("labels", execution.labels), ("annotations", execution.annotations)):
        for name in given:
            if name.startswith(_RESERVED_NOTES):
                hint = "; use queueName and queuePriorityClass" if name.startswith("kueue") else ""
                yield f"{field}.{name}", f"is set by Darkroom or Kubernetes: choose another name{hint}"
            elif name == "helm.sh/chart":
                yield (
                    f"{field}.{name}",
                    "changes with every release, and the pods of a Job cannot change: leave it out",
                )
    for name in execution.env:
        if _RESERVED_ENV.fullmatch(name):
            hint = "; use device" if name == "DARKROOM_DEVICE" else ""
            yield f"env.{name}", f"is set by Darkroom: leave it out{hint}"


def _gpu(gpu: Gpu) -> Iterator[Problem]:
    if not gpu.enabled:
        return
    if gpu.resource_claim_template_name:
        for field, given in (("minMemoryMiB", gpu.min_memory_mib), ("products", gpu.products)):
            if given:
                yield (
                    f"gpu.{field}",
                    "is given beside resourceClaimTemplateName: the claim's own selectors choose the GPU",
                )
        return
    if not gpu.allow_shared:
        yield from _shared(gpu)
    if is_mig(gpu):
        yield from _slice(gpu)
    elif gpu.min_memory_mib and vendor(gpu) != "nvidia.com":
        yield (
            "gpu.minMemoryMiB",
            f"is {gpu.min_memory_mib}, but no label of {vendor(gpu)} nodes is a number of MiB: use products or nodeSelector",
        )


def _shared(gpu: Gpu) -> Iterator[Problem]:
    advice = "training would share its memory with strangers; use a GPU of its own, or set gpu.allowShared: true"
    if gpu.resource_name.endswith(".shared"):
        yield "gpu.resourceName", f"is {gpu.resource_name!r}, a shared GPU: {advice}"
    for product in gpu.products:
        if product.endswith("-SHARED"):
            yield "gpu.products", f"has {product!r}, a shared GPU: {advice}"


def _slice(gpu: Gpu) -> Iterator[Problem]:
    if gpu.count > 1:
        yield "gpu.count", f"is {gpu.count}: one process uses one MIG slice; use count 1 of a larger one, or whole GPUs"
    size = _MIG_SIZE.fullmatch(gpu.resource_name)
    if size and gpu.min_memory_mib > int(size["gigabytes"]) * 1024:
        yield (
            "gpu.minMemoryMiB",
            f"is {gpu.min_memory_mib}: a {gpu.resource_name} has at most {int(size['gigabytes']) * 1024}; use a larger slice",
        )


def _store(store: StoreAddress | None) -> Iterator[Problem]:
    if store is None:
        return
    fields = {"DARKROOM_S3_ENDPOINT": "endpoint", "DARKROOM_S3_BUCKET": "bucket", "DARKROOM_S3_REGION": "region"}
    try:
        StoreConfig(store.endpoint, "access", "secret", store.bucket, store.region)
    except ValueError as error:
        for problem in str(error).split("; "):
            variable, _, text = problem.partition(" ")
            yield f"store.{fields[variable]}", text
