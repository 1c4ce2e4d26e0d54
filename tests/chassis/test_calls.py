"""What surrounds every call, seen by a client through a real server, for all four kinds of RPC."""

import asyncio
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import grpc
import pytest
from chassis import client, logs
from google.rpc import error_details_pb2
from prometheus_client import CollectorRegistry

SERVICE = "chassis.echo.v1.EchoService"
KINDS = ("Say", "Repeat", "Join", "Chat")


def start(stub: Any, method: str, *requests: Any, **arguments: Any) -> Any:
    """Call the method with one request or with a stream of them, as its kind wants."""
    is_stream = method in ("Join", "Chat")
    return getattr(stub, method)(iter(requests) if is_stream else requests[0], **arguments)


async def texts(call: Any) -> list[str]:
    """The texts of all responses."""
    if hasattr(call, "__aiter__"):
        return [response.text async for response in call]
    return [(await call).text]


def count(registry: CollectorRegistry, name: str, method: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"service": SERVICE, "method": method} | labels)


@pytest.fixture
def request_of(echo: ModuleType) -> Callable[..., Any]:
    return echo.echo_pb2.EchoRequest


class TestKinds:
    @pytest.mark.parametrize("style", ["EchoServicer", "ReaderWriterServicer"])
    async def test_messages_pass_in_both_styles_of_servicer(
        self, serve: Any, echo: ModuleType, request_of: Any, style: str
    ) -> None:
        async with serve(getattr(echo, style)()) as (_, stub):
            one, two = request_of(text="a", times=2), request_of(text="b")
            assert await texts(start(stub, "Say", one)) == ["a"]
            assert await texts(start(stub, "Repeat", one)) == ["a", "a"]
            assert await texts(start(stub, "Join", one, two)) == ["ab"]
            assert await texts(start(stub, "Chat", one, two)) == ["a", "b"]

    async def test_a_stream_is_a_conversation(self, serve: Any, request_of: Any) -> None:
        async with serve() as (_, stub):
            call = stub.Chat()
            for text in ("a", "b"):
                await call.write(request_of(text=text))
                assert (await call.read()).text == text  # answered before the next request is sent
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK

    async def test_an_empty_stream_is_served(self, serve: Any) -> None:
        async with serve() as (_, stub):
            assert await texts(start(stub, "Join")) == [""]
            assert await texts(start(stub, "Chat")) == []


class TestValidation:
    @pytest.mark.parametrize("method", KINDS)
    async def test_every_violation_comes_back_at_once(
        self, serve: Any, failure: Any, request_of: Any, method: str
    ) -> None:
        async with serve() as (_, stub):
            failed = await failure(start(stub, method, request_of(times=101, items=[{"name": ""}])))
        assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
        assert failed.info.reason == "INVALID_REQUEST"
        assert set(failed.violations) == {"text", "times", "items[0].name"}
        assert all(failed.violations.values())

    @pytest.mark.parametrize("style", ["EchoServicer", "ReaderWriterServicer"])
    async def test_each_message_of_a_stream_is_checked(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any, style: str
    ) -> None:
        async with serve(getattr(echo, style)()) as (_, stub):
            call = start(stub, "Chat", request_of(text="a"), request_of(text=""))
            assert (await call.read()).text == "a"
            assert set((await failure(call)).violations) == {"text"}
            joined = await failure(start(stub, "Join", request_of(text="a"), request_of(text="")))
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


