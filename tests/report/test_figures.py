"""Figures show what records say: every image in its place, every point at its value, equal bytes for equal input."""

import io
import random
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers import samples
from PIL import Image
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.errors import InvalidConfigurationError, UnknownComponentError
from privbench.benchmark.report.figures import image_figures, labels, tradeoff_figure
from privbench.benchmark.report.figures.image_figures import Cloud, Strip
from privbench.benchmark.report.figures.style import COLOURS, MARKERS, across, encode, lines_of, width_of
from privbench.benchmark.report.figures.tradeoff import tradeoff
from privbench.benchmark.report.figures.tsne import tsne


def score(name, measures, better, unit, value, **more):
    definition = {"name": name, "title": name.upper(), "measures": measures, "better": better, "unit": unit}
    definition |= {"formula": "f", "range": "r"}
    reason = "it is undefined" if value is None else None
    return {"evaluator": "accuracy", "definition": definition, "value": value, "n": 9, "reason": reason} | more


def swept(defense="adversarial_reconstruction", mcc=0.6, ssim=0.3, attack="decoder", seed=0, layer=None, **fields):
    """A record with utility and leakage of an attack on features."""
    scores = {
        "mcc": score("mcc", "utility", "higher", "similarity", mcc, interval=mcc and [mcc - 0.05, mcc + 0.04]),
        "ssim": score("ssim", "leakage", "lower", "similarity", ssim, interval=ssim and [ssim - 0.02, ssim + 0.02]),
        "psnr": score("psnr", "leakage", "lower", "decibel", 13.2),
    }
    defended = samples.choice(defense, recipe={"epochs": 3}, **fields)
    cell = {"defense": defended, "attack": samples.choice(attack, layer=layer)}
    return samples.make_record(defense, attack, seed, cell=cell, scores=scores, protocol="toy_faces/v1")


def together(*records):
    return Records(tuple(records), tuple(Path(f"{record.key}.json") for record in records))


SWEEP = [swept(mcc=0.6 - 0.05 * x, ssim=0.3 - 0.02 * x, lambda_1=1.0, lambda_2=float(x)) for x in (10, 0, 2, 1)]


def test_labels_say_what_differs_and_captions_what_does_not():
    ordered = labels.arranged(SWEEP)
    assert labels.labels(ordered) == [(f"lambda_2 = {x}",) for x in (0, 1, 2, 10)]
    shared = ("toy_faces/v1", "defense adversarial_reconstruction", "attack decoder", "budget quick", "seed 0")
    assert labels.shared(ordered) == shared
    mixed = labels.arranged([swept(lambda_2=1.0, seed=1), swept("none"), swept(lambda_2=0.0, seed=1)])
    assert labels.labels(mixed) == [
        ("none", "seed 0"),
        ("adversarial_reconstruction", "lambda_2 = 0", "seed 1"),
        ("adversarial_reconstruction", "lambda_2 = 1", "seed 1"),
    ]
    assert labels.shared(mixed) == ("toy_faces/v1", "attack decoder", "budget quick")


def test_cut_layers_are_named_once_and_a_lone_record_by_its_defense():
    layers = ["fc", "conv10", "conv2", None]
    found = labels.arranged([swept("mid", layer=layer, layer_of_defense=layer) for layer in layers])
    words = [f"layer_of_defense = {x}" for x in ("conv2", "conv10", "fc", "none")]
    assert [label[0] for label in labels.labels(found)] == words
    assert [label[1] for label in labels.labels(found)] == [
        "layer = conv2",
        "layer = conv10",
        "layer = fc",
        "layer = last",
    ]
    assert labels.labels([SWEEP[0]]) == [("adversarial_reconstruction",)]


def test_versions_of_one_component_are_told_apart():
    cell = {"attack": samples.choice("kedmi", 2, iterations=300)}
    found = labels.labels([samples.make_record(), samples.make_record(cell=cell)])
    assert found == [("kedmi version 1 of privbench",), ("kedmi version 2 of privbench",)]


