"""docs/training-jobs.md knows every field with its default, and its run file works."""

import re
from pathlib import Path

import pytest
from jobs import execution_file, run_file
from jobs.execution import Execution
from jobs.run_file import read_run

PAGE = (Path(__file__).parents[2] / "docs" / "training-jobs.md").read_text()


def _section(title: str) -> str:
    return PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_field_of_an_execution_is_in_its_table() -> None:
    cells = " ".join(row.split("|")[1] for row in re.findall(r"^\|.*\|$", _section("Execution"), re.MULTILINE))
    told = set(re.findall(r"`([\w.]+)`", cells))
    parts = {
        "gpu": execution_file.GPU,
        "store": execution_file.STORE,
        "storeSecret": execution_file.STORE_SECRET,
        "resources": execution_file.RESOURCES,
    }
    plain = set(execution_file.FIELDS) - set(parts)
    assert told == plain | {f"{part}.{name}" for part, names in parts.items() for name in names}


def test_every_field_of_a_run_is_in_its_table() -> None:
    cells = " ".join(row.split("|")[1] for row in re.findall(r"^\|.*\|$", _section("A run file"), re.MULTILINE))
    told = set(re.findall(r"`([\w.]+)`", cells))
    assert told == {"metadata.name", "metadata.namespace", *(f"spec.{name}" for name in run_file.FIELDS)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tmpSize`, `shmSize", f"{Execution().tmp_size}, {Execution().shm_size}"),
        ("graceSeconds", Execution().grace_seconds),
        ("backoffLimit", Execution().backoff_limit),
        ("deadlineSeconds", Execution().deadline_seconds),
        ("ttlSeconds", Execution().ttl_seconds),
        ("nodes", Execution().nodes),
        ("resources.cpu`, `resources.memory", f"{Execution().resources.cpu}, {Execution().resources.memory}"),
        ("gpu.count", Execution().gpu.count),
    ],
)
def test_defaults_are_told_as_they_are(field: str, value: object) -> None:
    assert f"| `{field}` | {value} |" in PAGE


def test_the_run_file_on_the_page_works() -> None:
    lines = _section("A run file").splitlines()
    text = "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    "))
    spec, execution = read_run(text, "docs/training-jobs.md")
    assert (spec.name, execution.namespace, execution.gpu.min_memory_mib) == (
        "sessions/robot/runs/first",
        "training",
        16384,
    )
