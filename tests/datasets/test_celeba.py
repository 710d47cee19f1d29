"""CelebA: the published identities, the crop, the cache of decoded images, and one error message for each mistake."""

import io
import shutil
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from privbench.benchmark.datasets import _celeba_files, _celeba_pictures, _faces, celeba, celeba_subset
from privbench.benchmark.datasets._decoded import decoded, decoded_path
from privbench.benchmark.datasets.celeba import CelebA, choose
from privbench.benchmark.datasets.celeba_subset import CelebASubset
from privbench.benchmark.errors import MissingDataError, StorageError
from safetensors import safe_open
from safetensors.torch import load_file

#: Identities of the synthetic copy; six of them are private.
IDENTITIES = 9
PARTS = ("private_train", "private_test", "public")


class TestPublishedSplit:
    """Published counts for the released lists: 27,018 and 3,009 images of 1000 identities."""

    @pytest.fixture(scope="class")
    @classmethod
    def listing(cls):
        # The released private identities: 991 with 30 images, 4 with 31, 2 with 34, 3 with 35; others around them.
        sizes = {}
        private = iter([30] * 400 + [31] * 4 + [34] * 2 + [35] * 3 + [30] * 591)
        for identity in range(1, 4001):
            sizes[identity] = next(private, 30) if identity % 3 == 0 else identity % 30
        names = [identity for identity, size in sizes.items() for _ in range(size)]
        return {f"{number:06d}.jpg": identity for number, identity in enumerate(names, 1)}

    @pytest.fixture(scope="class")
    @classmethod
    def split(cls, listing):
        return choose(listing)

    def test_private_identities_are_the_first_thousand_with_thirty_images(self, split):
        assert split.identities == tuple(range(3, 3001, 3))

    def test_counts(self, listing, split):
        assert {part: len(names) for part, names in split.parts.items()} == {
            "private_train": 27_018,
            "private_test": 3_009,
            "public": 30_000,
        }
        kept = Counter(Counter(listing[name] for name in split.parts["private_train"]).values())
        drawn = Counter(Counter(listing[name] for name in split.parts["private_test"]).values())
        assert kept == {27: 995, 30: 2, 31: 3}
        assert drawn == {3: 991, 4: 9}
        assert max(Counter(listing[name] for name in split.parts["public"]).values()) == 16

    def test_parts_are_disjoint_and_public_identities_are_not_private(self, listing, split):
        train, test, public = (set(split.parts[part]) for part in PARTS)
        assert len(train | test | public) == 27_018 + 3_009 + 30_000
        assert not {listing[name] for name in public} & set(split.identities)
        assert {listing[name] for name in train} == {listing[name] for name in test} == set(split.identities)

    def test_test_images_are_drawn_not_first_or_last(self, listing, split):
        test = set(split.parts["private_test"])
        positions = Counter()
        for names in celeba.by_identity(listing).values():
            positions.update(position for position, name in enumerate(names) if name in test)
        # 991 identities draw 3 of 30 positions each: 100 per position; five standard deviations are 47.
        assert all(abs(positions[position] - 100) < 47 for position in range(30))

    def test_the_order_of_the_file_does_not_matter(self, listing, split):
        assert choose(dict(reversed(listing.items()))) == split

    def test_the_message_for_a_smaller_copy_names_the_subset(self, listing):
        few = {name: identity for name, identity in listing.items() if identity < 2000}
        with pytest.raises(MissingDataError, match=r"got 666; use the data set celeba_subset for a smaller copy$"):
            choose(few)
        with pytest.raises(
            MissingDataError, match=rf"^expected celeba to have 202,599 images, got {len(few):,}; use the"
        ):
            CelebA().split(few)


def test_published_checksums_are_torchvisions():
    theirs = {name: md5 for _, md5, name in torchvision.datasets.CelebA.file_list}
    assert {name: theirs[name] for name in CelebA.published} == dict(CelebA.published)


