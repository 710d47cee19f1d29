"""Jobs of an attack's process: describe the attack, learn, run; their results are checked here."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from .. import registry
from ..access.settings import current_settings
from ..errors import BrokenComponentError, PrivbenchError
from ..files.tensors import flatten, unflatten
from ..files.untrusted import shown
from .calls import PUBLIC, AttackJob, AttackResult, Calls
from .declared import Description
from .link import UnreadableAnswerError, started

_QUERIES = ("forward", "backward", "head")


@functools.cache
def describe(name: str, job: str) -> Description:
    """Let the process of an attack describe it; the same job is done once.

    Args:
        name: of the attack.
        job: JSON, as `pipeline.attack_server` reads it.

    Raises:
        PrivbenchError: a value is not valid, or the attack does not import.
    """
    entry = registry.find("attack", name)
    with started(name, (), accelerator=False) as link:
        header, _ = link.run(json.loads(job), {}, {})
    try:
        found = Description.model_validate(header["description"])
    except (KeyError, ValidationError) as cause:
        raise BrokenComponentError(f"attack {name!r} ({entry.target}) describes itself in an unknown way") from cause
    if (found.name, found.distribution) != (name, entry.distribution):
        raise BrokenComponentError(f"attack {name!r} ({entry.target}) describes itself as {shown(found.name)}")
    return found


def learn(job: AttackJob) -> AttackResult:
    """Let the attack learn its prior in its own process.

    Raises:
        PrivbenchError: it failed, or did something that it may not.
    """
    header, tensors = _run(job, "learn")
    names = header.get("groups")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UnreadableAnswerError(f"attack {job.name} returned a prior without named groups")
    return AttackResult(unflatten(names, tensors), _queries(job, header))


def run(job: AttackJob, yields: type) -> AttackResult:
    """Let the attack run in its own process.

    Args:
        job: what to do.
        yields: class of the evidence that the attack declares.

    Raises:
        PrivbenchError: it failed, returned something else, or did something that it may not.
    """
    header, tensors = _run(job, "run")
    names = {each.name for each in dataclasses.fields(yields)}
    if header.get("yields") != yields.__name__ or tensors.keys() != names:
        raise PrivbenchError(
            f"expected attack {job.name} to return {yields.__name__}, got {shown(header.get('yields'))}; its "
            "author must correct `yields` or `run`"
        )
    return AttackResult({yields.__name__: tensors}, _queries(job, header))


def _run(job: AttackJob, do: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    context, request = job.context, job.request
    fields = job.attack.model_dump(mode="json")
    header: dict[str, Any] = {
        "do": do,
        "name": job.name,
        "fields": fields,
        "protocol": context.protocol.model_dump(mode="json"),
        "device": str(context.device),
        "seed": context.seed,
        "halvings": context.batch_halvings,
        "access": None,
        "layer": job.attack.cut_layer,
        **current_settings(),
    }
    tensors: dict[str, Tensor] = {
        f"public/{name}": value for name in PUBLIC if (value := getattr(job.public, name)) is not None
    }
    if request is not None:
        header["request"] = {name: getattr(request, name) for name in ("labels", "draws", "trials", "group")}
        tensors |= {n: value for n in ("encodings", "items") if (value := getattr(request, n)) is not None}
    if job.prior is not None:
        header["prior"], flat = flatten(job.prior)
        tensors |= {f"prior/{name}": value for name, value in flat.items()}
    if job.rebuild is not None:
        header |= {"access": "white_box", "rebuild": dict(job.rebuild[0])}
        tensors |= {f"target/{name}": value for name, value in job.rebuild[1].items()}
    elif job.view is not None:
        header["access"] = job.view.access
        tensors["empty_answer"] = job.view.empty_answer
    calls = Calls(job)
    with started(job.name, job.hidden, accelerator=context.device.type != "cpu") as link:
        answer, found = link.run(header, tensors, calls.handlers, calls.failed)
    calls.adopt(answer)
    if answer.get("unchanged") is not True:
        raise PrivbenchError(f"attack {job.name} changed the target's weights; its author must not train them")
    return answer, found


def _queries(job: AttackJob, header: Mapping[str, Any]) -> dict[str, int]:
    """Return the queries: counted by the harness, or for white-box access as the attack's process counted them."""
    if job.view is not None:
        return job.view.queries
    if job.rebuild is None:
        return {}
    return _counts(job.name, header.get("queries"))


def _counts(name: str, found: Any) -> dict[str, int]:
    valid = isinstance(found, dict) and found.keys() == set(_QUERIES)
    if not valid or any(type(count) is not int or not 0 <= count < 1 << 62 for count in found.values()):
        raise UnreadableAnswerError(f"attack {name} counted its queries as {shown(found)}")
    return dict(found)
