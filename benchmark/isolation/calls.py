"""The calls of an attack's process while it works, and what the harness answers."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..access.views import RemoteView
from ..contracts import Attack
from ..core.evidence import Images, Request
from ..files.tensors import flatten, unflatten
from ..files.untrusted import shown
from ..training.context import Context
from .link import Handler, Tensors, UnreadableAnswerError

#: Parts of public images that an attack gets.
PUBLIC = tuple(each.name for each in dataclasses.fields(Images))


@dataclass(frozen=True)
class AttackJob:
    """Content of the message that starts `learn` or `run` in an attack's process.

    Args:
        name: of the attack.
        attack: that stands for it here, made from its description.
        context: of the stage; the attack's checkpoints and progress pass through it.
        public: the public images.
        hidden: folders that the process must not see.
        prior: what `learn` found; `None` for `learn`.
        request: of `run`; `None` for `learn`.
        rebuild: how to make the target, and its weights, for white-box access; else `None`.
        view: of the target in its own process, for the other kinds of access; else `None`.
    """

    name: str
    attack: Attack
    context: Context
    public: Images
    hidden: Sequence[Path]
    prior: Mapping[str, Tensors] | None = None
    request: Request | None = None
    rebuild: tuple[Mapping[str, Any], Tensors] | None = None
    view: RemoteView | None = None


@dataclass(frozen=True)
class AttackResult:
    """Result of a job.

    Args:
        groups: the prior, by group; for evidence one group, named after its kind.
        queries: images that the attack sent to the target.
    """

    groups: dict[str, dict[str, Tensor]]
    queries: dict[str, int] = field(default_factory=dict)


class Calls:
    """Answers to what the attack's process asks while it works."""

    def __init__(self, job: AttackJob) -> None:
        self._job, self._context = job, job.context
        self.handlers: Mapping[str, Handler] = {
            "query": self._query,
            "count": lambda header, tensors: ({"answered": self._answered()}, {}),
            "load": self._load,
            "save": self._save,
            "begin": self._begin,
            "advance": self._advance,
            "end": self._end,
        }

    def _answered(self) -> int:
        return self._job.view.queries["forward"] if self._job.view is not None else 0

    def _query(self, header: Mapping[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
        view = self._job.view
        if view is None or set(tensors) != {"x"}:
            raise UnreadableAnswerError(f"attack {self._job.name} asked a target that it has no access to")
        answer = getattr(view, view.access)(tensors["x"])
        return {"answered": self._answered()}, {"answer": answer}

    def _load(self, header: Mapping[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
        found = self._context.load_checkpoint(_text(header["name"]))
        if found is None:
            return {"found": False}, {}
        groups, info = found
        if self._job.view is not None:
            self._job.view.resume(info["queries"])
        names, flat = flatten(groups)
        return {"found": True, "groups": names, "info": info}, flat

    def _save(self, header: Mapping[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
        info = {**header["info"], "seconds": self._context.seconds}
        if self._job.view is not None:
            info["queries"] = self._job.view.queries
        self._context.save_checkpoint(_text(header["name"]), unflatten(header["groups"], tensors), info)
        return {}, {}

    def _begin(self, header: Mapping[str, Any], tensors: Tensors) -> None:
        self._context.progress.begin(_text(header["name"]), int(header["total"]), int(header["done"]))

    def _advance(self, header: Mapping[str, Any], tensors: Tensors) -> None:
        losses = {shown(name, 60): float(value) for name, value in header["losses"].items() if math.isfinite(value)}
        self._context.progress.advance(int(header["done"]), losses)

    def _end(self, header: Mapping[str, Any], tensors: Tensors) -> None:
        self._context.progress.end()

    def adopt(self, answer: Mapping[str, Any]) -> None:
        """Take over what the attack noted.

        Raises:
            UnreadableAnswerError: it noted nothing that can be stored.
        """
        try:
            self._context.curves.update(answer["curves"])
            self._context.notes.update(answer["notes"])
            self.failed(answer)
        except (KeyError, TypeError, ValueError) as cause:
            raise UnreadableAnswerError(f"attack {self._job.name} noted something that cannot be stored") from cause

    def failed(self, answer: Mapping[str, Any]) -> None:
        """Take over what decides whether a smaller batch is tried."""
        self._context.images_at_once = max(self._context.images_at_once, int(answer.get("images_at_once", 0)))


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError("expected a short name")
    return value
