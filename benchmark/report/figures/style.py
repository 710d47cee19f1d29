"""Style of all figures: colours, text metrics, file encoding.

The colours suit readers with any colour vision (after Okabe and Ito, "Color Universal Design", 2008,
https://jfly.uni-koeln.de/color/), and never carry a meaning alone: everything coloured also has a marker.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Literal

import matplotlib
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

#: Dots per inch of a PNG and of all lengths in pixels.
DPI = 200
INK, GREY, FAINT = "#1f2328", "#636c76", "#d0d7de"
#: Black comes first, for the undefended target; yellow is omitted because its contrast on white is too low.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
#: Text sizes in points.
NORMAL, SMALL = 8.5, 7.5
_FONT = "DejaVu Sans"
_STYLE = {
    "font.family": _FONT,
    "font.size": NORMAL,
    "text.color": INK,
    "text.parse_math": False,
    "text.hinting": "none",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.frameon": False,
    "legend.fontsize": NORMAL,
}


@contextmanager
def privbench_style() -> Iterator[None]:
    """Apply our style instead of the user's matplotlibrc; characters missing from the font become boxes."""
    with warnings.catch_warnings(), style.context(["default", _STYLE]):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        with matplotlib.rc_context({"svg.hashsalt": "privbench"}):
            yield


def encode(figure: Figure, form: Literal["png", "svg"]) -> bytes:
    """Encode a figure as the bytes of a file; equal figures give equal bytes."""
    file = io.BytesIO()
    metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    with privbench_style():
        figure.savefig(file, format=form, dpi=DPI, facecolor="white", metadata=metadata)
    return file.getvalue()


@cache
def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Upper estimate of the width of a line in pixels; the size is in points."""
    font = get_font(findfont(FontProperties(family=_FONT, weight="bold" if bold else "normal")))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        font.set_size(size, DPI)
        font.set_text(text)
    return 1.03 * font.get_width_height()[0] / 64


def line_height(size: float) -> int:
    """Height of a line with its leading, in pixels; the size is in points."""
    return round(1.5 * size * DPI / 72)


def wrap(parts: Sequence[str], width: float, size: float = SMALL, *, bold: bool = False) -> list[str]:
    """Join parts by dots, as many on a line as fit into a width in pixels."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]} · {part}" if lines else part
        if lines and text_width(longer, size, bold=bold) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def panel_columns(count: int, maximum: int) -> int:
    """Number of panels in a row, so that rows are about equally long.

    Example:
        >>> panel_columns(3, 4), panel_columns(5, 4), panel_columns(9, 4)
        (3, 3, 3)
    """
    rows = -(-count // maximum)
    return -(-count // rows)
