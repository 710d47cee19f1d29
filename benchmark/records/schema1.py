"""Convert records of schema 1, the schema until release 0.1.

In schema 1 the second judge had the role `second`, and `not_run` held sentences, of which those that began with the
attack's name and `gives no` meant that the evaluator does not apply to the attack.
"""

from typing import Any

#: Parts of a record and of a scores artifact that are keyed by the role of a stage.
_BY_ROLE = ("artifacts", "costs", "curves", "stage_curves", "judge")


def convert(record: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a record of schema 1 in schema 2; what is damaged is left for validation to name."""
    record = rename_second_judge(record)
    not_run, cell = record.get("not_run"), record.get("cell")
    attack = cell.get("attack") if isinstance(cell, dict) else None
    name = attack.get("name") if isinstance(attack, dict) else None
    if isinstance(not_run, dict):
        record["not_run"] = {
            evaluator: {
                "code": "not_applicable" if reason.startswith(f"{name} gives no ") else "unavailable",
                "reason": reason,
            }
            if isinstance(reason, str)
            else reason
            for evaluator, reason in not_run.items()
        }
    return record


def rename_second_judge(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts in which the role `second` is called `second_judge`."""
    found = dict(facts)
    for part in _BY_ROLE:
        if isinstance(found.get(part), dict) and "second" in found[part]:
            found[part] = {"second_judge" if role == "second" else role: value for role, value in found[part].items()}
    return found
