"""Muon (K. Jordan et al., 2024): momentum whose update is orthogonalised by a Newton-Schulz iteration.

Matrices and convolution kernels take it, everything else AdamW. On these small networks it reaches the loss of AdamW
in clearly fewer steps.
"""

from collections.abc import Iterable

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315  # coefficients of the quintic iteration of the Muon post


def orthogonalised(gradient: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values land between 0.7 and 1.2.

    Iterates on the small Gram matrix: every step multiplies x from the left by a polynomial of x x^T, and such
    polynomials commute, so their product is applied to the long side once.
    """
    tall = gradient.size(0) > gradient.size(1)
    x = gradient.T if tall else gradient
    x = x / (x.norm() + 1e-7)
    gram, product = x @ x.T, torch.eye(len(x), device=x.device)
    for _ in range(iterations):
        factor = _B * gram + _C * gram @ gram
        factor.diagonal().add_(_A)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]).flatten(1)
                rows, columns = update.shape
                p.add_(orthogonalised(update).view_as(p), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def optimizers(model: torch.nn.Module, muon_rate: float, adam_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices and kernels inside, AdamW for norms, biases, embeddings and the first and last layers."""
    outer = ("conv_in", "conv_out", "zero", "controlnet_", "embedding", "time_emb_proj")
    inner = [p for n, p in model.named_parameters() if p.ndim >= 2 and not any(word in n for word in outer)]
    chosen = {id(p) for p in inner}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [torch.optim.AdamW(others, adam_rate, (0.9, 0.99), weight_decay=0), Muon(inner, muon_rate)]
