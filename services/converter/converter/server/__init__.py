"""The gRPC edge: the only part of this package that knows stubs and grpc. `service` serves, `messages` translates."""

from converter.server.service import ERRORS, SERVICE, ConverterService, build

__all__ = ["ERRORS", "SERVICE", "ConverterService", "build"]
