"""No program imports a model library before its port is open or its help is printed: that takes seconds."""

import subprocess
import sys

PROGRAMS = ("captioner", "trainer", "dreambooth", "converter", "webui_gateway", "webui_engine", "darkroom_cli")
MODEL_LIBRARIES = {"torch", "transformers", "diffusers"}


def test_programs_start_without_model_libraries() -> None:
    imports = "\n".join(f"import {program}.__main__" for program in PROGRAMS)
    script = f"import sys\n{imports}\nprint(*sys.modules)"
    started = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(started.stdout.split())
    assert {f"{program}.__main__" for program in PROGRAMS} <= modules
    assert MODEL_LIBRARIES & modules == set()
