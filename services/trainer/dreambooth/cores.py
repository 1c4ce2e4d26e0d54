"""How many cores this process may use. `launcher` shares them out, `sample_images` asks for an idle one. No torch here."""

import os
import sys


def count() -> int:
    """Cores of the machine; on Linux those that this process is allowed to run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
