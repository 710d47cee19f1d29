"""CelebA with VMI's split, the crop, and cutout."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.datasets import _celeba_files, celeba_vmi
from privbench.benchmark.datasets._identity_faces import by_identity
from privbench.benchmark.datasets.celeba_vmi import CelebAVMI, choose
from privbench.benchmark.errors import MissingDataError
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.training.batches import Batches, augment

PARTS = ("private_train", "private_test", "public")
#: How many identities of the release have so many images, and 30 or more; the others have fewer.
MOST = {30: 2343, 31: 9, 32: 3, 34: 2, 35: 3}


class TestPublishedSplit:
    """Published counts: 25,000 training and 5,038 test images of 1000 identities, 172,561 others."""

    @pytest.fixture(scope="class")
    @classmethod
    def listing(cls):
        sizes = [size for size, count in MOST.items() for _ in range(count)]
        left, rest = _celeba_files.COUNT - sum(sizes), 10_177 - len(sizes)
        sizes += [left // rest + (i < left % rest) for i in range(rest)]
        assert max(sizes[sum(MOST.values()) :]) < 30
        order = np.random.default_rng(0).permutation(len(sizes))
        owners = np.random.default_rng(1).permutation(np.repeat(order + 1, sizes))
        return {f"{number:06d}.jpg": int(identity) for number, identity in enumerate(owners, 1)}

    @pytest.fixture(scope="class")
    @classmethod
    def split(cls, listing):
        return CelebAVMI().split(listing)

    def test_counts(self, split):
        counts = {part: len(names) for part, names in split.parts.items()}
        assert counts == {"private_train": 25_000, "private_test": 5_038, "public": 172_561}

    def test_identities_are_the_released_sort_made_stable(self, listing, split):
        numbers = np.arange(1, 10_178)
        counts = np.bincount(list(listing.values()), minlength=10_178)[1:]
        assert split.identities == tuple(numbers[np.argsort(counts, kind="stable")][-1000:])

    def test_parts(self, listing, split):
        assert sorted(name for names in split.parts.values() for name in names) == sorted(listing)
        assert not {listing[name] for name in split.parts["public"]} & set(split.identities)
        groups = by_identity(listing)
        for label, identity in enumerate(split.identities):
            train = split.parts["private_train"][25 * label : 25 * label + 25]
            assert list(train) == groups[identity][:25]

    def test_the_order_of_the_list_does_not_matter(self, listing, split):
        assert choose(dict(reversed(listing.items()))) == split

    def test_smaller_copies_are_rejected(self, listing):
        with pytest.raises(
            MissingDataError, match=r"^expected celeba_vmi to have 202,599 images, got 1; download all of"
        ):
            CelebAVMI().split({"000001.jpg": 1})
        few = {name: identity for name, identity in listing.items() if identity <= 1000}
        with pytest.raises(
            MissingDataError, match="to have 1000 identities with more than 25 images and one more, got"
        ):
            choose(few)


def test_protocol():
    protocol = CelebAVMI().protocol
    assert (protocol.id, protocol.image, protocol.classes, protocol.judge_classes) == (
        "celeba_vmi/v2",
        (3, 64, 64),
        1000,
        1000,
    )
    assert (protocol.target_network, protocol.judge_network) == ("resnet34", "facenet")
    assert protocol.second_judge_network == "vgg16_bn"
    assert (protocol.pretrained, protocol.judge_pretrained) == (False, True)
    starts = [protocol.starts_from_published(role) for role in ("target", "judge", "second_judge")]
    assert starts == [False, True, True]
    assert CelebAVMI(pretrained=False).protocol.judge_pretrained is False
    assert (protocol.sampler, protocol.augmentation, protocol.face_box) == ("shuffle", "cutout", (25, 45, 128, 128))
    assert (protocol.attacked, protocol.draws, protocol.trials) == (20, 100, 1)
    recipe = CelebAVMI().judge
    assert (recipe.learning_rate, recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.01, 0.9, True, 5e-4)
    assert (recipe.epochs, recipe.batch_size, recipe.milestones) == (28, 64, ())


def test_of_nearby_numbers_only_twenty_identities_explain_the_printed_accuracies():
    printed = (36.90, 29.05, 29.45, 30.25, 61.50, 51.05, 54.25, 53.35)
    fitting = [k for k in range(15, 31) if all(round(round(v * k) / k, 2) == v for v in printed)]
    assert fitting == [CelebAVMI().attacked]


def test_the_defenses_of_table_4_resolve():
    defenses = tuple(Selection(name, "vmi") for name in ("none", "mid", "bido_coco", "bido_hsic"))
    matrix = Matrix((Selection("celeba_vmi"),), defenses, (Selection("vmi"),), (Selection("accuracy"),), budget="full")
    for cell in matrix.cells()[: len(defenses)]:
        assert cell.attack.component.generator == "stylegan"
        recipe = cell.defense.component.recipe
        assert (recipe.weight_decay, recipe.epochs) == (5e-4, 200 if cell.defense.name == "none" else 100)


def test_load(tmp_path, monkeypatch):
    """Load a synthetic release: crop, labels and parts."""
    monkeypatch.setattr(celeba_vmi, "CLASSES", 2)
    monkeypatch.setattr(celeba_vmi, "TRAIN", 2)
    monkeypatch.setattr(CelebAVMI, "published", {})
    monkeypatch.setattr(_celeba_files, "COUNT", 9)
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    coarse = np.random.default_rng(0).integers(0, 256, (9, 22, 18, 3), dtype=np.uint8)
    pictures = np.kron(coarse, np.ones((1, 10, 10, 1), dtype=np.uint8))[:, :218, :178]
    # Identities 4 and 2 have the most images, 4 of four images, 2 of three; 3 and 1 have one each.
    owners = (4, 2, 4, 3, 2, 4, 1, 4, 2)
    names = [f"{number:06d}.jpg" for number in range(1, 10)]
    contents = []
    for name, picture in zip(names, pictures, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG")
        (folder / "img_align_celeba" / name).write_bytes(buffer.getvalue())
        contents.append(buffer)
    (folder / "identity_CelebA.txt").write_text("".join(f"{n} {i}\n" for n, i in zip(names, owners, strict=True)))
    (folder / "list_attr_celeba.txt").write_text("9\nBald\n" + "".join(f"{name} -1\n" for name in names))
    images = {part: CelebAVMI().load(part, tmp_path) for part in PARTS}
    assert images["private_train"].labels.tolist() == [0, 0, 1, 1]
    assert images["private_train"].identities.tolist() == [2, 2, 4, 4]
    assert images["private_test"].labels.tolist() == [0, 1, 1]
    assert images["public"].labels is None
    assert images["public"].identities.tolist() == [3, 1]
    chosen = {"private_train": (1, 4, 0, 2), "private_test": (8, 5, 7), "public": (3, 6)}
    for part, indices in chosen.items():
        for pixels, index in zip(images[part].pixels, indices, strict=True):
            with Image.open(contents[index]) as image:
                centre = np.asarray(image)[45:173, 25:153]
            small = Image.fromarray(centre).resize((64, 64), Image.Resampling.BILINEAR)
            assert np.array_equal(pixels.permute(1, 2, 0), small)


class TestCutout:
    @pytest.fixture(scope="class")
    @classmethod
    def hidden(cls):
        """Which pixels of 20,000 white images of 8 x 8 are black afterwards."""
        white = torch.full((20_000, 3, 8, 8), 255, dtype=torch.uint8)
        black = augment(white, "cutout", torch.Generator().manual_seed(0)) == 0
        assert torch.equal(black.all(1), black.any(1))
        assert (white == 255).all()
        return black[:, 0]

    def test_a_box_of_half_the_side_clipped_at_the_border(self, hidden):
        rows, columns = hidden.any(2), hidden.any(1)
        assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :])
        for line in (rows, columns):
            starts = (line.int().diff(prepend=torch.zeros(len(line), 1, dtype=torch.int), dim=1) == 1).sum(1)
            assert starts.eq(1).all()
            # The middle is 0 .. 8, and two positions before it to one after it are hidden: 2 3 4 4 4 4 4 3 2 rows.
            counts = torch.bincount(line.sum(1), minlength=9)
            expected = torch.tensor([0, 0, 2, 2, 5, 0, 0, 0, 0]) * 20_000 / 9
            assert torch.allclose(counts.double(), expected.double(), atol=5 * 20_000**0.5 / 2)
            assert counts[expected == 0].sum() == 0

    def test_every_pixel_is_hidden_as_often_as_the_box_covers_it(self, hidden):
        # Row r is covered by the middles r - 1 .. r + 2 of 0 .. 8: three for the first and last row, four for others.
        covered = torch.tensor([sum(m - 2 <= r <= m + 1 for m in range(9)) for r in range(8)]) / 9
        expected = covered[:, None] * covered[None, :]
        assert torch.allclose(hidden.double().mean(0), expected.double(), atol=5 * 0.5 / 20_000**0.5)

    def test_box_of_an_odd_side(self):
        # Half of 7 is 3: a middle of 0 .. 6 and its neighbours.
        white = torch.full((2000, 1, 7, 7), 255, dtype=torch.uint8)
        rows = (augment(white, "cutout", torch.Generator().manual_seed(1)) == 0)[:, 0].any(2)
        assert sorted({tuple(row.nonzero().flatten().tolist()) for row in rows}) == sorted(
            tuple(r for r in (m - 1, m, m + 1) if 0 <= r < 7) for m in range(7)
        )

    def test_batches(self):
        images = Images(torch.full((6, 3, 64, 64), 255, dtype=torch.uint8), torch.arange(6))
        made = Batches(images, 6, 3, augmentation="cutout")
        x, y = made.at(4)
        again, _ = Batches(images, 6, 3, augmentation="cutout").at(4)
        assert torch.equal(x, again)
        assert sorted(y.tolist()) == list(range(6))
        share = 1 - x.mean((1, 2, 3))
        assert 1 / 16 <= share.min() < share.max() <= 1 / 4
        assert images.pixels.min() == 255
