"""`python -m webui_engine`: read the configuration, open the port, load behind it, serve until SIGTERM.

`--help` prints every setting.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from artifacts.store import StoreConfig
from chassis import logs, settings_table
from chassis.config import ConfigError, read

from webui_engine.config import EngineConfig
from webui_engine.server import Server

_HELP = "Stable Diffusion behind the REST API of the AUTOMATIC1111 web UI.\n\nusage: python -m webui_engine\n"


def main(arguments: Sequence[str]) -> int:
    """Run the engine; 0 after SIGTERM or SIGINT, 1 if it could not start, 2 for a wrong configuration."""
    if arguments:
        tables = [settings_table.as_text(EngineConfig), "", settings_table.as_text(StoreConfig)]
        print(_HELP, *tables, sep="\n")
        return 0 if arguments[0] in ("-h", "--help") else 2
    try:
        config = read(EngineConfig)
        store = read(StoreConfig) if os.environ.get("DARKROOM_S3_ENDPOINT") else None
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    logs.configure(config.server.log_level, config.server.log_format)
    # Nothing is ever fetched from a model hub; set before any library reads it.
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    logging.getLogger("httpx").setLevel(logging.WARNING)
    server = Server(config, store)
    server.bind()
    write_endpoint_file(config.server.endpoint_file, server.endpoints)
    try:
        return server.run()
    finally:
        if config.server.endpoint_file:
            Path(config.server.endpoint_file).unlink(missing_ok=True)


def write_endpoint_file(path: str, endpoints: dict[str, str]) -> None:
    """Write {"http": "host:port", "metrics": "host:port"} in one step; an empty path means nobody wants it."""
    if not path:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.partial")
    part.write_text(json.dumps(endpoints) + "\n")
    part.replace(target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
