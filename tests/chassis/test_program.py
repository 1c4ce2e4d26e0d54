"""A service as a process: start behind an open port, drain by a real SIGTERM, exit codes."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from chassis import client
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

HERE = Path(__file__).parent
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Program:
    """The echo service as a child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []

    async def logged(self, text: str) -> dict[str, Any]:
        """Wait for the log line that contains the text; fails the test if the process ends without it."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(json.loads(line))
            if text in self.log[-1]["message"]:
                return self.log[-1]
        raise AssertionError(f"no {text!r} among {self.log}")

    async def finish(self) -> tuple[int, str]:
        """Exit code and output, once the process has ended."""
        output, rest = await self.process.communicate()
        self.log += [json.loads(line) for line in rest.splitlines()]
        assert self.process.returncode is not None
        return self.process.returncode, output.decode()


@pytest.fixture
def launch(echo_stubs: Path) -> Callable[..., AbstractAsyncContextManager[Program]]:
    """`async with launch(DARKROOM_X=...) as program`: the echo service as a process, killed at the end if needed."""

    @contextlib.asynccontextmanager
    async def start(*arguments: str, **environ: str) -> AsyncIterator[Program]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
        path = os.pathsep.join([str(echo_stubs), *sys.path])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "echo.py"),
            *arguments,
            env=own | {"PYTHONPATH": path} | environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Program(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    return start


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO that the echo service's loading waits for."""
    path = tmp_path / "load"
    os.mkfifo(path)
    return path


