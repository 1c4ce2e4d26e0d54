"""Learning rates from step to step. Pure.

The formulas are those of diffusers' `optimization.py` (linear warm-up, then the schedule), so that a comparison with its
scripts shows equal rates. Steps count from 1; the first step of a warm-up has the rate 0.
"""

import math

from dreambooth.recipe import StageSettings

POLYNOMIAL_POWER = 2.0
POLYNOMIAL_END = 1e-7


def rate(settings: StageSettings, step: int, num_steps: int) -> float:
    """Learning rate of a step (1 to num_steps) of a schedule over `num_steps` steps."""
    done, warmup = step - 1, settings.warmup_steps
    if done < warmup:
        return settings.learning_rate * (done / warmup)
    share = (done - warmup) / max(1, num_steps - warmup)  # of the schedule that lies behind
    if settings.schedule == "constant":
        return settings.learning_rate
    if settings.schedule == "linear":
        return settings.learning_rate * ((num_steps - done) / max(1, num_steps - warmup))
    if settings.schedule == "cosine":
        return settings.learning_rate * (0.5 * (1.0 + math.cos(math.pi * share)))
    end = min(POLYNOMIAL_END, settings.learning_rate)
    return float((settings.learning_rate - end) * (1 - share) ** POLYNOMIAL_POWER + end)
