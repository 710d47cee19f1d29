"""Fields of the defenses of published rows, which `privbench paper` reads without importing a defense."""

import json

from privbench.benchmark.core.config import BUDGETS
from privbench.benchmark.papers.table import tables


def text() -> str:
    """The file `benchmark/papers/configurations.json`."""
    found = {
        row.cell.stored_name: {
            budget: {
                "fields": row.cell.compute_configuration(budget),
                "by_dataset": sorted(row.cell.compute_fields_set_by_dataset(budget)),
            }
            for budget in BUDGETS
        }
        for table in tables()
        for row in table.rows
    }
    return json.dumps(found, indent=1, sort_keys=True) + "\n"
