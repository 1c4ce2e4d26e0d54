"""A Job read back as the run it carries out."""

import json
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from artifacts.errors import ManifestInvalid
from artifacts.records import encode
from jobs.execution import Execution
from jobs.manifest import container_of, environment_of, parse, spec_of
from jobs.render import render
from jobs.run_spec import UNDATED

from tests.jobs.test_render import CLUSTER, SPEC


@pytest.mark.parametrize("execution", [Execution(), CLUSTER, replace(CLUSTER, nodes=2)], ids=["local", "gpu", "pods"])
def test_the_run_can_be_read_back(execution: Execution) -> None:
    job = render(SPEC, execution)
    assert parse(encode(job), "key") == (SPEC, job)


def test_a_job_without_a_time_is_as_old_as_the_cluster_says() -> None:
    job = render(replace(SPEC, create_time=UNDATED), CLUSTER)
    with pytest.raises(ManifestInvalid, match="creationTimestamp"):
        spec_of(job, "the-key")
    job["metadata"]["creationTimestamp"] = "2026-11-23T00:00:00Z"
    assert spec_of(job, "the-key") == replace(SPEC, create_time=datetime(2026, 11, 23, tzinfo=UTC))


def test_what_admission_adds_to_a_pod_does_not_matter() -> None:
    job = deepcopy(render(SPEC, CLUSTER))
    container_of(job)["env"].append({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    job["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar", "image": "x"})
    assert spec_of(job, "key") == SPEC
    assert "NODE" not in environment_of(job)


@pytest.mark.parametrize(
    "data",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b'{"metadata": {"labels": {}, "annotations": {}}}',
        b'{"metadata": {"labels": {}, "annotations": {}}, "spec": {"template": {"spec": {"containers": []}}}}',
        json.dumps({**render(SPEC, CLUSTER), "metadata": {"labels": None, "annotations": None}}).encode(),
    ],
)
def test_damage_is_named(data: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="the-key"):
        parse(data, "the-key")
