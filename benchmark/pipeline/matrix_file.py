"""Read matrices from TOML files."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InvalidConfigurationError, UnknownComponentError
from ..files.documents import MAX_DEPTH, depth
from ..files.untrusted import open_regular
from .cell import Selection
from .given import check_given
from .matrix import Matrix

#: Larger files are refused; 100,000 seeds take less than a megabyte.
MAX_BYTES = 16 << 20


def read_matrix(path: Path) -> Matrix:
    """Read a matrix from a TOML file.

    Raises:
        InvalidConfigurationError: the file is not there, is not TOML, or an entry is wrong; the message gives the path
            in the file, such as `attacks[1].iterations`.
    """
    table = _read_toml(path)
    allowed = {"datasets", "defenses", "attacks", "evaluators", "seeds", "budget", "controls", "set"}
    for name in table:
        if name not in allowed:
            raise UnknownComponentError(f"entry of {path.name}", name, allowed)
    for name in ("defenses", "attacks"):
        if name not in table:
            raise InvalidConfigurationError(f"expected {path.name} to have {name}, a list of names or tables")
    no_lists = {"seeds", "budget", "controls", "set"}
    lists = {name: _selections(name, table[name]) for name in allowed & set(table) - no_lists}
    seeds = table.get("seeds", [0])
    if not isinstance(seeds, list):
        raise InvalidConfigurationError(f"expected seeds to be a list of integers, got {seeds!r}")
    controls = table.get("controls", True)
    if not isinstance(controls, bool):
        raise InvalidConfigurationError(f"expected controls to be true or false, got {controls!r}")
    return Matrix(
        datasets=lists.get("datasets", (Selection("digits"),)),
        defenses=lists["defenses"],
        attacks=lists["attacks"],
        evaluators=lists.get("evaluators"),
        seeds=tuple(seeds),
        budget=table.get("budget", "quick"),
        settings=_flatten(table.get("set", {})),
        controls=controls,
    )


def _read_toml(path: Path) -> dict[str, Any]:
    """Read the table in a file of bounded size and depth."""
    try:
        with open_regular(path, follow_links=True) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InvalidConfigurationError(f"expected matrix file {path} to exist; give the path of a TOML file") from None
    except OSError as cause:
        raise _not_toml(path, cause) from cause
    if len(data) > MAX_BYTES:
        raise _not_toml(path, f"it has more than {MAX_BYTES:,} bytes")
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise _not_toml(path, cause) from cause
    except ValueError:
        raise _not_toml(path, "an integer in it has too many digits") from None
    except RecursionError:
        table = None
    if table is None or depth(table) > MAX_DEPTH:
        raise _not_toml(path, f"it is nested more than {MAX_DEPTH} levels deep")
    for name, value in table.items():
        check_given(name, value)
    return table


def _not_toml(path: Path, fault: object) -> InvalidConfigurationError:
    return InvalidConfigurationError(f"matrix file {path} cannot be read as TOML: {fault}")


def _selections(name: str, values: Any) -> tuple[Selection, ...]:
    if not isinstance(values, list) or not values:
        raise InvalidConfigurationError(f"expected {name} to be a non-empty list of names or tables, got {values!r}")
    return tuple(_selection(f"{name}[{i}]", value) for i, value in enumerate(values))


def _selection(where: str, value: Any) -> Selection:
    if isinstance(value, str):
        return replace(Selection.parse(value), where=where)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise InvalidConfigurationError(f"expected {where} to be a name or a table with a name, got {value!r}")
    fields = {key: entry for key, entry in value.items() if key not in ("name", "preset")}
    preset = value.get("preset")
    if preset is not None and not isinstance(preset, str):
        raise InvalidConfigurationError(f"expected {where}.preset to be a name, got {preset!r}")
    chosen = Selection.parse(value["name"])
    return Selection(chosen.name, preset or chosen.preset, fields, where)


def _flatten(table: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(table, dict):
        raise InvalidConfigurationError(f"expected set to be a table of scope.field = value, got {table!r}")
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
