"""How large the images are, measured on their archives; writes a table of docs/images.md or checks it.

python -m images.build --archives out/images
python -m images.sizes out/images --write docs/images.md

The same with `--torch cuda` behind both is about the CUDA builds of the images that run models.
"""

import argparse
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from images.archive import Layer, layers
from images.catalogue import IMAGES

# The command that writes a table stands above it.
TABLES = {
    torch: re.compile(
        rf"(?<=<!-- sizes: python -m images.sizes out/images{option} --write docs/images.md -->\n).*?(?=<!-- end of sizes -->)",
        re.DOTALL,
    )
    for torch, option in (("cpu", ""), ("cuda", " --torch cuda"))
}
COLUMNS = ("image", "unpacked", "pulled", "of it shared", "dependencies", "our code")
# Packages of the base and of the index that no lock holds may change a little.
TOLERANCE = 0.1
_MB = 1_000_000


@dataclass(frozen=True)
class Sizes:
    """One image in bytes. pulled: gzipped; shared: pulled layers that other images have, too; code: its last layer."""

    name: str
    unpacked: int
    pulled: int
    shared: int
    code: int

    @property
    def dependencies(self) -> int:
        """Pulled layers that this image alone has, without our own code."""
        return self.pulled - self.shared - self.code


def named(torch: str) -> list[str]:
    """The names of the files about all images ("cpu"), or about those with a CUDA build."""
    return [image.name + image.variant(torch) for image in IMAGES if image.torch or torch == "cpu"]


def measure(folder: Path, torch: str = "cpu") -> list[Sizes]:
    """The sizes of the images whose archives lie in a folder. Raises FileNotFoundError if one is missing."""
    known: dict[str, Layer] = {}
    found = {name: layers(folder / f"{name}.tar", known) for name in named(torch)}
    uses = Counter(layer.digest for stack in found.values() for layer in set(stack))
    return [
        Sizes(
            name=name,
            unpacked=sum(layer.num_bytes for layer in stack),
            pulled=sum(layer.pulled_bytes for layer in stack),
            shared=sum(layer.pulled_bytes for layer in stack[:-1] if uses[layer.digest] > 1),
            code=stack[-1].pulled_bytes,
        )
        for name, stack in found.items()
    ]


def as_table(sizes: list[Sizes]) -> str:
    """Markdown, in MB."""
    rows = [
        (f"`{one.name}`", *(_mb(size) for size in (one.unpacked, one.pulled, one.shared, one.dependencies, one.code)))
        for one in sizes
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in (COLUMNS, ("---", *["---:"] * 5), *rows))


def differences(sizes: list[Sizes], page: str) -> list[str]:
    """A sentence for each image whose unpacked size is not what the page says."""
    told = {name: float(size) * _MB for name, size in re.findall(r"^\| `([a-z-]+)` \| ([\d.]+) \|", page, re.MULTILINE)}
    lines = []
    for one in sizes:
        if one.name not in told:
            lines.append(f"{one.name} is not in the table")
        elif abs(one.unpacked - told[one.name]) > TOLERANCE * told[one.name]:
            lines.append(f"{one.name} takes {_mb(one.unpacked)} MB unpacked; the table says {_mb(told[one.name])}")
    return lines


def _mb(size: float) -> str:
    return f"{size / _MB:.1f}" if size < 10 * _MB else f"{size / _MB:.0f}"


def main() -> int:
    """Print, write or check the table."""
    parser = argparse.ArgumentParser(prog="python -m images.sizes", description=__doc__.split("\n")[0])
    parser.add_argument("archives", type=Path, help="folder with the archive of each image")
    parser.add_argument("--torch", choices=TABLES, default="cpu", help="which builds")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    parser.add_argument("--check", type=Path, help="page whose table must be right within 10 %%")
    arguments = parser.parse_args()
    sizes = measure(arguments.archives, arguments.torch)
    if arguments.write:
        page = arguments.write.read_text()
        arguments.write.write_text(TABLES[arguments.torch].sub(lambda _: as_table(sizes), page))
    if arguments.check and (wrong := differences(sizes, arguments.check.read_text())):
        print("\n".join(wrong), file=sys.stderr)
        return 1
    print(as_table(sizes), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
