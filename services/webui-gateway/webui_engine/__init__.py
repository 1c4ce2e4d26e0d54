"""webui_engine: Stable Diffusion with diffusers behind the REST API of the AUTOMATIC1111 web UI.

Start reading at `app.py` (the routes), then `planning.py` (what a request means) and `generate.py` (how it is drawn).
"""

from typing import Final

VERSION: Final = "0.1.0"
