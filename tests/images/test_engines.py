"""Which engine is taken. The programs here are stand-ins on a PATH of their own, each with one behaviour."""

from pathlib import Path

import pytest

from images import engines
from images.engines import Engine, EngineFailed, Order

WORKS = "exit 0"
NO_DAEMON = "echo 'Cannot connect to the Docker daemon' >&2; exit 1"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder: Path, name: str, behaviour: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{behaviour}\n")
    (folder / name).chmod(0o755)


def test_the_first_that_works_is_taken(programs: Path) -> None:
    install(programs, "docker", NO_DAEMON)
    install(programs, "buildah", WORKS)
    engine, passed = engines.find()
    assert engine == Engine("buildah")
    assert passed == [
        "docker is installed but does not work: Cannot connect to the Docker daemon",
        "podman is not installed",
    ]


def test_docker_without_buildx_is_passed_over(programs: Path) -> None:
    install(programs, "docker", 'if [ "$1" = buildx ]; then echo "unknown command: buildx" >&2; exit 1; fi')
    install(programs, "podman", WORKS)
    engine, passed = engines.find()
    assert engine == Engine("podman")
    assert passed == ["docker is installed but does not work: unknown command: buildx"]


def test_a_wish_is_not_replaced(programs: Path) -> None:
    install(programs, "docker", NO_DAEMON)
    install(programs, "buildah", WORKS)
    assert engines.find("buildah") == (Engine("buildah"), [])
    with pytest.raises(EngineFailed, match="docker is installed but does not work"):
        engines.find("docker")


def test_without_any_it_says_what_to_install(programs: Path) -> None:
    with pytest.raises(EngineFailed, match="apt-get install buildah"):
        engines.find()


@pytest.mark.parametrize("program", engines.PROGRAMS)
def test_an_order_becomes_one_command(programs: Path, tmp_path: Path, program: str) -> None:
    install(programs, program, f'printf "%s\\n" "$@" > {tmp_path}/seen')
    order = Order(
        "localhost/darkroom-x:1", "x/Dockerfile", {"BASE": "b"}, {"ca": Path("/ca.pem")}, {"wheels": Path("/w")}
    )
    Engine(program).build(order, tmp_path)
    seen = (tmp_path / "seen").read_text().splitlines()
    assert "build" in seen
    assert seen[-1] == str(tmp_path)
    assert {
        f"--file={tmp_path}/x/Dockerfile",
        "--tag=localhost/darkroom-x:1",
        "--build-arg=BASE=b",
        "--secret=id=ca,src=/ca.pem",
        "--build-context=wheels=/w",
    } <= set(seen)


def test_a_failure_carries_the_last_words(programs: Path) -> None:
    install(programs, "podman", "echo no space left >&2; exit 125")
    with pytest.raises(EngineFailed, match=r"ended with 125\nno space left"):
        Engine("podman").read("localhost/x", "/etc/hostname")
