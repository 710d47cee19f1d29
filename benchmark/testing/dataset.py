"""Checks of data sets."""

import tempfile
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from .. import registry
from ..core.config import Part
from ..core.evidence import Images
from ..errors import MissingDataError, PrivbenchError
from ..networks.factory import build_network
from .check import checks_from, error_message, fail, require
from .component import ComponentUnderTest
from .configuration import configuration, described, fields, registered
from .key import require_data_in_key
from .run_cell import round_trip
from .samples import conditions
from .watch import Reads, watch

#: Parts that a data set loads; the harness holds out the validation part.
_PARTS: tuple[Part, ...] = tuple(part for part in get_args(Part) if part != "private_val")


def protocol(subject: ComponentUnderTest) -> None:
    """The protocol is consistent, and the networks that it names accept its images."""
    found = subject.component.protocol
    require(
        found.name == subject.name or found.name.isidentifier(),
        f"the protocol is named {found.name!r}",
        f"name it after the data set, {subject.name!r}: the name is a folder of the results",
    )
    require(found.version >= 1, f"the protocol's version is {found.version}", "count versions from 1")
    require(
        found.task != "classes" or found.attacked <= found.classes,
        f"{found.attacked} of {found.classes} labels are attacked",
        "attack at most as many labels as there are",
    )
    require(
        found.task == "classes" or len(found.attributes) == found.classes,
        f"the protocol names {len(found.attributes)} attributes for {found.classes} outputs",
        "name every output in `attributes`, in order",
    )
    for role in ("target_network", "judge_network", "second_judge_network"):
        name = getattr(found, role)
        if name is None:
            continue
        require(name in registry.names("network"), f"{role} is {name!r}", "name one of `privbench list networks`")
        try:
            with torch.random.fork_rng(devices=[]):
                build_network(name, found.image, found.judge_classes)
        except PrivbenchError as cause:
            fail(f"{role} does not accept its images: {cause}", "name a network that does, or resize the images")


def missing_data(subject: ComponentUnderTest) -> None:
    """Without its files, the data set names what is missing in one sentence; if it needs no files, it loads."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        problems = subject.component.check(root)
        try:
            subject.component.load("private_train", root)
        except MissingDataError as cause:
            require(
                "\n" not in str(cause),
                "load raises a message of several lines",
                "name the missing file in one line",
            )
            require(
                bool(problems), "check finds nothing missing, but load does", "let check(root) name what is missing"
            )
        except Exception as cause:
            fail(
                f"in an empty data folder load raises {error_message(cause)}",
                "raise a MissingDataError (privbench.benchmark.errors) that says which file belongs where",
            )
        else:
            require(not problems, f"check reports {problems[:1]}, but load succeeds", "let check return an empty list")
        left = [path.name for path in root.iterdir()]
    require(not left, f"load or check leaves {', '.join(left)} behind", "let only prepare(root) write")


def shapes(subject: ComponentUnderTest) -> None:
    """Every part contains uint8 images of the protocol's shape, with the labels or attributes it declares."""
    found = subject.component.protocol
    for part in _PARTS:
        images = _part(subject, part)
        pixels = images.pixels
        require(
            pixels.dtype == torch.uint8 and pixels.ndim == 4 and tuple(pixels.shape[1:]) == found.image,
            f"{part} contains {pixels.dtype} {tuple(pixels.shape)}",
            f"return uint8 N C H W with C H W = {found.image}",
        )
        require(len(images) > 0, f"{part} is empty", "return at least one image: every part is read by a stage")
        for name in ("labels", "identities", "attributes"):
            value: Tensor | None = getattr(images, name)
            require(
                value is None or len(value) == len(images),
                f"{part} has {len(images)} images and {0 if value is None else len(value)} {name}",
                "return one row per image",
            )
    for part in ("private_train", "private_test"):
        _check_annotations(subject, part)
    for part in ("judge_train", "judge_test"):
        labels = _part(subject, part).labels
        if labels is None:
            fail(f"{part} has no labels", f"return int64 labels in 0 .. {found.judge_classes - 1}, to train judges")
        require(
            labels.dtype == torch.int64 and int(labels.min()) >= 0 and int(labels.max()) < found.judge_classes,
            f"the labels of {part} are {labels.dtype} from {int(labels.min())} to {int(labels.max())}",
            f"return int64 in 0 .. {found.judge_classes - 1}",
        )


