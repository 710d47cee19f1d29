"""Settings of a cell on the digits that takes about a second, for tests of what surrounds the training."""

from collections.abc import Mapping

#: Values of fields, for attacks that train a prior on public images.
SETTINGS: dict[str, object] = {
    "dataset.draws": 2,
    "dataset.trials": 1,
    "dataset.judge.max_steps": 3,
    "dataset.second_judge.max_steps": 3,
    "dataset.negatives": 2,
    "defense.recipe.max_steps": 3,
    "defense.recipe.batch_size": 16,
    "attack.max_steps": 1,
    "attack.batch_size": 8,
    "attack.iterations": 1,
}

#: Words of a command after `run`: the cell of the plugin of tests/runners, alone.
FAULTY_CELL = [
    "--no-controls",
    "--no-sandbox",
    "--defense",
    "blank",
    "--attack",
    "faulty",
    "--evaluator",
    "accuracy",
    "--budget",
    "smoke",
]


def words(settings: Mapping[str, object] = SETTINGS) -> list[str]:
    """The options of a command line for these settings."""
    return [word for path, value in settings.items() for word in ("--set", f"{path}={value}")]
