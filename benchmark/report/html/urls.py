"""Where the parts of a report are, for links between them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Picture:
    """A picture that a page shows, with its size in pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Places:
    """Addresses of pages, cells and pictures, as seen from one page.

    Args:
        names: of each record's key the name of its cell.
        single: everything is on one page.
        root: from the page to the folder of the report, such as `../`.
    """

    names: Mapping[str, str]
    single: bool = False
    root: str = ""

    def below(self) -> Places:
        """The same places as seen from a page in a folder of the report."""
        return replace(self, root="../")

    def page(self, name: str, anchor: str = "") -> str:
        """The page `index`, `definitions`, `published` or `compare`, or an anchor on it."""
        if self.single:
            return f"#{anchor or ('main' if name == 'index' else name)}"
        return f"{self.root}{name}.html" + (f"#{anchor}" if anchor else "")

    def cell(self, key: str) -> str:
        """The page of a record."""
        name = self.names[key]
        return f"#cell-{name}" if self.single else f"{self.root}cells/{name}.html"

    def compare(self) -> str:
        """What the names of two cells, joined by a comma, are put behind."""
        return "#compare=" if self.single else f"{self.root}compare.html#"

    def picture(self, key: str, content: bytes, folder: str = "pictures") -> Picture:
        """The PNG of a record; on one page it stands in the address itself."""
        width, height = struct.unpack(">II", content[16:24])
        if self.single:
            return Picture(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height)
        return Picture(f"{self.root}{folder}/{self.names[key]}.png", width, height)
