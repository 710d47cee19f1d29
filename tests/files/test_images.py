"""The reader of images: every form of JPEG and PNG, and what it says of all other files."""

import io
import subprocess
import tracemalloc
import zlib

import numpy as np
import pytest
from helpers.encoded_images import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, chunk, empty, header, png
from PIL import EpsImagePlugin, Image, ImageCms, ImageOps
from privbench.benchmark.files import images
from privbench.benchmark.files.images import looks_whole, other_kind, read_image

GENERATOR = np.random.default_rng(0)
#: A picture without symmetry, 5 x 4.
PICTURE = GENERATOR.integers(0, 256, (4, 5, 3), dtype=np.uint8)


def pixels(content: bytes) -> np.ndarray:
    image = read_image(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def saved(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return 255 - (255 - colours.astype(float)) * alpha / 255


class TestPng:
    @pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("transparent", [False, True])
    def test_grey(self, depth, transparent):
        samples = GENERATOR.integers(0, 2**depth, (6, 7, 1))
        key = int(samples[2, 3, 0])
        content = png(samples, depth, GREY, *([chunk(b"tRNS", key.to_bytes(2, "big"))] if transparent else []))
        # The high byte of 16 bits; fewer than 8 bits are spread evenly over 0 .. 255.
        grey = samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)
        expected = np.where(samples == key, 255, grey) if transparent else grey
        assert np.array_equal(pixels(content), expected.repeat(3, axis=2))

    def test_a_ramp_of_16_bits_stays_a_ramp(self):
        ramp = np.linspace(0, 65535, 4096).reshape(64, 64, 1).astype(np.uint16)
        found = pixels(png(ramp, 16, GREY))[..., 0]
        assert np.abs(found - ramp[..., 0] / 257).max() < 1
        assert (found.min(), found.max(), found.mean()) == (0, 255, 127.5)

    @pytest.mark.parametrize("depth", [8, 16])
    def test_colours(self, depth):
        samples = GENERATOR.integers(0, 2**depth, (6, 7, 3))
        assert np.array_equal(pixels(png(samples, depth, RGB)), samples >> depth - 8)

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    @pytest.mark.parametrize("transparent", [False, True])
    def test_palette(self, depth, transparent):
        palette = GENERATOR.integers(0, 256, (2**depth, 3), dtype=np.uint8)
        alpha = GENERATOR.integers(0, 256, 2**depth, dtype=np.uint8) if transparent else np.full(2**depth, 255)
        alpha[0] = 255
        index = GENERATOR.integers(0, 2**depth, (6, 7, 1))
        chunks = [chunk(b"PLTE", palette.tobytes())]
        chunks += [chunk(b"tRNS", alpha.astype(np.uint8).tobytes())] if transparent else []
        expected = on_white(palette[index[..., 0]], alpha[index])
        assert np.abs(pixels(png(index, depth, PALETTE, *chunks)) - expected).max() <= 0.5 + 1e-9

    @pytest.mark.parametrize("depth", [8, 16])
    @pytest.mark.parametrize("colour", [GREY_ALPHA, RGBA])
    def test_alpha_shows_white(self, depth, colour):
        samples = GENERATOR.integers(0, 2**depth, (6, 7, 2 if colour == GREY_ALPHA else 4))
        samples[0, :, -1] = 0
        samples[1, :, -1] = 2**depth - 1
        found = pixels(png(samples, depth, colour))
        bytes_ = samples >> depth - 8
        assert np.abs(found - on_white(bytes_[..., :-1], bytes_[..., -1:])).max() <= 0.5 + 1e-9
        assert (found[0] == 255).all()
        assert (found[1] == bytes_[1, :, :-1]).all()

    def test_transparent_colour(self):
        content = png(PICTURE, 8, RGB, chunk(b"tRNS", b"".join(b"\0" + bytes([v]) for v in PICTURE[1, 2])))
        expected = PICTURE.copy()
        expected[1, 2] = 255
        assert np.array_equal(pixels(content), expected)

    def test_transparent_colour_of_16_bits_is_refused(self):
        content = png(PICTURE.astype(int) * 257, 16, RGB, chunk(b"tRNS", bytes(6)))
        assert fault(content) == "has 16 bits and a transparent colour; save it with 8 bits or an alpha channel"

    def test_animation_is_refused_and_one_frame_is_not(self):
        frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
        assert fault(saved(frames[0], save_all=True, append_images=frames[1:])) == (
            "is an animation; save one picture of it as an image"
        )
        assert np.array_equal(pixels(saved(frames[0], save_all=True)), PICTURE)


class TestJpeg:
    def test_grey_colours_and_cmyk(self):
        flat = {"L": (90,), "RGB": (200, 40, 90), "CMYK": (0, 255, 255, 0)}
        shown = {"L": (90, 90, 90), "RGB": (200, 40, 90), "CMYK": (255, 0, 0)}
        for mode, colour in flat.items():
            image = Image.new(mode, (16, 16), colour if len(colour) > 1 else colour[0])
            assert np.abs(pixels(saved(image, "JPEG", quality=100)) - np.array(shown[mode], float)).max() <= 2

    def test_profiles_are_not_applied(self):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        image = Image.fromarray(PICTURE)
        assert np.array_equal(pixels(saved(image, icc_profile=profile)), PICTURE)

    def test_first_picture_of_several(self):
        first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
        content = saved(first, "MPO", save_all=True, append_images=[second])
        assert np.abs(pixels(content) - np.array([255.0, 0, 0])).max() <= 2


class TestOrientation:
    @pytest.mark.parametrize("format", ["PNG", "JPEG"])
    @pytest.mark.parametrize("orientation", range(10))
    def test_pixels_are_upright(self, format, orientation):
        image = Image.fromarray(PICTURE.repeat(16, 0).repeat(16, 1))
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = saved(image, format, exif=exif, **({"quality": 95} if format == "JPEG" else {}))
        with Image.open(io.BytesIO(content)) as plain:
            expected = np.asarray(ImageOps.exif_transpose(plain))
        assert np.array_equal(pixels(content), expected)
        assert pixels(content).shape[:2] == ((80, 64) if 5 <= orientation <= 8 else (64, 80))

    def test_metadata_that_cannot_be_read_says_nothing(self):
        content = saved(Image.fromarray(PICTURE), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        assert np.array_equal(pixels(content), PICTURE)


class TestWhatIsNotRead:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is an empty file and not a JPEG or PNG image"),
            (b"\xef\xbb\xbf <!DOCTYPE html><title>Quota", "is a web page and not a JPEG or PNG image"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing and not a JPEG or PNG image"),
            (b"%PDF-1.7", "is a PDF document and not a JPEG or PNG image"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "is a WebP picture and not a JPEG or PNG image"),
            (b"\0\0\0\x18ftypheic", "is a HEIC or AVIF picture or a video and not a JPEG or PNG image"),
            (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, which only names the file"),
            (b"\0" * 50, "is another kind of file and not a JPEG or PNG image"),
            (b"\x89PNG\r\n\x1a\n", "is cut off or damaged in its header"),
            (b"\xff\xd8\xff\xe0", "is cut off or damaged in its header"),
            (saved(Image.fromarray(PICTURE))[:45], "is cut off or damaged"),
            (saved(Image.new("RGB", (99, 99)), "JPEG")[:-60], "is cut off or damaged (image file is truncated"),
        ],
    )
    def test_it_is_named(self, content, said):
        assert fault(content).startswith(said)

    @pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
    def test_other_pictures_are_named(self, format):
        content = saved(Image.new("RGB", (16, 16)), format)
        assert "another kind" not in fault(content)
        assert other_kind(content).startswith("a ")

    def test_postscript_never_reaches_its_interpreter(self, monkeypatch):
        monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
        monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
        content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
        assert fault(content) == "is a PostScript drawing and not a JPEG or PNG image"

    @pytest.mark.parametrize(
        "content",
        [empty(30_000, 30_000), header(5, 4, 8) + empty(12_000, 12_000)[8:], empty(7_100, 7_100)],
        ids=["900 million", "a second header", "a few more than the limit"],
    )
    def test_too_many_pixels_are_not_decoded(self, content):
        tracemalloc.start()
        assert "50,000,000" in fault(content)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()

    def test_a_large_jpeg_is_not_decoded(self):
        content = bytearray(saved(Image.new("L", (8, 8)), "JPEG"))
        frame = content.index(b"\xff\xc0") + 5
        content[frame : frame + 4] = b"\xff\xff\xff\xff"
        assert fault(bytes(content)) == "has more than 50,000,000 pixels"

    def test_large_files_are_not_parsed(self, monkeypatch):
        monkeypatch.setattr(images, "MAX_BYTES", 2 << 20)
        assert fault(bytes(3 << 20)) == "has more than 2 MiB"

    def test_text_that_would_fill_the_memory(self):
        bomb = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(3 << 20)))
        assert "damaged" in fault(png(PICTURE, 8, RGB, bomb))


def test_ends_of_files():
    for format in ("PNG", "JPEG"):
        content = saved(Image.fromarray(PICTURE), format)
        assert looks_whole(content[:24], content[-12:])
        assert not any(looks_whole(content[:24], content[:n][-12:]) for n in range(30, len(content) - 8))
    bomb = empty(30_000, 30_000)
    assert not looks_whole(bomb[:24], bomb[-12:])
    assert not looks_whole(b"", b"")


def fault(content: bytes) -> str:
    with pytest.raises(ValueError, match=r"^(is|has) ") as info:
        read_image(content)
    assert str(info.value).isprintable()
    return str(info.value)
