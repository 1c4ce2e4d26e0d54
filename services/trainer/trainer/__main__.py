"""Runs the trainer: `python -m trainer`, configured by the environment; `--help` lists the settings."""

import asyncio
import sys

from chassis import server
from chassis.program import read_config

from trainer.config import TrainerConfig
from trainer.server import build


async def serve(settings: TrainerConfig) -> int:
    """Serve until a signal; returns the exit code."""
    service, trainer = build(settings)
    return await server.run(service, load=trainer.load, close=trainer.close)


def main() -> int:
    """Read the configuration and serve."""
    return asyncio.run(serve(read_config(TrainerConfig, "Darkroom's trainer: sessions and training runs.")))


if __name__ == "__main__":
    sys.exit(main())
