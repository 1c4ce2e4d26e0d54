"""Runs the trainer: `python -m trainer`, configured by the environment; `--help` lists the settings."""

import asyncio
import sys

from chassis import server
from chassis.program import EXIT_USAGE, read_config

from trainer.cluster.errors import ClusterForbidden
from trainer.config import TrainerConfig
from trainer.server import build


async def serve(settings: TrainerConfig) -> int:
    """Serve until a signal; returns the exit code."""
    try:
        service, trainer = build(settings)
    except ClusterForbidden as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    return await server.run(service, load=trainer.load, close=trainer.close)


def main() -> int:
    """Read the configuration and serve."""
    return asyncio.run(serve(read_config(TrainerConfig, "Darkroom's trainer: sessions and training runs.")))


if __name__ == "__main__":
    sys.exit(main())
