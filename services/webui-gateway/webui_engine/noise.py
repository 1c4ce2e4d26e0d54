"""The noise that an image starts from: one CPU generator per image, so that it is the same alone, in a batch and on a GPU.

Called by `generate.py`. Equals A1111 with the option randn_source "CPU".
"""

import torch


def generator(seed: int) -> torch.Generator:
    """The random numbers of one image; its noise is drawn first, then whatever its sampler draws at each step."""
    return torch.Generator("cpu").manual_seed(seed)


def initial(shape: tuple[int, int, int], own: torch.Generator, subseed: int, subseed_strength: float) -> torch.Tensor:
    """Noise (C, h, w) of one image, moved towards that of `subseed` by subseed_strength, 0 to 1."""
    noise = torch.randn(shape, generator=own)
    if subseed_strength == 0:
        return noise
    return slerp(subseed_strength, noise, torch.randn(shape, generator=generator(subseed)))


def slerp(share: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Spherical interpolation along dimension 1 (Shoemake 1985), linear where both nearly agree; A1111 does the same."""
    unit_low = low / torch.norm(low, dim=1, keepdim=True)
    unit_high = high / torch.norm(high, dim=1, keepdim=True)
    cosine = (unit_low * unit_high).sum(1)
    if cosine.mean() > 0.9995:
        return low * (1 - share) + high * share
    angle = torch.acos(cosine)
    weight_low = (torch.sin((1 - share) * angle) / torch.sin(angle)).unsqueeze(1)
    weight_high = (torch.sin(share * angle) / torch.sin(angle)).unsqueeze(1)
    return weight_low * low + weight_high * high
