"""Loading models: from diffusers folders and from single files, and keeping the last few in memory.

`engine.py` asks for models in the worker thread; `generate.py` uses what comes back. Nothing is downloaded from a hub.
"""

import gc
import logging
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from webui_engine import lora
from webui_engine.bases import find_base
from webui_engine.catalogue import Catalogue, ControlNet, Model
from webui_engine.errors import EngineError, LoraMismatch, ModelBroken, RequestInvalid
from webui_engine.lora_catalogue import Lora, LoraUse
from webui_engine.lora_files import FAMILIES
from webui_engine.preview import Preview
from webui_engine.published import Published
from webui_engine.samplers import Choice

DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_NOISE_LEVELS: Final = (
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "num_train_timesteps",
    "prediction_type",
)
_LOAD_ERRORS: Final = (
    OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, UnpicklingError, EOFError, SafetensorError,
    zipfile.BadZipFile,
)  # fmt: skip

_log = logging.getLogger(__name__)
for _library in (diffusers, transformers):
    _library.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class Placement:
    """Where models run and in which number format. The VAE is always fp32: in fp16 some overflow to black."""

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of `precision`."""
        return DTYPES[self.precision]

    @classmethod
    def choose(cls, device: str, precision: str) -> "Placement":
        """Resolve "auto". Raises ValueError if cuda is asked for and not there."""
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("DARKROOM_DEVICE is 'cuda', but torch finds no CUDA device; set it to 'cpu' or 'auto'")
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        auto = "fp16" if name == "cuda" else "fp32"
        return cls(torch.device(name), auto if precision == "auto" else precision)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in memory. native_px: side of the pictures it was made for. scale: pixels per latent."""

    model: Model
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    placement: Placement
    preview: Preview

    @property
    def scale(self) -> int:
        """Pixels per latent, 8 for SD."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def native_px(self) -> int:
        """UNet sample_size times the VAE's scale."""
        return int(self.unet.config.sample_size) * self.scale

    @property
    def family(self) -> str:
        """The family of models by the width of its prompts: "sd15", "sd21", or what that width is."""
        width = self.unet.config.cross_attention_dim
        return FAMILIES.get(width, f"cross-attention {width}")

    @cached_property
    def merged(self) -> lora.Merged:
        """The LoRAs in its weights."""
        return lora.Merged(self.unet, self.text_encoder)

    def make_scheduler(self, choice: Choice) -> Any:
        """A fresh diffusers scheduler with this model's noise levels."""
        arguments: dict[str, Any] = {
            key: self.scheduler_config[key] for key in _NOISE_LEVELS if key in self.scheduler_config
        }
        arguments.update(choice.arguments)
        return getattr(diffusers, choice.sampler.scheduler_class)(**arguments)


