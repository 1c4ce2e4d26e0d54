"""Executions in YAML: every field, and every mistake at once."""

from dataclasses import fields

import pytest
from jobs.errors import FileInvalid
from jobs.execution import Execution, Gpu, Resources, StoreAddress, StoreSecret
from jobs.execution_file import FIELDS, read_execution

LEAST = """\
image: registry.test/darkroom-dreambooth:1
store: {endpoint: "http://store:9000"}
storeSecret: {name: store-keys}
"""
EVERYTHING = """\
image: registry.test/darkroom-dreambooth:1
imagePullPolicy: Always
imagePullSecrets: [one, {name: two}]
namespace: training
serviceAccountName: darkroom-dreambooth
storeSecret: {name: store-keys, accessKey: user, secretKey: password}
store: {endpoint: "http://store:9000", bucket: pictures, region: eu-1}
gpu:
  enabled: true
  count: 2
  resourceName: nvidia.com/gpu
  runtimeClassName: nvidia
  minMemoryMiB: 40000
  products: [A100]
  allowShared: true
  resourceClaimTemplateName: ""
device: cpu
resources: {cpu: 4, memory: 32Gi}
tmpSize: 64Gi
shmSize: 2Gi
graceSeconds: 600
backoffLimit: 5
deadlineSeconds: 0
ttlSeconds: 3600
nodeSelector: {pool: gpu}
tolerations: [{key: spot, operator: Exists}]
affinity: {podAffinity: {}}
priorityClassName: training
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
queueName: gpus
queuePriorityClass: low
nodes: 2
labels: {team: pictures}
annotations: {example.test/note: "a long, text"}
env: {DARKROOM_LOG_LEVEL: debug}
runAsUser: 20001
runAsGroup: 20002
fsGroup: null
hostUsers: false
"""
IDS = ("runAsUser", "runAsGroup", "fsGroup")


def problems(text: str) -> list[str]:
    """What is wrong with the least execution, and this after it; without the name of the file."""
    with pytest.raises(FileInvalid) as caught:
        read_execution(LEAST + text, "e.yaml")
    return [problem.removeprefix("e.yaml:") for problem in caught.value.problems]


def test_every_field_is_read() -> None:
    execution = read_execution(EVERYTHING, "e.yaml")
    assert execution == Execution(
        image="registry.test/darkroom-dreambooth:1",
        image_pull_policy="Always",
        image_pull_secrets=("one", "two"),
        namespace="training",
        service_account_name="darkroom-dreambooth",
        store=StoreAddress("http://store:9000", "pictures", "eu-1"),
        store_secret=StoreSecret("store-keys", "user", "password"),
        gpu=Gpu(True, 2, "nvidia.com/gpu", "nvidia", 40000, ("A100",), True, ""),
        device="cpu",
        resources=Resources("4", "32Gi"),
        tmp_size="64Gi",
        shm_size="2Gi",
        grace_seconds=600,
        backoff_limit=5,
        deadline_seconds=0,
        ttl_seconds=3600,
        node_selector={"pool": "gpu"},
        tolerations=({"key": "spot", "operator": "Exists"},),
        affinity={"podAffinity": {}},
        priority_class_name="training",
        topology_spread_constraints=({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},),
        queue_name="gpus",
        queue_priority_class="low",
        nodes=2,
        labels={"team": "pictures"},
        annotations={"example.test/note": "a long, text"},
        env={"DARKROOM_LOG_LEVEL": "debug"},
        run_as_user=20001,
        run_as_group=20002,
        fs_group=None,
        host_users=False,
    )
    untouched = [
        each.name for each in fields(Execution) if getattr(execution, each.name) == getattr(Execution(), each.name)
    ]
    assert untouched == ["command"]
    assert len(FIELDS) == len(fields(Execution)) - 1


def test_defaults_fill_the_rest() -> None:
    assert read_execution(LEAST, "e.yaml") == Execution(
        image="registry.test/darkroom-dreambooth:1",
        store=StoreAddress("http://store:9000", "darkroom", "us-east-1"),
        store_secret=StoreSecret("store-keys", "access-key", "secret-key"),
    )


def test_empty_values_of_a_chart_count_as_not_given() -> None:
    empty = "\n".join(f"{name}:" for name in FIELDS if name not in ("image", "store", "storeSecret", *IDS))
    assert read_execution(f"{LEAST}{empty}\n", "e.yaml") == read_execution(LEAST, "e.yaml")
    assert read_execution(f'{LEAST}namespace: ""\nqueueName: ""\ntolerations: []\naffinity: {{}}\n', "e.yaml") == (
        read_execution(LEAST, "e.yaml")
    )


def test_null_for_an_id_leaves_it_to_the_platform_and_nothing_keeps_ours() -> None:
    assigned = read_execution(LEAST + "".join(f"{name}: null\n" for name in IDS), "e.yaml")
    assert (assigned.run_as_user, assigned.run_as_group, assigned.fs_group) == (None, None, None)
    ours = read_execution(LEAST + "".join(f'{name}: ""\n' for name in IDS), "e.yaml")
    assert (ours.run_as_user, ours.run_as_group, ours.fs_group) == (10001, 10001, 10001)


def test_what_is_required_is_named() -> None:
    with pytest.raises(FileInvalid) as caught:
        read_execution("", "e.yaml")
    assert [problem.split(":")[2].split()[0] for problem in caught.value.problems] == [
        "image",
        "store.endpoint",
        "storeSecret.name",
    ]


