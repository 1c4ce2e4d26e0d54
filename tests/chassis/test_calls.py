"""The life of a call, seen by a client through a real server, for all four kinds of RPC."""

import asyncio
import logging
from types import ModuleType
from typing import Any

import grpc
import pytest
from chassis import client, logs
from google.rpc import error_details_pb2

SERVICE = "chassis.echo.v1.EchoService"
KINDS = ("Say", "Repeat", "Join", "Chat")


class Overridden:
    """An object with some of its attributes replaced: for those of grpc, which allow no assignment."""

    def __init__(self, original: Any, **attributes: Any) -> None:
        self._original = original
        vars(self).update(attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class TestErrors:
    @pytest.mark.parametrize("method", KINDS)
    async def test_a_domain_error_becomes_its_status(
        self, serve: Any, failure: Any, echo: ModuleType, request_of: Any, method: str
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            raise echo.Busy(queue_length=4)

        async with serve(echo.EchoServicer(act)) as (_, stub):
            failed = await failure(echo.start(stub, method, request_of(text="a", times=1)))
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
            call = echo.start(stub, method, request_of(text="a", times=1), metadata=(("x-request-id", "id-7"),))
            failed = await failure(call)
            assert (await echo.texts(echo.start(stub, "Join"))) == [""]  # the server lives
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
        self, serve: Any, count: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.ABORTED, "by hand", (("extra", "1"),))

        async with serve(echo.EchoServicer(act)) as (server, stub):
            failed = await failure(stub.Say(request_of(text="a"), metadata=(("x-request-id", "id-8"),)))
            assert count(server.registry, "darkroom_grpc_calls_total", "Say", code="ABORTED") == 1
            assert count(server.registry, "darkroom_grpc_failures_total", "Say", reason="ABORTED") == 1
        assert (failed.code, failed.message) == (grpc.StatusCode.ABORTED, "by hand")
        assert (failed.trailer["extra"], failed.trailer["x-request-id"]) == ("1", "id-8")

    async def test_a_servicers_abort_is_counted_and_final_before_it_is_sent(
        self, serve: Any, count: Any, failure: Any, echo: ModuleType, request_of: Any
    ) -> None:
        counted = []

        async def act(request: Any, context: Any) -> None:
            call = context._call
            send = call.context.abort

            async def send_after_the_drain(*status: Any) -> None:
                counted.append(count(server.registry, "darkroom_grpc_calls_total", "Say", code="ABORTED"))
                call.interrupt()  # a drain that is over just now, which no client can time
                await send(*status)

            call.context = Overridden(call.context, abort=send_after_the_drain)
            await context.abort(grpc.StatusCode.ABORTED, "by hand")

        async with serve(echo.EchoServicer(act)) as (server, stub):
            failed = await failure(stub.Say(request_of(text="a")))
        assert failed.code is grpc.StatusCode.ABORTED
        assert counted == [1]
        assert count(server.registry, "darkroom_grpc_calls_total", "Say", code="ABORTED") == 1
        assert count(server.registry, "darkroom_grpc_calls_total", "Say", code="UNAVAILABLE") is None

    async def test_a_status_set_without_an_exception_is_counted(
        self, serve: Any, count: Any, failure: Any, echo: ModuleType, request_of: Any
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
        self, serve: Any, count: Any, echo: ModuleType, request_of: Any, method: str, caplog: pytest.LogCaptureFixture
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
            call = echo.start(stub, method, request_of(text="a", times=3))
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
            pending = asyncio.ensure_future(echo.texts(call))
            await begun.wait()
            await channel.close()
            await servicer.closed.wait()
            with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
                await pending

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
    async def test_a_call_is_in_flight_while_it_uploads(self, serve: Any, count: Any, request_of: Any) -> None:
        async with serve() as (server, stub):
            call = stub.Chat()
            await call.write(request_of(text="a"))
            await call.read()
            assert count(server.registry, "darkroom_grpc_in_flight", "Chat") == 1
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            assert count(server.registry, "darkroom_grpc_in_flight", "Chat") == 0

    async def test_calls_failures_and_seconds_are_counted_by_method(
        self, serve: Any, count: Any, failure: Any, request_of: Any
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
