"""`python -m bench.train_gpu`: training steps of an SD1.5-size UNet (random weights) at 512 px on the first GPU.

bf16 autocast over fp32 weights, batch 1 and 8: the trainer's own loop, then its arithmetic alone with and without
torch.compile, channels_last and CUDA graphs. One JSON line for each on stdout, or a Markdown table with --markdown.
What does not fit into the GPU's memory is reported, and the others go on. `--smoke` runs the same code on the CPU with
a micro model and measures nothing.
"""

import argparse
import itertools
import json
import os
import sys
from dataclasses import asdict


def main() -> int:
    """0 if everything ran or was too large, 1 if something failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="micro model, CPU, a step of a few configurations")
    parser.add_argument("--markdown", action="store_true", help="print a table instead of JSON lines")
    parser.add_argument("--steps", type=int, default=50, help="timed steps of each configuration (default 50)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="pictures per step (default 1 8)")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    from bench import gpu_models, gpu_report, gpu_runs
    from bench.gpu_step import Switches

    if not arguments.smoke and not torch.cuda.is_available():
        print(
            f"train_gpu needs a CUDA GPU, and torch {torch.__version__} sees none; --smoke tries the code on the CPU",
            file=sys.stderr,
        )
        return 2
    device = torch.device("cpu" if arguments.smoke else "cuda")
    size = gpu_models.MICRO if arguments.smoke else gpu_models.SD15
    timed = gpu_runs.Timed(size, device, 1 if arguments.smoke else arguments.steps)
    all_switches = [Switches(*on) for on in itertools.product((False, True), repeat=3)]
    if arguments.smoke:
        all_switches = [Switches(), Switches(compiled=True, channels_last=True)]
    machine = gpu_report.machine(device)
    rows = []
    for batch_size in arguments.batch_sizes:
        for switches in (None, *all_switches):
            row = timed.row(batch_size, switches)
            rows.append(row)
            print(gpu_report.sentence(row), file=sys.stderr, flush=True)
            if not arguments.markdown:
                print(json.dumps({"bench": "train_gpu", **machine, **asdict(row)}), flush=True)
    if arguments.markdown:
        print(gpu_report.markdown(machine, rows))
    return 1 if any(row.failed not in ("", gpu_report.OUT_OF_MEMORY) for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
