"""What the VAE says about each image, remembered as a distribution.

The VAE is frozen, so mean and standard deviation of the posterior of one view never change: they are computed once,
and every step draws a fresh sample from them. The objective is exactly that of encoding the image in every step; only
the repeated work goes. Views of images that need cutting are remembered per position.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch

from dreambooth.batches import View
from dreambooth.dataset import TrainingImage
from dreambooth.parts import Parts

MAX_CACHE_BYTES = 512 * 1024**2


class Latents:
    """The latents of all images of a run."""

    def __init__(self, parts: Parts, images: Sequence[TrainingImage], edge_px: int, *, cached: bool = True) -> None:
        self._parts = parts
        self._images = images
        self._edge_px = edge_px
        self._cached = cached
        self._known: OrderedDict[View, torch.Tensor] = OrderedDict()
        self._size_bytes = 0

    def sample(self, views: Sequence[View], noise: torch.Tensor) -> torch.Tensor:
        """Scaled latents of a batch, shape (batch, channels, edge / factor, edge / factor), fp32 on the device.

        noise: standard normal numbers of that shape.
        """
        moments = torch.stack([self.distribution(view) for view in views], dim=1)
        return (moments[0] + moments[1] * noise) * self._parts.scaling_factor

    def distribution(self, view: View) -> torch.Tensor:
        """Mean and standard deviation of one view, shape (2, channels, edge / factor, edge / factor)."""
        found = self._known.get(view)
        if found is None:
            found = self._encode(view)
            if self._cached:
                self._remember(view, found)
        else:
            self._known.move_to_end(view)
        return found

    def _remember(self, view: View, moments: torch.Tensor) -> None:
        self._known[view] = moments
        self._size_bytes += moments.nbytes
        while self._size_bytes > MAX_CACHE_BYTES:
            _, oldest = self._known.popitem(last=False)
            self._size_bytes -= oldest.nbytes

    @torch.no_grad()
    def _encode(self, view: View) -> torch.Tensor:
        # One image at a time and in fp32: the result must not depend on the company an image is encoded in.
        pixels = self._images[view.index].pixels
        square = pixels[view.top : view.top + self._edge_px, view.left : view.left + self._edge_px]
        square = square[:, ::-1] if view.mirrored else square
        picture = torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1).unsqueeze(0)
        picture = picture.to(self._parts.device, torch.float32) / 127.5 - 1.0
        posterior = self._parts.vae.encode(picture).latent_dist
        return torch.cat([posterior.mean, posterior.std])
