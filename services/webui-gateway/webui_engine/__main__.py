"""Stable Diffusion behind the REST API of the AUTOMATIC1111 web UI: `python -m webui_engine`, configured by the environment.

`--help` lists the settings. The port opens first; models load behind it.
"""

import logging
import os
import sys

from chassis import logs, program
from chassis.endpoint import EndpointFile

from webui_engine.config import EngineConfig
from webui_engine.server import Server


def main() -> int:
    """Serve until SIGTERM or SIGINT, which give 0; 1 if the engine could not start."""
    config = program.read_config(EngineConfig, __doc__ or "")
    logs.configure(config.server.log_level, config.server.log_format)
    # Nothing is ever fetched from a model hub; set before any library reads it.
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    logging.getLogger("httpx").setLevel(logging.WARNING)
    server = Server(config)
    server.bind()
    endpoint = EndpointFile(config.server.endpoint_file)
    endpoint.write(server.endpoints)
    try:
        return server.run()
    finally:
        endpoint.remove()


if __name__ == "__main__":
    sys.exit(main())
