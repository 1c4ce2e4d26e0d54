"""The control-net registry: which control nets there are, and which models each fits.

Domain. A control net fits a model when both have the same cross-attention dimension and the same channels; anything else
would fail deep inside the model, or draw noise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from webui_gateway.architectures import SD1_WIDTH, SD2_WIDTH, SDXL_WIDTH, Width
from webui_gateway.errors import ControlNetMismatch, UnknownControlNet
from webui_gateway.models import Model

KINDS: Final = (
    "canny", "depth", "openpose", "scribble", "softedge", "lineart", "normal", "seg", "mlsd", "shuffle", "inpaint", "tile", "ip2p",
    "recolor", "sketch", "color",
)  # fmt: skip


@dataclass(frozen=True)
class ControlNet:
    """A control net. width: None if only a foreign back end knows it, so that no fit can be checked. titles: what each back
    end that has it calls it, by URL."""

    name: str
    kind: str
    architecture: str
    width: Width | None
    titles: Mapping[str, str]

    @property
    def available(self) -> bool:
        """Whether some back end has its weights."""
        return bool(self.titles)


# The published ControlNet 1.1 models and their successors for SD2.1 and SDXL, by file name.
_PREDEFINED = (
    *((f"control_v11p_sd15_{kind}", kind, "sd15", SD1_WIDTH) for kind in (
        "canny", "openpose", "scribble", "softedge", "lineart", "mlsd", "seg", "inpaint")),
    ("control_v11f1p_sd15_depth", "depth", "sd15", SD1_WIDTH),
    ("control_v11p_sd15_normalbae", "normal", "sd15", SD1_WIDTH),
    ("control_v11e_sd15_shuffle", "shuffle", "sd15", SD1_WIDTH),
    ("control_v11e_sd15_ip2p", "ip2p", "sd15", SD1_WIDTH),
    ("control_v11f1e_sd15_tile", "tile", "sd15", SD1_WIDTH),
    *((f"control_v11p_sd21_{kind}", kind, "sd21", SD2_WIDTH) for kind in ("canny", "depth", "openpose", "scribble")),
    *((f"diffusers_xl_{kind}_mid", kind, "sdxl", SDXL_WIDTH) for kind in ("canny", "depth")),
)  # fmt: skip


class ControlNetRegistry:
    """All control nets that are known at the moment."""

    def __init__(self, local: Iterable[tuple[str, str, Width]]) -> None:
        found = ((name, _kind_of(name), architecture, width) for name, architecture, width in local)
        self._known: dict[str, tuple[str, str, str, Width | None]] = {
            entry[0]: entry for entry in (*_PREDEFINED, *found)
        }
        self._nets: dict[str, ControlNet] = {}
        self.refresh({})

    def refresh(self, titles: Mapping[str, Iterable[str]]) -> None:
        """Rebuild the table. titles: what /controlnet/model_list of each back end says ("name [hash]"), by URL."""
        where: dict[str, dict[str, str]] = {}
        for url, lines in titles.items():
            for title in lines:
                where.setdefault(title.split(" [")[0], {})[url] = title
        self._nets = {}
        for name in sorted({*self._known, *where}):
            _, kind, architecture, width = self._known.get(name, (name, _kind_of(name), "", None))
            self._nets[name] = ControlNet(name, kind, architecture, width, where.get(name, {}))

    def all(self) -> list[ControlNet]:
        """Every control net in order of name."""
        return list(self._nets.values())

    def resolve(self, wanted: str, model: Model) -> ControlNet:
        """The named control net, or one of the wanted kind that fits the model (first of those beside the model's weights).

        Raises ControlNetMismatch when it does not fit, UnknownControlNet when there is none of that name or kind.
        """
        key = wanted.strip().removeprefix("controlNets/").split(" [")[0].lower()
        named = next((net for net in self._nets.values() if net.name.lower() == key), None)
        if named is not None:
            if not _fits(named, model):
                raise ControlNetMismatch(model.name, named.name, _difference(named, model))
            return named
        of_kind = [net for net in self._nets.values() if net.kind == key]
        fitting = [net for net in of_kind if _fits(net, model)]
        if fitting:
            return max(fitting, key=lambda net: (_is_beside(net, model), net.width is not None, net.available))
        if of_kind:
            nearest = max(of_kind, key=lambda net: net.available)
            raise ControlNetMismatch(model.name, nearest.name, _difference(nearest, model))
        raise UnknownControlNet(wanted, (*self._nets, *(net.kind for net in self._nets.values())))


def _is_beside(net: ControlNet, model: Model) -> bool:
    return not net.titles.keys().isdisjoint(model.titles)


def _fits(net: ControlNet, model: Model) -> bool:
    """Unless both are known nothing is refused: the back end will say."""
    return net.width is None or not model.verified or net.width == model.spec.width


def _difference(net: ControlNet, model: Model) -> str:
    if net.width is None:
        return "it is made for another model"
    ours = f"{net.architecture} with channels {net.width.channels} and cross-attention {net.width.cross_attention_dim}"
    width = model.spec.width
    if width is None:
        return f"it is made for {ours}, and {model.spec.architecture} takes no such control net"
    return f"it is made for {ours}, the model is {model.spec.architecture} with {width.channels} and {width.cross_attention_dim}"


def _kind_of(name: str) -> str:
    words = name.lower().replace("_", "-").split("-")
    return next((kind for kind in KINDS if kind in words), "other")
