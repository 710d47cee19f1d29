"""A record's cell, its artifacts in the store, and the images that they reconstruct."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .. import registry
from ..core.canonical import canonical
from ..errors import IncompatibleRecordError, InvalidConfigurationError, MissingDataError, UnknownComponentError
from ..records.record import Choice as RecordedChoice
from ..records.record import Record
from ..registry import Kind
from .cell import Cell, Choice
from .resolve import build

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ..core.config import Part
    from ..core.evidence import Encodings, Images
    from ..store.manifest import Artifact
    from ..store.store import Store
    from .session import Session

#: What Figure 4 of Xiao et al. colours encodings of faces by.
USUAL_ATTRIBUTES = ("Smiling", "Eyeglasses")
#: The kinds of evidence that have pictures, each with what its images are about.
PICTURES: dict[str, Literal["items", "labels"]] = {"PairedReconstructions": "items", "ClassReconstructions": "labels"}


@dataclass(frozen=True)
class Reconstructions:
    """Reconstructions of an attack.

    Args:
        about: `items`, positions of the originals in the private test images, or `labels`.
        keys: the N items or labels.
        pixels: `uint8 N C H W`; of labels, the first draw of the first trial.
    """

    about: Literal["items", "labels"]
    keys: tuple[int, ...]
    pixels: NDArray[np.uint8]

    def of(self, keys: Sequence[int]) -> NDArray[np.uint8]:
        """Return the pictures of the given items or labels, in that order."""
        place = {key: index for index, key in enumerate(self.keys)}
        return self.pixels[[place[key] for key in keys]]


def cell_of(record: Record) -> Cell:
    """Return the cell of a record, without evaluators.

    Raises:
        PrivbenchError: a component is not installed, or of another version or package than the one that was run.
    """
    cell = record.cell
    dataset, defense, attack = (_choice(kind, getattr(cell, kind), record) for kind in ("dataset", "defense", "attack"))
    return Cell(dataset, defense, attack, (), cell.seed, cell.budget)


def _choice(kind: Kind, recorded: RecordedChoice, record: Record) -> Choice:
    cls = registry.load(kind, recorded.name)
    distribution = registry.find(kind, recorded.name).distribution
    ours, theirs = (distribution, cls.version), (recorded.distribution, recorded.version)
    if ours != theirs:
        raise IncompatibleRecordError(
            f"{name_of(record)} was made with {kind} {recorded.name} of {theirs[0]}, version {theirs[1]}, and here it "
            f"is of {ours[0]}, version {ours[1]}; make it again with `{shlex.join(record.command)}`"
        )
    component: Any = build(cls, recorded.fields, kind, recorded.name)
    return Choice(kind, recorded.name, distribution, component)


def name_of(record: Record) -> str:
    """Return a short name of a record, for messages."""
    cell = record.cell
    return f"the record of {cell.defense.name} under {cell.attack.name} on {record.protocol} ({record.key[:12]})"


def artifact(record: Record, role: str, store: Store) -> Artifact:
    """Return the artifact of a record's stage from the store.

    Raises:
        MissingDataError: it is not there any more.
        IncompatibleRecordError: it was computed again and holds another result than the record's.
    """
    reference = record.artifacts.get(role)
    again = f"make it with `{shlex.join(record.command)}`"
    if reference is None:
        raise MissingDataError(f"{name_of(record)} names no {role}; {again}")
    found = store.find(role, reference.key)
    if found is None:
        raise MissingDataError(f"the {role} of {name_of(record)} is not in the store {store.root}; {again}")
    if found.digest != reference.digest:
        raise IncompatibleRecordError(
            f"the {role} of {name_of(record)} in the store differs from the one behind the record; create the record "
            f"again with `{shlex.join(record.command)}`"
        )
    return found


def reconstructions(record: Record, store: Store) -> Reconstructions:
    """Return the reconstructions of a record's attack.

    Raises:
        MissingDataError: the evidence is not in the store.
        InvalidConfigurationError: the attack makes no pictures.
    """
    found = artifact(record, "evidence", store)
    kind = next((group for group in found.groups if group in PICTURES), None)
    if kind is None:
        raise InvalidConfigurationError(
            f"expected evidence that has pictures, got {', '.join(found.groups) or 'none'} in {name_of(record)}; "
            "give records of an attack that reconstructs images"
        )
    tensors = found.tensors(kind)
    about = PICTURES[kind]
    pixels = tensors["pixels"] if about == "items" else tensors["pixels"][0, 0]
    return Reconstructions(about, tuple(tensors[about].tolist()), pixels.numpy())


def require_one_protocol(records: Sequence[Record]) -> None:
    """Raise if records are of several protocols.

    Raises:
        InvalidConfigurationError: they are of several.
    """
    protocols = sorted({record.protocol for record in records})
    if len(protocols) > 1:
        raise InvalidConfigurationError(
            f"expected records of one protocol, got {' and '.join(protocols)}; give the records of one"
        )


def columns(records: Sequence[Record], found: Sequence[Reconstructions], count: int) -> list[int]:
    """Choose at most `count` items or labels that all records have, evenly spaced.

    Raises:
        InvalidConfigurationError: the records are of several data sets or of both kinds, or have none in common.
    """
    require_one_protocol(records)
    if len({each.about for each in found}) > 1:
        kinds = {record.cell.attack.name: each.about for record, each in zip(records, found, strict=True)}
        named = ", ".join(f"{about} by {attack}" for attack, about in sorted(kinds.items()))
        raise InvalidConfigurationError(
            f"expected reconstructions of single images or of labels, got both ({named}); give the records of one "
            "attack, such as results/records/PROTOCOL/*/ATTACK"
        )
    common = sorted(set(found[0].keys).intersection(*(each.keys for each in found)))
    if not common or len({each.pixels.shape[1:] for each in found}) > 1:
        raise InvalidConfigurationError(
            f"expected records with {found[0].about} in common, got none; give records of one data set configuration"
        )
    count = min(count, len(common))
    return [common[index * len(common) // count] for index in range(count)]


def originals(records: Sequence[Record], items: Sequence[int], root: Path) -> NDArray[np.uint8]:
    """Return the private test images `uint8 N C H W` at `items`.

    Raises:
        MissingDataError: the data set is not below `root`, or is another copy than the records'.
    """
    import torch

    def select(images: Images) -> Images:
        if max(items) >= len(images):
            raise MissingDataError(
                f"expected at least {max(items) + 1} private test images of {records[0].cell.dataset.name} in {root}, "
                f"got {len(images)}; point --data to the copy that the records were made with"
            )
        return images.select(torch.tensor(items))

    pixels: NDArray[np.uint8] = _private_images(records, "private_test", root, select).pixels.numpy()
    return pixels


def nearest_private(
    records: Sequence[Record],
    found: Sequence[Reconstructions],
    labels: Sequence[int],
    root: Path,
    embedder: str,
    count: int = 2,
) -> NDArray[np.uint8]:
    """Return the private training images of each label that are nearest to its reconstructions.

    An image's distance is that to the nearest reconstruction of the label in any record, in the features of `embedder`.

    Args:
        records: of attacks on classes.
        found: their reconstructions.
        labels: the K labels.
        root: the data folder.
        embedder: a name in `privbench list embedders`.
        count: images of each label, at most; a label with fewer limits all.

    Returns:
        `uint8 count K C H W`, the nearest first.

    Raises:
        MissingDataError: the data set or the weights of the embedder are missing.
        InvalidConfigurationError: the embedder does not support such images.
    """
    import torch

    from ..networks.factory import build_embedder
    from ..networks.judges import embed

    wanted = torch.tensor(labels)
    private = _private_images(
        records, "private_train", root, lambda images: images.select(torch.isin(images.truth("classes"), wanted))
    )
    protocol = cell_of(records[0]).dataset.component.protocol
    network, truth = build_embedder(embedder), private.truth("classes")
    features = embed(network, private.pixels, protocol)
    shown = torch.stack([embed(network, torch.from_numpy(each.of(labels)), protocol) for each in found], 1)
    members = [(truth == label).nonzero()[:, 0] for label in labels]
    count = min(count, *map(len, members))
    nearest = [
        index[(features[index] @ each.T).amax(1).topk(count).indices]
        for index, each in zip(members, shown, strict=True)
    ]
    pixels: NDArray[np.uint8] = private.pixels[torch.stack(nearest, 1)].numpy()
    return pixels


def usual_embedder(record: Record) -> str:
    """Return the embedder whose features compare the images of a record's data set."""
    return "hog" if cell_of(record).dataset.component.protocol.face_box is None else "facenet_vggface2"


