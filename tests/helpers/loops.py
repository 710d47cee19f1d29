"""A toy protocol and a checkpoint in memory, for tests of training loops."""

from typing import Any

from privbench.benchmark.core.config import Protocol

PROTOCOL = Protocol(
    name="toy", version=1, image=(1, 4, 4), classes=3, judge_classes=3, target_network="toy", judge_network="toy",
    attacked=3, draws=2,
)  # fmt: skip


class Memory:
    """A checkpoint in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}

    def load(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        return self.kept.get(name)

    def save(self, name: str, groups: dict[str, Any], info: dict[str, Any]) -> None:
        self.kept[name] = ({key: {n: t.clone() for n, t in group.items()} for key, group in groups.items()}, info)

    def clear(self) -> None:
        self.kept.clear()
