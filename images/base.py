"""A base image without a registry: Debian's own packages, put together by debootstrap and imported by buildah.

`python -m images.base` makes it, for `make images BASE=localhost/darkroom-base:bookworm`; the cluster tests call `ensure`.
Debian 12 has Python 3.11.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "localhost/darkroom-base:bookworm"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
# Needs no cgroups and no network namespace, so it works inside a container or a small virtual machine.
ENVIRONMENT = {"BUILDAH_ISOLATION": "chroot"}
_DEFAULT_MIRROR = "http://deb.debian.org/debian"
# What no image needs: package lists and archives, pages for people, translations, logs of the installation.
_LEFT_OUT = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")

# debootstrap copies these from the machine that it runs on; engines lay their own files over them.
_OF_THIS_MACHINE = ("etc/resolv.conf", "etc/hostname")


class BaseNotMade(Exception):
    """The base image cannot be made here; the message says what is missing or which command failed."""


def ensure() -> str:
    """Make the image unless it is there; returns its name. Raises BaseNotMade."""
    _check_tools()
    if _buildah("images", "--quiet", NAME, check=False):
        return NAME
    with tempfile.TemporaryDirectory(prefix="darkroom-base-") as folder:
        # Its own mode would become that of the image's root folder.
        root = Path(folder) / "root"
        root.mkdir(mode=0o755)
        mirror = mirror_of_apt()
        print(f"debootstrap {SUITE} from {mirror} ...", file=sys.stderr)
        _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), mirror)
        _clean(root)
        _import(root)
    return NAME


def mirror_of_apt(sources: Path = Path("/etc/apt")) -> str:
    """The archive that apt of this machine uses for Debian itself; Debian's own if it names none."""
    files = [sources / "sources.list", *sorted(sources.glob("sources.list.d/*"))]
    text = "\n".join(file.read_text() for file in files if file.is_file())
    found = re.findall(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(https?://\S*/debian)/?(?:\s|$)", text, re.MULTILINE)
    return str(found[0]) if found else _DEFAULT_MIRROR


def _check_tools() -> None:
    missing = [tool for tool in ("debootstrap", "buildah") if not shutil.which(tool)]
    if missing:
        raise BaseNotMade(f"{' and '.join(missing)} not found; on Debian: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise BaseNotMade("debootstrap needs root: it makes device files and owners; run this as root")


def _clean(root: Path) -> None:
    """Empty the folders that an image does not need, and forget this machine; the licences of the packages stay."""
    for name in _OF_THIS_MACHINE:
        (root / name).write_text("")
    for name in _LEFT_OUT:
        folder = root / name
        for path in [path for path in folder.rglob("*") if not path.is_dir() and path.name != "copyright"]:
            path.unlink()


def _import(root: Path) -> None:
    container = _buildah("from", "scratch")
    try:
        _buildah("add", "--quiet", container, str(root), "/")
        _buildah(
            "config",
            "--cmd",
            "/bin/sh",
            "--env",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            container,
        )
        _buildah("commit", "--quiet", container, NAME)
    finally:
        _buildah("rm", container)


def _buildah(*arguments: str, check: bool = True) -> str:
    return _run("buildah", *arguments, check=check)


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    if check and done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BaseNotMade(f"`{' '.join(command)}` ended with {done.returncode}:\n{tail}")
    return done.stdout.strip()


if __name__ == "__main__":
    try:
        print(ensure())
    except BaseNotMade as error:
        sys.exit(f"error: {error}")