def _private_images(records: Sequence[Record], part: Part, root: Path, select: Callable[[Images], Images]) -> Images:
    """Return selected private images of the records' data set.

    Raises:
        InvalidConfigurationError: configurations of the data set have other images.
    """
    import torch

    datasets = {canonical(choice.identity()): choice for choice in (cell_of(record).dataset for record in records)}
    found = [select(choice.component.part(part, root)) for choice in datasets.values()]
    if any(not torch.equal(each.pixels, found[0].pixels) for each in found):
        raise InvalidConfigurationError(
            "expected records of the same private images, got data set configurations whose images differ; "
            "give the records of one"
        )
    return found[0]


def encodings(record: Record, session: Session, layer: str | None = None) -> Encodings:
    """Compute the latents of private test images that an attack on the record's target observes.

    Args:
        record: whose target is in the store.
        session: where to compute.
        layer: the cut layer; by default the attack's, which is the last latent where it has none.

    Raises:
        PrivbenchError: the target is not in the store or is damaged, or has no such layer.
    """
    from .victim_encodings import observe

    cell = cell_of(record)
    target = artifact(record, "target", session.store)
    layer = layer or cell.attack.component.cut_layer
    evidence = record.artifacts["evidence"].key if "evidence" in record.artifacts else record.key
    return observe(cell, session, target, evidence, layer)


