"""CelebA as an attribute task: split by image, crop, one or forty attributes, and a second public folder."""

import io
import math
import re
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.datasets import _celeba_files, _celeba_pictures, _encoded, _faces
from privbench.benchmark.datasets._attributes import ATTRIBUTES
from privbench.benchmark.datasets._decoded import decoded_path
from privbench.benchmark.datasets.celeba_attributes import CelebAAttributes
from privbench.benchmark.datasets.celeba_attributes_subset import CelebAAttributesSubset
from privbench.benchmark.errors import InvalidConfigurationError, MissingDataError
from privbench.benchmark.files import images
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import parse_settings
from privbench.benchmark.pipeline.resolve import resolve
from privbench.benchmark.training import batches
from privbench.benchmark.training.batches import Batches

PARTS = ("private_train", "public", "private_test")
COUNT = 47


def chosen(*settings, name="celeba_attributes", budget="full"):
    return resolve("dataset", Selection(name), budget, parse_settings(settings)).component


class TestSplit:
    @pytest.fixture(scope="class")
    @classmethod
    def listing(cls):
        return {f"{number:06d}.jpg": 1 + number % 10_177 for number in range(1, _celeba_files.COUNT + 1)}

    @pytest.fixture(scope="class")
    @classmethod
    def split(cls, listing):
        return CelebAAttributes().split(listing)

    def test_published_numbers_of_images(self, listing, split):
        assert {part: len(names) for part, names in split.parts.items()} == {
            "private_train": 160_000,
            "public": 40_000,
            "private_test": 2_599,
        }
        assert sorted(name for names in split.parts.values() for name in names) == list(listing)
        assert all(list(names) == sorted(names) for names in split.parts.values())
        assert split.identities == ()

    def test_parts_are_random(self, split):
        for part, share in (("private_train", 160_000), ("public", 40_000)):
            first = sum(int(name[:6]) <= _celeba_files.COUNT // 2 for name in split.parts[part])
            # Half of a part is in the first half of the release, give or take five deviations sqrt(n / 4).
            assert abs(first - share / 2) < 5 * math.sqrt(share / 4)

    def test_the_order_of_the_list_does_not_matter(self, listing, split):
        assert CelebAAttributes(size=64, observed=3).split(dict(reversed(listing.items()))) == split

    def test_the_message_for_a_smaller_copy_names_the_subset(self):
        with pytest.raises(MissingDataError, match="got 2; use the data set celeba_attributes_subset for a smaller"):
            CelebAAttributes().split({"000001.jpg": 1, "000002.jpg": 1})

    @pytest.mark.parametrize(("n", "counts"), [(20, (12, 5, 3)), (47, (27, 12, 8)), (6256, (3753, 1564, 939))])
    def test_shares_of_a_smaller_copy(self, n, counts):
        split = CelebAAttributesSubset().split({f"{number:06d}.jpg": number for number in range(n)})
        assert tuple(len(split.parts[part]) for part in PARTS) == counts

    def test_too_few_images(self):
        with pytest.raises(MissingDataError, match="to have at least 20 images, got 19; use a larger copy"):
            CelebAAttributesSubset().split({f"{number}.jpg": 1 for number in range(19)})


class TestProtocol:
    def test_full(self):
        protocol = CelebAAttributes().protocol
        assert (protocol.id, protocol.task, protocol.image) == ("celeba_attributes/v2", "attributes", (3, 224, 224))
        assert (protocol.classes, protocol.attributes) == (40, ATTRIBUTES)
        assert (protocol.target_network, protocol.pretrained, protocol.augmentation) == ("resnet50", True, "none")
        assert (protocol.face_box, protocol.sampler, protocol.observed) == ((0, 20, 178, 178), "shuffle", 2599)

    def test_subset_differs_in_name_and_size(self):
        changes = {"name": "celeba_attributes_subset", "image": (3, 64, 64)}
        assert CelebAAttributesSubset().protocol == CelebAAttributes().protocol.model_copy(update=changes)
        assert CelebAAttributesSubset.family == CelebAAttributes.family == "celeba_attributes"

    @pytest.mark.parametrize(
        ("budget", "size", "observed"), [("full", 224, 2599), ("quick", 64, 500), ("smoke", 64, 50)]
    )
    def test_budgets(self, budget, size, observed):
        dataset = chosen(budget=budget)
        assert (dataset.size, dataset.protocol.observed) == (size, observed)

    def test_one_attribute(self):
        protocol = chosen("dataset.attributes=Smiling").protocol
        assert (protocol.attributes, protocol.classes) == (("Smiling",), 1)

    def test_several_attributes_keep_their_order(self):
        dataset = chosen('dataset.attributes=["Smiling", "Male"]')
        assert dataset.protocol.attributes == ("Smiling", "Male")
        assert type(dataset).model_validate_json(dataset.model_dump_json()) == dataset

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("attributes=Smilin", r"of which 'Smilin' is none \(did you mean 'Smiling'\?\), got 'Smilin'$"),
            ("attributes=Q", r"'Q' is none \(`privbench show dataset celeba_attributes` lists them\)"),
            ('attributes=["Male", "Male"]', "to be one or more attributes of CelebA, each once"),
            ("attributes=[]", "to be one or more attributes of CelebA, each once"),
            ("size=100", "expected dataset.size to be 64, 112, 128 or 224, got 100"),
            ("extra=", "expected dataset.extra to be a folder, got ''"),
        ],
    )
    def test_mistakes(self, setting, message):
        with pytest.raises(InvalidConfigurationError, match=message):
            chosen(f"dataset.{setting}")


