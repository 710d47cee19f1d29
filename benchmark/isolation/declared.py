"""Attacks by description: what the harness knows of an attack whose code it does not import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import Field, JsonValue, create_model

from ..contracts import Attack, FeatureAttack
from ..core.config import Access, Configuration, Protocol, StageKind, Task, UsedNetwork, decided_stages
from ..errors import InvalidConfigurationError, MissingDataError, PrivbenchError

if TYPE_CHECKING:
    from ..access.views import View
    from ..core.evidence import Request
    from ..training.context import Context


class DeclaredField(Configuration):
    """A field of an attack: its value here, the one that names and budget imply, its meaning and its stages."""

    value: JsonValue
    usual: JsonValue
    description: str
    stages: tuple[StageKind, ...]


class Description(Configuration):
    """Everything that the harness asks of an attack, as the attack's own process answers it.

    Args:
        networks: registered networks that it uses, by stage; the key of all stages together is empty.
        files: SHA-256 of its files, by the same keys; a text instead says which file is missing.
        unsupported: why the attack refuses the images of the data set; `None` if it does not.
    """

    name: str
    distribution: str
    version: int
    access: Access
    on_features: bool
    yields: str
    tasks: frozenset[Task]
    prior: Literal["none", "public", "target"]
    decreasing_losses: dict[str, str]
    cut_layer: str | None
    fields: dict[str, DeclaredField]
    networks: dict[str, tuple[UsedNetwork, ...]]
    files: dict[str, dict[str, str] | str]
    unsupported: str | None = None


_STAGES: tuple[StageKind | None, ...] = (None, *get_args(StageKind))


def describe(
    name: str, distribution: str, attack: Attack, usual: Attack, protocol: Protocol | None = None
) -> Description:
    """Describe an attack; the process that may import it calls this.

    Args:
        name: of the attack.
        distribution: that registers it.
        attack: with its values.
        usual: the same attack with the values that its name, the data set and the budget imply.
        protocol: of the data set.
    """
    cls = type(attack)
    values = attack.model_dump(mode="json")
    files: dict[str, dict[str, str] | str] = {}
    for stage in _STAGES:
        try:
            files[stage or ""] = dict(attack.files(stage))
        except MissingDataError as missing:
            files[stage or ""] = str(missing)
    unsupported = None
    if protocol is not None:
        try:
            attack.require(protocol)
        except InvalidConfigurationError as refused:
            unsupported = str(refused)
    implied = usual.model_dump(mode="json")
    return Description(
        name=name,
        distribution=distribution,
        version=cls.version,
        access=cls.access,
        on_features=isinstance(attack, FeatureAttack),
        yields=cls.yields,
        tasks=cls.tasks,
        prior=cls.prior,
        decreasing_losses=dict(cls.decreasing_losses),
        cut_layer=attack.cut_layer,
        fields={
            field: DeclaredField(
                value=values[field],
                usual=implied[field],
                description=info.description or "",
                stages=decided_stages(info),
            )
            for field, info in cls.model_fields.items()
        },
        networks={stage or "": tuple(attack.networks(stage)) for stage in _STAGES},
        files=files,
        unsupported=unsupported,
    )


class _Declared:
    """Methods of attacks that are made from a description."""

    description: ClassVar[Description]

    @property
    def cut_layer(self) -> str | None:
        return self.description.cut_layer

    def require(self, protocol: Protocol) -> None:
        if self.description.unsupported is not None:
            raise InvalidConfigurationError(self.description.unsupported)

    def networks(self, stage: StageKind | None = None) -> tuple[UsedNetwork, ...]:
        return self.description.networks[stage or ""]

    def files(self, stage: StageKind | None = None) -> Mapping[str, str]:
        found = self.description.files[stage or ""]
        if isinstance(found, str):
            raise MissingDataError(found)
        return found

    def run(self, view: View, prior: Any, request: Request, context: Context) -> Any:
        raise PrivbenchError(f"attack {self.description.name} runs in a process of its own; use `isolation.process`")

    def __reduce__(self) -> Any:
        return make_attack, (self.description.model_dump(mode="json"),)


def make_attack(description: Description | Mapping[str, Any]) -> Attack:
    """Make what stands for an attack in the harness: its fields and declarations without its code."""
    found = description if isinstance(description, Description) else Description.model_validate(description)
    fields: dict[str, Any] = {
        name: (Any, Field(each.usual, description=each.description, json_schema_extra={"stages": list(each.stages)}))
        for name, each in found.fields.items()
    }
    base = FeatureAttack if found.on_features else Attack
    create: Any = create_model  # type checkers do not know the fields
    declared = create("DeclaredAttack", __base__=(_Declared, base), **fields)
    for name in ("version", "access", "yields", "tasks", "prior", "decreasing_losses"):
        setattr(declared, name, getattr(found, name))
    declared.description = found
    attack: Attack = declared(**{name: each.value for name, each in found.fields.items()})
    return attack


def description_of(attack: object) -> Description | None:
    """Return the description of an attack that runs in a process of its own; `None` for others."""
    return attack.description if isinstance(attack, _Declared) else None