def attributes(
    record: Record, names: Sequence[str], items: Tensor, session: Session
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Return which private test images at `items` have the named attributes.

    Attributes that are not of the record's task are read as well, where its data set knows them.

    Args:
        record: of an attribute task.
        names: of attributes; without any, those of `USUAL_ATTRIBUTES`, or else the task's first two.
        items: `int64 N`.
        session: reads the data set.

    Returns:
        The names, and `bool N A`.

    Raises:
        UnknownComponentError: the data set has no such attribute.
    """
    dataset = cell_of(record).dataset
    known = dataset.component.protocol.attributes
    truth = session.images(dataset, "private_test").truth("attributes")
    if not set(names or USUAL_ATTRIBUTES) <= set(known):
        known, truth = _every_attribute(dataset, session)
    if not names:
        names = USUAL_ATTRIBUTES if set(USUAL_ATTRIBUTES) <= set(known) else known[:2]
    for name in names:
        if name not in known:
            raise UnknownComponentError(f"attribute of {dataset.name}", name, known)
    values: NDArray[np.bool_] = truth[items][:, [known.index(name) for name in names]].numpy()
    return tuple(names), values


def _every_attribute(dataset: Choice, session: Session) -> tuple[tuple[str, ...], Tensor]:
    """Return names and values of all attributes of a data set, by the default of its field `attributes`."""
    import torch

    protocol = dataset.component.protocol
    test = session.images(dataset, "private_test")
    if "attributes" not in type(dataset.component).model_fields:
        return protocol.attributes, test.truth("attributes")
    usual = type(dataset.component).model_fields["attributes"].get_default(call_default_factory=True)
    component = dataset.component.model_copy(update={"attributes": usual})
    annotated = session.images(Choice("dataset", dataset.name, dataset.distribution, component), "private_test")
    if not torch.equal(annotated.pixels, test.pixels):
        raise InvalidConfigurationError(
            f"expected {dataset.name} to have the same private test images whatever its attributes, got others; "
            f"name attributes of the record's task: {', '.join(protocol.attributes)}"
        )
    return component.protocol.attributes, annotated.truth("attributes")
