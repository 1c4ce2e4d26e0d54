"""Token and body limit in front of every route."""

import asyncio
import base64
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from webui_gateway.guards import OPEN_PATHS, presented_token
from webui_gateway.http_api import create_app

NOWHERE = "http://127.0.0.1:9"


def routes(found: Any) -> set[tuple[str, str]]:
    """Method and path of every route of the application, documentation included."""
    app = create_app(found.gateway, "t", 1)
    contexts = iter_route_contexts(app.routes)
    return {(method, context.path) for context in contexts for method in context.methods or ()}


async def test_every_route_asks_for_the_token(start: Any) -> None:
    async with start(NOWHERE) as found, httpx.AsyncClient(base_url=found.url) as stranger:
        every = routes(found)
        assert {"/", "/docs", "/openapi.json", "/sdapi/v1/txt2img", "/internal/ping", "/controlnet/detect"} <= {
            path for _, path in every
        }
        for method, path in sorted(every):
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                answer = await stranger.request(method, path.replace("{job_id}", "x"), headers=headers)
                assert (answer.status_code == 401) == (path not in OPEN_PATHS), (method, path, answer.status_code)
        answer = await stranger.get("/no/such/path")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")


async def test_health_needs_no_token(start: Any) -> None:
    async with start(NOWHERE) as found, httpx.AsyncClient(base_url=found.url) as stranger:
        assert (await stranger.get("/healthz")).status_code == 200
        answer = await stranger.get("/readyz")
        assert answer.status_code == 503
        assert NOWHERE not in answer.text


async def test_basic_and_bearer_are_taken(start: Any) -> None:
    async with start(NOWHERE) as found, httpx.AsyncClient(base_url=found.url) as client:
        token = found.http.auth  # the fixture's client sends Basic
        assert token is not None
        assert (await found.http.get("/internal/ping")).status_code == 200
        header = {"Authorization": "Bearer gateway-test-token"}
        assert (await client.get("/internal/ping", headers=header)).status_code == 200


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic " + base64.b64encode(b"me:a:c").decode(), "a:c"),
        ("Basic %%%", ""),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), ""),
        ("Digest abc", ""),
        ("", ""),
    ],
)
def test_presented_token(header: str, token: str) -> None:
    assert presented_token(header) == token


async def test_a_body_over_the_limit_is_refused_on_every_post(start: Any) -> None:
    async with start(NOWHERE) as found:
        for path in sorted(path for method, path in routes(found) if method == "POST"):
            answer = await found.http.post(path, content=b"x" * (1024**2 + 1))
            assert answer.status_code == 413, path
        assert "1048576 bytes" in answer.json()["detail"]


async def test_a_body_without_a_length_is_counted(start: Any) -> None:
    async def endless() -> Any:
        for _ in range(3):
            yield b"x" * 500_000

    async with start(NOWHERE) as found:
        answer = await found.http.post("/sdapi/v1/txt2img", content=endless())
        assert answer.status_code == 413
        assert (await found.http.get("/healthz")).status_code == 200


async def raw_post(url: str, head: bytes, body: bytes) -> bytes:
    """The answer to a POST by a client that reads only when it has sent everything."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer gateway-test-token\r\n" + head)
    writer.write(b"\r\n" + body)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_client_that_sends_everything_first_gets_its_answer(start: Any) -> None:
    async with start(NOWHERE) as found:
        body = b"x" * 3 * 1024**2
        answer = await raw_post(found.url, b"Content-Length: %d\r\n" % len(body), body)
        assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "head", [b"Content-Length: 2000000\r\nExpect: 100-continue\r\n", b"Content-Length: 9000000000\r\n"]
)
async def test_a_body_that_cannot_fit_is_refused_before_it_comes(start: Any, head: bytes) -> None:
    async with start(NOWHERE) as found:
        assert (await raw_post(found.url, head, b"")).startswith(b"HTTP/1.1 413")


async def test_a_body_that_never_comes_holds_nothing_up(start: Any) -> None:
    async with start(NOWHERE) as found:
        parts = urlsplit(found.url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer gateway-test-token\r\n")
        writer.write(b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        assert (await found.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"not json", 422), (b"[]", 422), (b"", 422), (b'"x"', 422), (b"\xff", 400), (b"[" * 100_000, 400)],
)
async def test_a_body_that_is_no_object_is_refused_in_a1111s_form(start: Any, content: bytes, status: int) -> None:
    async with start(NOWHERE) as found:
        header = {"Content-Type": "application/json"}
        answer = await found.http.post("/sdapi/v1/txt2img", content=content, headers=header)
        assert answer.status_code == status
        assert set(answer.json()) == {"error", "detail", "body", "errors"}
        switched = await found.http.post("/sdapi/v1/png-info", content=content, headers=header)
        assert switched.status_code in (422, 503)


async def test_half_a_surrogate_pair_in_a_refusal_is_written_as_an_escape(start: Any) -> None:
    async with start(NOWHERE) as found:
        body = '{"override_settings": {"\\ud800": 1}, "override_settings_restore_afterwards": false}'
        answer = await found.http.post("/sdapi/v1/txt2img", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert "set \\ud800 by POST" in answer.json()["detail"]
