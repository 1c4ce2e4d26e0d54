"""The shared bearer token: reading it from a header and comparing it.

Called by `interceptor.py` for every RPC and by the HTTP services for every route; imports no grpc, so that both can.
Which statuses the errors become is left to the edges.
"""

import hashlib
import hmac


class TokenMissing(Exception):
    """The call carried no bearer token."""

    def __init__(self, found: str = "no authorization header") -> None:
        super().__init__(
            f"no access token: found {found}, expected 'authorization: Bearer TOKEN'; "
            "send the token that the server was started with (DARKROOM_TOKEN)"
        )


class TokenWrong(Exception):
    """The call carried another token than the server's."""

    def __init__(self) -> None:
        super().__init__("the access token is not this server's; check DARKROOM_TOKEN on both sides")


def token_matches(expected: str, presented: str) -> bool:
    """Compare in constant time. An empty expected token matches nothing: a forgotten setting opens no server."""
    if not expected:
        return False
    # Digests have one length, so neither the content nor the length of the expected token shows in the time taken.
    digests = (hashlib.sha256(token.encode()).digest() for token in (expected, presented))
    return hmac.compare_digest(*digests)


def check_header(expected: str, header: str | None) -> None:
    """Check the value of an `authorization` header; raises TokenMissing or TokenWrong."""
    if not header:
        raise TokenMissing
    scheme, _, presented = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise TokenMissing(found="an authorization header without the Bearer scheme")
    if not presented.strip():
        raise TokenMissing(found="an empty Bearer token")
    if not token_matches(expected, presented.strip()):
        raise TokenWrong
