"""Strict validation against the schemas of Kubernetes' API that the package kubernetes-validate carries.

Its own `validate` reads megabytes for every object; here each file is read once.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

_SCHEMAS = files("kubernetes_validate") / "kubernetes-json-schema"


class SchemaUnknownError(Exception):
    """This version of Kubernetes has no such kind: a custom resource, or a mistake."""


def problems(item: dict[str, Any], version: str) -> list[str]:
    """What a Kubernetes of this version (1.33) finds wrong, unknown fields included. Raises SchemaUnknownError."""
    group, _, api = item["apiVersion"].rpartition("/")
    name = f"{group.split('.')[0]}-{api}" if group else api
    validator = _validator(version, f"{item['kind'].lower()}-{name}.json")
    return [
        f"{item['kind']}/{item['metadata']['name']}: {error.json_path}: {error.message[:300]}"
        for error in validator.iter_errors(item)
    ]


@cache
def _validator(version: str, filename: str) -> Draft202012Validator:
    folder = _folder(version)
    if not (folder / filename).is_file():
        raise SchemaUnknownError(f"{filename} is not among the schemas of Kubernetes {version}")
    schema = json.loads((folder / filename).read_text())
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


@cache
def _definitions(version: str) -> Registry[Any]:
    definitions = Resource.from_contents(json.loads((_folder(version) / "_definitions.json").read_text()))
    registry: Registry[Any] = definitions @ Registry()
    return registry


@cache
def _folder(version: str) -> Any:
    (found,) = (
        path
        for path in _SCHEMAS.iterdir()
        if path.name.startswith(f"v{version}.") and path.name.endswith("-local-strict")
    )
    return found
