"""Stubs of the services, connected as `connection` says."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from chassis.client import blocking_channel
from darkroom.captioner.v1.service_pb2_grpc import CaptionerServiceStub
from darkroom.converter.v1.converter_pb2_grpc import ConverterServiceStub
from darkroom.trainer.v1.session_pb2_grpc import SessionServiceStub
from darkroom.trainer.v1.training_pb2_grpc import TrainingServiceStub
from darkroom.webui.v1.generation_pb2_grpc import GenerationServiceStub
from darkroom.webui.v1.registry_pb2_grpc import ControlNetServiceStub, ModelServiceStub

from darkroom_cli import connection
from darkroom_cli.connection import Connection


@dataclass(frozen=True)
class Clients:
    """A stub for each service. Channels connect at the first call."""

    captioner: CaptionerServiceStub
    sessions: SessionServiceStub
    training: TrainingServiceStub
    converter: ConverterServiceStub
    models: ModelServiceStub
    control_nets: ControlNetServiceStub
    generation: GenerationServiceStub


@contextlib.contextmanager
def connect(where: Connection | None = None) -> Iterator[Clients]:
    """Stubs that live as long as the block. Raises NotRunning."""
    where = where or connection.load()
    with contextlib.ExitStack() as stack:
        captioner, trainer, converter, webui = (
            stack.enter_context(blocking_channel(target, where.token))
            for target in (where.captioner, where.trainer, where.converter, where.webui)
        )
        yield Clients(
            captioner=CaptionerServiceStub(captioner),
            sessions=SessionServiceStub(trainer),
            training=TrainingServiceStub(trainer),
            converter=ConverterServiceStub(converter),
            models=ModelServiceStub(webui),
            control_nets=ControlNetServiceStub(webui),
            generation=GenerationServiceStub(webui),
        )
