"""Rules for the names that become object keys, checked before any of them reaches the store.

Sessions, checkpoints and the store call this; each function returns its argument unchanged or raises InvalidName.
"""

import re

from artifacts.errors import InvalidName

_SESSION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CHECKPOINT = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_MAX_FILE_NAME_BYTES = 200
_MAX_KEY_BYTES = 1024

SESSION_RULE = "1 to 63 lower-case letters, digits and hyphens, starting with a letter or digit"
CHECKPOINT_RULE = "1 to 128 lower-case letters, digits, '.', '_' and '-', starting with a letter or digit"
FILE_NAME_RULE = "1 to 200 bytes of printable characters, no '/' or '\\', not starting with '.'"
PATH_RULE = "file names joined by '/', at most 800 bytes, and not 'manifest.json' itself"
KEY_RULE = "1 to 1024 bytes of printable characters; no empty, '.' or '..' part between '/'"


def session_name(name: str) -> str:
    """A session or run name, fit for a Kubernetes label and a folder."""
    if not _SESSION.fullmatch(name):
        raise InvalidName("session name", name, SESSION_RULE)
    return name


def checkpoint_id(name: str) -> str:
    """A checkpoint id, fit for a folder and for one file of an A1111 model list."""
    if not _CHECKPOINT.fullmatch(name):
        raise InvalidName("checkpoint id", name, CHECKPOINT_RULE)
    return name


def file_name(name: str) -> str:
    """The name of an uploaded file: one path segment."""
    if not _is_segment(name) or name.startswith(".") or _size_bytes(name) > _MAX_FILE_NAME_BYTES:
        raise InvalidName("file name", name, FILE_NAME_RULE)
    return name


def file_path(path: str) -> str:
    """A file's path inside a checkpoint. It is safe to join to a local folder."""
    segments = path.split("/")
    good = all(_is_segment(s) and not s.startswith(".") and _size_bytes(s) <= _MAX_FILE_NAME_BYTES for s in segments)
    if not good or _size_bytes(path) > 800 or path == "manifest.json":
        raise InvalidName("file path", path, PATH_RULE)
    return path


def object_key(key: str) -> str:
    """Any key this library may write. Stores that map keys to files treat the forbidden parts as other keys."""
    if not all(part not in ("", ".", "..") for part in key.split("/")):
        raise InvalidName("object key", key, KEY_RULE)
    if not key.isprintable() or _size_bytes(key) > _MAX_KEY_BYTES:
        raise InvalidName("object key", key, KEY_RULE)
    return key


def _is_segment(name: str) -> bool:
    return bool(name) and name.isprintable() and "/" not in name and "\\" not in name


def _size_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
