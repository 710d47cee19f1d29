"""`privbench doctor`: list what is installed and what is missing."""

from . import options
from .output import print_json, print_table, styled


def doctor(
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    as_json: options.Json = False,
) -> None:
    """List devices, data and weights, and what is missing."""
    from ..core.paths import data_root, store_root
    from ..doctor import diagnose

    findings = diagnose(data_root(data), store_root(store))
    if as_json:
        print_json([finding.__dict__ for finding in findings])
        return
    states = {True: styled("yes", "green"), False: styled("missing", "yellow")}
    print_table(
        ("what", "state", "detail"), [(finding.what, states[finding.present], finding.detail) for finding in findings]
    )
