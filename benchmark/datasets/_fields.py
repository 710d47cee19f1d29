"""Fields that several data sets declare: what is attacked, and how the judges are trained."""

from typing import Any

from ..core.config import Recipe, setting


def attacked(default: int, classes: int, **budgets: int) -> Any:
    """Declare the number of attacked labels, out of `classes`; `budgets` holds the values under `smoke` and `quick`."""
    return setting(
        default,
        "labels 0 .. attacked-1 are attacked",
        stages=("negatives", "evidence", "scores"),
        ge=1,
        le=classes,
        **budgets,
    )


def draws(default: int, **budgets: int) -> Any:
    """Declare the number of reconstructions per label and trial."""
    return setting(default, "reconstructions per label and trial", stages=("evidence", "scores"), ge=1, **budgets)


def trials(default: int, **budgets: int) -> Any:
    """Declare the number of independent attacks."""
    return setting(default, "independent attacks", stages=("evidence", "scores"), ge=1, **budgets)


def target(recipe: Recipe, **quick: int) -> Any:
    """Declare the training of the target under every defense; `quick` as in `judge`."""
    return setting(recipe, "training of the target, the same for every defense", quick=quick, stages=("target",))


def judge(recipe: Recipe, **quick: int) -> Any:
    """Declare the training of the judge; `quick` holds the fields of the recipe that the budget `quick` changes."""
    return setting(recipe, "training of the judge", quick=quick, stages=("judge",))


def second_judge(recipe: Recipe, **quick: int) -> Any:
    """Declare the training of the second judge; `quick` as in `judge`."""
    return setting(recipe, "training of the second judge", quick=quick, stages=("second_judge",))