def validation(subject: ComponentUnderTest) -> None:
    """Validation images are held out of the private training images, and each label keeps images to train on."""
    found = subject.component.protocol
    with conditions():
        train, held = (subject.component.part(part, subject.data) for part in ("private_train", "private_val"))
    whole = _part(subject, "private_train")
    require(
        len(train) + len(held) == len(whole) and not _hashes(train) & _hashes(held),
        f"of {len(whole)} private training images, {len(train)} are to train on and {len(held)} to validate, "
        f"{len(_hashes(train) & _hashes(held))} of them in both",
        "drop duplicates, and leave `part` as it is",
    )
    require(
        len(held) > 0 or not found.validation,
        "no label can spare an image for validation",
        "set `reference` (and `instances` of the identity sampler) below the number of images of a label, or "
        "`validation=0` to keep the network of the last step",
    )
    require(
        found.task != "classes" or set(train.truth("classes").tolist()) == set(range(found.classes)),
        "a label has no images left to train on",
        "leave `part` as it is",
    )


def disjoint(subject: ComponentUnderTest) -> None:
    """No public image is private, and no private test image is a training image."""
    private, test, public = (_hashes(_part(subject, part)) for part in ("private_train", "private_test", "public"))
    fix = "split by class or identity, and drop duplicates: overlap inflates accuracies and attack scores"
    public_overlap, test_overlap = public & (private | test), test & private
    require(not public_overlap, f"{len(public_overlap)} public images are private too", fix)
    require(not test_overlap, f"{len(test_overlap)} private test images are training images too", fix)


def determinism(subject: ComponentUnderTest) -> None:
    """Loading twice returns the same images in the same order, whatever the global random state is."""
    for part in ("private_train", "public"):
        with conditions(99):
            again = subject.component.load(part, subject.data)
        require(
            torch.equal(again.pixels, _part(subject, part).pixels),
            f"{part} differs between two loads",
            "split and order by a fixed rule, such as the position or a hash of the file name",
        )
    first, second = (subject.component.fingerprint(subject.data) for _ in range(2))
    require(first == second, "fingerprint changes from call to call", "compute it from the files alone")


def key(subject: ComponentUnderTest) -> None:
    """Other content of a file that `load` reads gives another fingerprint, or is refused."""
    by_part: dict[str, Reads] = {}
    for part in _PARTS:
        with watch() as by_part[part], conditions():
            subject.component.load(part, subject.data)
    require_data_in_key(subject, by_part)


def inputs(subject: ComponentUnderTest) -> None:
    """Changing loaded images does not affect later loads, and loading does not change the data folder."""
    before = _listing(subject.data)
    images = subject.component.load("private_test", subject.data)
    original = images.pixels.clone()
    images.pixels.fill_(0)
    again = subject.component.load("private_test", subject.data)
    require(torch.equal(again.pixels, original), "load returns images that it keeps", "return a copy (pixels.clone())")
    require(_listing(subject.data) == before, "load changes the data folder", "let only prepare(root) write")


def record(subject: ComponentUnderTest) -> None:
    """A run on the data set gives a record that is written, read again and reported."""
    _part(subject, "private_train")
    task = subject.component.protocol.task
    evidence = "ClassReconstructions" if task == "classes" else "PairedReconstructions"
    round_trip(subject, dataset=subject.choice, evidence=evidence, data=subject.data)


def _part(subject: ComponentUnderTest, part: Part) -> Images:
    def load() -> Images:
        with conditions():
            images: Images = subject.component.load(part, subject.data)
        return images

    return subject.cached(part, load)


def _check_annotations(subject: ComponentUnderTest, part: Part) -> None:
    found, images = subject.component.protocol, _part(subject, part)
    if found.task == "attributes":
        attributes = images.attributes
        valid = attributes is not None and attributes.dtype == torch.bool and attributes.shape[1] == found.classes
        require(valid, f"the attributes of {part} are not bool N {found.classes}", "return a column per attribute")
        return
    labels = images.labels
    require(
        labels is not None
        and labels.dtype == torch.int64
        and sorted(set(labels.tolist())) == list(range(found.classes)),
        f"the labels of {part} are not int64, or do not cover 0 .. {found.classes - 1}",
        "number the private classes from 0, and put images of each class into both parts",
    )


def _hashes(images: Images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.pixels.contiguous()}


def _listing(root: Path) -> set[tuple[str, int]]:
    if not root.is_dir():
        return set()
    return {(entry.name, entry.stat().st_mtime_ns) for entry in root.iterdir()}


CHECKS = checks_from(
    "dataset",
    *(registered, described, fields, configuration, protocol, missing_data),
    *(key, shapes, validation, disjoint, determinism, inputs, record),
)
