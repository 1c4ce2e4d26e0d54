"""Runs the configurations of `train_gpu` one after the other and takes their time; each leaves the memory empty."""

import gc
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from dreambooth import base_model, device_peaks, parts
from dreambooth.dataset import TrainingImage

from bench import gpu_models
from bench.gpu_models import Size
from bench.gpu_report import OUT_OF_MEMORY, Row
from bench.gpu_step import Step, Switches
from bench.workshop import BASE, PROMPT, BareLoop, recipe_of

_WARM_UP_STEPS = 5
_NUM_IMAGES = 5


class Timed:
    """Times configurations on one device. steps: how many are timed."""

    def __init__(self, size: Size, device: torch.device, steps: int) -> None:
        self._size = size
        self._device = device
        self._steps = steps
        is_gpu = device.type == "cuda"
        self._peak_flops = device_peaks.flops_per_second(torch.cuda.get_device_name(device), "bf16") if is_gpu else 0.0

    def row(self, batch_size: int, switches: Switches | None) -> Row:
        """Build, warm up, time, and free everything again. switches: None for the trainer's own loop."""
        row = Row(batch_size, switches)
        try:
            row = self._timed(row)
        except torch.OutOfMemoryError:
            row = replace(row, failed=OUT_OF_MEMORY)
        except RuntimeError as error:  # a compilation or a capture that does not work must not cost the other rows
            row = replace(row, failed=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}")
        self._clean()
        return row

    def _timed(self, row: Row) -> Row:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        began = time.perf_counter()
        advance, tokens = self._built(row)
        advance(_WARM_UP_STEPS if self._device.type == "cuda" else 1)
        self._wait()
        warm = time.perf_counter()
        advance(self._steps)
        self._wait()
        seconds = (time.perf_counter() - warm) / self._steps
        flops = gpu_models.step_flops(self._size, row.batch_size, tokens)
        return replace(
            row,
            steps_per_second=1 / seconds,
            images_per_second=row.batch_size / seconds,
            tflop_per_step=flops / 1e12,
            mfu=flops / seconds / self._peak_flops if self._peak_flops else None,
            peak_memory_gib=self._peak_memory_bytes() / 2**30,
            warm_up_seconds=warm - began,
        )

    def _built(self, row: Row) -> tuple[Callable[[int], None], int]:
        """What makes so many steps, and the length of its prompts in tokens."""
        if row.switches is None:
            return self._trainers_loop(row.batch_size)
        step = Step(self._size, row.batch_size, row.switches, self._device)

        def advance(count: int) -> None:
            for _ in range(count):
                step()

        return advance, self._size.tokens

    def _trainers_loop(self, batch_size: int) -> tuple[Callable[[int], None], int]:
        """dreambooth's loop with its caches. Text encoder and VAE are the tiny ones: they are frozen, and cached."""
        tiny = parts.load(base_model.describe(BASE.name, BASE), self._device)
        model = replace(tiny, unet=self._size.build(self._device))
        edge = self._size.edge_px
        noise = np.random.default_rng(0)
        shown = [
            TrainingImage(f"{i}.png", "", PROMPT, noise.integers(0, 256, (edge, edge, 3), np.uint8), (edge, edge))
            for i in range(_NUM_IMAGES)
        ]
        recipe = recipe_of("bench-gpu", batch_size=batch_size, precision="bf16", resolution_px=edge)
        return BareLoop(model, recipe, shown).advance, int(tiny.tokenizer.model_max_length)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _peak_memory_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else 0

    def _clean(self) -> None:
        """Give back what a configuration held, also after it failed."""
        torch.compiler.reset()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
