"""Copies of CelebA as people have them: each is read as the sound one, or named for what it is, by every command."""

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import command_line
from PIL import Image
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.datasets import celeba_subset
from privbench.benchmark.datasets._attributes import ATTRIBUTES
from privbench.benchmark.datasets.celeba_attributes_subset import CelebAAttributesSubset
from privbench.benchmark.datasets.celeba_subset import CelebASubset
from privbench.benchmark.errors import MissingDataError

#: Identities of a copy, six of them private, with five images each.
IDENTITIES = 7
NAMES = {f"{number:06d}.jpg": number // 5 + 1 for number in range(1, 5 * IDENTITIES)}
PARTS = ("private_test", "public")
DATASETS = (CelebASubset, CelebAAttributesSubset)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A copy as it is released, in flat colours."""
    folder = tmp_path_factory.mktemp("sound") / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for name, identity in NAMES.items():
        colour = np.array([identity * 20, 255 - int(name[:6]) * 4, identity], np.uint8)
        Image.fromarray(np.broadcast_to(colour, (218, 178, 3))).save(folder / "img_align_celeba" / name, quality=95)
    (folder / "identity_CelebA.txt").write_text("".join(f"{name} {identity}\n" for name, identity in NAMES.items()))
    rows = [" ".join([name, *values(name)]) for name in NAMES]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(NAMES)), " ".join(ATTRIBUTES), *rows]) + "\n")
    return folder.parent


@pytest.fixture(scope="module")
def expected(sound, tmp_path_factory) -> dict[tuple[type, str], Images]:
    """What the sound copy holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(celeba_subset, "CLASSES", 6)
        patch.setenv("PRIVBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {(kind, part): kind().load(part, sound) for kind in DATASETS for part in PARTS}


@pytest.fixture
def root(sound, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(celeba_subset, "CLASSES", 6)
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path / "cache"))
    shutil.copytree(sound, tmp_path / "data", copy_function=os.link)
    return tmp_path / "data"


def values(name: str) -> list[str]:
    """The attributes of an image: one bit of its number each."""
    return ["1" if int(name[:6]) >> bit & 1 else "-1" for bit in range(40)]


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def nested(folder: Path) -> None:
    (folder / "img_align_celeba").rename(folder / "inner")
    (folder / "img_align_celeba").mkdir()
    (folder / "inner").rename(folder / "img_align_celeba" / "img_align_celeba")


def kaggle(folder: Path) -> None:
    nested(folder)
    (folder / "list_attr_celeba.txt").unlink()
    rows = [",".join([name, *values(name)]) for name in NAMES]
    (folder / "list_attr_celeba.csv").write_text("\n".join([",".join(["image_id", *ATTRIBUTES]), *rows]) + "\n")


def crlf(folder: Path) -> None:
    for name in ("identity_CelebA.txt", "list_attr_celeba.txt"):
        replace(folder / name, (folder / name).read_bytes().replace(b"\n", b"\r\n"))


def mark(folder: Path) -> None:
    for name in ("identity_CelebA.txt", "list_attr_celeba.txt"):
        replace(folder / name, b"\xef\xbb\xbf" + (folder / name).read_bytes())


def utf16(folder: Path) -> None:
    replace(folder / "identity_CelebA.txt", (folder / "identity_CelebA.txt").read_text().encode("utf-16"))


def png(folder: Path) -> None:
    for path in (folder / "img_align_celeba").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()


def archive_of_everything(folder: Path) -> None:
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as opened:
        for path in sorted((folder / "img_align_celeba").iterdir()):
            opened.write(path, f"celeba/img_align_celeba/{path.name}")
            opened.writestr(f"__MACOSX/celeba/img_align_celeba/{path.name}", "resources of a Mac")
        opened.writestr("list_eval_partition.csv", "image_id,partition\n")
    shutil.rmtree(folder / "img_align_celeba")


@pytest.mark.parametrize("change", [nested, kaggle, crlf, mark, utf16, png, archive_of_everything])
def test_copies_that_are_read(root, expected, change):
    change(root / "celeba")
    for kind in DATASETS:
        assert kind().check(root) == []
        assert kind().fingerprint(root)
    for (kind, part), images in expected.items():
        found = kind().load(part, root)
        assert torch.equal(found.pixels, images.pixels)
        assert torch.equal(found.attributes, images.attributes)
        assert torch.equal(found.identities, images.identities)


def test_marks_and_line_ends_are_not_part_of_the_key(root):
    key = CelebASubset().fingerprint(root)
    crlf(root / "celeba")
    mark(root / "celeba")
    assert CelebASubset().fingerprint(root) == key


@pytest.mark.parametrize("change", [crlf, mark])
def test_published_checksums_hold_for_text_of_other_systems(root, change, monkeypatch):
    folder = root / "celeba"
    published = {name: md5(folder / name) for name in ("identity_CelebA.txt", "list_attr_celeba.txt")}
    monkeypatch.setattr(CelebASubset, "published", published)
    key = CelebASubset().fingerprint(root)
    change(folder)
    assert CelebASubset().fingerprint(root) == key
    with (folder / "identity_CelebA.txt").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(MissingDataError, match=r"identity_CelebA\.txt is damaged or another version, MD5 "):
        CelebASubset().fingerprint(root)


def test_no_attributes_where_only_identities_count(root):
    (root / "celeba" / "list_attr_celeba.txt").unlink()
    assert CelebASubset().check(root) == []
    images = CelebASubset().load("private_train", root)
    assert images.attributes is None
    assert images.labels is not None
    assert "list_attr_celeba.txt is missing: download" in CelebAAttributesSubset().check(root)[0]


def empty_csv(folder: Path) -> str:
    (folder / "list_attr_celeba.txt").unlink()
    (folder / "list_attr_celeba.csv").write_text("image_id,5_o_Clock_Shadow\n")
    return "list_attr_celeba.csv lists 0 images and lacks 34 of 34, such as 0000"


def small(folder: Path) -> str:
    for path in (folder / "img_align_celeba").iterdir():
        with Image.open(path) as image:
            copy = image.resize((64, 64))
        path.unlink()
        copy.save(path)
    return "has 64 x 64 pixels and not 178 x 218: it is resized, cropped or not aligned; replace it: download"


def cut(folder: Path) -> str:
    path = folder / "img_align_celeba" / "000003.jpg"
    replace(path, path.read_bytes()[: path.stat().st_size // 2])
    return "000003.jpg is cut off or damaged (image file is truncated"


def web_page_of_an_image(folder: Path) -> str:
    replace(folder / "img_align_celeba" / "000004.jpg", b"<!DOCTYPE html><title>Not found</title>")
    return "000004.jpg is a web page and not a JPEG or PNG image; replace it: download"


def web_page(folder: Path) -> str:
    shutil.rmtree(folder / "img_align_celeba")
    (folder / "img_align_celeba.zip").write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    return "img_align_celeba.zip is a web page that was saved instead of the file; delete it and download"


def without_identities(folder: Path) -> str:
    (folder / "identity_CelebA.txt").unlink()
    return "identity_CelebA.txt is missing: download identity_CelebA.txt of CelebA in a browser ("


def half_an_archive(folder: Path) -> str:
    archive_of_everything(folder)
    path = folder / "img_align_celeba.zip"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "img_align_celeba.zip is truncated or not a zip archive; delete it and download"


def encrypted(folder: Path) -> str:
    archive_of_everything(folder)
    change_members(folder, 8, b"\x01\0")
    return "img_align_celeba.zip is encrypted at celeba/img_align_celeba/0000"


def unknown_compression(folder: Path) -> str:
    archive_of_everything(folder)
    change_members(folder, 10, b"\x63\0")
    return ".jpg in compression 99, not stored or deflated; delete it and download"


def huge_members(folder: Path) -> str:
    archive_of_everything(folder)
    change_members(folder, 24, (1_500_000_000).to_bytes(4, "little"))
    return ".jpg of 1,500,000,000 bytes, more than 64 MiB; delete it and download"


def change_members(folder: Path, position: int, value: bytes) -> None:
    """Overwrite a field of each entry in the directory of the archive."""
    content = bytearray((folder / "img_align_celeba.zip").read_bytes())
    found = content.find(b"PK\x01\x02")
    while found >= 0:
        content[found + position : found + position + len(value)] = value
        found = content.find(b"PK\x01\x02", found + 1)
    (folder / "img_align_celeba.zip").write_bytes(content)


FAULTS = (empty_csv, small, cut, web_page_of_an_image, web_page, without_identities, half_an_archive)
OF_ARCHIVES = (encrypted, unknown_compression, huge_members)


@pytest.mark.parametrize("fault", [*FAULTS, *OF_ARCHIVES])
def test_copies_that_are_named_for_what_they_are(root, fault, monkeypatch):
    said = fault(root / "celeba")
    monkeypatch.setattr("privbench.benchmark.registry.names", lambda kind: {"dataset": ["celeba_subset"]}.get(kind, []))
    monkeypatch.setattr("privbench.benchmark.doctor._weights", list)
    words = ("--dataset", "celeba_subset", "--set", "dataset.pretrained=false", "--defense", "none", "--attack", "gmi")
    found = command_line.run("data", "check", "celeba_subset", "--data", root)
    assert found.code == 1
    assert said in found.out
    assert found.out.count("\n") == 1
    assert said in command_line.run("data", "prepare", "celeba_subset", "--data", root).err.splitlines()[-1]
    for command in ("plan", "run"):
        assert said in command_line.refusal(command, *words, "--data", root, "--no-controls")
    assert said in command_line.run("doctor", "--json", "--data", root).out


@pytest.mark.parametrize("stated", [1000, 2 << 20])
def test_a_member_of_another_size_than_stated_is_refused(root, stated):
    folder = root / "celeba"
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for name in NAMES:
            opened.writestr(name, bytes(1 << 20))
    shutil.rmtree(folder / "img_align_celeba")
    change_members(folder, 24, stated.to_bytes(4, "little"))
    (problem,) = CelebASubset().check(root)
    assert "img_align_celeba.zip is damaged at 0000" in problem


def test_pipes_are_not_waited_for(root):
    for name in ("identity_CelebA.txt", "list_attr_celeba.txt"):
        (root / "celeba" / name).unlink()
        os.mkfifo(root / "celeba" / name)
    assert [("cannot be read (not a regular file)" in problem) for problem in CelebASubset().check(root)] == [True] * 2
    with pytest.raises(MissingDataError, match="not a regular file"):
        CelebASubset().fingerprint(root)


def test_pixels_of_the_former_reader_are_not_served(root, tmp_path):
    folder = tmp_path / "extra"
    folder.mkdir()
    ramp = np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    (folder / "ramp.png").write_bytes(buffer.getvalue())
    dataset = CelebAAttributesSubset(extra=folder)
    shown = dataset.load("public", root).pixels[-1]
    assert torch.equal(shown[0], torch.from_numpy(ramp >> 8).to(torch.uint8))
    key, kept = dataset.fingerprint(root), set((tmp_path / "cache" / "datasets").iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privbench.benchmark.files.images.VERSION", 1)
        assert dataset.fingerprint(root) != key
        dataset.load("public", root)
    assert len(set((tmp_path / "cache" / "datasets").iterdir()) - kept) == 2


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