class Models:
    """The models in memory, least recently used first out. Used by one thread."""

    def __init__(self, placement: Placement, catalogue: Catalogue, published: Published | None, limit: int) -> None:
        self.placement = placement
        self._catalogue = catalogue
        self._published = published
        self._limit = limit
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._control_nets: OrderedDict[Path, Any] = OrderedDict()

    def get(self, model: Model) -> Loaded:
        """The model, loaded now if need be. Those in memory stay if that fails. Raises ModelBroken, StoreDown."""
        key = f"{model.path}:{model.sha256}"
        if key not in self._loaded:
            self._loaded[key] = self._load(model)
            _log.info("model %s loaded", model.title)
        self._loaded.move_to_end(key)
        while len(self._loaded) > self._limit:
            self._loaded.popitem(last=False)
            gc.collect()
        return self._loaded[key]

    def control_net(self, net: ControlNet, loaded: Loaded) -> Any:
        """The ControlNetModel. Raises ModelBroken, and RequestInvalid naming both if it does not fit the model."""
        if net.path not in self._control_nets:
            try:
                found = diffusers.ControlNetModel.from_pretrained(
                    str(net.path), dtype=self.placement.dtype, local_files_only=True
                )
            except _LOAD_ERRORS as error:
                raise ModelBroken(net.title, _reason(error)) from error
            self._control_nets[net.path] = found.to(self.placement.device).eval()
        self._control_nets.move_to_end(net.path)
        while len(self._control_nets) > self._limit:
            self._control_nets.popitem(last=False)
        control_net = self._control_nets[net.path]
        _check_fit(net, control_net, loaded)
        return control_net

    def merge(self, loaded: Loaded, uses: Sequence[LoraUse]) -> None:
        """Merge these LoRAs into the model and no others; the same ones as last time stay as they are.

        Raises ModelBroken and StoreDown, and LoraMismatch naming both if one does not fit; then those before stay.
        """
        if loaded.merged.uses != tuple(uses):
            layers = [self._lora_layers(use.lora, loaded) for use in uses]
            loaded.merged.set(uses, layers)

    def unload(self) -> None:
        """Drop everything from memory; the next `get` loads again."""
        self._loaded.clear()
        self._control_nets.clear()
        gc.collect()
        if self.placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def _load(self, model: Model) -> Loaded:
        if model.manifest is not None and self._published is not None:
            folder = model.path if model.manifest.format == "diffusers" else model.path.parent
            self._published.download(model.manifest, folder)
        try:
            pipeline = self._read(model)
            return self._place(model, pipeline)
        except EngineError:
            raise
        except _LOAD_ERRORS as error:
            _log.warning("model %s cannot be loaded", model.title, exc_info=True)
            raise ModelBroken(model.title, _reason(error)) from error

    def _lora_layers(self, wanted: Lora, loaded: Loaded) -> lora.Layers:
        if wanted.family not in ("", loaded.family):
            why = f"the model is {loaded.family}"
            raise LoraMismatch(wanted.name, wanted.family, wanted.base_model, loaded.model.title, why)
        if wanted.manifest is not None and self._published is not None:
            self._published.download(wanted.manifest, wanted.path.parent)
        layers = lora.read(wanted)
        loaded.merged.check(wanted, layers, loaded.model.title)
        return layers

    def _read(self, model: Model) -> Any:
        arguments: dict[str, Any] = {
            "dtype": self.placement.dtype,
            "local_files_only": True,
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        if model.path.is_dir():
            return diffusers.StableDiffusionPipeline.from_pretrained(str(model.path), **arguments)
        base = find_base(model, self._catalogue.base_folders())
        return diffusers.StableDiffusionPipeline.from_single_file(str(model.path), config=str(base.path), **arguments)

    def _place(self, model: Model, pipeline: Any) -> Loaded:
        device = self.placement.device
        vae = pipeline.vae.float().to(device).eval()
        return Loaded(
            model=model,
            unet=pipeline.unet.to(device).eval(),
            vae=vae,
            text_encoder=pipeline.text_encoder.to(device).eval(),
            tokenizer=pipeline.tokenizer,
            scheduler_config={**pipeline.scheduler.config},
            placement=self.placement,
            preview=Preview(vae),
        )


def _check_fit(net: ControlNet, control_net: Any, loaded: Loaded) -> None:
    ours, theirs = loaded.unet.config, control_net.config
    for name in ("cross_attention_dim", "in_channels", "block_out_channels"):
        expected, found = getattr(ours, name), getattr(theirs, name)
        if list(expected if isinstance(expected, list | tuple) else [expected]) != list(
            found if isinstance(found, list | tuple) else [found]
        ):
            raise RequestInvalid(
                "model",
                f"control net {net.title!r} does not fit model {loaded.model.title!r}: {name} is {found}, "
                f"the model has {expected}",
            )


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    if isinstance(error, UnpicklingError):
        return f"the file holds more than weights, which is not loaded: {text}"
    return f"{type(error).__name__}: {text}"