class TestImages:
    def test_parts(self, tree):
        images = {part: CelebAAttributesSubset().load(part, tree) for part in PARTS}
        assert {part: tuple(found.pixels.shape) for part, found in images.items()} == {
            "private_train": (27, 3, 64, 64),
            "public": (12, 3, 64, 64),
            "private_test": (8, 3, 64, 64),
        }
        split = CelebAAttributesSubset().split(listed(tree))
        for part, found in images.items():
            numbers = [int(name[:6]) for name in split.parts[part]]
            assert found.labels is None
            assert found.identities.tolist() == [1 + number % 5 for number in numbers]
            assert found.attributes.tolist() == [[number % (k + 2) == 0 for k in range(40)] for number in numbers]
            assert torch.equal(found.truth("attributes"), found.attributes)

    def test_chosen_attributes_are_columns_in_the_given_order(self, tree):
        whole = CelebAAttributesSubset().load("private_train", tree).attributes
        some = (
            CelebAAttributesSubset(attributes=("Bags_Under_Eyes", "Arched_Eyebrows"))
            .load("private_train", tree)
            .attributes
        )
        assert torch.equal(some, whole[:, [3, 1]])
        assert not torch.equal(whole[:, 3], whole[:, 1])

    @pytest.mark.parametrize("size", [64, 224])
    def test_largest_centred_square(self, tree, size):
        dataset = CelebAAttributesSubset(size=size)
        images = dataset.load("private_test", tree)
        for index, name in enumerate(dataset.split(listed(tree)).parts["private_test"][:3]):
            with Image.open(tree / "celeba/img_align_celeba" / name) as image:
                square = np.asarray(image)[20:198]
            small = Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR)
            assert np.array_equal(images.pixels[index].permute(1, 2, 0), small)

    def test_the_key_depends_on_the_size_and_not_on_the_attributes(self, tree):
        CelebAAttributesSubset().load("public", tree)
        key = CelebAAttributesSubset().fingerprint(tree)
        assert CelebAAttributesSubset(size=112).fingerprint(tree) != key
        assert CelebAAttributesSubset(attributes=("Male",), observed=7).fingerprint(tree) == key
        CelebAAttributesSubset(attributes=("Male",)).load("public", tree)
        assert len(list(decoded_path("x", "y").parent.iterdir())) == 1

    def test_attribute_missing_in_the_copy(self, tree):
        path = tree / "celeba/list_attr_celeba.txt"
        path.write_text(path.read_text().replace("Smiling", "Grinning"))
        message = f"expected {path} to have the attribute Smiling, got 40 others; download the attributes and"
        assert CelebAAttributesSubset().check(tree)[0].startswith(message)
        with pytest.raises(MissingDataError, match="to have the attribute Smiling"):
            CelebAAttributesSubset(attributes=("Smiling",)).load("public", tree)
        assert CelebAAttributesSubset(attributes=("Male",)).check(tree) == []

    def test_real_copy(self, real_data):
        if not (real_data / "celeba").exists():
            pytest.skip("no real CelebA")
        identities = listed(real_data)
        split = CelebAAttributesSubset().split(identities)
        counts = {part: len(names) for part, names in split.parts.items()}
        n = len(identities)
        assert (counts["public"], counts["private_test"]) == (math.ceil(n / 4), math.ceil(3 * n / 20))
        shared = {identities[name] for name in split.parts["private_train"]}
        shared &= {identities[name] for name in split.parts["private_test"]}
        assert len(shared) > 100
        path = real_data / "celeba" / "list_attr_celeba.txt"
        attributes = _celeba_files.read_attributes(path, path.read_bytes())
        assert attributes.names == ATTRIBUTES
        truth = attributes.of(split.parts["private_train"], ("Smiling", "Bald"))
        # In the release 48 % smile and 2 % are bald.
        assert truth.double().mean(0).tolist() == pytest.approx([0.48, 0.02], abs=0.06)
        crop = CelebAAttributesSubset(size=112).crop
        (first,) = _celeba_pictures.decode(_celeba_pictures.find_pictures(real_data), split.parts["public"][:1], crop)
        assert first.shape == (3, 112, 112)
        assert first.std() > 20


