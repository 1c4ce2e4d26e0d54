"""The server in-process: health, reflection, limits, TLS, metrics port, drain."""

import asyncio
import datetime
import ipaddress
import logging
import socket
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from chassis import calls, client
from chassis.config import ConfigError, ServerConfig
from chassis.server import Binding, Server, StartError
from chassis.testing import running
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import Counter

SERVICE = "chassis.echo.v1.EchoService"
OTHER_SERVICE = "chassis.echo.v1.OtherService"


async def health_of(target: str, *services: str) -> list[str]:
    """The health of each service, asked without a token."""
    async with client.channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        replies = [await stub.Check(health_pb2.HealthCheckRequest(service=service)) for service in services]
    return [health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status) for reply in replies]


async def reflected_services(target: str, token: str) -> list[str]:
    async with client.channel(target, token) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        return [service.name async for reply in replies for service in reply.list_services_response.service]


async def metrics_text(server: Server) -> str:
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    return await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())


class TestConstruction:
    def test_auth_without_a_token_is_refused(self, echo: ModuleType) -> None:
        with pytest.raises(ConfigError, match="DARKROOM_TOKEN"):
            echo.make_server(echo.EchoServicer(), ServerConfig())

    def test_a_service_that_no_proto_defines_is_refused(self) -> None:
        binding = Binding("chassis.echo.v1.Misspelt", lambda server: None)
        with pytest.raises(ValueError, match="Misspelt"):
            Server("echo", ServerConfig(auth=False), [binding], {})


class TestHealth:
    async def test_nothing_serves_until_told_and_the_whole_serves_when_all_do(self, serve: Any) -> None:
        names = ("", SERVICE, OTHER_SERVICE)
        async with serve() as (server, _):
            await server.set_serving(False)
            assert await health_of(server.target, *names) == ["NOT_SERVING"] * 3
            await server.set_serving(service=SERVICE)
            assert await health_of(server.target, *names) == ["NOT_SERVING", "SERVING", "NOT_SERVING"]
            await server.set_serving(service=OTHER_SERVICE)
            assert await health_of(server.target, *names) == ["SERVING"] * 3
            await server.set_serving(False, service=OTHER_SERVICE)
            assert await health_of(server.target, *names) == ["NOT_SERVING", "SERVING", "NOT_SERVING"]

    async def test_a_started_server_is_not_serving(self, echo: ModuleType) -> None:
        server = echo.make_server(echo.EchoServicer(), ServerConfig(token="x"))
        async with running(server, serving=False) as target:
            assert await health_of(target, "", SERVICE) == ["NOT_SERVING"] * 2

    async def test_calls_reach_the_servicer_before_it_serves(self, echo: ModuleType) -> None:
        server = echo.make_server(echo.EchoServicer(), ServerConfig(auth=False))
        async with running(server, serving=False) as target, client.channel(target) as channel:
            reply = await echo.echo_pb2_grpc.EchoServiceStub(channel).Say(echo.echo_pb2.EchoRequest(text="a"))
            assert reply.text == "a"

    async def test_an_unknown_service_is_an_error_on_both_sides(self, serve: Any, failure: Any) -> None:
        async with serve() as (server, _), client.channel(server.target) as channel:
            with pytest.raises(ValueError, match="it has chassis"):
                await server.set_serving(service="chassis.echo.v1.Misspelt")
            request = health_pb2.HealthCheckRequest(service="chassis.echo.v1.Misspelt")
            assert (await failure(health_pb2_grpc.HealthStub(channel).Check(request))).code is grpc.StatusCode.NOT_FOUND


class TestReflection:
    async def test_the_bound_services_are_described(self, serve: Any) -> None:
        async with serve() as (server, _), client.channel(server.target, server.config.token) as channel:
            listed = await reflected_services(server.target, server.config.token)
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
            (described,) = [reply async for reply in stub.ServerReflectionInfo(iter([request]))]
        assert {SERVICE, OTHER_SERVICE, "grpc.health.v1.Health"} < set(listed)
        assert any(b"EchoService" in file for file in described.file_descriptor_response.file_descriptor_proto)

    async def test_it_asks_for_the_token(self, serve: Any) -> None:
        async with serve() as (server, _):
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await reflected_services(server.target, "")

    async def test_it_can_be_switched_off(self, serve: Any) -> None:
        async with serve(reflection=False) as (server, _):
            with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
                await reflected_services(server.target, server.config.token)


