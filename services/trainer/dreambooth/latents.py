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
    """The latents of all images of a stage. cached: False encodes every batch anew, as the reference does."""

    def __init__(self, parts: Parts, images: Sequence[TrainingImage], *, cached: bool = True) -> None:
        self._parts = parts
        self._images = images
        self._cached = cached
        self._known: OrderedDict[View, torch.Tensor] = OrderedDict()
        self._size_bytes = 0

    def sample(self, views: Sequence[View], noise: torch.Tensor) -> torch.Tensor:
        """Scaled latents of a batch, shape (batch, channels, height / factor, width / factor), fp32 on the device.

        noise: standard normal numbers of that shape.
        """
        if self._cached:
            mean, deviation = torch.stack([self.distribution(view) for view in views], dim=1).unbind()
        else:
            mean, deviation = self._encode(views)
        latents: torch.Tensor = (mean + deviation * noise) * self._parts.scaling_factor
        return latents

    def empty_like(self, num_views: int, cut: tuple[int, int]) -> torch.Tensor:
        """An uninitialised tensor of the shape and memory layout that a whole encoded batch has; the VAE's convolutions
        choose the layout by the size of the batch."""
        with torch.no_grad():
            pictures = torch.zeros(num_views, 3, *cut, device=self._parts.device)
            return torch.empty_like(self._parts.vae.encode(pictures).latent_dist.mean)

    def distribution(self, view: View) -> torch.Tensor:
        """Mean and standard deviation of one view, shape (2, channels, height / factor, width / factor)."""
        found = self._known.get(view)
        if found is None:
            # One image at a time: the result must not depend on the company an image is encoded in.
            found = torch.stack(self._encode([view]))[:, 0]
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
    def _encode(self, views: Sequence[View]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation in fp32, in the layout in which the VAE gives them."""
        picture = torch.stack([torch.from_numpy(self._pixels(view)) for view in views]).to(self._parts.device)
        # In this order of operations torchvision normalises, so that a comparison with the reference is exact.
        picture = picture.permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255).sub_(0.5).div_(0.5)
        posterior = self._parts.vae.encode(picture).latent_dist
        return posterior.mean, posterior.std

    def _pixels(self, view: View) -> np.ndarray:
        image = self._images[view.index]
        height, width = image.cut
        cut = image.pixels[view.top : view.top + height, view.left : view.left + width]
        return np.array(cut[:, ::-1] if view.mirrored else cut)
