"""Digits, MNIST and CIFAR-10: published counts and pixels, splits, and one error message for each fault."""

import errno
import gzip
import hashlib
import pickle
import struct
import warnings
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from privbench.benchmark.datasets import _ten_classes, cifar10, mnist
from privbench.benchmark.datasets._unpickle import unpickle
from privbench.benchmark.datasets.cifar10 import CIFAR10
from privbench.benchmark.datasets.digits import Digits
from privbench.benchmark.datasets.mnist import MNIST
from privbench.benchmark.errors import MissingDataError, StorageError
from torchvision.datasets import utils

PARTS = ("private_train", "private_test", "public", "judge_train", "judge_test")


def rows(images):
    return [bytes(row.numpy().tobytes()) for row in images.pixels.flatten(1)]


def stacked(parts):
    """Pixels of each image as bytes, to compare parts."""
    return {part: set(rows(images)) for part, images in parts.items()}


class TestDigits:
    @pytest.fixture(scope="class")
    @classmethod
    def parts(cls, tmp_path_factory):
        return {part: Digits().load(part, tmp_path_factory.mktemp("none")) for part in PARTS}

    def test_counts(self, parts):
        assert {part: len(images) for part, images in parts.items()} == {
            "private_train": 718,
            "private_test": 183,
            "public": 896,
            "judge_train": 1433,
            "judge_test": 364,
        }
        # 178, 182, 177, 183 and 181 scans of 0 .. 4: the test partition takes a fifth, rounded up.
        assert parts["private_test"].labels.bincount().tolist() == [36, 37, 36, 37, 37]
        assert parts["private_train"].labels.bincount().tolist() == [142, 145, 141, 146, 144]
        assert parts["judge_train"].labels.unique().tolist() == list(range(10))
        assert parts["public"].labels is None

    def test_private_parts_and_public_part_are_disjoint(self, parts):
        found = stacked(parts)
        assert found["private_train"] <= found["judge_train"]
        assert found["private_test"] <= found["judge_test"]
        assert not found["private_train"] & found["private_test"]
        assert not found["judge_train"] & found["judge_test"]
        assert not found["public"] & (found["private_train"] | found["private_test"])
        assert found["public"] <= found["judge_train"] | found["judge_test"]

    def test_same_bytes_every_time(self, parts, tmp_path):
        content = b"".join(b"".join(rows(parts[part])) for part in PARTS)
        again = b"".join(b"".join(rows(Digits().load(part, tmp_path))) for part in PARTS)
        assert content == again

    def test_the_split_is_pinned(self, parts):
        # Changing the split changes the protocol: raise its version with these numbers.
        assert parts["private_test"].pixels.long().sum().item() == 14_399_952
        assert parts["private_test"].labels[:10].tolist() == [1, 3, 2, 0, 1, 2, 3, 4, 0, 2]

    def test_pixels_are_scans_enlarged_by_pillow(self, parts):
        from sklearn.datasets import load_digits

        small = np.floor(load_digits().images[0] * 255 / 16 + 0.5).astype(np.uint8)
        expected = np.asarray(Image.fromarray(small).resize((32, 32), Image.Resampling.BILINEAR))
        matches = [row == expected.tobytes() for part in ("judge_train", "judge_test") for row in rows(parts[part])]
        assert sum(matches) == 1

    def test_needs_no_files(self, tmp_path):
        assert Digits().check(tmp_path / "nowhere") == []
        Digits().prepare(tmp_path / "nowhere")
        assert not (tmp_path / "nowhere").exists()


