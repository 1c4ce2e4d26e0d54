"""Names a source's tensors by the table of its architecture: what is there, what is missing, what nobody knows.

`inspection`, `plan` and the proof call this, so that a source and its result are compared under the same names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from converter import sd15_keys
from converter.errors import CheckpointMalformed
from converter.sd15_keys import KeyRule
from converter.sources import Source
from converter.tensors import StoredTensor

# Recomputed from the configuration by every reader, or no weights of the model that runs.
_DROPPED_NAMES: Final = frozenset(
    {
        *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
        *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
        *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
        *("logvar", "scale_factor", "v_pred", "ztsnr", "cond_stage_model.logit_scale"),
        *(sd15_keys.POSITION_IDS, "text_encoder.text_model.embeddings.position_ids"),
    }
)
_DROPPED_PREFIXES: Final = ("model_ema.", "first_stage_model.loss.")
_COMPONENTS: Final = ("unet", "vae", "text_encoder")
# Names of the attention in VAEs saved before diffusers 0.18.
_OLD_ATTENTION: Final = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class CanonicalTensor:
    """A stored tensor with its rule. shape: as a Diffusers folder has it."""

    rule: KeyRule
    stored: StoredTensor
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The canonical name."""
        return self.rule.name

    @property
    def ldm_shape(self) -> tuple[int, ...]:
        """The shape in a single file."""
        return _with_rank(self.shape, self.rule.ldm_rank) or self.shape


@dataclass(frozen=True)
class Model:
    """The tensors of one model.

    missing: names, in the source's own layout, of what the architecture needs. unexpected: stored names that it does
    not know. dropped: stored names that are known and not needed.
    """

    tensors: tuple[CanonicalTensor, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    dropped: tuple[str, ...]


def as_sd15(source: Source) -> Model:
    """Name the tensors of an SD1.x source. Raises CheckpointMalformed for a tensor of an impossible shape."""
    is_folder = source.format == "diffusers"
    by_name = {_repaired(tensor.name, is_folder): tensor for tensor in source.tensors}
    rules = sd15_keys.rules(_num_text_layers(by_name))
    known = {(rule.name if is_folder else rule.ldm_name): rule for rule in rules}
    tensors = tuple(_named(rule, by_name[name]) for name, rule in known.items() if name in by_name)
    unknown = [(name, tensor.name) for name, tensor in by_name.items() if name not in known]
    dropped = tuple(stored for name, stored in unknown if _is_dropped(name, is_folder))
    unexpected = tuple(stored for name, stored in unknown if not _is_dropped(name, is_folder))
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    missing = tuple(name for name, rule in known.items() if rule.name not in shapes and _is_needed(rule, shapes))
    return Model(tensors, missing, unexpected, dropped)


def _repaired(name: str, is_folder: bool) -> str:
    """Old and flattened names as the classic ones that the table has."""
    if is_folder:
        # transformers from 5.6 on saves CLIP without this level.
        if name.startswith("text_encoder.") and not name.startswith("text_encoder.text_model."):
            return name.replace("text_encoder.", "text_encoder.text_model.", 1)
        if name.startswith("vae.") and ".attentions." in name:
            for old, new in _OLD_ATTENTION.items():
                name = name.replace(old, new)
        return name
    flattened = "cond_stage_model.transformer."
    if name.startswith(flattened) and not name.startswith(sd15_keys.LDM_TEXT):
        return name.replace(flattened, sd15_keys.LDM_TEXT, 1)
    return name


def _num_text_layers(names: dict[str, StoredTensor]) -> int:
    """Counted, because the depth is the one thing about CLIP's text model that checkpoints differ in; 12 if unknown."""
    indices = {int(part) for part in _layer_indices(names) if part.isdecimal() and len(part) < 4}
    return max(indices) + 1 if indices else 12


def _layer_indices(names: dict[str, StoredTensor]) -> Iterator[str]:
    for name in names:
        for prefix in ("text_encoder.text_model.encoder.layers.", sd15_keys.LDM_TEXT + "encoder.layers."):
            if name.startswith(prefix):
                yield name[len(prefix) :].partition(".")[0]


def _is_dropped(name: str, is_folder: bool) -> bool:
    if name in _DROPPED_NAMES or name.startswith(_DROPPED_PREFIXES):
        return True
    # A folder may hold more than a single file can: the safety checker, an image encoder.
    return is_folder and name.partition(".")[0] not in _COMPONENTS


def _named(rule: KeyRule, tensor: StoredTensor) -> CanonicalTensor:
    shape = _with_rank(tensor.shape, rule.rank)
    if shape is None:
        found = f"tensor {tensor.name!r} has the shape {list(tensor.shape)}"
        raise CheckpointMalformed(tensor.file.name, f"{found}, expected {rule.rank} dimensions")
    return CanonicalTensor(rule, tensor, shape)


def _with_rank(shape: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """The shape with `rank` dimensions, by adding or removing trailing ones; None if that is impossible."""
    if rank == 0 or len(shape) == rank:
        return shape
    if len(shape) < rank:
        return shape + (1,) * (rank - len(shape)) if len(shape) == 2 else None
    return shape[:rank] if all(size == 1 for size in shape[rank:]) else None


def _is_needed(rule: KeyRule, shapes: dict[str, tuple[int, ...]]) -> bool:
    """A shortcut is needed exactly where the block's input and output widths differ."""
    if not rule.is_shortcut:
        return True
    block = rule.name.rpartition(".conv_shortcut.")[0]
    norm, conv = shapes.get(f"{block}.norm1.weight"), shapes.get(f"{block}.conv1.weight")
    return bool(norm and conv and norm[0] != conv[0])
