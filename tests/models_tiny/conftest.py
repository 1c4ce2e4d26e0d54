"""Puts models/tiny on the path, as its own scripts find it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "models" / "tiny"))
