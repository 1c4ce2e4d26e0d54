"""The chart rendered: by files of values, as objects, and the pods inside them."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.helm import helm_binary

CHART: Final = Path(__file__).parents[2] / "helm" / "darkroom"
RELEASE: Final = "demo"
NAMESPACE: Final = "studio"
KUBE_VERSIONS: Final = ("1.33", "1.34", "1.35", "1.36", "1.37")
VALUE_SETS: Final = tuple(
    sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
)
MINIMAL: Final = "minimal"

Object = dict[str, Any]
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RenderError(Exception):
    """helm refused; the text is what it printed."""


class Pod(NamedTuple):
    """A pod or the template of one. spec, labels and annotations are the pod's."""

    owner: Object
    spec: Object
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def name(self) -> str:
        """Kind and name of what holds it."""
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def component(self) -> str:
        """captioner, trainer, …"""
        return self.labels["app.kubernetes.io/component"]

    def containers(self) -> list[Object]:
        """Init containers first."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def main(self) -> Object:
        """The container of the service."""
        container: Object = self.spec["containers"][0]
        return container

    def env(self) -> dict[str, str]:
        """Plain variables of the main container."""
        return {item["name"]: item.get("value", "") for item in self.main.get("env", ())}


def template(*names: str, overrides: Mapping[str, Any] | None = None, major: str = "4", kube: str = "1.33.0") -> str:
    """What helm prints for value sets of ci/ and further values. Raises RenderError."""
    files = [word for name in names for word in ("--values", str(CHART / "ci" / f"{name}-values.yaml"))]
    arguments = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--kube-version", kube, *files]
    done = helm_binary.run(*arguments, "--values", "-", major=major, stdin=json.dumps(overrides or {}))
    if done.returncode:
        raise RenderError(done.stderr)
    return done.stdout


def render(*names: str, overrides: Mapping[str, Any] | None = None, major: str = "4") -> list[Object]:
    """The same as objects."""
    return [item for item in yaml.load_all(template(*names, overrides=overrides, major=major), LOADER) if item]


@cache
def rendered(name: str) -> list[Object]:
    """The objects of one value set. Not to be changed."""
    return render(name)


def pods(objects: list[Object]) -> Iterator[Pod]:
    """Every pod in the objects: of Deployments, StatefulSets, Jobs, hooks and tests."""
    for item in objects:
        if item["kind"] == "Pod":
            metadata, spec = item["metadata"], item["spec"]
        elif item["kind"] in ("Deployment", "StatefulSet", "Job"):
            metadata, spec = item["spec"]["template"]["metadata"], item["spec"]["template"]["spec"]
        else:
            continue
        yield Pod(item, spec, metadata.get("labels", {}), metadata.get("annotations", {}))


def find(objects: list[Object], kind: str, name: str) -> Object:
    """The object of this kind whose name is the release's prefix with `-name`."""
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(f"-{name}")]
    assert len(found) == 1, f"{len(found)} objects {kind} …-{name}"
    return found[0]


def pod(objects: list[Object], component: str) -> Pod:
    """The pod of a component."""
    (found,) = (one for one in pods(objects) if one.component == component)
    return found
