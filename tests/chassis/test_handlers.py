"""Messages of all four kinds of RPC on their way to a servicer and back."""

import asyncio
from types import ModuleType
from typing import Any

import grpc
import pytest
from chassis import client

SERVICE = "chassis.echo.v1.EchoService"
KINDS = ("Say", "Repeat", "Join", "Chat")


class TestKinds:
    @pytest.mark.parametrize("style", ["EchoServicer", "ReaderWriterServicer"])
    async def test_messages_pass_in_both_styles_of_servicer(
        self, serve: Any, echo: ModuleType, request_of: Any, style: str
    ) -> None:
        async with serve(getattr(echo, style)()) as (_, stub):
            one, two = request_of(text="a", times=2), request_of(text="b")
            assert await echo.texts(echo.start(stub, "Say", one)) == ["a"]
            assert await echo.texts(echo.start(stub, "Repeat", one)) == ["a", "a"]
            assert await echo.texts(echo.start(stub, "Join", one, two)) == ["ab"]
            assert await echo.texts(echo.start(stub, "Chat", one, two)) == ["a", "b"]

    async def test_a_stream_is_a_conversation(self, serve: Any, request_of: Any) -> None:
        async with serve() as (_, stub):
            call = stub.Chat()
            for text in ("a", "b"):
                await call.write(request_of(text=text))
                assert (await call.read()).text == text  # answered before the next request is sent
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK

    async def test_an_empty_stream_is_served(self, serve: Any, echo: ModuleType) -> None:
        async with serve() as (_, stub):
            assert await echo.texts(echo.start(stub, "Join")) == [""]
            assert await echo.texts(echo.start(stub, "Chat")) == []


class TestValidation:
    @pytest.mark.parametrize("method", KINDS)
    async def test_every_violation_comes_back_at_once(
        self, serve: Any, echo: ModuleType, failure: Any, request_of: Any, method: str
    ) -> None:
        async with serve() as (_, stub):
            failed = await failure(echo.start(stub, method, request_of(times=101, items=[{"name": ""}])))
        assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
        assert failed.info.reason == "INVALID_REQUEST"
        assert set(failed.violations) == {"text", "times", "items[0].name"}
        assert all(failed.violations.values())

    @pytest.mark.parametrize("style", ["EchoServicer", "ReaderWriterServicer"])
    async def test_each_message_of_a_stream_is_checked(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any, style: str
    ) -> None:
        async with serve(getattr(echo, style)()) as (_, stub):
            call = echo.start(stub, "Chat", request_of(text="a"), request_of(text=""))
            assert (await call.read()).text == "a"
            assert set((await failure(call)).violations) == {"text"}
            joined = await failure(echo.start(stub, "Join", request_of(text="a"), request_of(text="")))
            assert set(joined.violations) == {"text"}

    async def test_more_violations_than_a_header_holds_still_arrive(
        self, serve: Any, failure: Any, request_of: Any
    ) -> None:
        async with serve() as (_, stub):
            failed = await failure(stub.Say(request_of(text="a", items=[{"name": ""}] * 5000)))
        assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
        assert failed.info.metadata["violations"] == "5000"

    async def test_a_call_without_a_request_is_refused(self, serve: Any, failure: Any) -> None:
        async with serve() as (server, _), client.channel(server.target, server.config.token) as channel:
            failed = await failure(channel.stream_unary(f"/{SERVICE}/Say")(iter([])))
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED")

    async def test_bytes_that_are_no_message_are_refused(self, serve: Any, failure: Any) -> None:
        async with serve() as (server, _), client.channel(server.target, server.config.token) as channel:
            failed = await failure(channel.unary_unary(f"/{SERVICE}/Say")(b"\xff\xff\xff"))
            streamed = await failure(channel.stream_unary(f"/{SERVICE}/Join")(iter([b"\xff\xff\xff"])))
        for each in (failed, streamed):
            assert each.code is grpc.StatusCode.INVALID_ARGUMENT
            assert each.info.reason == "REQUEST_MALFORMED"


class TestEnds:
    @pytest.mark.parametrize("style", ["EchoServicer", "ReaderWriterServicer"])
    async def test_a_client_that_goes_away_never_looks_like_the_end_of_its_stream(
        self, serve: Any, echo: ModuleType, request_of: Any, style: str
    ) -> None:
        ends = []
        received, left = asyncio.Event(), asyncio.Event()

        async def act(request: Any, context: Any) -> None:
            received.set()

        class Uploads(getattr(echo, style)):  # type: ignore[misc]
            async def Join(self, request_iterator: Any, context: Any) -> Any:
                try:
                    response = await super().Join(request_iterator, context)
                    ends.append(response.text)
                    return response
                finally:
                    left.set()

        async with serve(Uploads(act), max_message_bytes=2048) as (server, _):
            for round_number in range(30):  # the end and the cancellation race inside grpc
                received.clear()
                left.clear()
                async with client.channel(server.target, server.config.token) as channel:
                    call = echo.echo_pb2_grpc.EchoServiceStub(channel).Join()
                    await call.write(request_of(text="half"))
                    await received.wait()
                    if round_number % 2:
                        call.cancel()
                    else:
                        await call.write(request_of(text="too large", payload=bytes(4096)))
                    await left.wait()
        assert ends == []

    async def test_a_servicer_that_returns_no_message_is_an_internal_error(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        class Forgetful(echo.EchoServicer):  # type: ignore[misc,name-defined]
            async def Say(self, request: Any, context: Any) -> Any:
                return None

        async with serve(Forgetful()) as (_, stub):
            failed = await failure(stub.Say(request_of(text="a")))
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