def test_all_mistakes_are_named_at_once() -> None:
    text = """\
gpu: {enabled: maybe, count: two, resourceNam: x/y}
imagePullPolicy: Allways
graceSeconds: 0
nodes: 1.5
tolerations: [{keyy: spot}, 7]
affinity: {nodeAfinity: {}}
labels: {team: 7, "bad label": x}
env: {LEVEL: true}
nodeSelector: [pool]
resources: {memory: lots}
qeueName: gpus
"""
    assert problems(text) == [
        "4: gpu.count is 'two': expected a whole number from 1 to 16",
        "4: gpu.enabled is 'maybe': expected true or false",
        "4: gpu.resourceNam is unknown, did you mean resourceName?",
        "5: imagePullPolicy is 'Allways': expected one of IfNotPresent, Always, Never, did you mean Always?",
        "6: graceSeconds is 0: expected a whole number from 1 to 3600",
        "7: nodes is 1.5: expected a whole number from 1 to 64",
        "8: tolerations[0].keyy is unknown, did you mean key?",
        "8: tolerations[1] is 7: expected fields, such as effect, key, operator",
        "9: affinity.nodeAfinity is unknown, did you mean nodeAffinity?",
        "10: labels.bad label is 'x': expected a label and its value, at most 63 characters each",
        "10: labels.team is 7: expected a text; put it in quotes",
        "11: env.LEVEL is true: expected a text; put it in quotes",
        "12: nodeSelector is a list of 1: expected a label and its value",
        "13: resources.memory is 'lots': expected a quantity above 0 such as 2, 500m or 16Gi",
        "14: qeueName is unknown, did you mean queueName?",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "gpu: {enabled: true, resourceName: nvidia.com/gpu.shared}",
            "gpu.resourceName is 'nvidia.com/gpu.shared', a shared",
        ),
        ("gpu: {enabled: true, products: [Tesla-T4-SHARED]}", "gpu.products has 'Tesla-T4-SHARED', a shared GPU"),
        (
            "gpu: {enabled: true, count: 2, resourceName: nvidia.com/mig-3g.20gb}",
            "gpu.count is 2: one process uses one MIG",
        ),
        (
            "gpu: {enabled: true, resourceName: nvidia.com/mig-1g.5gb, minMemoryMiB: 10000}",
            "gpu.minMemoryMiB is 10000: a nvidia.com/mig-1g.5gb has at most 5120",
        ),
        (
            "gpu: {enabled: true, resourceName: amd.com/gpu, minMemoryMiB: 1}",
            "gpu.minMemoryMiB is 1, but no label of amd.com",
        ),
        (
            "gpu: {enabled: true, resourceClaimTemplateName: big, minMemoryMiB: 1}",
            "gpu.minMemoryMiB is given beside resourceClaimTemplateName",
        ),
        ("gpu: {enabled: true, resourceName: gpu}", "gpu.resourceName is 'gpu': expected a resource such as"),
        ("shmSize: 16Gi", "shmSize is 16Gi: expected less than resources.memory, 16Gi"),
        ("queuePriorityClass: low", "queuePriorityClass is 'low' without queueName"),
        ("labels: {helm.sh/chart: darkroom-1}", "labels.helm.sh/chart changes with every release"),
        ("labels: {darkroom.dev/run: x}", "labels.darkroom.dev/run is set by Darkroom or Kubernetes"),
        ("labels: {kueue.x-k8s.io/queue-name: x}", "use queueName"),
        ("annotations: {darkroom.dev/checkpoint: x}", "annotations.darkroom.dev/checkpoint is set by"),
        ("env: {DARKROOM_S3_SECRET_KEY: x}", "env.DARKROOM_S3_SECRET_KEY is set by Darkroom"),
        ("env: {DARKROOM_DEVICE: cpu}", "env.DARKROOM_DEVICE is set by Darkroom: leave it out; use device"),
        ("device: gpu", "device is 'gpu': expected one of auto, cpu, cuda"),
        ("env: {MASTER_ADDR: x}", "env.MASTER_ADDR is set by Darkroom"),
        ("namespace: Training", "namespace is 'Training': expected a namespace"),
        ("runAsUser: 0", "runAsUser is 0: expected a whole number from 10000"),
        ("fsGroup: 1000", "fsGroup is 1000: expected a whole number from 10000"),
        ("hostUsers: 1", "hostUsers is 1: expected true or false"),
        ("ttlSeconds: 10", "ttlSeconds is 10: expected a whole number from 300"),
    ],
)
def test_what_could_never_work_is_refused_with_its_reason(text: str, problem: str) -> None:
    (found,) = problems(text + "\n")
    assert problem in found


@pytest.mark.parametrize(
    "text",
    [
        "gpu: {enabled: true, allowShared: true, resourceName: nvidia.com/gpu.shared}",
        "gpu: {enabled: false, resourceName: nvidia.com/gpu.shared}",
        "gpu: {enabled: true, resourceName: nvidia.com/mig-3g.20gb, minMemoryMiB: 16000}",
        "gpu: {enabled: true, resourceName: amd.com/gpu, products: [MI300X]}",
    ],
)
def test_what_can_work_is_taken(text: str) -> None:
    read_execution(LEAST + text, "e.yaml")


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ("{endpoint: 'ftp://x'}", "store.endpoint is 'ftp://x': expected host:port or http(s)://host:port"),
        ("{endpoint: 's:1', bucket: no/bucket}", "store.bucket is 'no/bucket': expected 3 to 63 letters"),
        ("{endpoint: 's:1', region: 'a b'}", "store.region is 'a b': expected letters"),
    ],
)
def test_the_store_is_checked_as_the_program_does(store: str, problem: str) -> None:
    with pytest.raises(FileInvalid) as caught:
        read_execution(f"image: x\nstore: {store}\nstoreSecret: {{name: k}}\n", "e.yaml")
    assert problem in str(caught.value)