class TestMNIST:
    def test_published_counts(self, real_data):
        skip_without(real_data / "MNIST")
        parts = {part: MNIST().load(part, real_data) for part in PARTS}
        assert {part: tuple(images.pixels.shape) for part, images in parts.items()} == {
            "private_train": (30_596, 1, 32, 32),
            "private_test": (5_139, 1, 32, 32),
            "public": (34_265, 1, 32, 32),
            "judge_train": (60_000, 1, 32, 32),
            "judge_test": (10_000, 1, 32, 32),
        }
        assert parts["private_train"].labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842]
        assert parts["private_test"].labels.bincount().tolist() == [980, 1135, 1032, 1010, 982]
        assert MNIST().check(real_data) == []
        published = {train: torchvision.datasets.MNIST(real_data, train=train) for train in (True, False)}
        high = [data.data[data.targets >= 5] for data in (published[True], published[False])]
        assert [len(pixels) for pixels in high] == [29_404, 4_861]
        for index in (0, 17, 29_403, 29_404, 34_264):
            assert np.array_equal(parts["public"].pixels[index, 0], pillow(torch.cat(high)[index]))
        for index in range(0, 60_000, 997):
            assert np.array_equal(parts["judge_train"].pixels[index, 0], pillow(published[True].data[index]))
        assert torch.equal(parts["judge_train"].labels, published[True].targets)
        assert torch.equal(parts["judge_test"].labels, published[False].targets)

    def test_checksums_belong_to_the_published_archives(self, real_data):
        skip_without(real_data / "MNIST")
        published = dict(torchvision.datasets.MNIST.resources)
        for name, (size, md5) in mnist.CONTENTS.items():
            packed = (real_data / mnist.FOLDER / f"{name}.gz").read_bytes()
            assert hashlib.md5(packed).hexdigest() == published[f"{name}.gz"]
            content = gzip.decompress(packed)
            assert (len(content), hashlib.md5(content).hexdigest()) == (size, md5)

    def test_archives_need_no_extraction(self, synthetic_mnist):
        expected = MNIST().load("private_train", synthetic_mnist)
        for path in sorted((synthetic_mnist / mnist.FOLDER).glob("*ubyte")):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        assert MNIST().check(synthetic_mnist) == []
        found = MNIST().load("private_train", synthetic_mnist)
        assert torch.equal(found.pixels, expected.pixels)
        assert torch.equal(found.labels, expected.labels)

    def test_public_comes_from_both_partitions_train_first(self, synthetic_mnist):
        # Synthetic images are filled with 10 label in the training and 10 label + 1 in the test partition.
        public = MNIST().load("public", synthetic_mnist)
        assert public.pixels[:, 0, 0, 0].tolist() == [50, 60, 70, 80, 90] * 2 + [51, 61, 71, 81, 91]
        assert MNIST().load("private_train", synthetic_mnist).labels.tolist() == [0, 1, 2, 3, 4] * 2
        assert MNIST().load("judge_test", synthetic_mnist).labels.tolist() == list(range(10))

    def test_missing(self, tmp_path):
        problems = MNIST().check(tmp_path)
        assert len(problems) == 4
        assert problems[0] == (
            f"{tmp_path}/MNIST/raw/train-images-idx3-ubyte is missing: run `privbench data prepare mnist`, or download "
            f"train-images-idx3-ubyte.gz of MNIST and put it into {tmp_path}/MNIST/raw"
        )
        with pytest.raises(MissingDataError, match="train-images-idx3-ubyte is missing"):
            MNIST().load("private_train", tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"<!DOCTYPE html><title>Not found</title>", "is a web page that was saved instead of the file"),
            (b"\n <HTML>", "is a web page"),
            (b"", "is an empty file that was saved instead of the file"),
            (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer, which only names the file"),
            (struct.pack(">II", 2049, 16) + bytes(8), r"is truncated, 16 of 18 bytes"),
            (bytes(18), "is damaged or another version, MD5 [0-9a-f]{32} instead of [0-9a-f]{32}; delete it and run"),
            (bytes(99), "is another file, 99 bytes instead of 18"),
        ],
    )
    def test_wrong_files(self, synthetic_mnist, content, message):
        # 8 bytes of header and 10 labels of the synthetic test partition.
        path = synthetic_mnist / mnist.FOLDER / "t10k-labels-idx1-ubyte"
        path.write_bytes(content)
        with pytest.raises(MissingDataError, match=f"^{path} {message}"):
            MNIST().load("private_test", synthetic_mnist)
        assert len(MNIST().check(synthetic_mnist)) == 1

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"<html>quota</html>", "is a web page"),
            (gzip.compress(bytes(9999), mtime=0)[:-9], "is truncated or not a gzip archive"),
            (b"PK\x03\x04", "is truncated or not a gzip archive"),
            (gzip.compress(b"else", mtime=0), "does not contain MNIST's t10k-labels-idx1-ubyte"),
        ],
        ids=["web page", "truncated", "zip", "something else"],
    )
    def test_wrong_archives(self, synthetic_mnist, content, message):
        path = synthetic_mnist / mnist.FOLDER / "t10k-labels-idx1-ubyte"
        path.unlink()
        path.with_name(f"{path.name}.gz").write_bytes(content)
        (problem,) = MNIST().check(synthetic_mnist)
        assert problem.startswith(f"{path}.gz {message}")
        assert problem.count(";") == 1

    def test_a_flipped_bit_anywhere_is_detected(self, synthetic_mnist):
        path = synthetic_mnist / mnist.FOLDER / "train-images-idx3-ubyte"
        content = bytearray(path.read_bytes())
        for position in (0, 5, len(content) // 2, len(content) - 1):
            content[position] ^= 4
            path.write_bytes(content)
            assert "MD5" in MNIST().check(synthetic_mnist)[0]
            content[position] ^= 4

    def test_a_folder_that_is_a_file_and_a_file_that_is_a_folder(self, synthetic_mnist, tmp_path):
        path = synthetic_mnist / mnist.FOLDER / "t10k-labels-idx1-ubyte"
        path.unlink()
        path.mkdir()
        assert MNIST().check(synthetic_mnist)[0].startswith(f"expected {path} to be a file, got a folder")
        (tmp_path / "occupied").write_text("here")
        message = f"expected {tmp_path}/occupied to be a folder, got a file"
        assert MNIST().check(tmp_path / "occupied")[0].startswith(message)
        with pytest.raises(StorageError, match="MNIST cannot be written"):
            MNIST().prepare(tmp_path / "occupied")

    def test_unreadable(self, synthetic_mnist, monkeypatch):
        def deny(path, **_):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("privbench.benchmark.datasets.files.open_regular", deny)
        assert "cannot be read (Permission denied): change its permissions" in MNIST().check(synthetic_mnist)[0]

    @pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("File\nis corrupted."), TimeoutError()])
    def test_failed_download_has_a_one_line_message(self, tmp_path, monkeypatch, error):
        asked = []

        def fail(url, *_):
            asked.append(url)
            raise error

        monkeypatch.setattr(utils, "download_and_extract_archive", fail)
        message = r"^MNIST could not be downloaded \([^\n]+\): download train-images[^\n]+$"
        with pytest.raises(MissingDataError, match=message):
            MNIST().prepare(tmp_path)
        assert all(url.endswith("train-images-idx3-ubyte.gz") for url in asked)

    def test_download_replaces_only_damaged_files_and_tries_each_mirror(self, synthetic_mnist, monkeypatch, capsys):
        path = synthetic_mnist / mnist.FOLDER / "t10k-labels-idx1-ubyte"
        good = path.read_bytes()
        path.write_bytes(b"damaged")
        asked = []

        def fetch(url, folder, _, archive, md5):
            asked.append(url)
            print("progress")
            if len(asked) == 1:
                raise URLError("first mirror is down")
            assert (folder, archive, len(md5)) == (str(path.parent), f"{path.name}.gz", 32)
            path.write_bytes(good)

        monkeypatch.setattr(utils, "download_and_extract_archive", fetch)
        MNIST().prepare(synthetic_mnist)
        assert [url.rpartition("/")[2] for url in asked] == [f"{path.name}.gz"] * 2
        assert asked[0] != asked[1]
        assert capsys.readouterr().out == ""
        MNIST().prepare(synthetic_mnist)
        assert len(asked) == 2

    def test_full_disk_is_a_storage_error(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(utils, "download_and_extract_archive", full)
        with pytest.raises(StorageError, match="No space left on device"):
            MNIST().prepare(tmp_path)


class TestCIFAR10:
    def test_published_counts(self, real_data):
        skip_without(real_data / cifar10.FOLDER)
        assert CIFAR10().check(real_data) == []
        with warnings.catch_warnings():
            # torchvision unpickles an integer where NumPy wants a boolean.
            warnings.simplefilter("ignore")
            published = [torchvision.datasets.CIFAR10(real_data, train=train) for train in (True, False)]
        data = [torch.from_numpy(p.data).permute(0, 3, 1, 2) for p in published]
        labels = [torch.tensor(p.targets) for p in published]
        judged = CIFAR10().load("judge_test", real_data)
        assert torch.equal(judged.pixels, data[1])
        assert torch.equal(judged.labels, labels[1])
        for part, index in (("private_train", 0), ("private_test", 1)):
            images = CIFAR10().load(part, real_data)
            assert images.labels.bincount().tolist() == [len(data[index]) // 10] * 5
            assert torch.equal(images.pixels, data[index][labels[index] < 5])
        public = CIFAR10().load("public", real_data)
        assert torch.equal(public.pixels, torch.cat([d[y >= 5] for d, y in zip(data, labels, strict=True)]))
        assert len(public) == 30_000

    def test_checksums_are_torchvisions(self):
        published = dict(torchvision.datasets.CIFAR10.train_list + torchvision.datasets.CIFAR10.test_list)
        ours = {name: md5 for batches in cifar10.BATCHES.values() for name, (_, md5) in batches.items()}
        assert ours == published

    def test_missing_and_damaged(self, tmp_path):
        folder = tmp_path / cifar10.FOLDER
        folder.mkdir()
        (folder / "data_batch_1").write_bytes(b"<html>")
        (folder / "data_batch_2").write_bytes(b"\x80\x02}")
        first, second, third, *_ = CIFAR10().check(tmp_path)
        assert first.startswith(f"{folder}/data_batch_1 is a web page")
        assert second.startswith(f"{folder}/data_batch_2 is truncated, 3 of 31,035,320 bytes")
        assert third.startswith(f"{folder}/data_batch_3 is missing: run `privbench data prepare cifar10`")

    def test_nothing_is_unpickled_before_its_checksum_is_right(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cifar10, "unpickle", lambda content: pytest.fail("unpickled"))
        folder = tmp_path / cifar10.FOLDER
        folder.mkdir()
        (folder / "test_batch").write_bytes(bytes(31_035_526))
        with pytest.raises(MissingDataError, match="MD5"):
            CIFAR10().load("private_test", tmp_path)

    def test_message_of_a_failed_download_says_where_to_put_the_archive(self, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise URLError("no route")

        monkeypatch.setattr(utils, "download_and_extract_archive", fail)
        with pytest.raises(MissingDataError, match=rf"put it into {tmp_path} and repeat this command$"):
            CIFAR10().prepare(tmp_path)

    def test_from_scratch_is_part_of_the_protocol(self):
        assert CIFAR10().protocol.pretrained
        assert not CIFAR10(pretrained=False).protocol.pretrained


class Danger:
    def __reduce__(self):
        return pytest.fail, ("ran code from a pickle",)


def test_unpickler_reads_arrays_and_rejects_everything_else():
    # What Python 2 and an early NumPy write for {"data": [[0, 1, 2], [3, 4, 5]] of bytes, "labels": [7]}.
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    array = empty + b"(K\x01K\x02K\x03\x86" + dtype + b"\x89U\x06\x00\x01\x02\x03\x04\x05tb"
    found = unpickle(b"\x80\x02}U\x04data" + array + b"sU\x06labels]K\x07as.")
    assert np.array_equal(found["data"], np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert found["data"].dtype == np.uint8
    assert found["labels"] == [7]
    with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
        unpickle(pickle.dumps({"data": Danger()}))
    with pytest.raises(pickle.UnpicklingError, match="expected a dictionary"):
        unpickle(pickle.dumps([1, 2]))


def test_enlarging_equals_pillow_for_every_byte():
    pixels = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[0], pixels[1] = 0, 255
    found = _ten_classes.enlarge(pixels)
    assert all(np.array_equal(image[0], pillow(small[0])) for image, small in zip(found, pixels, strict=True))


@pytest.mark.parametrize("dataset", [Digits, MNIST, CIFAR10])
def test_protocols_are_the_published_ones(dataset):
    protocol = dataset().protocol
    assert (protocol.version, protocol.classes, protocol.judge_classes) == (2, 5, 10)
    assert (protocol.attacked, protocol.group, protocol.draws, protocol.trials, protocol.reference) == (
        5,
        5,
        100,
        5,
        100,
    )
    grey = dataset is not CIFAR10
    assert protocol.image == ((1, 32, 32) if grey else (3, 32, 32))
    networks = (protocol.target_network, protocol.judge_network)
    assert networks == (("mcnn", "scnn") if grey else ("vgg16_bn", "vgg19_bn"))
    assert protocol.second_judge_network == ("lenet5" if grey else "resnet34")
    assert (protocol.sampler, protocol.augmentation) == ("shuffle", "none" if grey else "crop_flip")
    assert protocol.pretrained is not grey
    changed = dataset(draws=3, trials=2, attacked=4).protocol
    assert (changed.draws, changed.trials, changed.attacked) == (3, 2, 4)


@pytest.mark.parametrize("dataset", [Digits, MNIST])
def test_published_recipe_of_the_judge(dataset):
    recipe = dataset().judge
    assert (recipe.optimizer, recipe.learning_rate, recipe.momentum, recipe.nesterov) == ("sgd", 0.01, 0.5, True)
    assert (recipe.epochs, recipe.milestones, recipe.gamma, recipe.batch_size) == (30, (25,), 0.2, 64)


@pytest.mark.parametrize("dataset", [Digits(), MNIST(), CIFAR10()])
def test_training_does_not_depend_on_draws_and_trials(dataset):
    other = type(dataset)(draws=3, trials=2, attacked=4)
    for stage in ("judge", "target", "prior"):
        assert dataset.config(stage) == other.config(stage)
    for stage in ("evidence", "scores"):
        assert dataset.config(stage) != other.config(stage)


@pytest.fixture
def synthetic_mnist(tmp_path, monkeypatch):
    """A tiny MNIST: twenty training images and ten test images."""
    folder = tmp_path / "made" / mnist.FOLDER
    folder.mkdir(parents=True)
    contents = {}
    for prefix, labels, extra in (("train", list(range(10)) * 2, 0), ("t10k", list(range(10)), 1)):
        values = np.array(labels, dtype=np.uint8)
        images = np.broadcast_to((10 * values + extra)[:, None, None], (len(labels), 28, 28))
        contents[f"{prefix}-images-idx3-ubyte"] = idx(images)
        contents[f"{prefix}-labels-idx1-ubyte"] = idx(values)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    facts = {name: (len(content), hashlib.md5(content).hexdigest()) for name, content in contents.items()}
    monkeypatch.setattr(mnist, "CONTENTS", facts)
    return tmp_path / "made"


def idx(values):
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def pillow(pixels):
    return np.asarray(Image.fromarray(np.asarray(pixels)).resize((32, 32), Image.Resampling.BILINEAR))


def skip_without(path):
    if not path.exists():
        pytest.skip(f"no real data at {path.name}")
