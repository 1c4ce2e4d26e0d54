"""Pages of a sorted list: tokens that name the last item of the page before, so that pages stay right as items come and go."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from trainer.errors import PageTokenInvalid

DEFAULT_SIZE = 100
T = TypeVar("T")


def page(items: Sequence[T], key: Callable[[T], str], size: int, token: str) -> tuple[list[T], str]:
    """The items after the token, and the token of the next page ("" on the last).

    items must ascend by key. size 0 means DEFAULT_SIZE. Raises PageTokenInvalid.
    """
    after = _decoded(token)
    rest = [item for item in items if key(item) > after] if token else list(items)
    taken = rest[: size or DEFAULT_SIZE]
    return taken, _encoded(key(taken[-1])) if len(taken) < len(rest) else ""


def _encoded(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _decoded(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise PageTokenInvalid from error
