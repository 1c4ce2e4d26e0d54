"""Pages of a sorted list: the token is the name of the last entry shown, so pages stay right while entries come and go."""

import base64
import binascii
from collections.abc import Sequence
from typing import Protocol, TypeVar

DEFAULT_SIZE = 100


class Named(Protocol):
    """An entry with a name."""

    @property
    def name(self) -> str:
        """Its place in the order."""
        ...


E = TypeVar("E", bound=Named)


class PageTokenInvalid(Exception):
    """The page token was not made by this service."""


def page(entries: Sequence[E], size: int, token: str) -> tuple[list[E], str]:
    """Entries after the token, at most size (0: 100), and the next token ("" on the last page)."""
    try:
        after = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise PageTokenInvalid("page_token is not one this service gave; start without it") from error
    rest = [entry for entry in entries if entry.name > after]
    shown = rest[: size or DEFAULT_SIZE]
    more = len(rest) > len(shown)
    return shown, base64.urlsafe_b64encode(shown[-1].name.encode()).decode() if more else ""
