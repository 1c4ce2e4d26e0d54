"""Fixtures of the chassis tests: the echo service, compiled once, and clients of it."""

import importlib.resources
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from chassis import client
from chassis.config import ServerConfig
from chassis.testing import running
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc
from prometheus_client import CollectorRegistry

HERE = Path(__file__).parent
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="session")
def echo_stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of echo_pb2 and echo_pb2_grpc, importable."""
    folder = tmp_path_factory.mktemp("echo")
    includes = (HERE, HERE.parents[1] / "protos", importlib.resources.files("grpc_tools") / "_proto")
    arguments = [*(f"-I{path}" for path in includes), f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *arguments, "echo.proto"]) == 0
    sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(scope="session")
def echo(echo_stubs: Path) -> ModuleType:
    """The module echo.py."""
    spec = importlib.util.spec_from_file_location("chassis_tests_echo", HERE / "echo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serve(echo: ModuleType) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """`async with serve(servicer, port=...) as (server, stub)`: a running echo server and a stub with its token."""

    @asynccontextmanager
    async def open_server(servicer: Any = None, **settings: Any) -> AsyncIterator[tuple[Any, Any]]:
        config = ServerConfig(**({"token": TOKEN} | settings))
        server = echo.make_server(servicer or echo.EchoServicer(), config)
        async with running(server) as target, client.channel(target, config.token) as channel:
            yield server, echo.echo_pb2_grpc.EchoServiceStub(channel)

    return open_server


@pytest.fixture(scope="session")
def request_of(echo: ModuleType) -> Any:
    """`request_of(text=...)`: a request of the echo service."""
    return echo.echo_pb2.EchoRequest


@pytest.fixture
def count() -> Callable[..., float | None]:
    """`count(registry, metric, method, ...)`: a metric of an echo method; None before it exists."""

    def sample(registry: CollectorRegistry, name: str, method: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"service": "chassis.echo.v1.EchoService", "method": method} | labels)

    return sample


class Failure:
    """A failed call as its caller sees it."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details()
        self.trailer = dict(error.trailing_metadata() or ())
        self._status = rpc_status.from_call(error)

    def detail(self, kind: Any) -> Any:
        """The detail of this kind, None if the error has none."""
        for packed in self._status.details if self._status else ():
            message = kind()
            if packed.Unpack(message):
                return message
        return None

    @property
    def info(self) -> Any:
        """ErrorInfo; every error has one."""
        return self.detail(error_details_pb2.ErrorInfo)

    @property
    def violations(self) -> dict[str, str]:
        """BadRequest: field path to description."""
        bad_request = self.detail(error_details_pb2.BadRequest)
        return {violation.field: violation.description for violation in bad_request.field_violations}


@pytest.fixture
def failure() -> Callable[[Any], Any]:
    """`await failure(call)`: the error with which the call ends; fails the test if it succeeds."""

    async def finish(call: Any) -> None:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call

    async def await_failure(call: Any) -> Failure:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await finish(call)
        return Failure(caught.value)

    return await_failure
