"""Who is let in."""

from types import ModuleType
from typing import Any

import grpc
import pytest
from chassis import client

SERVICE = "chassis.echo.v1.EchoService"
KINDS = ("Say", "Repeat", "Join", "Chat")


class TestAuth:
    @pytest.mark.parametrize("method", KINDS)
    @pytest.mark.parametrize(("token", "reason"), [("", "TOKEN_MISSING"), ("guess", "TOKEN_WRONG")])
    async def test_a_call_without_the_token_is_refused_with_a_hint(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any, method: str, token: str, reason: str
    ) -> None:
        acted = []

        async def act(request: Any, context: Any) -> None:
            acted.append(request)

        async with serve(echo.EchoServicer(act)) as (server, _), client.channel(server.target, token) as channel:
            start = getattr(echo.echo_pb2_grpc.EchoServiceStub(channel), method)
            # A stream without a message: grpc.aio says INTERNAL if the first message and the refusal meet on the way.
            failed = await failure(start() if method in ("Join", "Chat") else start(request_of(text="a", times=1)))
        assert failed.code is grpc.StatusCode.UNAUTHENTICATED
        assert failed.info.reason == reason
        assert "DARKROOM_TOKEN" in failed.message
        assert acted == []

    async def test_a_refusal_does_not_wait_for_the_request(self, serve: Any, failure: Any, echo: ModuleType) -> None:
        async with serve() as (server, _), client.channel(server.target, "guess") as channel:
            call = echo.echo_pb2_grpc.EchoServiceStub(channel).Join()  # nothing is ever written
            assert (await failure(call)).code is grpc.StatusCode.UNAUTHENTICATED

    async def test_auth_off_lets_everybody_in(self, serve: Any, echo: ModuleType, request_of: Any) -> None:
        async with serve(auth=False, token="") as (_, stub):
            assert await echo.texts(stub.Say(request_of(text="a"))) == ["a"]


class TestUnknownMethods:
    async def test_an_unknown_method_is_refused_without_new_metrics(self, serve: Any, count: Any, failure: Any) -> None:
        async with serve() as (server, _), client.channel(server.target, server.config.token) as channel:
            failed = await failure(channel.unary_unary(f"/{SERVICE}/Shout")(b""))
            assert count(server.registry, "darkroom_grpc_calls_total", "Shout", code="UNIMPLEMENTED") is None
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
