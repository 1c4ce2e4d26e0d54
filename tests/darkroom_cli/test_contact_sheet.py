"""The contact sheet shows every picture and its text within the page."""

import io
from pathlib import Path

from darkroom_cli.demo.contact_sheet import MARGIN_PX, PAPER, TILE_PX, Row, draw, save
from PIL import Image


def picture(colour: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_of_any_size_fill_their_tiles(tmp_path: Path) -> None:
    rows = [Row("photos", [picture("red", (640, 480)), picture("blue", (64, 64))], ["wide " * 50, "small"])]
    save(tmp_path / "out" / "sheet.png", "title", rows)
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
        assert {(255, 0, 0), (0, 0, 255)} <= colours
        assert sheet.convert("RGB").getpixel((sheet.width - 1, sheet.height - 1)) == PAPER


def test_the_page_is_as_wide_as_its_longest_row() -> None:
    short, long = (Row("", [picture("red", (8, 8))] * count, [""] * count) for count in (1, 5))
    assert draw("", [short, long]).width >= 2 * MARGIN_PX + 5 * TILE_PX
