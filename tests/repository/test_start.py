"""No program imports a slow library before its port is open or its help is printed."""

import subprocess
import sys

PROGRAMS = ("captioner", "trainer", "dreambooth", "converter", "webui_gateway", "webui_engine", "darkroom_cli")
SLOW_LIBRARIES = {"torch", "transformers", "diffusers", "fastapi"}


def test_programs_start_without_slow_libraries() -> None:
    imports = "\n".join(f"import {program}.__main__" for program in PROGRAMS)
    script = f"import sys\n{imports}\nprint(*sys.modules)"
    started = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(started.stdout.split())
    assert {f"{program}.__main__" for program in PROGRAMS} <= modules
    assert SLOW_LIBRARIES & modules == set()