class TestExtraImages:
    def test_they_follow_the_public_images_by_name(self, tree, folder):
        plain = CelebAAttributesSubset().load("public", tree)
        more = CelebAAttributesSubset(extra=folder).load("public", tree)
        assert torch.equal(more.pixels[:12], plain.pixels)
        assert len(more) == 12 + 4
        assert more.labels is more.attributes is None
        assert more.identities.tolist() == [*plain.identities.tolist(), -1, -1, -1, -1]
        for index, name in enumerate(("a.png", "b.JPEG", "grey.png", "people/c.jpg")):
            with Image.open(folder / name) as image:
                left, top = (image.width - 30) // 2, (image.height - 30) // 2
                square = image.convert("RGB").crop((left, top, left + 30, top + 30))
            small = square.resize((64, 64), Image.Resampling.BILINEAR)
            assert np.array_equal(more.pixels[12 + index].permute(1, 2, 0), small)

    def test_private_parts_do_not_depend_on_them(self, tree, folder):
        for part in ("private_train", "private_test"):
            one, other = (CelebAAttributesSubset(extra=extra).load(part, tree) for extra in (None, folder))
            assert torch.equal(one.pixels, other.pixels)
            assert torch.equal(one.attributes, other.attributes)

    def test_targets_priors_and_evidence_depend_on_them(self, folder):
        stages = {stage for stage in ("judge", "target", "prior", "evidence", "scores") if "extra" in extra_of(stage)}
        assert stages == {"target", "prior", "evidence"}

    def test_content_and_names_are_part_of_the_key(self, tree, folder):
        keys = {CelebAAttributesSubset().fingerprint(tree), CelebAAttributesSubset(extra=folder).fingerprint(tree)}
        content = bytearray((folder / "a.png").read_bytes())
        content[-1] ^= 1
        (folder / "a.png").write_bytes(content)
        keys.add(CelebAAttributesSubset(extra=folder).fingerprint(tree))
        (folder / "a.png").rename(folder / "z.png")
        keys.add(CelebAAttributesSubset(extra=folder).fingerprint(tree))
        assert len(keys) == 4

    def test_a_relative_folder_is_found(self, tree, folder, monkeypatch):
        monkeypatch.chdir(folder.parent)
        dataset = CelebAAttributesSubset(extra=Path(folder.name))
        assert dataset.fingerprint(tree) == CelebAAttributesSubset(extra=folder).fingerprint(tree)

    def error_message(self, tree, extra):
        """The one message of `check`, which `load` raises too."""
        dataset = CelebAAttributesSubset(extra=extra)
        (problem,) = dataset.check(tree)
        with pytest.raises(MissingDataError) as info:
            dataset.load("public", tree)
        assert str(info.value) == problem
        assert "\n" not in problem
        return problem

    def test_missing_folder(self, tree, tmp_path):
        expected = f"to be a folder of JPEG or PNG images, got '{tmp_path}/none', which is missing; name another folder"
        assert self.error_message(tree, tmp_path / "none").endswith(expected)
        with pytest.raises(MissingDataError, match="which is missing"):
            CelebAAttributesSubset(extra=tmp_path / "none").fingerprint(tree)

    def test_file_instead_of_a_folder(self, tree, folder):
        assert "which is not a folder" in self.error_message(tree, folder / "a.png")

    def test_empty_folder(self, tree, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "notes.txt").write_text("")
        assert "which contains none" in self.error_message(tree, tmp_path / "empty")

    @pytest.mark.parametrize("inner", ["", "celeba", "celeba/img_align_celeba"])
    def test_private_images_do_not_become_public(self, tree, inner):
        assert "the folder of the private images" in self.error_message(tree, tree / inner)

    def test_private_images_do_not_become_public_through_a_link(self, tree, tmp_path):
        (tmp_path / "link").symlink_to(tree / "celeba")
        assert "the folder of the private images" in self.error_message(tree, tmp_path / "link")

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (b"", "is an empty file and not a JPEG or PNG image"),
            (b"GIF89a" + bytes(40), "is a GIF picture and not a JPEG or PNG image"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is a PostScript drawing and not a JPEG or PNG image"),
            (None, "is cut off or damaged (image file is truncated"),
        ],
    )
    def test_broken_image(self, tree, folder, content, fault):
        path = folder / "people" / "c.jpg"
        path.write_bytes(path.read_bytes()[:-60] if content is None else content)
        found = self.error_message(tree, folder)
        assert found.startswith(f"{path} {fault}")
        assert found.endswith("repair it or remove it from dataset.extra")
        with pytest.raises(MissingDataError, match=re.escape(found)):  # a plan says it too
            CelebAAttributesSubset(extra=folder).fingerprint(tree)

    @pytest.mark.parametrize("side", [7100, 12_000, 60_000])
    def test_image_bomb_is_not_decoded(self, tree, folder, side, monkeypatch):
        # A few hundred bytes that announce 50 million pixels or more; Pillow itself warns from 89 million on.
        monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
        for name in ("a.png", "b.JPEG", "grey.png", "people/c.jpg"):
            (folder / name).unlink()
        (folder / "bomb.png").write_bytes(png(side))
        with pytest.raises(MissingDataError, match=r"bomb\.png has .* 50,000,000.*remove it from dataset\.extra$"):
            CelebAAttributesSubset(extra=folder).load("public", tree_without_decoding(tree, monkeypatch))

    def test_huge_file_is_not_read(self, tree, folder, monkeypatch):
        monkeypatch.setattr(_encoded, "MAX_BYTES", 100)
        monkeypatch.setattr(images, "MAX_BYTES", 100)
        found = CelebAAttributesSubset(extra=folder).check(tree)
        assert len(found) == 1 + 4  # all images of CelebA, too
        assert all("has more than 0 MiB" in message for message in found)


