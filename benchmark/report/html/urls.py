"""URLs of the parts of a report, for links between pages."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Picture:
    """A picture on a page, with its size in pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Urls:
    """URLs of pages, cells and pictures, relative to one page.

    Args:
        names: name of the cell of each record, by key.
        single: whether everything is on one page.
        root: path from the page to the folder of the report, such as `../`.
    """

    names: Mapping[str, str]
    single: bool = False
    root: str = ""

    def from_subfolder(self) -> Urls:
        """The same URLs, relative to a page in a folder of the report."""
        return replace(self, root="../")

    def page(self, name: str, anchor: str = "") -> str:
        """URL of the page `index`, `definitions`, `published` or `compare`, or of an anchor on it."""
        if self.single:
            return f"#{anchor or ('main' if name == 'index' else name)}"
        return f"{self.root}{name}.html" + (f"#{anchor}" if anchor else "")

    def cell(self, key: str) -> str:
        """URL of the page of a record."""
        name = self.names[key]
        return f"#cell-{name}" if self.single else f"{self.root}cells/{name}.html"

    def compare(self) -> str:
        """URL of the comparison, to be followed by the names of two cells with a comma between."""
        return "#compare=" if self.single else f"{self.root}compare.html#"

    def picture(self, key: str, content: bytes, folder: str = "pictures") -> Picture:
        """The PNG of a record; the URL of a single page contains the image itself."""
        width, height = struct.unpack(">II", content[16:24])
        if self.single:
            return Picture(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)
        return Picture(f"{self.root}{folder}/{self.names[key]}.png", width, height)