def test_protocols():
    protocol = CelebA().protocol
    assert (protocol.id, protocol.image, protocol.classes, protocol.judge_classes) == (
        "celeba/v2",
        (3, 64, 64),
        1000,
        1000,
    )
    assert (protocol.target_network, protocol.judge_network, protocol.pretrained) == ("vgg16_bn", "facenet", True)
    assert (protocol.second_judge_network, protocol.second_judge_pretrained) == ("resnet34", False)
    starts = [protocol.starts_from_published(role) for role in ("target", "judge", "second_judge")]
    assert starts == [True, True, False]
    assert (protocol.attacked, protocol.group, protocol.draws, protocol.trials, protocol.reference) == (
        300,
        60,
        5,
        1,
        5,
    )
    assert (protocol.sampler, protocol.instances, protocol.augmentation) == ("identity", 4, "flip")
    recipe = CelebA().judge
    assert (recipe.optimizer, recipe.learning_rate, recipe.momentum, recipe.nesterov) == ("sgd", 0.01, 0.9, False)
    assert (recipe.weight_decay, recipe.epochs, recipe.milestones, recipe.batch_size) == (1e-4, 30, (), 64)
    changes = {"name": "celeba_subset", "classes": 100, "judge_classes": 100, "attacked": 100}
    assert CelebASubset().protocol == protocol.model_copy(update=changes)


class TestSubset:
    def test_split(self, tree):
        identities = listed(tree)
        split = CelebASubset().split(identities)
        # Identities 1 .. 9 have 5 images, 3 and 5 have 7: these two and the lowest four others.
        assert split.identities == (1, 2, 3, 4, 5, 6)
        assert Counter(identities[name] for name in split.parts["private_test"]) == {1: 1, 2: 1, 3: 2, 4: 1, 5: 2, 6: 1}
        assert {identities[name] for name in split.parts["public"]} == {7, 8, 9}
        assert sorted(name for names in split.parts.values() for name in names) == sorted(identities)

    def test_more_images_take_precedence_over_a_lower_number(self, tree):
        add(tree, [("100001.jpg", 9)])
        assert CelebASubset().split(listed(tree)).identities == (1, 2, 3, 4, 5, 9)

    def test_images_have_labels_identities_and_attributes(self, tree):
        images = {part: CelebASubset().load(part, tree) for part in (*PARTS, "judge_train", "judge_test")}
        train = images["private_train"]
        assert train.pixels.shape == (26, 3, 64, 64)
        assert train.pixels.dtype == torch.uint8
        assert torch.equal(train.labels, train.identities - 1)
        assert torch.equal(train.labels, train.labels.sort().values)
        assert train.attributes.dtype == torch.bool
        names = CelebASubset().split(listed(tree)).parts["private_train"]
        # Attribute k of image number i is set when i is divisible by k + 2.
        expected = [[int(name[:6]) % divisor == 0 for divisor in (2, 3, 4)] for name in names]
        assert train.attributes.tolist() == expected
        assert images["public"].labels is None
        assert images["public"].identities.unique().tolist() == [7, 8, 9]
        for one, other in (("judge_train", "private_train"), ("judge_test", "private_test")):
            assert torch.equal(images[one].pixels, images[other].pixels)
            assert torch.equal(images[one].labels, images[other].labels)

    def test_crop(self, tree):
        images = CelebASubset().load("private_train", tree)
        names = CelebASubset().split(listed(tree)).parts["private_train"]
        for index in (0, 17, 25):
            with Image.open(tree / "celeba/img_align_celeba" / names[index]) as image:
                centre = np.asarray(image)[55:163, 35:143]
            small = Image.fromarray(centre).resize((64, 64), Image.Resampling.BILINEAR)
            assert np.array_equal(images.pixels[index].permute(1, 2, 0), small)
        # The synthetic images differ, so a wrong order would be noticed.
        assert len({row.numpy().tobytes() for row in images.pixels.flatten(1)}) > 8

    def test_archive_and_folder_give_the_same_images(self, tree):
        folder = {part: CelebASubset().load(part, tree) for part in PARTS}
        key = CelebASubset().fingerprint(tree)
        archive(tree)
        assert CelebASubset().fingerprint(tree) == key
        for kept in decoded_path("celeba_subset", key).parent.iterdir():
            kept.unlink()
        for part, images in folder.items():
            assert torch.equal(CelebASubset().load(part, tree).pixels, images.pixels)
        assert CelebASubset().check(tree) == []

    def test_real_copy(self, real_data):
        if not (real_data / "celeba").exists():
            pytest.skip("no real CelebA")
        identities = listed(real_data)
        split = CelebASubset().split(identities)
        counts = Counter(identities.values())
        least = min(counts[identity] for identity in split.identities)
        others = {identity: counts[identity] for identity in counts if identity not in split.identities}
        assert len(split.identities) == 100
        assert max(others.values()) <= least
        assert min((i for i, n in others.items() if n == least), default=10**9) > max(
            i for i in split.identities if counts[i] == least
        )
        pictures = _celeba_pictures.find_pictures(real_data)
        pixels = list(_celeba_pictures.decode(pictures, split.parts["private_test"][:8], CelebASubset().crop))
        assert np.std(pixels) > 20
        if len(identities) != _celeba_files.COUNT:
            assert "use the data set celeba_subset" in CelebA().check(real_data)[0]


