"""docker, podman or buildah: whichever is there and works, behind the few verbs that building needs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from images.base import ENVIRONMENT

# The first is the one that most people have; buildah needs neither a daemon nor the right to make namespaces.
PROGRAMS = ("docker", "podman", "buildah")


class EngineFailed(Exception):
    """No engine works, or one ended with an error; the message holds its last words."""


@dataclass(frozen=True)
class Order:
    """One build: image and Dockerfile, arguments, secrets (id: file) and named contexts (name: folder)."""

    image: str
    dockerfile: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, Path] = field(default_factory=dict)
    contexts: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """One program that builds images."""

    program: str

    def build(self, order: Order, root: Path) -> None:
        """Build an image from the folder `root`; what the engine says goes to stderr. Raises EngineFailed."""
        start = {
            "docker": ("docker", "buildx", "build", "--load"),
            "podman": ("podman", "build", "--layers", "--force-rm"),
            "buildah": ("buildah", "build", "--layers", "--force-rm"),
        }[self.program]
        options = [f"--file={root / order.dockerfile}", f"--tag={order.image}"]
        options += [f"--build-arg={name}={value}" for name, value in order.arguments.items()]
        options += [f"--secret=id={name},src={file}" for name, file in order.secrets.items()]
        options += [f"--build-context={name}={folder}" for name, folder in order.contexts.items()]
        _run([*start, *options, str(root)], show=True)

    def read(self, image: str, path: str) -> bytes:
        """A file of an image. Raises EngineFailed."""
        if self.program != "buildah":
            return _run([self.program, "run", "--rm", "--network=none", "--entrypoint=cat", image, path])
        container = _run(["buildah", "from", "--pull-never", image]).decode().strip()
        try:
            return _run(["buildah", "run", container, "--", "cat", path])
        finally:
            _run(["buildah", "rm", container])

    def save(self, image: str, archive: Path) -> None:
        """Write an image as an archive for `docker load`, `podman load` and `ctr images import`. Raises EngineFailed.

        It is docker's format, whose layers are not compressed: buildah compresses those of an OCI archive always.
        """
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.unlink(missing_ok=True)
        if self.program == "docker":
            _run(["docker", "image", "save", f"--output={archive}", image])
        elif self.program == "podman":
            _run(["podman", "save", "--quiet", "--format=docker-archive", f"--output={archive}", image])
        else:
            _run(["buildah", "push", "--quiet", image, f"docker-archive:{archive}:{image}"])


def find(wanted: str = "") -> tuple[Engine, list[str]]:
    """The wanted engine, or the first that works; and a sentence for each that was passed over. Raises EngineFailed."""
    passed: list[str] = []
    for program in (wanted,) if wanted else PROGRAMS:
        problem = _problem(program)
        if not problem:
            return Engine(program), passed
        passed.append(problem)
    advice = "install one of docker (with buildx), podman and buildah; on Debian: apt-get install buildah"
    raise EngineFailed("\n".join([*passed, f"no engine can build images here; {advice}"]))


def _problem(program: str) -> str:
    """Why an engine cannot be used, as a sentence; empty if it can."""
    if not shutil.which(program):
        return f"{program} is not installed"
    probes = {"docker": (("docker", "info"), ("docker", "buildx", "version"))}.get(program, ((program, "info"),))
    for probe in probes:
        try:
            _run(probe)
        except EngineFailed as error:
            return f"{program} is installed but does not work: {str(error).splitlines()[-1]}"
    return ""


def _run(command: Sequence[str], show: bool = False) -> bytes:
    """Standard output of a command. Raises EngineFailed with its last lines; with `show` they were seen already."""
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=2 if show else subprocess.PIPE,
            stderr=None if show else errors,
            env=os.environ | ENVIRONMENT,
        )
        if done.returncode:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-10:]
            raise EngineFailed("\n".join([f"`{' '.join(command[:3])} ...` ended with {done.returncode}", *last]))
    return done.stdout or b""
