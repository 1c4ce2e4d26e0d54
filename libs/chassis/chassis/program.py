"""The first lines of a service's `__main__`: `--help` and the configuration.

Building the server from the configuration and running it (`server.run`) are left to the service.
"""

import argparse
import sys
from typing import Final, TypeVar

from chassis import settings_table
from chassis.config import ConfigError, read

C = TypeVar("C")

EXIT_USAGE: Final = 64
"""The input is wrong; trying again will not help."""


def read_config(cls: type[C], description: str) -> C:
    """Read the configuration from the environment, as `config.read` does.

    With `--help` the process prints the description and the table of settings and ends. With a wrong configuration it
    prints every mistake and ends with EXIT_USAGE.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"settings, read from the environment:\n\n{settings_table.as_text(cls)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        return read(cls)
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from error
