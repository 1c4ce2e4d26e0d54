"""What is added to job.json for the API, and what is taken off a Job that is adopted."""

import json
from typing import Any

import pytest
from jobs import manifest as job_manifest
from jobs.execution_file import read_execution
from jobs.render import render_all
from jobs.run_file import read_run
from trainer.cluster.live import DIGEST, RESUMPTIONS, LiveJob
from trainer.cluster.manifests import adopted, digest, marks, services, to_create

EXECUTION = {"image": "i", "namespace": "t", "store": {"endpoint": "s:9000"}, "storeSecret": {"name": "s"}}


def rendered(**execution: Any) -> list[dict[str, Any]]:
    spec = {"session": "robot", "runId": "first", "baseModel": "m", "recipe": {"resolutionPx": 64}}
    file = {"apiVersion": "darkroom.dev/v1", "kind": "TrainingRun"}
    return render_all(*read_run(json.dumps({**file, "spec": {**spec, "execution": EXECUTION | execution}}), "run.yaml"))


def in_cluster(manifest: dict[str, Any]) -> LiveJob:
    """As the API server tells it after `kubectl apply`."""
    raw = json.loads(json.dumps(manifest))
    uid = {"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u", "job-name": "n"}
    raw["metadata"] |= {"uid": "u", "creationTimestamp": "2026-11-26T11:00:00Z", "generation": 1, "managedFields": []}
    raw["metadata"].setdefault("annotations", {})["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
    raw["spec"] |= {"selector": {"matchLabels": uid}, "suspend": True}
    raw["spec"]["template"]["metadata"]["labels"] |= uid
    raw["status"] = {"active": 1}
    return LiveJob.of(raw)


def test_an_adopted_job_is_its_order_again() -> None:
    (manifest,) = rendered()
    found = adopted(in_cluster(manifest), "kubernetes/t")
    spec, _ = job_manifest.parse(json.dumps(found).encode(), "job.json")
    assert (spec.name, spec.owner) == ("sessions/robot/runs/first", "kubernetes/t")
    assert spec.create_time.isoformat() == "2026-11-26T11:00:00+00:00"
    assert found["spec"] == manifest["spec"]
    assert found["metadata"]["labels"] == manifest["metadata"]["labels"]
    assert set(found["metadata"]) == {"name", "namespace", "labels", "annotations"}
    assert not any("kubectl" in note for note in found["metadata"]["annotations"])


def test_adopting_what_is_marked_gives_the_same_order() -> None:
    (manifest,) = rendered()
    first = adopted(in_cluster(manifest), "kubernetes/t")
    marked = in_cluster(manifest)
    notes = {**marked.raw["metadata"]["annotations"], **marks(first, 2)}
    again = LiveJob.of({**marked.raw, "metadata": {**marked.raw["metadata"], "annotations": notes}})
    assert (again.digest, again.resumptions, again.owner) == (digest(first), 2, "kubernetes/t")
    assert adopted(again, "kubernetes/t") == first


def test_what_is_created_is_the_order_with_its_marks() -> None:
    (manifest,) = rendered()
    before = json.dumps(manifest)
    made = to_create(manifest, manifest, 0, False)
    assert json.dumps(manifest) == before
    assert made["spec"] == manifest["spec"]
    assert made["metadata"]["annotations"][DIGEST] == digest(manifest)
    assert RESUMPTIONS not in made["metadata"]["annotations"]
    resumed = to_create(manifest, manifest, 1, True)
    assert resumed["metadata"]["annotations"][RESUMPTIONS] == "1"
    assert job_manifest.environment_of(resumed)["DARKROOM_ACCEPT_INEXACT"] == "true"
    assert "DARKROOM_ACCEPT_INEXACT" not in job_manifest.environment_of(manifest)


@pytest.mark.parametrize("nodes", [1, 2])
def test_several_pods_get_a_service_that_goes_with_the_job(nodes: int) -> None:
    *rendered_services, manifest = rendered(nodes=nodes)
    spec = job_manifest.spec_of(in_cluster(manifest).raw, "test")
    found = services(spec, manifest, read_execution(json.dumps(EXECUTION), "execution.yaml"), "u")
    assert len(found) == nodes - 1
    for service, printed in zip(found, rendered_services, strict=True):
        (owner,) = service["metadata"].pop("ownerReferences")
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", manifest["metadata"]["name"], "u")
        assert service == printed
