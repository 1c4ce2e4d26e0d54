"""Build hook of this distribution: turns the .proto files into Python stubs with types and puts them into the wheel.

Stubs are never committed, so they cannot differ from the contracts. Paths equal packages, so imports need no rewriting:
`darkroom/captioner/v1/service.proto` becomes `darkroom.captioner.v1.service_pb2`.
"""

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("darkroom", "buf")


class StubsHook(BuildHookInterface[Any]):
    """Generates the stubs into a temporary folder and maps each into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Hatchling calls this before it collects the wheel's files."""
        root = Path(self.root)
        self._folder = tempfile.TemporaryDirectory(prefix="darkroom-stubs-")
        target = Path(self._folder.name)
        generate(root, target)
        build_data["force_include"] |= {
            str(path): str(path.relative_to(target)) for path in sorted(target.rglob("*")) if path.is_file()
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the temporary folder once the wheel is written."""
        self._folder.cleanup()


def generate(root: Path, target: Path) -> None:
    """Writes *_pb2.py, *_pb2_grpc.py and their .pyi for every .proto file below root into target."""
    protos = sorted(str(path.relative_to(root)) for package in PACKAGES for path in (root / package).rglob("*.proto"))
    arguments = [
        "protoc",
        f"-I{root}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
        *protos,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc failed on {len(protos)} files below {root}; its messages stand above")
    for package in PACKAGES:
        (target / package / "py.typed").touch()