class TestCacheOfDecodedImages:
    def test_decoded_once(self, tree, monkeypatch):
        first = CelebASubset().load("public", tree)
        monkeypatch.setattr(_faces, "decode", lambda *_: pytest.fail("decoded again"))
        assert torch.equal(CelebASubset().load("public", tree).pixels, first.pixels)
        CelebASubset().load("private_train", tree)

    def test_a_flipped_bit_is_detected_and_the_file_recomputed(self, tree, caplog):
        first = CelebASubset().load("public", tree)
        (path,) = kept()
        content = bytearray(path.read_bytes())
        content[content.index(first.pixels.numpy().tobytes()) + 77] ^= 1
        replace(path, content)
        assert torch.equal(CelebASubset().load("public", tree).pixels, first.pixels)
        assert "does not match its checksum; decoding the images again" in caplog.text
        caplog.clear()
        assert torch.equal(CelebASubset().load("public", tree).pixels, first.pixels)
        assert caplog.text == ""

    def test_no_flipped_bit_gives_wrong_pixels(self, tmp_path):
        path = tmp_path / "x.safetensors"
        parts = {"one": torch.arange(6, dtype=torch.uint8).view(2, 3, 1, 1)}
        parts["two"] = torch.arange(9, 15, dtype=torch.uint8).view(1, 2, 3, 1)
        shapes = {name: tuple(part.shape) for name, part in parts.items()}

        def decode():
            return {name: iter(part.numpy()) for name, part in parts.items()}

        decoded(path, "key", "one", shapes, decode)
        whole = path.read_bytes()
        assert torch.equal(decoded(path, "key", "one", shapes, lambda: pytest.fail("decoded again")), parts["one"])
        for position in range(len(whole)):
            content = bytearray(whole)
            content[position] ^= 1 << position % 8
            replace(path, content)
            assert torch.equal(decoded(path, "key", "one", shapes, decode), parts["one"])

    def test_truncated_or_other_files_are_recomputed(self, tree, caplog):
        first = CelebASubset().load("public", tree)
        (path,) = kept()
        content = path.read_bytes()
        for wrong in (b"", content[:-1], b"<html>" * 99):
            replace(path, wrong)
            assert torch.equal(CelebASubset().load("public", tree).pixels, first.pixels)
        assert caplog.text.count("decoding the images again") == 3
        assert len(kept()) == 1

    def test_another_copy_has_another_key(self, tree):
        key = CelebASubset().fingerprint(tree)
        path = tree / "celeba/img_align_celeba/000001.jpg"
        path.write_bytes(path.read_bytes() + b"\0")
        assert CelebASubset().fingerprint(tree) != key
        annotations = tree / "celeba/list_attr_celeba.txt"
        key = CelebASubset().fingerprint(tree)
        annotations.write_text(annotations.read_text().replace("-1 -1 -1", "-1 -1  1", 1))
        assert CelebASubset().fingerprint(tree) != key
        assert CelebASubset(attacked=3, draws=2).fingerprint(tree) == CelebASubset().fingerprint(tree)

    def test_message_for_an_unwritable_folder(self, tree, tmp_path, monkeypatch):
        occupied = tmp_path / "occupied"
        occupied.write_text("")
        monkeypatch.setenv("PRIVBENCH_CACHE", str(occupied))
        with pytest.raises(StorageError, match=rf"cannot write {occupied}/datasets: .*; set PRIVBENCH_CACHE"):
            CelebASubset().load("public", tree)

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MissingDataError("x.jpg is broken")])
    def test_no_partial_file_is_left(self, tmp_path, error):
        def images():
            yield np.zeros((1, 1, 1), dtype=np.uint8)
            raise error

        path = tmp_path / "kept" / "x.safetensors"
        expected = StorageError if error.errno else MissingDataError
        with pytest.raises(expected, match=r"no space left|^x\.jpg is broken$"):
            decoded(path, "key", "part", {"part": (2, 1, 1, 1)}, lambda: {"part": images()})
        assert list(path.parent.iterdir()) == []

    def test_safetensors_reads_the_file(self, tree):
        images = CelebASubset().load("public", tree).pixels
        with safe_open(kept()[0], framework="np") as file:
            assert set(file.keys()) == set(PARTS)
            assert np.array_equal(file.get_tensor("public"), images)
        assert kept()[0].stat().st_mode & 0o077 == 0
        rewritten = load_file(kept()[0])
        assert {part: len(rewritten[part]) for part in PARTS} == {"private_train": 26, "private_test": 8, "public": 15}


