"""Channels against a real server."""

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from chassis import client, logs
from chassis.config import ServerConfig
from chassis.testing import running


@pytest.fixture
def request_id() -> Iterator[str]:
    """A call being served in this context."""
    token = logs.request_id.set("of-the-outer-call")
    yield "of-the-outer-call"
    logs.request_id.reset(token)


async def test_the_request_id_of_the_call_being_served_travels_on(
    serve: Any, echo: ModuleType, request_id: str
) -> None:
    seen = []

    async def act(request: Any, context: Any) -> None:
        seen.append(logs.request_id.get())

    async with serve(echo.EchoServicer(act)) as (server, stub):
        request = echo.echo_pb2.EchoRequest(text="a")
        logs.request_id.set(request_id)
        await stub.Say(request)
        await stub.Say(request, metadata=(("x-request-id", "chosen-here"),))
        with client.blocking_channel(server.target, server.config.token) as channel:
            await asyncio.to_thread(echo.echo_pb2_grpc.EchoServiceStub(channel).Say, request)
    assert seen == [request_id, "chosen-here", request_id]


async def test_the_blocking_channel_carries_the_token_on_all_four_kinds(serve: Any, echo: ModuleType) -> None:
    one, two = echo.echo_pb2.EchoRequest(text="a", times=2), echo.echo_pb2.EchoRequest(text="b")

    def use(target: str, token: str) -> list[list[str]]:
        with client.blocking_channel(target, token) as channel:
            stub = echo.echo_pb2_grpc.EchoServiceStub(channel)
            return [
                [stub.Say(one).text],
                [response.text for response in stub.Repeat(one)],
                [stub.Join(iter([one, two])).text],
                [response.text for response in stub.Chat(iter([one, two]))],
            ]

    async with serve() as (server, _):
        assert await asyncio.to_thread(use, server.target, server.config.token) == [
            ["a"],
            ["a", "a"],
            ["ab"],
            ["a", "b"],
        ]
        with pytest.raises(grpc.RpcError, match="access token"):
            await asyncio.to_thread(use, server.target, "guess")


async def test_a_calls_own_authorization_is_kept(serve: Any, failure: Any, echo: ModuleType) -> None:
    async with serve() as (_, stub):
        call = stub.Say(echo.echo_pb2.EchoRequest(text="a"), metadata=(("authorization", "Bearer other"),))
        assert (await failure(call)).info.reason == "TOKEN_WRONG"


async def test_large_messages_pass_both_ways(echo: ModuleType) -> None:
    class Mirror(echo.EchoServicer):  # type: ignore[misc,name-defined]
        async def Say(self, request: Any, context: Any) -> Any:
            return echo.echo_pb2.EchoResponse(text="x" * len(request.payload))

    request = echo.echo_pb2.EchoRequest(text="a", payload=bytes(5 * 1024**2))
    async with running(echo.make_server(Mirror(), ServerConfig(token="x"))) as target:
        async with client.channel(target, "x") as channel:
            assert len((await echo.echo_pb2_grpc.EchoServiceStub(channel).Say(request)).text) == 5 * 1024**2
        with client.blocking_channel(target, "x") as blocking:
            reply = await asyncio.to_thread(echo.echo_pb2_grpc.EchoServiceStub(blocking).Say, request)
            assert len(reply.text) == 5 * 1024**2


async def test_a_message_over_the_clients_limit_is_not_sent(serve: Any, failure: Any, echo: ModuleType) -> None:
    async with (
        serve() as (server, _),
        client.channel(server.target, server.config.token, max_message_bytes=1024) as channel,
    ):
        stub = echo.echo_pb2_grpc.EchoServiceStub(channel)
        failed = await failure(stub.Say(echo.echo_pb2.EchoRequest(text="a", payload=bytes(2048))))
    assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_missing_root_certificate_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"/nowhere/ca\.pem"):
        client.blocking_channel("127.0.0.1:1", root_certificate_file="/nowhere/ca.pem")
