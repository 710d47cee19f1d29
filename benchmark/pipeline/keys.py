"""Keys of stages: SHA-256 of the canonical JSON of everything that decides a stage's result."""

from collections.abc import Mapping
from typing import Any

from ..core.canonical import digest
from ..core.config import StageKind
from ..errors import MissingDataError
from ..registry import find, load
from .cell import Choice

#: Raised when the way keys are made changes; it is part of every key.
KEY_FORMAT = 2
#: Raised when a change alters the calibrated negatives; it is part of their keys.
NEGATIVES_VERSION = 1
#: Raised when a change alters what a scores stage finds out about its target; it is part of the keys of scores.
PROBE_VERSION = 1
#: Kinds of stages that are named in keys as when keys were first made, so that artifacts stay valid.
_NAMES_IN_KEYS = {"second_judge": "second"}


def stage_key(
    kind: StageKind,
    *,
    dataset: Mapping[str, Any],
    protocol: Mapping[str, Any],
    data: str,
    inputs: Mapping[str, str],
    **parts: Any,
) -> str:
    """Return the key of a stage.

    Args:
        kind: of the stage.
        dataset: identity of the configured data set, as far as it decides the stage.
        protocol: the fields of the protocol that decide the stage.
        data: fingerprint of the data set's files; empty where it refuses other files than the published ones.
        inputs: keys of the stages that it reads, by role.
        parts: identities of the other components, networks, versions and the seed that decide the result.

    Returns:
        64 hexadecimal digits.
    """
    return digest(
        {
            "format": KEY_FORMAT,
            "stage": _NAMES_IN_KEYS.get(kind, kind),
            "dataset": dataset,
            "protocol": protocol,
            "data": data,
            "inputs": {_NAMES_IN_KEYS.get(role, role): key for role, key in inputs.items()},
            **parts,
        }
    )


class Identities:
    """Identities of choices and networks, computed once for all cells that share them."""

    def __init__(self) -> None:
        # The choice is kept too: without a reference to it, another object could get its id.
        self._choices: dict[tuple[int, StageKind | None], tuple[Choice, dict[str, Any]]] = {}
        self._digests: dict[int, str] = {}
        self._networks: dict[tuple[str, bool], dict[str, Any]] = {}
        self._protocols: dict[tuple[int, StageKind], tuple[Choice, dict[str, Any]]] = {}

    def choice(self, choice: Choice, stage: StageKind | None = None) -> dict[str, Any]:
        """Return `choice.identity(stage)`, in which files that are missing have no hash."""
        cached = (id(choice), stage)
        if cached not in self._choices:
            self._choices[cached] = (choice, _identity(choice, stage))
        return self._choices[cached][1]

    def digest(self, choice: Choice) -> str:
        """Return the digest of everything that identifies a choice."""
        whole = self.choice(choice)
        if id(choice) not in self._digests:
            self._digests[id(choice)] = digest(whole)
        return self._digests[id(choice)]

    def protocol(self, dataset: Choice, stage: StageKind) -> dict[str, Any]:
        """Return the fields of a data set's protocol that decide the result of `stage`."""
        cached = (id(dataset), stage)
        if cached not in self._protocols:
            self._protocols[cached] = (dataset, dataset.component.protocol.config(stage))
        return self._protocols[cached][1]

    def network(self, name: str, *, pretrained: bool) -> dict[str, Any]:
        """Return what identifies a registered network in the key of a stage that trains it."""
        if (name, pretrained) not in self._networks:
            self._networks[name, pretrained] = _network(name, pretrained=pretrained)
        return self._networks[name, pretrained]


#: Stands for the hashes of files that are missing. No artifact has such a key: a run without the files is refused.
_MISSING = {"missing": ""}


def _identity(choice: Choice, stage: StageKind | None) -> dict[str, Any]:
    try:
        return choice.identity(stage)
    except MissingDataError:
        if choice.kind == "dataset":
            raise
        return choice.identity(stage, _MISSING)


def _network(name: str, *, pretrained: bool) -> dict[str, Any]:
    cls = load("network", name)
    facts = {"name": name, "distribution": find("network", name).distribution, "version": cls.version}
    try:
        files = dict(cls.files(pretrained=pretrained))
    except MissingDataError:
        files = _MISSING
    return facts | ({"files": files} if files else {})