class TestLimits:
    async def test_a_request_over_the_limit_is_refused_and_the_server_lives(
        self, serve: Any, failure: Any, echo: ModuleType
    ) -> None:
        async with serve(max_message_bytes=2048) as (_, stub):
            failed = await failure(stub.Say(echo.echo_pb2.EchoRequest(text="a", payload=bytes(4096))))
            streamed = await failure(stub.Join(iter([echo.echo_pb2.EchoRequest(text="a", payload=bytes(4096))])))
            reply = await stub.Say(echo.echo_pb2.EchoRequest(text="a", payload=bytes(1024)))
        assert failed.code is streamed.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2048" in failed.message
        assert reply.text == "a"

    async def test_messages_above_grpcs_own_limit_of_4_mib_pass(self, serve: Any, echo: ModuleType) -> None:
        async with serve() as (_, stub):
            reply = await stub.Say(echo.echo_pb2.EchoRequest(text="a", payload=bytes(5 * 1024**2)))
        assert reply.text == "a"

    async def test_a_response_over_the_limit_is_refused(self, serve: Any, failure: Any, echo: ModuleType) -> None:
        class Verbose(echo.EchoServicer):  # type: ignore[misc,name-defined]
            async def Say(self, request: Any, context: Any) -> Any:
                return echo.echo_pb2.EchoResponse(text="x" * 4096)

        async with serve(Verbose(), max_message_bytes=2048) as (_, stub):
            failed = await failure(stub.Say(echo.echo_pb2.EchoRequest(text="a")))
        assert (failed.code, failed.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE")
        assert failed.info.metadata["max_bytes"] == "2048"


class TestPorts:
    async def test_metrics_have_a_port_of_their_own(self, serve: Any, echo: ModuleType) -> None:
        async with serve() as (server, stub):
            Counter("own_things", "Things of the service's own.", registry=server.registry).inc(3)
            await stub.Say(echo.echo_pb2.EchoRequest(text="a"))
            text = await metrics_text(server)
        labels = f'method="Say",service="{SERVICE}"'
        assert f'darkroom_grpc_calls_total{{code="OK",{labels}}} 1.0' in text
        assert f"darkroom_grpc_in_flight{{{labels}}} 0.0" in text
        assert f"darkroom_grpc_seconds_count{{{labels}}} 1.0" in text
        assert "# TYPE darkroom_grpc_failures_total counter" in text
        assert f'darkroom_serving{{service="{SERVICE}"}} 1.0' in text
        assert "own_things_total 3.0" in text
        assert "process_resident_memory_bytes" in text

    async def test_a_failure_can_be_shown_before_it_happens(self, echo: ModuleType) -> None:
        server = echo.make_server(echo.EchoServicer(), ServerConfig(auth=False, port=0, metrics_port=0))
        labels = {"service": SERVICE, "method": "Say", "reason": "TOO_LOUD"}
        assert server.registry.get_sample_value("darkroom_grpc_failures_total", labels) is None
        server.announce_failure("TOO_LOUD")
        assert server.registry.get_sample_value("darkroom_grpc_failures_total", labels) == 0

    @pytest.mark.parametrize(("setting", "variable"), [("port", "DARKROOM_PORT"), ("metrics_port", "METRICS_PORT")])
    async def test_a_taken_port_is_named(self, echo: ModuleType, setting: str, variable: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            config = ServerConfig(auth=False, **{setting: taken.getsockname()[1]})
            with pytest.raises(StartError, match=variable):
                await echo.make_server(echo.EchoServicer(), config).start()

    async def test_two_servers_never_share_a_port(self, serve: Any, echo: ModuleType) -> None:
        async with serve() as (server, _):
            second = echo.make_server(echo.EchoServicer(), ServerConfig(auth=False, port=server.port))
            with pytest.raises(StartError):
                await second.start()

    async def test_the_endpoint_file_exists_while_the_ports_are_open(self, echo: ModuleType, tmp_path: Path) -> None:
        file = tmp_path / "endpoint.json"
        file.write_text("left by a killed predecessor")
        server = echo.make_server(echo.EchoServicer(), ServerConfig(auth=False, endpoint_file=str(file)))
        async with running(server) as target:
            assert f'"grpc": "{target}"' in file.read_text()
            assert f":{server.metrics_port}" in file.read_text()
        assert not file.exists()

    async def test_ipv6(self, serve: Any, echo: ModuleType) -> None:
        async with serve(host="::1") as (server, stub):
            assert server.target == f"[::1]:{server.port}"
            assert (await stub.Say(echo.echo_pb2.EchoRequest(text="a"))).text == "a"


class SlowContext:
    """grpc's context of a call, whose messages need a moment to leave."""

    def __init__(self, context: Any, sending: asyncio.Event) -> None:
        self._context = context
        self._sending = sending

    async def write(self, data: bytes) -> None:
        self._sending.set()
        await asyncio.sleep(0.1)
        await self._context.write(data)


class TestDrain:
    async def test_calls_in_flight_finish_and_new_ones_are_refused(
        self, serve: Any, failure: Any, echo: ModuleType
    ) -> None:
        request = echo.echo_pb2.EchoRequest(text="a")
        async with serve() as (server, stub), client.channel(server.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            call = stub.Chat()
            await call.write(request)
            await call.read()
            stopping = asyncio.ensure_future(server.stop(3600))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            refused = await failure(stub.Say(request))
            assert await health_of(server.target, "", SERVICE) == ["NOT_SERVING"] * 2
            await server.set_serving()
            assert await health_of(server.target, "") == ["NOT_SERVING"]  # a late "ready" does not undo the drain
            assert not stopping.done()
            await call.write(request)
            assert (await call.read()).text == "a"
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            await stopping
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert refused.trailer["grpc-retry-pushback-ms"] == "1000"

    async def test_calls_that_outlast_the_drain_are_told_to_try_again(
        self, serve: Any, failure: Any, echo: ModuleType, count: Any
    ) -> None:
        async def act(request: Any, context: Any) -> None:
            await asyncio.Event().wait()

        servicer, request = echo.EchoServicer(act), echo.echo_pb2.EchoRequest(text="a", times=1)
        async with serve(servicer) as (server, stub):
            call = stub.Repeat(request)
            await call.read()
            saying = asyncio.ensure_future(failure(stub.Say(request)))
            while count(server.registry, "darkroom_grpc_in_flight", "Say") != 1:
                await asyncio.sleep(0.01)
            await server.stop(0.01)
            assert servicer.closed.is_set()
            ended = [await failure(call), await saying]
        assert [(each.code, each.info.reason) for each in ended] == [(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")] * 2

    async def test_an_answer_that_is_being_sent_is_no_failure(
        self, serve: Any, echo: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sending, send = asyncio.Event(), calls.Call.send

        async def slowly(self: calls.Call, data: bytes, is_last: bool = False) -> None:
            context = self.context
            self.context = SlowContext(context, sending)
            try:
                await send(self, data, is_last)
            finally:
                self.context = context

        monkeypatch.setattr(calls.Call, "send", slowly)
        async with serve() as (server, stub):
            saying = asyncio.ensure_future(stub.Say(echo.echo_pb2.EchoRequest(text="a")))
            await sending.wait()
            await server.stop(0)
            assert (await saying).text == "a"

    async def test_a_client_that_does_not_read_holds_no_stop(
        self, serve: Any, echo: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Talkative(echo.EchoServicer):  # type: ignore[misc, name-defined]
            async def Repeat(self, request: Any, context: Any) -> AsyncIterator[Any]:
                while True:
                    yield echo.echo_pb2.EchoResponse(text="a" * 1024**2)

        monkeypatch.setattr("chassis.server.INTERRUPT_SECONDS", 0.1)
        async with serve(Talkative()) as (server, stub):
            call = stub.Repeat(echo.echo_pb2.EchoRequest(text="a"))
            await call.read()
            async with asyncio.timeout(10):
                await server.stop(0.1)
            call.cancel()
        assert "calls do not end and are cut off" in caplog.messages

    async def test_a_second_stop_cuts_the_drain_short(self, serve: Any, echo: ModuleType) -> None:
        async with serve() as (server, stub):
            call = stub.Chat()
            await call.write(echo.echo_pb2.EchoRequest(text="a"))
            await call.read()
            drain = asyncio.ensure_future(server.stop(3600))
            await asyncio.sleep(0)
            await server.stop(0)
            await drain

    @pytest.mark.parametrize("style", ["EchoServicer", "ReaderWriterServicer"])
    async def test_watches_end_at_once_and_their_clients_are_told_to_try_again(
        self, serve: Any, failure: Any, echo: ModuleType, count: Any, style: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        servicer, request = getattr(echo, style)(), echo.echo_pb2.EchoRequest(text="a")
        async with serve(servicer) as (server, stub):
            watches = [stub.WatchText(request, metadata=(("x-request-id", f"id-{number}"),)) for number in range(3)]
            for watch in watches:
                assert (await watch.read()).text == "a"
            call = stub.Chat()
            await call.write(request)
            await call.read()
            stopping = asyncio.ensure_future(server.stop(3600))
            ended = [await failure(watch) for watch in watches]
            assert not stopping.done()  # it waits for the call that is no watch
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            await stopping
            assert servicer.closed.is_set()
            failures = count(server.registry, "darkroom_grpc_failures_total", "WatchText", reason="SHUTTING_DOWN")
        assert failures == 3
        for number, each in enumerate(ended):
            assert (each.code, each.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert each.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1
            assert each.trailer["x-request-id"] == f"id-{number}"
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    async def test_a_watch_whose_client_goes_during_the_drain_is_accounted_for(
        self, serve: Any, echo: ModuleType, count: Any
    ) -> None:
        async with serve() as (server, stub):
            watch = stub.WatchText(echo.echo_pb2.EchoRequest(text="a"))
            await watch.read()
            watch.cancel()
            await server.stop(3600)
            assert count(server.registry, "darkroom_grpc_in_flight", "WatchText") == 0

    async def test_an_open_health_watch_does_not_hold_the_drain(self, serve: Any) -> None:
        async with serve() as (server, _), client.channel(server.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            stopping = asyncio.ensure_future(server.stop(3600))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await stopping


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-made certificate of 127.0.0.1 and its key, as paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "darkroom-test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(built.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")


class TestTls:
    async def test_both_kinds_of_channel_shake_hands(self, echo: ModuleType, certificate: tuple[str, str]) -> None:
        request, stub_of = echo.echo_pb2.EchoRequest(text="a"), echo.echo_pb2_grpc.EchoServiceStub
        config = ServerConfig(token="x", tls_certificate_file=certificate[0], tls_key_file=certificate[1])
        server = echo.make_server(echo.EchoServicer(), config)
        async with running(server) as target:
            async with client.channel(target, "x", root_certificate_file=certificate[0]) as channel:
                assert (await stub_of(channel).Say(request)).text == "a"
            with client.blocking_channel(target, "x", root_certificate_file=certificate[0]) as blocking:
                reply = await asyncio.to_thread(stub_of(blocking).Say, request)
                assert reply.text == "a"
            async with client.channel(target, "x") as plain:
                with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                    await stub_of(plain).Say(request)

    async def test_a_missing_file_is_named(self, echo: ModuleType, certificate: tuple[str, str]) -> None:
        config = ServerConfig(auth=False, tls_certificate_file=certificate[0], tls_key_file="/nowhere/key.pem")
        with pytest.raises(StartError, match=r"DARKROOM_TLS_KEY_FILE.*/nowhere/key.pem"):
            await echo.make_server(echo.EchoServicer(), config).start()

    async def test_a_file_that_is_no_key_is_refused(self, echo: ModuleType, certificate: tuple[str, str]) -> None:
        config = ServerConfig(auth=False, tls_certificate_file=certificate[0], tls_key_file=certificate[0])
        with pytest.raises(StartError, match="DARKROOM_TLS"):
            await echo.make_server(echo.EchoServicer(), config).start()
