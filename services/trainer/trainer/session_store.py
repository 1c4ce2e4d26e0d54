"""What SessionService adds to `artifacts.sessions`: repeats made safe, counts, pages, and respect for active runs.

`server.sessions` calls this in threads. Blocking; raises what the store raises.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from artifacts.errors import AlreadyExists, NotFound
from artifacts.sessions import InstanceImage, Session, Sessions
from artifacts.store import ObjectStore

from trainer import paging, session_lock
from trainer.errors import RequestIdReused, RunActive
from trainer.runs import Runs

_REQUEST_ID = "darkroom.dev/request-id"
_PARALLEL_REQUESTS = 8


@dataclass(frozen=True)
class Counted:
    """A session and how much is in it."""

    session: Session
    num_images: int
    num_captions: int


class SessionStore:
    """All sessions of one bucket."""

    def __init__(self, store: ObjectStore, runs: Runs) -> None:
        self.sessions = Sessions(store)
        self._store = store
        self._runs = runs

    def create(self, name: str, base_model: str, description: str, request_id: str) -> Counted:
        """Create a session; repeated with the same request_id it returns the first. Raises AlreadyExists, RequestIdReused."""
        labels = {_REQUEST_ID: request_id} if request_id else {}
        try:
            return Counted(self.sessions.create(name, base_model, description, labels), 0, 0)
        except AlreadyExists:
            session = self.sessions.get(name)
            if not request_id or session.labels.get(_REQUEST_ID) != request_id:
                raise
        if (session.base_model, session.description) != (base_model, description):
            raise RequestIdReused(request_id, f"session {name!r}")
        return self._counted(session)

    def get(self, name: str) -> Counted:
        """One session. Raises NotFound."""
        return self._counted(self.sessions.get(name))

    def page(self, size: int, token: str) -> tuple[list[Counted], str]:
        """Sessions by name. Raises PageTokenInvalid."""
        folders = sorted(self._store.list_folders("sessions/"))
        with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="sessions") as pool:
            # Stores keep the folder of a deleted session for a while.
            there = pool.map(lambda name: self._store.exists(f"sessions/{name}/session.json"), folders)
            names = [name for name, exists in zip(folders, there, strict=True) if exists]
            taken, next_token = paging.page(names, str, size, token)
            return list(pool.map(self.get, taken)), next_token

    def delete(self, name: str) -> int:
        """Remove a session; returns the number of objects. Raises NotFound, RunActive."""
        self.sessions.get(name)
        if run := session_lock.active_run(self._runs, name):
            raise RunActive(name, run)
        return self.sessions.delete(name)

    def image_page(self, session: str, size: int, token: str) -> tuple[list[InstanceImage], str]:
        """Images by file name. Raises NotFound, PageTokenInvalid."""
        taken, next_token = paging.page(self.sessions.image_names(session), str, size, token)
        return self.sessions.images(session, taken), next_token

    def caption(self, session: str, filename: str) -> str:
        """The caption of an image, "" if it has none. Raises NotFound."""
        if not self._store.exists(image_key(session, filename)):
            self.sessions.get(session)
            raise NotFound("instance image", filename, f"session {session!r}")
        return self.sessions.caption(session, filename) or ""

    def set_caption(self, session: str, filename: str, text: str) -> str:
        """Write the caption of an image, or remove it with a blank text. Raises NotFound."""
        if text.strip():
            self.sessions.set_caption(session, filename, text)
        else:
            self.sessions.delete_caption(session, filename)
        return text.strip()

    def _counted(self, session: Session) -> Counted:
        images = {_stem(filename) for filename in self.sessions.image_names(session.name)}
        captions = {_stem(stat.key) for stat in self._store.list(f"sessions/{session.name}/captions/")}
        return Counted(session, len(images), len(captions & images))


def image_key(session: str, filename: str) -> str:
    """Where an image lies in the bucket."""
    return f"sessions/{session}/instance_images/{filename}"


def _stem(key: str) -> str:
    return key.rsplit("/", 1)[-1].rsplit(".", 1)[0]
