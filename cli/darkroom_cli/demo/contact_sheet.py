"""The contact sheet: photos, the same prompts before and after training, on one page."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE_PX = 192
GAP_PX = 14
MARGIN_PX = 32
TEXT_PX = 17
PAPER = (250, 249, 246)
INK = (40, 40, 44)
FAINT = (120, 120, 126)


@dataclass(frozen=True)
class Row:
    """One row of pictures under a heading, each with a line of text."""

    heading: str
    pictures: Sequence[bytes]
    texts: Sequence[str]


def draw(title: str, rows: Sequence[Row]) -> Image.Image:
    """The page as an RGB picture."""
    columns = max(len(row.pictures) for row in rows)
    row_height = TILE_PX + 4 * TEXT_PX
    width = 2 * MARGIN_PX + columns * TILE_PX + (columns - 1) * GAP_PX
    height = 2 * MARGIN_PX + 3 * TEXT_PX + len(rows) * row_height
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN_PX, MARGIN_PX), title, INK, ImageFont.load_default(size=TEXT_PX * 1.5))
    top = MARGIN_PX + 3 * TEXT_PX
    for row in rows:
        _draw_row(page, pen, row, top)
        top += row_height
    return page


def save(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Draw the page into a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(title, rows).save(path, "PNG")


def _draw_row(page: Image.Image, pen: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    heading_font, text_font = ImageFont.load_default(size=TEXT_PX), ImageFont.load_default(size=TEXT_PX * 0.7)
    pen.text((MARGIN_PX, top), row.heading, INK, heading_font)
    top += int(1.6 * TEXT_PX)
    for column, (picture, text) in enumerate(zip(row.pictures, row.texts, strict=True)):
        left = MARGIN_PX + column * (TILE_PX + GAP_PX)
        page.paste(_tile(picture), (left, top))
        pen.text((left, top + TILE_PX + 4), _fit(text, pen, text_font), FAINT, text_font)


def _tile(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    if max(image.size) < TILE_PX:
        scale = TILE_PX / max(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    tile = Image.new("RGB", (TILE_PX, TILE_PX), PAPER)
    tile.paste(image, ((TILE_PX - image.width) // 2, (TILE_PX - image.height) // 2))
    return tile


def _fit(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, shortened to the width of a tile."""
    if pen.textlength(text, font) <= TILE_PX:
        return text
    while text and pen.textlength(text + "…", font) > TILE_PX:
        text = text[:-1]
    return text.rstrip() + "…"
