"""From an answer of the API server to the error it means. The messages are those of Kubernetes 1.36."""

from typing import Any

import pytest
from trainer.cluster import errors
from trainer.cluster.refusals import refusal

TAKEN = 'jobs.batch "run-1" already exists'


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (403, {"message": 'jobs.batch "run-1" is forbidden: exceeded quota: few, requested: …'}, errors.QuotaExceeded),
        (403, {"message": 'jobs.batch is forbidden: User "x" cannot create resource "jobs"'}, errors.ClusterForbidden),
        (403, {"message": 'admission webhook "x" denied the request: no'}, errors.JobRefused),
        (403, {"message": "… namespace t because it is being terminated"}, errors.JobRefused),
        (422, {"message": 'ValidatingAdmissionPolicy "x" with binding "y" denied request: no'}, errors.JobRefused),
        (401, {"message": "Unauthorized"}, errors.ClusterForbidden),
        (404, {"message": 'namespaces "t" not found', "details": {"kind": "namespaces"}}, errors.JobRefused),
        (404, {"message": 'jobs.batch "run-1" not found', "details": {"kind": "jobs"}}, errors.Missing),
        (409, {"message": TAKEN, "reason": "AlreadyExists"}, errors.Taken),
        (409, {"message": "the UID in the precondition does not match", "reason": "Conflict"}, errors.Changed),
        (410, {"message": "too old resource version"}, errors.Expired),
        (429, {}, errors.ClusterUnavailable),
        (503, {"message": "etcdserver: leader changed"}, errors.ClusterUnavailable),
        (418, {}, errors.JobRefused),
    ],
)
def test_kind(code: int, status: dict[str, Any], kind: type[Exception]) -> None:
    found = refusal(code, status, "create Job run-1")
    assert type(found) is kind
    assert status.get("message", "")[-20:] in str(found) or kind is errors.QuotaExceeded


def test_a_name_of_what_is_being_deleted() -> None:
    gone_soon = refusal(409, {"message": f"object is being deleted: {TAKEN}", "reason": "AlreadyExists"}, "create")
    taken = refusal(409, {"message": TAKEN, "reason": "AlreadyExists"}, "create")
    assert isinstance(gone_soon, errors.Taken)
    assert isinstance(taken, errors.Taken)
    assert (gone_soon.being_deleted, taken.being_deleted) == (True, False)


def test_invalid_fields_are_named() -> None:
    causes = [{"field": "spec.template", "message": "Invalid value", "reason": "FieldValueInvalid"}]
    found = refusal(422, {"message": "…", "details": {"causes": causes}}, "create")
    assert isinstance(found, errors.JobInvalid)
    assert found.problems == (("job.spec.template", "Invalid value"),)
    strict = 'strict decoding error: unknown field "spec.template.spec.gpus", duplicate field "spec.suspend"'
    found = refusal(400, {"message": strict}, "create")
    assert isinstance(found, errors.JobInvalid)
    assert [field for field, _ in found.problems] == ["job.spec.template.spec.gpus", "job.spec.suspend"]
