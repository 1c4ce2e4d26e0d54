"""Reads a run back out of the Job that `render` made, from job.json in the bucket or from the API of a cluster."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from artifacts.errors import ManifestInvalid

from jobs import names
from jobs import recipe as recipes
from jobs.run_spec import RunSpec


def environment_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The plain variables of the container."""
    return {item["name"]: item["value"] for item in container_of(manifest)["env"] if "value" in item}


def container_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container that runs the program."""
    containers = manifest["spec"]["template"]["spec"]["containers"]
    found: Mapping[str, Any] = next(each for each in containers if each["name"] == names.CONTAINER)
    return found


def spec_of(manifest: Mapping[str, Any], key: str) -> RunSpec:
    """The run of a Job. key: where it is from, for the error. Raises ManifestInvalid for a Job that is none of ours, or damaged.

    A Job that was rendered from a file says no time; then that of its creation counts.
    """
    try:
        about = manifest["metadata"]
        labels, notes = about["labels"], about["annotations"]
        fields = json.loads(environment_of(manifest)["DARKROOM_RECIPE"])
        return RunSpec(
            session=labels[names.SESSION_LABEL],
            run_id=labels[names.RUN_LABEL],
            recipe=recipes.from_json(fields),
            base_model_source=fields["base_model_source"],
            checkpoint=notes[names.CHECKPOINT],
            create_time=datetime.fromisoformat(notes.get(names.CREATE_TIME) or about["creationTimestamp"]),
            owner=notes.get(names.OWNER, ""),
            request_id=notes.get(names.REQUEST_ID, ""),
            request_digest=notes.get(names.REQUEST_DIGEST, ""),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration) as error:
        raise ManifestInvalid(key, (f"no manifest of a run: {type(error).__name__} {error}",)) from error


def parse(data: bytes, key: str) -> tuple[RunSpec, dict[str, Any]]:
    """The run and its manifest out of job.json. Raises ManifestInvalid for a file damaged by hand."""
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise ManifestInvalid(key, (f"no manifest of a run: {error}",)) from error
    return spec_of(manifest, key), manifest
