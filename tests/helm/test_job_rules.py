"""What the trainer would refuse to start with is refused by the chart already: trainer.job, held against the trainer's own reader."""

from typing import Any

import pytest
import yaml
from jobs.errors import FileInvalid
from jobs.execution_file import read_execution
from jobs.manifest import environment_of

from tests.helm import chart
from tests.helm.chart import RenderError
from tests.helm.many import merged
from tests.helm.test_schema import refusal

MIG = "nvidia.com/mig-1g.10gb"
OWN = "darkroom.dev/run"
# Values of trainer.job, and what the chart's message must say.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"resources": {"memory": "3Gi"}, "shmSize": "3Gi"}, "shmSize is 3Gi: expected less than trainer.job.resources.memory"),
    ({"resources": {"memory": "1000M"}, "shmSize": "954Mi"}, "shmSize is 954Mi"),
    ({"resources": {"memory": 1000000}, "shmSize": "1M"}, "shmSize is 1M"),
    ({"resources": {"memory": "1Pi"}}, "trainer.job.resources.memory"),
    ({"resources": {"memory": 0}}, "trainer.job.resources.memory"),
    ({"resources": {"cpu": "0m"}}, "trainer.job.resources.cpu"),
    ({"tmpSize": "0.0Gi"}, "trainer.job.tmpSize"),
    ({"gpu": {"enabled": True, "resourceName": MIG, "count": 2}}, "gpu.count is 2 with resourceName nvidia.com/mig-1g.10gb"),
    ({"gpu": {"enabled": True, "resourceName": MIG, "minMemoryMiB": 12000}}, "has 10 GiB: name a larger one"),
    ({"gpu": {"enabled": True, "resourceName": "nvidia.com/gpu.shared"}}, "a GPU shared with other pods"),
    ({"gpu": {"enabled": True, "products": ["T4-SHARED"]}}, "a GPU shared with other pods"),
    ({"gpu": {"enabled": True, "products": ["x" * 64]}}, "trainer.job.gpu.products.0"),
    ({"gpu": {"enabled": True, "resourceName": "amd.com/gpu", "minMemoryMiB": 1}}, "only NVIDIA's nodes tell memory"),
    ({"gpu": {"enabled": True, "resourceClaimTemplateName": "c", "products": ["A"]}}, "the claim's own selectors choose"),
    ({"gpu": {"count": 17}}, "trainer.job.gpu.count"),
    ({"device": "gpu"}, "trainer.job.device"),
    ({"nodes": 65}, "trainer.job.nodes"),
    ({"graceSeconds": 0}, "trainer.job.graceSeconds"),
    ({"ttlSeconds": 299}, "trainer.job.ttlSeconds"),
    ({"backoffLimit": 101}, "trainer.job.backoffLimit"),
    ({"queuePriorityClass": "low"}, "name the queue, too"),
    ({"labels": {OWN: "r"}}, f"trainer.job.labels has {OWN}, which Darkroom or Kubernetes sets"),
    ({"annotations": {OWN: "r"}}, f"trainer.job.annotations has {OWN}"),
    ({"labels": {"app.kubernetes.io/name": "mine"}}, "trainer.job.labels has app.kubernetes.io/name"),
    ({"annotations": {"batch.kubernetes.io/a": "b"}}, "trainer.job.annotations has batch.kubernetes.io/a"),
    ({"labels": {"kueue.x-k8s.io/queue-name": "q"}}, "use queueName and queuePriorityClass"),
    ({"labels": {"helm.sh/chart": "c"}}, "changes with every release"),
    ({"labels": {"not a name": "r"}}, "trainer.job.labels"),
    ({"annotations": {"not a name": "r"}}, "trainer.job.annotations"),
    ({"nodeSelector": {"not a name": "r"}}, "trainer.job.nodeSelector"),
    ({"env": {"DARKROOM_RUN": "r"}}, "trainer.job.env has DARKROOM_RUN, which Darkroom sets: leave it out"),
    ({"env": {"not-a-name": "r"}}, "trainer.job.env"),
    ({"tolerations": [{"kee": "a"}]}, "trainer.job.tolerations.0"),
    ({"affinity": {"node": {}}}, "trainer.job.affinity"),
    ({"topologySpreadConstraints": [{"skew": 1}]}, "trainer.job.topologySpreadConstraints.0"),
    ({"image": {"registry": "a b"}}, "trainer.job.image.registry"),
]  # fmt: skip
# Close to those above, and right.
ACCEPTED: list[dict[str, Any]] = [
    {"resources": {"memory": "1000M"}, "shmSize": "953Mi"},
    {"resources": {"memory": 2e9}, "shmSize": "1Gi"},
    {"resources": {"memory": "0.5Ti"}},
    {"gpu": {"enabled": True, "resourceName": MIG, "count": 1, "minMemoryMiB": 10240}},
    {"gpu": {"enabled": False, "resourceName": MIG, "count": 2}},
    {"gpu": {"enabled": True, "resourceClaimTemplateName": "c", "resourceName": MIG, "count": 2}},
    {"gpu": {"enabled": True}, "device": "cpu"},
    {"labels": {"example.org/darkroom.dev": "x", "xdarkroom.dev/run": "x"}},
    {"annotations": {"example.org/a": "any text"}},
    {"env": {"DARKROOM_LOG_LEVEL": "debug", "DARKROOM_RUNS": "x", "MY_MASTER_PORT": "1"}},
    {"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 3}]},
]


@pytest.fixture(scope="module")
def execution() -> dict[str, Any]:
    """execution.yaml of the smallest values."""
    data = chart.find(chart.rendered("minimal"), "ConfigMap", "trainer-execution")["data"]
    found: dict[str, Any] = yaml.safe_load(data["execution.yaml"])
    return found


def read(execution: dict[str, Any], job: dict[str, Any]) -> None:
    """Have the trainer's reader read these values of trainer.job. Raises FileInvalid."""
    image = {"image": f"{job['image']['registry']}/i:1"} if "image" in job else {}
    defaults = {"resources": {"memory": "3Gi", "cpu": "1"}, "gpu": {}}
    read_execution(yaml.safe_dump(merged(merged(execution, defaults), {**job, **image})), "execution.yaml")


@pytest.mark.parametrize(("job", "sentence"), REFUSED, ids=[str(job) for job, _ in REFUSED])
def test_chart_and_trainer_refuse_the_same(execution: dict[str, Any], job: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FileInvalid):
        read(execution, job)
    assert sentence in refusal({"trainer": {"job": job}})


@pytest.mark.parametrize("job", ACCEPTED, ids=str)
def test_chart_and_trainer_accept_the_same(execution: dict[str, Any], job: dict[str, Any]) -> None:
    read(execution, job)
    assert chart.template("minimal", overrides={"trainer": {"job": job}})


def test_no_variable_of_ours_can_be_given(execution: dict[str, Any]) -> None:
    two_pods = chart.CHART.parents[1] / "examples" / "jobs" / "two-pods.yaml"
    *_, job = yaml.safe_load_all(two_pods.read_text())
    further = ("PROCESSES", "LAUNCHER", "WORKER_FOLDER", "DEVICE", "S3_ACCESS_KEY", "S3_SECRET_KEY")
    names = {*environment_of(job), *(f"DARKROOM_{name}" for name in further), "JOB_COMPLETION_INDEX"}
    values = {"env": dict.fromkeys(names, "x")}
    with pytest.raises(FileInvalid) as read_refused:
        read(execution, values)
    with pytest.raises(RenderError) as chart_refused:
        chart.template("minimal", overrides={"trainer": {"job": values}})
    assert [name for name in names if f"env.{name} is set by Darkroom" not in str(read_refused.value)] == []
    assert [name for name in names if f"env has {name}," not in str(chart_refused.value)] == []
