"""Runs the converter: `python -m converter`, configured by the environment; `--help` lists the settings."""

import asyncio
import sys

from chassis import config, server, settings_table

from converter.config import ConverterConfig
from converter.server import build


async def serve(settings: ConverterConfig) -> int:
    """Serve until a signal; returns the exit code."""
    listening, service = build(settings)
    return await server.run(listening, load=service.load, close=service.close)


def main() -> int:
    """Read the configuration and serve."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\n\n{settings_table.as_text(ConverterConfig)}")
        return 0
    try:
        settings = config.read(ConverterConfig)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