class TestErrors:
    @pytest.mark.parametrize("method", KINDS)
    async def test_a_domain_error_becomes_its_status(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any, method: str
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            raise echo.Busy(queue_length=4)

        async with serve(echo.EchoServicer(act)) as (_, stub):
            failed = await failure(start(stub, method, request_of(text="a", times=1)))
        assert failed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failed.message == "4 requests are waiting, at most 3 may"
        assert failed.info.reason == "BUSY"
        assert failed.info.metadata["queue_length"] == "4"
        assert failed.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 1500
        assert failed.trailer["grpc-retry-pushback-ms"] == "1500"

    async def test_a_subclass_uses_the_rule_of_its_base(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            raise echo.TextUnknown("no such text")

        async with serve(echo.EchoServicer(act)) as (_, stub):
            failed = await failure(stub.Say(request_of(text="a")))
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.NOT_FOUND, "TEXT_NOT_FOUND")

    @pytest.mark.parametrize("method", KINDS)
    async def test_an_unknown_exception_hides_its_text_and_is_logged(
        self,
        serve: Any,
        failure: Any,
        echo: ModuleType,
        request_of: Any,
        method: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            raise RuntimeError("password=hunter2")

        async with serve(echo.EchoServicer(act)) as (_, stub):
            call = start(stub, method, request_of(text="a", times=1), metadata=(("x-request-id", "id-7"),))
            failed = await failure(call)
            assert (await texts(start(stub, "Join"))) == [""]  # the server lives
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "id-7" in failed.message
        assert "hunter2" not in repr((failed.message, failed.trailer))
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "password=hunter2" in str(record.exc_info)

    async def test_an_error_after_the_first_response_ends_the_stream(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            raise echo.Busy(queue_length=4)

        async with serve(echo.EchoServicer(act)) as (_, stub):
            call = stub.Repeat(request_of(text="a", times=2))
            assert (await call.read()).text == "a"
            assert (await failure(call)).info.reason == "BUSY"

    async def test_what_a_servicer_aborts_with_arrives_as_it_is(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.ABORTED, "by hand", (("extra", "1"),))

        async with serve(echo.EchoServicer(act)) as (server, stub):
            failed = await failure(stub.Say(request_of(text="a"), metadata=(("x-request-id", "id-8"),)))
            assert count(server.registry, "darkroom_grpc_calls_total", "Say", code="ABORTED") == 1
            assert count(server.registry, "darkroom_grpc_failures_total", "Say", reason="ABORTED") == 1
        assert (failed.code, failed.message) == (grpc.StatusCode.ABORTED, "by hand")
        assert (failed.trailer["extra"], failed.trailer["x-request-id"]) == ("1", "id-8")

    async def test_a_status_set_without_an_exception_is_counted(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("set by hand")

        async with serve(echo.EchoServicer(act)) as (server, stub):
            failed = await failure(stub.Say(request_of(text="a")))
            assert count(server.registry, "darkroom_grpc_calls_total", "Say", code="DATA_LOSS") == 1
        assert failed.code is grpc.StatusCode.DATA_LOSS

    async def test_a_cancelled_task_inside_the_handler_does_not_leave_the_caller_waiting(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            raise asyncio.CancelledError

        async with serve(echo.EchoServicer(act)) as (_, stub):
            failed = await failure(stub.Say(request_of(text="a")))
        assert failed.code is grpc.StatusCode.INTERNAL

    async def test_a_servicer_that_returns_no_message_is_an_internal_error(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        class Forgetful(echo.EchoServicer):  # type: ignore[misc,name-defined]
            async def Say(self, request: Any, context: Any) -> Any:
                return None

        async with serve(Forgetful()) as (_, stub):
            failed = await failure(stub.Say(request_of(text="a")))
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")

    async def test_an_unknown_method_is_refused_without_new_metrics(self, serve: Any, failure: Any) -> None:
        async with serve() as (server, _), client.channel(server.target, server.config.token) as channel:
            failed = await failure(channel.unary_unary(f"/{SERVICE}/Shout")(b""))
            assert count(server.registry, "darkroom_grpc_calls_total", "Shout", code="UNIMPLEMENTED") is None
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")


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
            stub = echo.echo_pb2_grpc.EchoServiceStub(channel)
            failed = await failure(start(stub, method, request_of(text="a", times=1)))
        assert failed.code is grpc.StatusCode.UNAUTHENTICATED
        assert failed.info.reason == reason
        assert "DARKROOM_TOKEN" in failed.message
        assert acted == []

    async def test_a_refusal_does_not_wait_for_the_request(self, serve: Any, failure: Any, echo: ModuleType) -> None:
        async with serve() as (server, _), client.channel(server.target, "guess") as channel:
            call = echo.echo_pb2_grpc.EchoServiceStub(channel).Join()  # nothing is ever written
            assert (await failure(call)).code is grpc.StatusCode.UNAUTHENTICATED

    async def test_auth_off_lets_everybody_in(self, serve: Any, request_of: Any) -> None:
        async with serve(auth=False, token="") as (_, stub):
            assert await texts(stub.Say(request_of(text="a"))) == ["a"]


class TestRequestId:
    async def test_the_callers_id_comes_back_and_is_in_the_logs(
        self, serve: Any, echo: ModuleType, request_of: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen = []

        async def act(request: Any, context: Any) -> None:
            seen.append(await asyncio.to_thread(logs.request_id.get))

        caplog.set_level(logging.INFO, "chassis.calls")
        async with serve(echo.EchoServicer(act)) as (_, stub):
            call = stub.Say(request_of(text="a"), metadata=(("x-request-id", "from-the-caller"),))
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == "from-the-caller"
        assert seen == ["from-the-caller"]

    @pytest.mark.parametrize("presented", [None, "x" * 129, "has spaces", ""])
    async def test_an_id_is_made_where_none_is_fit_for_use(
        self, serve: Any, request_of: Any, presented: str | None
    ) -> None:
        async with serve() as (_, stub):
            metadata = () if presented is None else (("x-request-id", presented),)
            call = stub.Say(request_of(text="a"), metadata=metadata)
            await call
            made = dict(await call.trailing_metadata())["x-request-id"]
        assert len(made) == 32
        assert made != presented

    async def test_errors_carry_it_and_servicers_cannot_lose_it(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            context.set_trailing_metadata((("own", "1"),))
            if request.text == "fail":
                raise echo.Busy(queue_length=4)

        async with serve(echo.EchoServicer(act)) as (_, stub):
            call = stub.Say(request_of(text="a"), metadata=(("x-request-id", "id-9"),))
            await call
            trailer = dict(await call.trailing_metadata())
            failed = await failure(stub.Say(request_of(text="fail"), metadata=(("x-request-id", "id-10"),)))
        assert (trailer["own"], trailer["x-request-id"]) == ("1", "id-9")
        assert (failed.trailer["own"], failed.trailer["x-request-id"]) == ("1", "id-10")


class TestCancellation:
    @pytest.mark.parametrize("method", ["Say", "Repeat"])
    async def test_a_client_that_goes_away_cancels_the_handler(
        self, serve: Any, echo: ModuleType, request_of: Any, method: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def act(request: Any, context: Any) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        servicer = echo.EchoServicer(act)
        async with serve(servicer) as (server, stub):
            call = start(stub, method, request_of(text="a", times=3))
            await begun.wait()
            assert count(server.registry, "darkroom_grpc_in_flight", method) == 1
            call.cancel()
            await cancelled.wait()
            await servicer.closed.wait()
            await server.stop()  # the drain ends when the call is accounted for
            assert count(server.registry, "darkroom_grpc_calls_total", method, code="CANCELLED") == 1
            assert count(server.registry, "darkroom_grpc_in_flight", method) == 0
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    async def test_a_streaming_handler_is_closed_when_its_reader_stops_reading(
        self, serve: Any, echo: ModuleType, request_of: Any
    ) -> None:
        servicer = echo.EchoServicer()
        async with serve(servicer) as (server, stub):
            call = stub.Repeat(request_of(text="a", times=100))
            await call.read()
            call.cancel()
            await servicer.closed.wait()  # by its `finally`, not by a garbage collection
            await server.stop()

    async def test_a_connection_that_breaks_cancels_the_handler(
        self, serve: Any, echo: ModuleType, request_of: Any
    ) -> None:
        begun = asyncio.Event()

        async def act(request: Any, context: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        servicer = echo.EchoServicer(act)
        async with serve(servicer) as (server, _):
            channel = client.channel(server.target, server.config.token)
            call = echo.echo_pb2_grpc.EchoServiceStub(channel).Say(request_of(text="a"))
            pending = asyncio.ensure_future(texts(call))
            await begun.wait()
            await channel.close()
            await servicer.closed.wait()
            with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
                await pending

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

    async def test_a_deadline_cancels_the_handler(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            await asyncio.Event().wait()

        servicer = echo.EchoServicer(act)
        async with serve(servicer) as (_, stub):
            failed = await failure(stub.Say(request_of(text="a"), timeout=0.2))
            await servicer.closed.wait()
        assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED


class TestMetrics:
    async def test_a_call_is_in_flight_while_it_uploads(self, serve: Any, request_of: Any) -> None:
        async with serve() as (server, stub):
            call = stub.Chat()
            await call.write(request_of(text="a"))
            await call.read()
            assert count(server.registry, "darkroom_grpc_in_flight", "Chat") == 1
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            assert count(server.registry, "darkroom_grpc_in_flight", "Chat") == 0

    async def test_calls_failures_and_seconds_are_counted_by_method(
        self, serve: Any, failure: Any, request_of: Any
    ) -> None:
        async with serve() as (server, stub):
            assert count(server.registry, "darkroom_grpc_calls_total", "Say", code="OK") == 0
            await stub.Say(request_of(text="a"))
            await stub.Say(request_of(text="a"))
            await failure(stub.Say(request_of()))
            registry = server.registry
            assert count(registry, "darkroom_grpc_calls_total", "Say", code="OK") == 2
            assert count(registry, "darkroom_grpc_calls_total", "Say", code="INVALID_ARGUMENT") == 1
            assert count(registry, "darkroom_grpc_failures_total", "Say", reason="INVALID_REQUEST") == 1
            assert count(registry, "darkroom_grpc_seconds_count", "Say") == 3
            assert count(registry, "darkroom_grpc_calls_total", "Chat", code="OK") == 0

    async def test_every_call_has_a_line_in_the_access_log(
        self, serve: Any, failure: Any, request_of: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "chassis.calls")
        async with serve() as (_, stub):
            await stub.Say(request_of(text="a"))
            await failure(stub.Say(request_of()))
        lines = [record for record in caplog.records if record.name == "chassis.calls"]
        assert [(line.getMessage(), vars(line)["code"]) for line in lines] == [
            (f"{SERVICE}/Say", "OK"),
            (f"{SERVICE}/Say", "INVALID_ARGUMENT"),
        ]
        assert vars(lines[1])["reason"] == "INVALID_REQUEST"
        assert vars(lines[0])["seconds"] >= 0