async def test_the_port_is_open_while_the_service_loads_and_readiness_follows(
    launch: Any, fifo: Path, tmp_path: Path
) -> None:
    file = tmp_path / "endpoint.json"
    async with launch(DARKROOM_AUTH="off", DARKROOM_ENDPOINT_FILE=str(file), ECHO_LOAD=str(fifo)) as program:
        target = (await program.logged("listens"))["grpc"]
        assert json.loads(file.read_text())["grpc"] == target
        async with client.channel(target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == NOT_SERVING
            await asyncio.to_thread(fifo.write_text, "done")
            assert (await watch.read()).status == SERVING
            program.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
        assert await program.finish() == (0, "closed\n")
        assert not file.exists()


async def test_sigterm_lets_calls_finish_and_refuses_new_ones(launch: Any, failure: Any, echo: ModuleType) -> None:
    request = echo.echo_pb2.EchoRequest(text="a")
    async with launch(DARKROOM_TOKEN="x") as program:
        target = (await program.logged("listens"))["grpc"]
        await program.logged("ready")
        async with client.channel(target, "x") as channel:
            stub = echo.echo_pb2_grpc.EchoServiceStub(channel)
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            call = stub.Chat()
            await call.write(request)
            await call.read()
            program.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
            watch.cancel()
            refused = await failure(stub.Say(request))
            await call.write(request)
            assert (await call.read()).text == "a"
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            assert await program.finish() == (0, "closed\n")
            gone = await failure(stub.Say(request))
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert gone.code is grpc.StatusCode.UNAVAILABLE
    (line,) = [entry for entry in program.log if entry["message"].endswith("/Chat")]
    assert line["code"] == "OK"
    assert len(line["request_id"]) == 32


async def test_sigterm_waits_for_no_watch(launch: Any, failure: Any, echo: ModuleType) -> None:
    async with launch(DARKROOM_AUTH="off", DARKROOM_DRAIN_SECONDS="3600") as program:
        target = (await program.logged("listens"))["grpc"]
        async with client.channel(target) as channel:
            watch = echo.echo_pb2_grpc.EchoServiceStub(channel).WatchText(echo.echo_pb2.EchoRequest(text="a"))
            assert (await watch.read()).text == "a"
            program.process.send_signal(signal.SIGTERM)
            ended = await failure(watch)
        assert await program.finish() == (0, "closed\n")
    assert ended.info, (ended.code, ended.message)
    assert (ended.code, ended.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_calls_that_outlast_the_drain_are_told_to_try_again(launch: Any, failure: Any, echo: ModuleType) -> None:
    request = echo.echo_pb2.EchoRequest(text="a")
    async with launch(DARKROOM_AUTH="off", DARKROOM_DRAIN_SECONDS="0.5") as program:
        target = (await program.logged("listens"))["grpc"]
        async with client.channel(target) as channel:
            stub = echo.echo_pb2_grpc.EchoServiceStub(channel)
            chat, upload = stub.Chat(), stub.Join()
            await chat.write(request)
            assert (await chat.read()).text == "a"
            await upload.write(request)
            program.process.send_signal(signal.SIGTERM)
            ended = [await failure(chat), await failure(upload)]
        assert await program.finish() == (0, "closed\n")
    for each in ended:
        assert each.info, (each.code, each.message)
        assert (each.code, each.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert each.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 1


async def test_a_second_signal_ends_a_drain_that_waits(launch: Any, echo: ModuleType) -> None:
    async with launch(DARKROOM_AUTH="off", DARKROOM_DRAIN_SECONDS="3600") as program:
        target = (await program.logged("listens"))["grpc"]
        async with client.channel(target) as channel:
            call = echo.echo_pb2_grpc.EchoServiceStub(channel).Chat()
            await call.write(echo.echo_pb2.EchoRequest(text="a"))
            await call.read()
            program.process.send_signal(signal.SIGINT)
            await program.logged("drains")
            program.process.send_signal(signal.SIGINT)
            assert (await program.finish())[0] == 0
            assert await call.code() is not grpc.StatusCode.OK


async def test_a_failing_load_is_logged_and_ends_the_process(launch: Any, fifo: Path) -> None:
    async with launch(DARKROOM_AUTH="off", ECHO_LOAD=str(fifo)) as program:
        await program.logged("listens")
        await asyncio.to_thread(fifo.write_text, "fail")
        assert await program.finish() == (1, "closed\n")
        (line,) = [entry for entry in program.log if entry["level"] == "CRITICAL"]
        assert "the model is broken" in line["exception"]


async def test_sigterm_while_loading_is_an_orderly_end(launch: Any, fifo: Path) -> None:
    async with launch(DARKROOM_AUTH="off", ECHO_LOAD=str(fifo)) as program:
        await program.logged("listens")
        program.process.send_signal(signal.SIGTERM)
        await program.logged("stopped")
        await asyncio.to_thread(fifo.write_text, "done")  # frees the thread that a cancellation cannot
        assert await program.finish() == (0, "closed\n")


async def test_every_mistake_in_the_environment_is_printed(launch: Any) -> None:
    environ = {"DARKROOM_PORT": "high", "DARKROOM_DRAIN_SECONDS": "-1", "DARKROOM_TLS_KEY_FILE": "k.pem"}
    async with launch(**environ) as program:
        output, errors = await program.process.communicate()
    assert program.process.returncode == 64
    assert output == b""
    for variable in (*environ, "DARKROOM_TOKEN", "DARKROOM_TLS_CERTIFICATE_FILE"):
        assert variable.encode() in errors
    assert b"Traceback" not in errors


async def test_a_taken_port_ends_the_process_with_one_line(launch: Any, serve: Any) -> None:
    async with serve() as (server, _), launch(DARKROOM_AUTH="off", DARKROOM_PORT=str(server.port)) as program:
        code, _output = await program.finish()
    assert code == 1
    assert [entry["level"] for entry in program.log] == ["ERROR"]
    assert "DARKROOM_PORT" in program.log[0]["message"]
    assert "Address already in use" in program.log[0]["message"]


async def test_help_lists_the_settings(launch: Any) -> None:
    async with launch("--help") as program:
        output, _errors = await program.process.communicate()
    assert program.process.returncode == 0
    assert b"Says again what it is told." in output
    assert b"DARKROOM_DRAIN_SECONDS" in output
