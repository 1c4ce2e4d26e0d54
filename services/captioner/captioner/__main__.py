"""Runs the captioner: `python -m captioner`, configured by the environment; `--help` lists the settings."""

import asyncio
import sys

from chassis import program, server

from captioner.config import CaptionerConfig
from captioner.server import build, load


async def serve(settings: CaptionerConfig) -> int:
    """Serve until a signal; returns the exit code."""
    service, captioner = build(settings)
    return await server.run(service, load=lambda: load(captioner, settings), close=captioner.close)


def main() -> int:
    """Read the configuration and serve."""
    return asyncio.run(serve(program.read_config(CaptionerConfig, __doc__ or "")))


if __name__ == "__main__":
    sys.exit(main())
