"""Runs the converter: `python -m converter`, configured by the environment; `--help` lists the settings."""

import asyncio
import sys

from chassis import program, server

from converter.config import ConverterConfig
from converter.server import build


async def serve(settings: ConverterConfig) -> int:
    """Serve until a signal; returns the exit code."""
    listening, service = build(settings)
    return await server.run(listening, load=service.load, close=service.close)


def main() -> int:
    """Read the configuration and serve."""
    return asyncio.run(serve(program.read_config(ConverterConfig, __doc__ or "")))


if __name__ == "__main__":
    sys.exit(main())
