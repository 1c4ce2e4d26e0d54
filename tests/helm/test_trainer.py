"""What the trainer is given: execution.yaml that it can read, rights where the Jobs are, accounts that may do nothing."""

import yaml
from jobs.execution_file import FIELDS, read_execution

from tests.helm import chart


def execution_text(name: str) -> str:
    """execution.yaml of a value set."""
    text: str = chart.find(chart.rendered(name), "ConfigMap", "trainer-execution")["data"]["execution.yaml"]
    return text


def test_execution_is_read_by_the_trainers_own_reader() -> None:
    execution = read_execution(execution_text("minimal"), "execution.yaml")
    assert execution.image == "localhost/darkroom-dreambooth:0.1.0"
    assert execution.namespace == chart.NAMESPACE
    assert execution.service_account_name == "demo-darkroom-dreambooth"
    assert execution.store is not None
    assert execution.store.endpoint == "https://s3.example.org"
    assert execution.store_secret is not None
    assert execution.store_secret.name == "darkroom-store"
    assert not execution.gpu.enabled
    assert (execution.resources.cpu, execution.resources.memory) == ("500m", "3Gi")
    assert execution.deadline_seconds == 604800


def test_every_field_of_an_execution_can_be_set_by_values() -> None:
    execution = read_execution(execution_text("everything"), "execution.yaml")
    assert set(yaml.safe_load(execution_text("everything"))) == set(FIELDS)
    assert execution.gpu.enabled
    assert (execution.gpu.count, execution.gpu.min_memory_mib, execution.gpu.products) == (
        2,
        40000,
        ("NVIDIA-A100-SXM4-80GB",),
    )
    assert execution.nodes == 2
    assert execution.namespace == "training"
    assert execution.image_pull_secrets == ("registry",)
    assert execution.env == {"OMP_NUM_THREADS": "8"}


def test_claims_and_own_secrets_arrive() -> None:
    execution = read_execution(execution_text("alternatives"), "execution.yaml")
    assert execution.gpu.resource_claim_template_name == "one-gpu"
    assert execution.store_secret is not None
    assert execution.store_secret.name == "training-store"


def test_zero_is_said_and_not_left_out() -> None:
    overrides = {"trainer": {"job": {"backoffLimit": 0, "deadlineSeconds": 0}}}
    text = chart.find(chart.render("minimal", overrides=overrides), "ConfigMap", "trainer-execution")["data"]
    execution = read_execution(text["execution.yaml"], "execution.yaml")
    assert (execution.backoff_limit, execution.deadline_seconds) == (0, 0)


def test_pods_of_the_trainer_change_with_the_execution() -> None:
    def checksum(memory: str) -> str:
        overrides = {"trainer": {"job": {"resources": {"memory": memory}}}}
        return chart.pod(chart.render("minimal", overrides=overrides), "trainer").annotations["checksum/execution"]

    assert checksum("4Gi") != checksum("5Gi")
    assert checksum("4Gi") == checksum("4Gi")


def test_the_jobs_account_is_where_the_jobs_are_and_bound_to_nothing() -> None:
    objects = chart.rendered("everything")
    account = chart.find(objects, "ServiceAccount", "dreambooth")
    assert account["metadata"]["namespace"] == "training"
    assert account["automountServiceAccountToken"] is False
    subjects = [one["name"] for item in objects if item["kind"] == "RoleBinding" for one in item["subjects"]]
    assert account["metadata"]["name"] not in subjects


def test_the_trainer_runs_on_kubernetes_with_that_file() -> None:
    pod = chart.pod(chart.rendered("minimal"), "trainer")
    assert pod.env()["DARKROOM_BACKEND"] == "kubernetes"
    (mount,) = (one for one in pod.main["volumeMounts"] if one["name"] == "execution")
    assert pod.env()["DARKROOM_EXECUTION"] == f"{mount['mountPath']}/execution.yaml"
    (volume,) = (one for one in pod.spec["volumes"] if one["name"] == "execution")
    assert volume["configMap"]["name"] == "demo-darkroom-trainer-execution"


def test_selectors_of_the_trainer_leave_its_jobs_alone() -> None:
    """Jobs carry component: trainer as well; a Service that selected them would send calls to a training."""
    job = {"app.kubernetes.io/name": "dreambooth", "app.kubernetes.io/component": "trainer"}
    for item in chart.rendered("minimal"):
        if item["kind"] in ("Service", "Deployment"):
            selector = item["spec"]["selector"]
            assert not selector.get("matchLabels", selector).items() <= job.items()


def test_jobs_have_the_ids_of_all_pods_or_those_that_the_platform_assigns() -> None:
    ours = read_execution(execution_text("minimal"), "execution.yaml")
    assert (ours.run_as_user, ours.run_as_group, ours.fs_group, ours.host_users) == (10001, 10001, 10001, True)
    security = {"runAsUser": None, "runAsGroup": 20002, "fsGroup": None, "hostUsers": False}
    objects = chart.render("minimal", overrides={"security": security})
    text = chart.find(objects, "ConfigMap", "trainer-execution")["data"]["execution.yaml"]
    execution = read_execution(text, "execution.yaml")
    ids = (execution.run_as_user, execution.run_as_group, execution.fs_group, execution.host_users)
    assert ids == (None, 20002, None, False)
