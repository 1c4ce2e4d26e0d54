"""What GPUs can do at most: dense multiply-adds with fp32 accumulation, two operations each, in TFLOP/s.

Sources: NVIDIA's data sheets of each product. Where a sheet states sparse figures, half of them. fp32 is that of TF32,
in which torch lets convolutions run, where the GPU has it.
"""

from typing import Final

# Part of the name that CUDA gives, more special ones first: (bf16, fp16, fp32); 0: the GPU has no such arithmetic.
_TFLOPS: Final[dict[str, tuple[float, float, float]]] = {
    "B200": (2250, 2250, 1125),
    "GH200": (989, 989, 494),
    "H200": (989, 989, 494),
    "H100 NVL": (835, 835, 417),
    "H100 PCIe": (756, 756, 378),
    "H100": (989, 989, 494),
    "H800": (989, 989, 494),
    "A100": (312, 312, 156),
    "A800": (312, 312, 156),
    "A10G": (70, 70, 35),
    "A10": (125, 125, 62.5),
    "A30": (165, 165, 82),
    "A40": (149.7, 149.7, 74.8),
    "RTX A6000": (154.8, 154.8, 77.4),
    "L40S": (362, 362, 183),
    "L40": (181, 181, 90.5),
    "L4": (121, 121, 60),
    "RTX 5090": (209.5, 209.5, 104.8),
    "RTX 4090": (165.2, 165.2, 82.6),
    "RTX 4080": (97.5, 97.5, 48.7),
    "RTX 3090": (71, 71, 35.6),
    "V100-PCIE": (0, 112, 14),
    "V100": (0, 125, 15.7),
    "T4": (0, 65, 8.1),
}
_COLUMNS: Final = ("bf16", "fp16", "fp32")


def flops_per_second(name: str, precision: str) -> float:
    """The peak of a GPU of this name in this precision; 0 if it is not known."""
    words = name.upper()
    for part, peaks in _TFLOPS.items():
        if _is_in(part.upper(), words):
            return peaks[_COLUMNS.index(precision)] * 1e12
    return 0.0


def _is_in(part: str, words: str) -> bool:
    """Whether the name holds the part as whole words: "A10" is not in "A100"."""
    begin = words.find(part)
    if begin < 0:
        return False
    before, after = words[begin - 1 : begin], words[begin + len(part) : begin + len(part) + 1]
    return not before.isalnum() and not after.isalnum()
