"""Builds the images: `make images`, or `python -m images.build --help`."""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from images import engines, network
from images.catalogue import IMAGES, ROOT, Image
from images.engines import Engine, EngineFailed, Order

SBOM = "/usr/share/darkroom/sbom.cdx.json"


def main() -> int:
    """Build what was asked for; 1 with a message if something failed."""
    arguments = _arguments()
    try:
        engine, passed = engines.find(arguments.engine)
        for sentence in passed:
            print(f"{sentence}; trying the next", file=sys.stderr)
        for image in arguments.images:
            _build(engine, image, arguments)
    except EngineFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def version() -> str:
    """The version of Darkroom, which is also the tag of its images."""
    text = (ROOT / "services" / "captioner" / "pyproject.toml").read_text()
    return str(tomllib.loads(text)["project"]["version"])


def reference(image: Image, registry: str, tag: str, torch: str) -> str:
    """The full name of an image. CUDA variants are told by their tag, so that both can lie in one registry."""
    return f"{registry}/{image.name}:{tag}{image.variant(torch)}"


def revision() -> str:
    """The commit that the images are built from, marked if files were changed since."""
    done = subprocess.run(
        ("git", "describe", "--always", "--dirty", "--abbrev=40", "--match="), cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def digest_of_steps() -> str:
    """Changes with the scripts of images/steps. buildah would take layers from its cache that an old script made."""
    scripts = sorted((ROOT / "images" / "steps").iterdir())
    return hashlib.sha256(b"".join(script.read_bytes() for script in scripts)).hexdigest()


def _build(engine: Engine, image: Image, arguments: argparse.Namespace) -> None:
    name = reference(image, arguments.registry, arguments.tag, arguments.torch)
    values = {"VERSION": arguments.tag, "REVISION": revision(), "STEPS": digest_of_steps()}
    if arguments.base:
        values["BASE"] = arguments.base
    if image.torch:
        values["TORCH"] = arguments.torch
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="darkroom-images-") as folder:
        wheels = {"wheels": arguments.wheels} if image.torch and arguments.wheels else {}
        engine.build(Order(name, image.dockerfile, values, network.secrets(Path(folder)), wheels), ROOT)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file_name = f"{image.name}{image.variant(arguments.torch)}"
    (arguments.out / f"{file_name}.cdx.json").write_bytes(engine.read(name, SBOM))
    if arguments.archives:
        engine.save(name, arguments.archives / f"{file_name}.tar")
    print(f"{name} built with {engine.program} in {time.monotonic() - start:.0f} s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m images.build", description=__doc__)
    parser.add_argument(
        "images", nargs="*", type=_image, default=list(IMAGES), help="which ones, such as trainer tools; by default all"
    )
    parser.add_argument(
        "--torch", choices=("cpu", "cuda"), default="cpu", help="build of torch in the images that run models"
    )
    parser.add_argument(
        "--base",
        default="",
        help="image to build on, with Python 3.11 or newer; by default the public one that the Dockerfiles name",
    )
    parser.add_argument(
        "--registry", default="localhost", help="what stands before the names, such as registry.example.com/ai"
    )
    parser.add_argument("--tag", default=version(), help="tag, by default the version")
    parser.add_argument(
        "--engine", choices=engines.PROGRAMS, default="", help="by default the first of these that works"
    )
    parser.add_argument("--wheels", type=_folder, help="folder with a CPU wheel of torch, taken instead of the index's")
    parser.add_argument(
        "--archives",
        type=Path,
        help="folder that gets each image as an archive, for `docker load` or `ctr images import`",
    )
    parser.add_argument("--out", type=Path, default=Path("out/images"), help="folder that gets the SBOMs")
    return parser.parse_args()


def _image(name: str) -> Image:
    for image in IMAGES:
        if name in (image.name, image.name.removeprefix("darkroom-")):
            return image
    known = ", ".join(image.name.removeprefix("darkroom-") for image in IMAGES)
    raise argparse.ArgumentTypeError(f"{name!r} is no image; there are {known}")


def _folder(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return path


if __name__ == "__main__":
    sys.exit(main())