def test_order_does_not_depend_on_the_order_of_files():
    records = [*SWEEP, swept("none"), swept("mid", seed=3), swept("mid", seed=1)]
    expected = [record.key for record in labels.arranged(records)]
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert [record.key for record in labels.arranged(records)] == expected
    assert labels.arranged(records)[0].cell.defense.name == "none"


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 64, 64), (3, 30, 20), (3, 150, 150)])
@pytest.mark.parametrize("original", [False, True])
def test_every_pixel_of_every_image_is_in_its_place(channels, height, width, original):
    generator = np.random.default_rng(0)
    strips = [
        Strip(name, generator.integers(0, 256, (3, channels, height, width), dtype=np.uint8))
        for name in (("original",), ("a",), ("adversarial_reconstruction", "lambda_2 = 3"))
    ]
    before = [strip.pixels.copy() for strip in strips]
    figure = image_figures.grid(strips, ["caption"], headings=["x", "y", "z"], first_is_original=original)
    shown = opened(encode(figure, "png"))
    factor = max(1, image_figures.TILE // max(height, width))
    right, bottom = shown.shape[1] - image_figures._MARGIN, shown.shape[0] - image_figures._MARGIN
    canvas, tops = image_figures._canvas(strips, original)
    left, top = figures_left(figure, canvas), bottom - canvas.shape[0]
    assert left + canvas.shape[1] <= right
    for strip, start in zip(strips, tops, strict=True):
        for column, image in enumerate(strip.pixels):
            x, y = left + column * (width * factor + image_figures._GAP), top + start
            tile = shown[y : y + height * factor : factor, x : x + width * factor : factor]
            assert (tile == np.broadcast_to(image.transpose(1, 2, 0), tile.shape)).all()
    assert (tops[1] - tops[0] > tops[2] - tops[1]) == original
    assert all((strip.pixels == old).all() for strip, old in zip(strips, before, strict=True))


def figures_left(figure, canvas):
    """Where the images begin, in pixels."""
    box = figure.axes[0].get_position()
    size = figure.get_size_inches() * figure.dpi
    assert (round(box.width * size[0]), round(box.height * size[1])) == canvas.shape[1::-1]
    return round(box.x0 * size[0])


def example_cloud(name="none", seed=0, groups=4):
    generator = np.random.default_rng(seed)
    return Cloud((name,), "fc, 20 values", generator.normal(size=(40, 2)), np.arange(40) % groups)


EXAMPLES = {
    "grid": lambda: image_figures.grid([Strip(("none",), np.full((2, 1, 8, 8), 90, np.uint8))], ["a", "b"]),
    "plane": lambda: image_figures.plane(
        [example_cloud()], image_figures.groups_of_signs(["Smiling", "Eyeglasses"]), ["a"]
    ),
    "tradeoff": lambda: tradeoff_figure.draw(tradeoff(together(*SWEEP, swept("none")))),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_equal_input_gives_equal_bytes_without_a_date(name):
    for form in ("png", "svg"):
        content = encode(EXAMPLES[name](), form)
        assert content == encode(EXAMPLES[name](), form)
        assert not re.search(rb"Software|atplotlib v|dc:date", content)
    assert content.startswith(b"<?xml")


@pytest.mark.parametrize(
    "changed", [{"axes.facecolor": "black"}, {"savefig.transparent": True}, {"lines.linewidth": 9}]
)
def test_the_users_matplotlib_settings_change_nothing(changed):
    before = encode(EXAMPLES["tradeoff"](), "png")
    with matplotlib.rc_context(changed):
        assert encode(EXAMPLES["tradeoff"](), "png") == before


def test_text_is_shown_as_it_is():
    """Neither mathematics nor characters that no font has stop a figure."""
    hostile = ("$x^{$", samples.HOSTILE, "日本\u202e")
    figure = image_figures.grid([Strip(hostile, np.zeros((1, 1, 8, 8), np.uint8))], ["$\\frac{$"])
    assert encode(figure, "png")
    cloud = Cloud(("$\\nope{$",), "$^$", np.random.default_rng(0).normal(size=(12, 2)), np.zeros(12, np.int64))
    assert encode(image_figures.plane([cloud], image_figures.groups_of_signs(["$_{$"]), ["$}$"]), "svg")


def test_names_and_captions_fit_into_the_picture():
    name = "adversarial_reconstruction with a long name"
    figure = image_figures.grid([Strip((name,), np.zeros((1, 3, 8, 8), np.uint8))], ["a caption of many words"] * 9)
    shown = opened(encode(figure, "png"))
    ink = (shown < 200).any(2)
    assert not ink[:, :4].any()
    assert not ink[:, -4:].any()
    assert not ink[:4].any()
    assert all(width_of(line, 7.5) <= 300 for line in lines_of(["two words"] * 9, 300))


def test_points_of_each_group_have_their_colour_and_rare_ones_lie_on_top():
    groups = image_figures.groups_of_signs(["Smiling", "Eyeglasses"])
    names = [f"Smiling {a}, Eyeglasses {b}" for a in "−+" for b in "−+"]
    assert [group.name for group in groups] == names
    points = np.zeros((30, 2))
    kinds = np.array([0] * 20 + [2] * 7 + [3] * 3)
    figure = image_figures.plane([Cloud(("x",), "", points, kinds)], groups, [])
    drawn = figure.axes[0].collections
    assert [len(each.get_offsets()) for each in drawn if len(each.get_offsets())] == [20, 7, 3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [names[0], names[2], names[3]]


def test_labels_beyond_the_markers_are_shown_as_others():
    few, many = image_figures.groups_of_classes([0, 1, 4]), image_figures.groups_of_classes(list(range(100)))
    assert [group.name for group in few] == ["label 0", "label 1", "label 4"]
    assert len(many) == len(MARKERS)
    assert many[-1].name == "other labels"
    for groups in (few, many, image_figures.groups_of_signs(["A"]), image_figures.groups_of_signs(["A", "B"])):
        assert len({group.colour for group in groups}) == len(groups)
    assert len({group.marker for group in many[:-1]}) == len(many) - 1


@pytest.mark.parametrize(("count", "most", "columns"), [(1, 4, 1), (4, 4, 4), (5, 4, 3), (7, 3, 3), (10, 4, 4)])
def test_panels_are_shared_out_evenly(count, most, columns):
    assert across(count, most) == columns


def test_tsne_keeps_groups_together_and_is_repeatable():
    generator = np.random.default_rng(0)
    kinds = np.arange(36) % 3
    z = (generator.normal(size=(36, 4, 5)) + 9 * kinds[:, None, None]).astype(np.float32)
    points = tsne(z)
    assert points.shape == (36, 2)
    assert (points == tsne(z)).all()
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag([np.inf] * 36)
    assert (kinds[distances.argmin(1)] == kinds).all()


def test_tsne_of_a_collapsed_encoder_and_of_what_it_cannot_embed():
    assert np.isfinite(tsne(np.full((12, 7), 0.3, np.float32))).all()
    with pytest.raises(InvalidConfigurationError, match="at least 10 encodings to embed, got 9"):
        tsne(np.zeros((9, 3)))
    z = np.ones((20, 3))
    z[4, 1] = np.nan
    with pytest.raises(InvalidConfigurationError, match="finite encodings"):
        tsne(z)


def test_a_sweep_is_joined_in_the_order_of_its_field():
    found = tradeoff(together(*SWEEP, swept("none", mcc=0.64, ssim=0.31)))
    assert (found.utility.name, found.leakage.name) == ("mcc", "ssim")
    (panel,) = found.panels
    assert found.names == ("none", "adversarial_reconstruction: lambda_2")
    undefended, sweep = panel.series
    assert (undefended.joined, sweep.joined) == (False, True)
    assert [spot.note for spot in sweep.spots] == ["0", "1", "2", "10"]
    assert [round(spot.utility.value, 6) for spot in sweep.spots] == [0.6, 0.55, 0.5, 0.1]


def test_fields_that_vary_together_are_one_line_and_crossed_ones_are_several():
    pairs = [swept("bido_hsic", lambda_x=x, lambda_y=10 * x) for x in (2.0, 0.5, 1.0)]
    (series,) = tradeoff(together(*pairs)).panels[0].series
    assert series.name == "bido_hsic: lambda_x, lambda_y"
    assert [spot.note for spot in series.spots] == ["0.5, 5", "1, 10", "2, 20"]
    crossed = [swept(lambda_1=a, lambda_2=b) for a in (1.0, 0.0) for b in (0.0, 2.0, 1.0)]
    names = tradeoff(together(*crossed)).names
    assert names == tuple(f"adversarial_reconstruction, lambda_1 = {a}: lambda_2" for a in (0, 1))
    words = [swept(kernel=kernel) for kernel in ("linear", "gaussian")]
    (series,) = tradeoff(together(*words)).panels[0].series
    assert not series.joined
    assert {spot.note for spot in series.spots} == {"linear", "gaussian"}


def test_seeds_are_put_together_and_shown_as_well():
    records = [swept(lambda_2=1.0, seed=seed, mcc=0.5 + 0.1 * seed) for seed in range(3)]
    (series,) = tradeoff(together(*records)).panels[0].series
    (spot,) = series.spots
    assert round(spot.utility.value, 6) == 0.6
    assert sorted(round(y, 6) for _, y in spot.seeds) == [0.5, 0.6, 0.7]
    assert spot.utility.interval[0] < 0.5


def test_each_attack_has_a_panel():
    records = [swept(attack=attack, lambda_2=x) for attack in ("decoder", "other") for x in (0.0, 1.0)]
    found = tradeoff(together(*records))
    assert [panel.attack for panel in found.panels] == ["decoder", "other"]
    assert len(tradeoff_figure.draw(found).axes) == 2


def test_what_cannot_be_compared_is_refused_in_a_sentence():
    with pytest.raises(InvalidConfigurationError, match=r"one protocol, got digits/v1 and toy_faces/v1"):
        tradeoff(together(SWEEP[0], samples.make_record()))
    with pytest.raises(InvalidConfigurationError, match="one budget, got smoke and quick"):
        tradeoff(together(samples.make_record(), samples.make_record(budget="smoke")))
    other = samples.make_record(cell={"dataset": samples.choice("digits", judge={"epochs": 9})})
    with pytest.raises(InvalidConfigurationError, match="one data set configuration"):
        tradeoff(together(samples.make_record(), other))
    with pytest.raises(UnknownComponentError, match="unknown score 'smim': did you mean 'ssim'"):
        tradeoff(together(*SWEEP), leakage="smim")
    quality = samples.make_record(scores={"fid_judge": samples.make_score("fid_judge", 3.0)})
    with pytest.raises(InvalidConfigurationError, match="measures utility, found none"):
        tradeoff(together(quality))


def test_records_without_a_score_are_left_out_with_the_reason():
    found = tradeoff(together(*SWEEP, swept("none", ssim=None)), leakage="ssim")
    assert found.names == ("adversarial_reconstruction: lambda_2",)
    assert found.left_out == ("none under decoder has no ssim: it is undefined",)
    with pytest.raises(
        InvalidConfigurationError, match="both mcc and ssim, found none: none under decoder has no ssim"
    ):
        tradeoff(together(swept("none", ssim=None)), leakage="ssim")
    assert tradeoff(together(*SWEEP), leakage="psnr", utility="mcc").leakage.name == "psnr"


def test_points_are_drawn_at_their_values_and_bars_at_their_intervals():
    found = tradeoff(together(*SWEEP, swept("none", mcc=0.64, ssim=0.31)))
    (axes,) = tradeoff_figure.draw(found).axes
    lines = {tuple(line.get_xdata()): tuple(line.get_ydata()) for line in axes.lines}
    for series in found.panels[0].series:
        x = tuple(spot.leakage.value for spot in series.spots)
        assert lines[x] == tuple(spot.utility.value for spot in series.spots)
    bars = {tuple(np.round(segment.flatten(), 6)) for each in axes.collections for segment in each.get_segments()}
    assert tuple(np.round((0.29, 0.64, 0.33, 0.64), 6)) in bars
    assert tuple(np.round((0.31, 0.59, 0.31, 0.68), 6)) in bars
    assert len(bars) == 10
    assert sorted(text.get_text() for text in axes.texts) == ["0", "1", "10", "2"]
    low, high = axes.get_xlim()
    assert low < min(x for x, _, _, _ in bars)
    assert high > max(x for _, _, x, _ in bars)


def test_notes_do_not_cover_each_other():
    crowd = [swept(mcc=0.5 + 0.004 * i, ssim=0.3 + 0.004 * i, lambda_2=float(i)) for i in range(4)]
    far = [swept("mid", mcc=0.1, ssim=0.9, beta=0.1), swept("mid", mcc=0.9, ssim=0.1, beta=0.2)]
    figure = tradeoff_figure.draw(tradeoff(together(*crowd, *far)))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_undefended_target_is_black_and_no_other_is():
    found = tradeoff(together(*SWEEP, swept("none"), swept("mid"), swept("bido_hsic")))
    looks = tradeoff_figure._looks(found)
    assert [name for name, look in looks.items() if look.get_color() == COLOURS[0]] == ["none"]
    assert len({look.get_marker() for look in looks.values()}) == 4


def test_figures_of_records_alone_do_not_import_torch():
    program = (
        "import sys; from privbench.benchmark.report.figures import tradeoff, tradeoff_figure, image_figures, labels; "
        "from privbench.benchmark.report.figures import tsne; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
