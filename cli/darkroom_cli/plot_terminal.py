"""A picture of curves in characters: braille dots, two by four in each cell, with both axes.

The smoothed losses are drawn; the raw ones would fill the cells. Without colours (a pipe) the second run is drawn with "+",
so that the two can be told apart. Pure: `commands.runs` prints what it returns.
"""

from collections.abc import Sequence
from itertools import pairwise

from rich.text import Text

from darkroom_cli.plotting import Line, Segment, polylines, segments, tick_labels, ticks, value_range
from darkroom_cli.run_words import stage_of

# Bits of U+2800 by row and column of a cell.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_STYLES = ("bold cyan", "bold magenta")
_Cell = tuple[int, int]


class _Canvas:
    """Dots of one curve. x and y count dots from the lower left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = 2 * width, 4 * height
        self.cells: dict[_Cell, int] = {}

    def dot(self, x: int, y: int) -> None:
        cell = x // 2, (self.height - 1 - y) // 4
        self.cells[cell] = self.cells.get(cell, 0) | _DOTS[(self.height - 1 - y) % 4][x % 2]

    def line(self, path: Sequence[tuple[int, int]]) -> None:
        """Dots from point to point; each column is filled from the height of one to the height of the next."""
        self.dot(*path[0])
        for (x0, y0), (x1, y1) in pairwise(path):
            for x in range(x0 + 1, x1 + 1):
                before, after = (round(y0 + (y1 - y0) * (at - x0) / (x1 - x0)) for at in (x - 1, x))
                for y in range(min(before, after), max(before, after) + 1):
                    if y != before or before == after:
                        self.dot(x, y)


def draw(lines: Sequence[Line], width: int, height: int, coloured: bool) -> Text:
    """The smoothed losses of one or two runs in a field of width x height characters, labels included.

    width at least 30, height at least 5. At least one run must have steps.
    """
    parts = segments(lines)
    low, high = value_range(lines, parts, with_raw=False)
    rows = height - 2  # the two below are the axis and its labels
    labels = _row_labels(low, high, rows)
    margin = max(map(len, labels.values()))
    columns = width - margin - 2
    scale = _Scale(parts[-1].start + parts[-1].num_steps, low, high, 2 * columns, 4 * rows)
    canvases = [_drawn(line, parts, scale, columns, rows) for line in lines]
    borders = {scale.x(part.start + 1) // 2 for part in parts[1:]}
    picture = Text()
    for row in range(rows):
        label = labels.get(row, "")
        picture.append(f"{label:>{margin}} {'┤' if label else '│'}")
        for column in range(columns):
            picture.append(*_cell((column, row), canvases, column in borders, coloured))
        picture.append("\n")
    picture.append(f"{'':{margin}} └{''.join('┴' if column in borders else '─' for column in range(columns))}\n")
    picture.append(f"{'':{margin}}  {_step_labels(parts, scale, columns)}")
    return picture


class _Scale:
    """From steps and losses to dots."""

    def __init__(self, num_steps: int, low: float, high: float, width: int, height: int) -> None:
        self._num_steps, self._low, self._high = num_steps, low, high
        self._width, self._height = width, height

    def x(self, step: float) -> int:
        """Column of dots of a place on the axis of steps, which begins at 1."""
        return round((step - 1) / max(self._num_steps - 1, 1) * (self._width - 1))

    def y(self, loss: float) -> int:
        """Row of dots, from below."""
        return round((loss - self._low) / (self._high - self._low) * (self._height - 1))


def _drawn(line: Line, parts: Sequence[Segment], scale: _Scale, columns: int, rows: int) -> _Canvas:
    canvas = _Canvas(columns, rows)
    for path in polylines(line, parts, smoothed=True):
        heights: dict[int, list[float]] = {}
        for step, loss in path:
            heights.setdefault(scale.x(step), []).append(loss)
        canvas.line([(x, scale.y(sum(found) / len(found))) for x, found in heights.items()])
    return canvas


def _cell(cell: _Cell, canvases: Sequence[_Canvas], is_border: bool, coloured: bool) -> tuple[str, str]:
    """The character and its style; the first run lies on top."""
    for index, canvas in enumerate(canvases):
        if dots := canvas.cells.get(cell):
            mark = chr(0x2800 + dots) if coloured or index == 0 else "+"
            return mark, _STYLES[index] if coloured else ""
    return ("┊", "dim" if coloured else "") if is_border else (" ", "")


def legend(names: Sequence[str], coloured: bool) -> Text:
    """Which run is drawn how."""
    text = Text("smoothed loss")
    for index, name in enumerate(names):
        mark = "⠒⠒" if coloured or index == 0 else "++"
        text.append("   ").append(mark, _STYLES[index] if coloured else "").append(f" {name}")
    return text


def _row_labels(low: float, high: float, rows: int) -> dict[int, str]:
    values = ticks(low, high, max(2, rows // 2))
    places = [rows - 1 - round((value - low) / (high - low) * (rows * 4 - 1)) // 4 for value in values]
    return dict(zip(places, tick_labels(values), strict=True))


def _step_labels(parts: Sequence[Segment], scale: _Scale, columns: int) -> str:
    """The name of each stage where it begins, and its number of steps; shortened to the room that it has."""
    starts = [scale.x(part.start + 1) // 2 for part in parts]
    text = ""
    for part, start, end in zip(parts, starts, [*starts[1:], columns], strict=True):
        label = f"{stage_of(part.stage)} {part.num_steps}{' steps' if part is parts[-1] else ''}"
        text += label[: max(end - start - 1, 0)].ljust(end - start)
    return text.rstrip()
