"""The root file system of an image and its configuration, as buildah has them: what is really inside."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A file, folder or link. path: as a process in the image sees it; mode, uid and gid as of lstat."""

    path: str
    mode: int
    uid: int
    gid: int

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[1]

    @property
    def is_program(self) -> bool:
        """A link counts: what it leads to may have any name."""
        return stat.S_ISLNK(self.mode) or (stat.S_ISREG(self.mode) and bool(self.mode & 0o111))

    def is_writable(self, uid: int, gid: int) -> bool:
        """For a process of this user and group; a link has the rights of what it leads to, a device those of the machine."""
        if not (stat.S_ISREG(self.mode) or stat.S_ISDIR(self.mode)):
            return False
        granted = stat.S_IWOTH | stat.S_IWUSR * (self.uid == uid) | stat.S_IWGRP * (self.gid == gid)
        return bool(self.mode & granted)


@dataclass(frozen=True)
class ImageRoot:
    """folder: where the root is mounted. config: OCI's. about: everything that the engine tells of the image, as text."""

    folder: Path
    config: dict[str, Any]
    about: str
    entries: tuple[Entry, ...]

    def file(self, path: str) -> Path:
        """A file of the image on this machine."""
        return self.folder / path.lstrip("/")

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of the image in its root, as root. It must write nothing."""
        given = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
        return subprocess.run(["chroot", str(self.folder), *command], capture_output=True, text=True, env=given)


@contextmanager
def opened(name: str) -> Iterator[ImageRoot]:
    """The image of this name in buildah's storage, mounted. Raises CalledProcessError if it is not there."""
    about = _buildah("inspect", "--type=image", name)
    container = _buildah("from", "--pull-never", name)
    try:
        folder = Path(_buildah("mount", container))
        yield ImageRoot(folder, json.loads(about)["OCIv1"]["config"], about, tuple(_entries(str(folder))))
    finally:
        _buildah("rm", container)


def _entries(root: str) -> Iterator[Entry]:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            found = os.lstat(f"{folder}/{name}")
            yield Entry(f"{folder[len(root) :]}/{name}", found.st_mode, found.st_uid, found.st_gid)


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()
