"""Stage `scores`: scores.json, and contact-sheet.png, the pictures a person should look at."""

from pathlib import Path

from drawing import edges, scenes
from drawing.toys import Toy, draw_toy, toy_captions
from PIL import Image

from . import scores, scores_file

_TILE_PX = 128
_GAP_PX = 8
PROMPTS = (
    "a large red heart on a brick wall",
    "a small yellow star at night",
    "a large white circle on the sea",
    "a large green cross on a wooden table",
    "a small purple diamond on a meadow",
    "a large orange hexagon on a lilac background",
    "a small blue square on a beige background",
    "a large pink triangle on a black background",
    "a photo of a red and white mushroom on a meadow",
    "a photo of a yellow and orange duck on the sea",
    "a photo of a white and red rocket at night",
    "a photo of a blue and yellow robot on a wooden table",
    "a photo of an orange and white cat on a brick wall",
    "a photo of a pink and purple cupcake on a mint background",
    "a photo of a red and blue boat on the sea",
    "a photo of a green and yellow house on the grass",
)


def write(models: Path) -> None:
    """Measures sd15-tiny and its ControlNet, and draws the sheet."""
    scores_file.keep(models, "sd15-tiny", scores.measure(models))
    contact_sheet(models).save(models / "contact-sheet.png", optimize=True)


def contact_sheet(models: Path) -> Image.Image:
    """Two rows of pictures by prompt; then edge maps above the pictures they guided."""
    pipeline = scores.load(models / "sd15-tiny")
    pictures = scores.generate(pipeline, list(PROMPTS), seed=7, steps=30)
    asked = [*scores.held_out(4, 21)]
    toys = [
        Toy("cat", "purple", "pink", "large", "middle", "gray"),
        Toy("fish", "yellow", "blue", "large", "middle", "beige"),
        Toy("house", "red", "white", "large", "middle", "mint"),
        Toy("car", "green", "yellow", "large", "middle", "lilac"),
    ]
    drawn = [*(scenes.draw(scene) for scene in asked), *(draw_toy(toy) for toy in toys)]
    prompts = [*(scenes.captions(scene)[0] for scene in asked), *(toy_captions(toy)[1] for toy in toys)]
    maps = [edges.canny(picture) for picture in drawn]
    guided = scores.guide(
        scores.with_controlnet(pipeline, models / "controlnet-canny-tiny"), prompts, maps, seed=9, steps=30
    )
    return grid([*pictures, *maps, *guided], columns=8)


def grid(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures enlarged to 128 px, row by row, on white."""
    step = _TILE_PX + _GAP_PX
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * step + _GAP_PX, rows * step + _GAP_PX), "white")
    for i, picture in enumerate(pictures):
        tile = picture.convert("RGB").resize((_TILE_PX, _TILE_PX), Image.Resampling.LANCZOS)
        canvas.paste(tile, (_GAP_PX + i % columns * step, _GAP_PX + i // columns * step))
    return canvas