@pytest.mark.parametrize(("count", "fits"), [(5, True), (6, False)])
def test_images_that_would_fill_half_of_a_gpu_stay_on_the_cpu(count, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    pixels = torch.zeros(count, 1, 2, 5, dtype=torch.uint8)
    assert batches._fits(pixels, torch.device("cuda")) == fits
    assert batches._fits(pixels, torch.device("cpu"))


def test_batches_do_not_depend_on_the_device_of_the_images(monkeypatch):
    images = Images(torch.arange(90, dtype=torch.uint8).view(10, 1, 3, 3), torch.arange(10))
    near = [Batches(images, 4, 1, augmentation="crop_flip").at(step) for step in range(5)]
    monkeypatch.setattr(batches, "_fits", lambda pixels, device: False)
    far = [Batches(images, 4, 1, augmentation="crop_flip").at(step) for step in range(5)]
    for (x, y), (x_far, y_far) in zip(near, far, strict=True):
        assert torch.equal(x, x_far)
        assert torch.equal(y, y_far)


def extra_of(stage):
    return CelebAAttributesSubset(extra=Path("x")).config(stage)


def tree_without_decoding(tree, monkeypatch):
    """The synthetic copy, with zeros in place of its decoded images."""
    zeros = np.zeros((3, 64, 64), dtype=np.uint8)
    monkeypatch.setattr(_faces, "decode", lambda pictures, names, crop: (zeros for _ in names))
    return tree


def png(side):
    """A grey PNG whose header states `side` x `side` pixels, without any pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def pictures():
    """Twelve different images of the release's size."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 22, 18, 3), dtype=np.uint8)
    return [encoded(np.kron(image, np.ones((10, 10, 1), dtype=np.uint8))[:218, :178]) for image in coarse]


@pytest.fixture
def tree(tmp_path, pictures):
    """Synthetic copy: 47 images of five identities; attribute k of image i is set if k + 2 divides i."""
    folder = tmp_path / "data" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = {number: f"{number:06d}.jpg" for number in range(1, COUNT + 1)}
    for number, name in names.items():
        (folder / "img_align_celeba" / name).write_bytes(pictures[number % len(pictures)])
    (folder / "identity_CelebA.txt").write_text("".join(f"{name} {1 + n % 5}\n" for n, name in names.items()))
    rows = [f"{name} " + " ".join(" 1" if n % (k + 2) == 0 else "-1" for k in range(40)) for n, name in names.items()]
    head = f"{COUNT}\n{' '.join(ATTRIBUTES)} \n"
    (folder / "list_attr_celeba.txt").write_text(head + "\n".join(rows) + "\n")
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path):
    """Four extra images, 30 pixels high or wide, of three file types, one in a subfolder."""
    generator = np.random.default_rng(1)
    where = tmp_path / "more"
    (where / "people").mkdir(parents=True)
    for name, shape in (
        ("a.png", (30, 47, 3)),
        ("b.JPEG", (41, 30, 3)),
        ("grey.png", (30, 30)),
        ("people/c.jpg", (31, 30, 3)),
    ):
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(where / name)
    (where / "readme.txt").write_text("not an image")
    return where


def listed(tree):
    path = tree / "celeba/identity_CelebA.txt"
    return _celeba_files.read_identities(path, path.read_bytes())


def encoded(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def test_every_identity_of_the_synthetic_copy_is_in_every_part(tree):
    # The draw is of images: what the Note in the class says of identities can be seen here.
    split = CelebAAttributesSubset().split(listed(tree))
    owners = {part: Counter(listed(tree)[name] for name in names) for part, names in split.parts.items()}
    assert set(owners["private_train"]) == set(owners["public"]) == {1, 2, 3, 4, 5}