class TestMistakes:
    """Each mistake gives one error message in `check`, and `load` raises the same one."""

    def error_message(self, tree):
        problems = CelebASubset().check(tree)
        assert len(problems) == 1
        with pytest.raises(MissingDataError) as info:
            CelebASubset().load("private_test", tree)
        assert str(info.value) == problems[0]
        assert "\n" not in problems[0]
        return problems[0]

    def test_no_files(self, tmp_path):
        problems = CelebASubset().check(tmp_path)
        names = ("identity_CelebA.txt", "img_align_celeba.zip")
        assert [problem.split(" is missing: download ")[0] for problem in problems] == [
            f"{tmp_path}/celeba/{name}" for name in names
        ]
        assert all(problem.endswith(f"and put it into {tmp_path}/celeba") for problem in problems)
        with pytest.raises(MissingDataError) as info:
            CelebA().prepare(tmp_path)
        assert all(name in str(info.value) for name in names)
        assert "Google Drive" in str(info.value)

    def test_web_page_instead_of_the_archive(self, tree):
        shutil.rmtree(tree / "celeba/img_align_celeba")
        (tree / "celeba/img_align_celeba.zip").write_bytes(b"<!DOCTYPE html><html>Google Drive - Quota exceeded")
        assert "img_align_celeba.zip is a web page that was saved instead of the file" in self.error_message(tree)

    def test_truncated_archive(self, tree):
        path = archive(tree)
        path.write_bytes(path.read_bytes()[:-100])
        assert "img_align_celeba.zip is truncated or not a zip archive" in self.error_message(tree)

    def test_damaged_member(self, tree):
        path = archive(tree, zipfile.ZIP_DEFLATED)
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as opened:
            info = opened.getinfo(f"img_align_celeba/{one_test_image(tree)}")
        content[info.header_offset + 100] ^= 255
        path.write_bytes(content)
        assert "img_align_celeba.zip is damaged at " in self.error_message(tree)

    def test_published_checksum_of_the_archive(self, tree, monkeypatch):
        archive(tree)
        monkeypatch.setattr(CelebASubset, "published", {"img_align_celeba.zip": "0" * 32})
        assert "img_align_celeba.zip is damaged or another version, MD5 " in self.error_message(tree)

    def test_published_checksum_of_the_lists(self, tree, monkeypatch):
        monkeypatch.setattr(CelebASubset, "published", {"list_attr_celeba.txt": "0" * 32})
        assert "list_attr_celeba.txt is damaged or another version, MD5 " in self.error_message(tree)

    def test_folder_that_is_a_file(self, tree):
        shutil.rmtree(tree / "celeba/img_align_celeba")
        (tree / "celeba/img_align_celeba").write_bytes(b"")
        assert "img_align_celeba to be a folder, got a file" in self.error_message(tree)

    def test_listed_images_that_are_missing(self, tree):
        for name in ("000007.jpg", "000009.jpg"):
            (tree / "celeba/img_align_celeba" / name).unlink()
        assert "lacks 2 of the 49 images that identity_CelebA.txt lists, such as 000007.jpg" in self.error_message(tree)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is an empty file and not a JPEG or PNG image"),
            (b"<html>", "is a web page and not a JPEG or PNG image"),
            (None, "is cut off or damaged (image file is truncated"),
        ],
    )
    def test_unreadable_image(self, tree, content, message):
        path = tree / "celeba/img_align_celeba" / one_test_image(tree)
        path.write_bytes(path.read_bytes()[:-500] if content is None else content)
        assert message in self.error_message(tree)
        assert str(path) in self.error_message(tree)

    def test_many_unreadable_images_are_counted(self, tree):
        for name in CelebASubset().split(listed(tree)).parts["private_train"][:15]:
            (tree / "celeba/img_align_celeba" / name).write_bytes(b"damaged")
        problems = CelebASubset().check(tree)
        assert len(problems) == 11
        assert problems[-1] == "5 more images cannot be decoded"

    def test_image_of_another_size(self, tree):
        path = tree / "celeba/img_align_celeba" / one_test_image(tree)
        path.write_bytes(encoded(np.zeros((218, 177, 3), dtype=np.uint8)))
        message = f"{path} has 177 x 218 pixels and not 178 x 218: it is resized, cropped or not aligned; replace it: "
        assert self.error_message(tree).startswith(message)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("000001.jpg", "to be 'IMAGE IDENTITY', got '000001.jpg'"),
            ("000001.jpg one", "to be 'IMAGE IDENTITY', got '000001.jpg one'"),
            ("000001.jpg 5", "to list each image once, got 000001.jpg again in line 50"),
            ("\xe9.jpg 5", "to be a text file of CelebA, got other bytes"),
        ],
    )
    def test_broken_list_of_identities(self, tree, line, message):
        path = tree / "celeba/identity_CelebA.txt"
        path.write_bytes(path.read_bytes() + line.encode("latin1") + b"\n")
        assert message in self.error_message(tree)

    def test_broken_attributes(self, tree):
        path = tree / "celeba/list_attr_celeba.txt"
        whole = path.read_text()
        path.write_text(whole[: len(whole) // 2])
        assert "its first line says 49 images, but it lists" in self.error_message(tree)
        path.write_text("nothing")
        assert "to begin with the number of images" in self.error_message(tree)

    def test_attribute_that_is_neither_one_nor_minus_one(self, tree):
        path = tree / "celeba/list_attr_celeba.txt"
        name = one_test_image(tree)
        lines = [f"{name} 1 0 1" if line.startswith(name) else line for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines))
        assert f"to give {name} 3 values of 1 or -1, got ['1', '0', '1']" in self.error_message(tree)

    def test_too_few_identities(self, tree):
        path = tree / "celeba/identity_CelebA.txt"
        lines = [line for line in path.read_text().splitlines() if int(line.split()[1]) <= 6]
        path.write_text("\n".join(lines))
        assert (
            "expected celeba_subset to have 6 identities with at least 5 images and one more, got 6 and 0"
            in self.error_message(tree)
        )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def pictures():
    """Twelve different images of the release's size."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (12, 22, 18, 3), dtype=np.uint8)
    return [encoded(np.kron(image, np.ones((10, 10, 1), dtype=np.uint8))[:218, :178]) for image in coarse]


@pytest.fixture
def tree(tmp_path, pictures, monkeypatch):
    """Synthetic copy: identities 1 .. 9 with 5 images (3 and 5 have 7), and three attributes."""
    monkeypatch.setattr(celeba_subset, "CLASSES", 6)
    folder = tmp_path / "data" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    owners = [i for i in range(1, IDENTITIES + 1) for _ in range(7 if i in (3, 5) else 5)]
    names = [f"{number:06d}.jpg" for number in range(1, len(owners) + 1)]
    for number, name in enumerate(names):
        (folder / "img_align_celeba" / name).write_bytes(pictures[number % len(pictures)])
    (folder / "identity_CelebA.txt").write_text("".join(f"{n} {i}\n" for n, i in zip(names, owners, strict=True)))
    rows = [f"{n} " + " ".join(" 1" if int(n[:6]) % d == 0 else "-1" for d in (2, 3, 4)) + "\n" for n in names]
    (folder / "list_attr_celeba.txt").write_text(f"{len(names)}\nTwo Three Four \n" + "".join(rows))
    return tmp_path / "data"


def add(tree, images):
    """Append images of identities to the synthetic copy."""
    with (tree / "celeba/identity_CelebA.txt").open("a") as file:
        file.writelines(f"{name} {identity}\n" for name, identity in images)


def archive(tree, method=zipfile.ZIP_STORED):
    """Replace the folder of images by an archive."""
    folder = tree / "celeba/img_align_celeba"
    path = tree / "celeba/img_align_celeba.zip"
    with zipfile.ZipFile(path, "w", method) as opened:
        for image in sorted(folder.iterdir()):
            opened.write(image, f"img_align_celeba/{image.name}")
    shutil.rmtree(folder)
    return path


def listed(tree):
    path = tree / "celeba/identity_CelebA.txt"
    return _celeba_files.read_identities(path, path.read_bytes())


def one_test_image(tree):
    return CelebASubset().split(listed(tree)).parts["private_test"][0]


def kept():
    return sorted(decoded_path("x", "y").parent.iterdir())


def replace(path, content):
    """Write a new file of the same name, since the old one may be mapped into memory."""
    path.unlink()
    path.write_bytes(content)


def encoded(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
