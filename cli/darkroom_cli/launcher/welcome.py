"""What `darkroom up` says once everything is ready."""

import shlex
from pathlib import Path

from darkroom_cli.connection import Connection


def welcome(data: Path, where: Connection) -> str:
    """The text. data: the folder of data; a path below the working directory is shown from there."""
    env = data / "env"
    shown = shlex.quote(str(env.relative_to(Path.cwd()) if env.is_relative_to(Path.cwd()) else env))
    return f"""Darkroom is ready.

  A1111 API and page  {where.http}
  captioner           {where.captioner}  (gRPC)
  trainer             {where.trainer}  (gRPC)
  converter           {where.converter}  (gRPC)
  webui-gateway       {where.webui}  (gRPC)
  data and logs       {data}
  addresses, token    {shown}  (in a browser the token is the password)

Try next, in another terminal:
  . {shown}
  darkroom generate "a large red circle on a brick wall"
  darkroom ask PICTURE "what color is the object?"
  darkroom session create mine FOLDER-WITH-PHOTOS
  darkroom --help
  curl -H "Authorization: Bearer $DARKROOM_TOKEN" $DARKROOM_HTTP/sdapi/v1/sd-models

Ctrl-C stops everything; nothing is lost."""
