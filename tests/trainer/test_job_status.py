"""status.json: written, read back, and damaged by hand."""

import json
from datetime import UTC, datetime

import pytest
from artifacts.errors import ManifestInvalid
from trainer import job_status
from trainer.job_status import COMPLETE, Condition, JobStatus

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_it_comes_back_the_same() -> None:
    status = JobStatus().started(NOW).ended(NOW, 75, "away", counted=True).started(NOW).ended(NOW, 0, "", counted=True)
    done = status.concluded(Condition(COMPLETE, NOW))
    assert job_status.from_bytes(job_status.to_bytes(done), "key") == done
    assert job_status.from_bytes(job_status.to_bytes(JobStatus()), "key") == JobStatus()


def test_it_reads_like_the_status_of_a_job() -> None:
    running = json.loads(job_status.to_bytes(JobStatus().started(NOW)))
    assert (running["active"], running["succeeded"], running["failed"]) == (1, 0, 0)
    assert running["startTime"] == "2026-11-23T00:00:00.000000Z"
    done = JobStatus().started(NOW).ended(NOW, 0, "", counted=True).concluded(Condition(COMPLETE, NOW))
    record = json.loads(job_status.to_bytes(done))
    assert (record["active"], record["succeeded"], record["conditions"][0]["type"]) == (0, 1, "Complete")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"attempts": [{}], "conditions": []}'])
def test_damage_is_named(data: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="the-key"):
        job_status.from_bytes(data, "the-key")
