"""helm itself is content with the chart, in both major versions."""

import pytest
import yaml

from tests.helm import chart, helm_binary
from tests.helm.chart import CHART, VALUE_SETS

MAJORS = ("3", "4")


@pytest.mark.parametrize("major", MAJORS)
def test_the_program_has_the_version_it_is_asked_for(major: str) -> None:
    assert helm_binary.run("version", "--short", major=major).stdout.startswith(f"v{major}.")


@pytest.mark.parametrize("name", VALUE_SETS)
@pytest.mark.parametrize("major", MAJORS)
def test_lint_is_content(major: str, name: str) -> None:
    done = helm_binary.run(
        "lint",
        "--strict",
        CHART,
        "--values",
        CHART / "ci" / f"{name}-values.yaml",
        "--kube-version",
        "1.37",
        major=major,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", VALUE_SETS)
def test_both_major_versions_render_the_same(name: str) -> None:
    values = {"auth": {"existingSecret": "fixed"}, "store": {"existingSecret": "fixed"}}  # else random each time

    def objects(major: str) -> list[str]:
        found = yaml.load_all(chart.template(name, overrides=values, major=major), chart.LOADER)
        return sorted(yaml.safe_dump(item) for item in found if item)

    assert objects("3") == objects("4")


def test_older_clusters_are_refused() -> None:
    with pytest.raises(chart.RenderError, match=r"kubeVersion: >=1\.33\.0-0"):
        chart.template("minimal", kube="1.32.9")


@pytest.mark.parametrize("version", ["v1.33.4", "v1.35.0-gke.1234", "v1.36.2-eks-abc123"])
def test_versions_of_hosted_clusters_are_accepted(version: str) -> None:
    assert chart.template("minimal", kube=version)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_names_are_unique_and_fit(name: str) -> None:
    objects = chart.rendered(name)
    keys = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    assert len(keys) == len(set(keys))
    assert all(len(key[2]) <= 63 for key in keys)


def test_a_long_release_name_still_fits() -> None:
    long = "r" * 53
    done = helm_binary.run("template", long, CHART, "--values", CHART / "ci" / "everything-values.yaml")
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.load_all(done.stdout, chart.LOADER) if item]
    longest = {"StatefulSet": 52}  # Kubernetes adds a hash and makes a label of it
    for item in objects:
        assert len(item["metadata"]["name"]) <= longest.get(item["kind"], 63), item["metadata"]["name"]
    assert {"StatefulSet", "Service"} <= {item["kind"] for item in objects}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_no_chart_version_in_what_cannot_change(name: str) -> None:
    for one in chart.pods(chart.rendered(name)):
        if one.owner["kind"] == "Pod":
            continue
        assert "helm.sh/chart" not in one.labels, one.name
        selector = one.owner["spec"].get("selector", {}).get("matchLabels", {})
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(selector), one.name
        assert selector.items() <= one.labels.items(), one.name
