"""scores.json: what was measured when the weights were committed."""

import json
from pathlib import Path
from typing import Any


def keep(models: Path, name: str, found: dict[str, Any]) -> None:
    """Replaces the entry of one model, leaves the others', and prints it."""
    file = models / "scores.json"
    everything = json.loads(file.read_text()) if file.exists() else {}
    everything[name] = found
    file.write_text(json.dumps(everything, indent=2) + "\n")
    print(json.dumps(found))
