"""Runs the captioner: `python -m captioner`, configured by the environment; `--help` lists the settings."""

import asyncio
import sys

from chassis import config, server, settings_table

from captioner.config import CaptionerConfig
from captioner.server import build, load


async def serve(settings: CaptionerConfig) -> int:
    """Serve until a signal; returns the exit code."""
    service, captioner = build(settings)
    return await server.run(service, load=lambda: load(captioner, settings), close=captioner.close)


def main() -> int:
    """Read the configuration and serve."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\n\n{settings_table.as_text(CaptionerConfig)}")
        return 0
    try:
        settings = config.read(CaptionerConfig)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
