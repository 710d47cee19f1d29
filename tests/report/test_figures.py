"""Tests of figures: every image and point at its position, equal bytes for equal input."""

import io
import random
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers import samples
from PIL import Image
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.errors import InvalidConfigurationError, UnknownComponentError
from privbench.benchmark.report.figures import image_figures, labels, tradeoff_figure
from privbench.benchmark.report.figures.image_figures import Embedding, ImageRow
from privbench.benchmark.report.figures.series import tradeoff_series
from privbench.benchmark.report.figures.style import COLOURS, MARKERS, encode, panel_columns, text_width, wrap
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


def test_labels_have_different_settings_and_captions_shared_ones():
    ordered = labels.sort_records(SWEEP)
    assert labels.record_labels(ordered) == [(f"lambda_2 = {x}",) for x in (0, 1, 2, 10)]
    shared = ("toy_faces/v1", "defense adversarial_reconstruction", "attack decoder", "budget quick", "seed 0")
    assert labels.shared_settings(ordered) == shared
    mixed = labels.sort_records([swept(lambda_2=1.0, seed=1), swept("none"), swept(lambda_2=0.0, seed=1)])
    assert labels.record_labels(mixed) == [
        ("none", "seed 0"),
        ("adversarial_reconstruction", "lambda_2 = 0", "seed 1"),
        ("adversarial_reconstruction", "lambda_2 = 1", "seed 1"),
    ]
    assert labels.shared_settings(mixed) == ("toy_faces/v1", "attack decoder", "budget quick")


def test_cut_layers_are_named_once_and_a_single_record_by_its_defense():
    layers = ["fc", "conv10", "conv2", None]
    found = labels.sort_records([swept("mid", layer=layer, layer_of_defense=layer) for layer in layers])
    words = [f"layer_of_defense = {x}" for x in ("conv2", "conv10", "fc", "none")]
    assert [label[0] for label in labels.record_labels(found)] == words
    assert [label[1] for label in labels.record_labels(found)] == [
        "layer = conv2",
        "layer = conv10",
        "layer = fc",
        "layer = last",
    ]
    assert labels.record_labels([SWEEP[0]]) == [("adversarial_reconstruction",)]


def test_versions_of_one_component_have_different_labels():
    cell = {"attack": samples.choice("kedmi", 2, iterations=300)}
    found = labels.record_labels([samples.make_record(), samples.make_record(cell=cell)])
    assert found == [("kedmi version 1 of privbench",), ("kedmi version 2 of privbench",)]


def test_order_does_not_depend_on_the_order_of_files():
    records = [*SWEEP, swept("none"), swept("mid", seed=3), swept("mid", seed=1)]
    expected = [record.key for record in labels.sort_records(records)]
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert [record.key for record in labels.sort_records(records)] == expected
    assert labels.sort_records(records)[0].cell.defense.name == "none"


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 64, 64), (3, 30, 20), (3, 150, 150)])
@pytest.mark.parametrize("private", [0, 1, 2])
def test_every_pixel_of_every_image_is_at_its_position(channels, height, width, private):
    generator = np.random.default_rng(0)
    strips = [
        ImageRow(name, generator.integers(0, 256, (3, channels, height, width), dtype=np.uint8))
        for name in (("original",), ("a",), ("adversarial_reconstruction", "lambda_2 = 3"))
    ]
    before = [strip.pixels.copy() for strip in strips]
    figure = image_figures.image_grid(strips, ["caption"], headings=["x", "y", "z"], private_rows=private)
    shown = opened(encode(figure, "png"))
    factor = max(1, image_figures.TILE // max(height, width))
    right, bottom = shown.shape[1] - image_figures._MARGIN, shown.shape[0] - image_figures._MARGIN
    canvas, tops = image_figures._canvas(strips, private)
    left, top = figures_left(figure, canvas), bottom - canvas.shape[0]
    assert left + canvas.shape[1] <= right
    for strip, start in zip(strips, tops, strict=True):
        for column, image in enumerate(strip.pixels):
            x, y = left + column * (width * factor + image_figures._GAP), top + start
            tile = shown[y : y + height * factor : factor, x : x + width * factor : factor]
            assert (tile == np.broadcast_to(image.transpose(1, 2, 0), tile.shape)).all()
    assert [below - above > height * factor + image_figures._GAP for above, below in pairwise(tops)] == [
        private == 1,
        private == 2,
    ]
    assert all((strip.pixels == old).all() for strip, old in zip(strips, before, strict=True))


def figures_left(figure, canvas):
    """Where the images begin, in pixels."""
    box = figure.axes[0].get_position()
    size = figure.get_size_inches() * figure.dpi
    assert (round(box.width * size[0]), round(box.height * size[1])) == canvas.shape[1::-1]
    return round(box.x0 * size[0])


def example_embedding(name="none", seed=0, groups=4):
    generator = np.random.default_rng(seed)
    return Embedding((name,), "fc, 20 values", generator.normal(size=(40, 2)), np.arange(40) % groups)


EXAMPLES = {
    "grid": lambda: image_figures.image_grid([ImageRow(("none",), np.full((2, 1, 8, 8), 90, np.uint8))], ["a", "b"]),
    "plane": lambda: image_figures.embedding_figure(
        [example_embedding()], image_figures.attribute_groups(["Smiling", "Eyeglasses"]), ["a"]
    ),
    "tradeoff": lambda: tradeoff_figure.draw(tradeoff_series(together(*SWEEP, swept("none")))),
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


def test_text_is_not_interpreted():
    """Neither mathematics nor characters that no font has stop a figure."""
    hostile = ("$x^{$", samples.HOSTILE, "日本\u202e")
    figure = image_figures.image_grid([ImageRow(hostile, np.zeros((1, 1, 8, 8), np.uint8))], ["$\\frac{$"])
    assert encode(figure, "png")
    cloud = Embedding(("$\\nope{$",), "$^$", np.random.default_rng(0).normal(size=(12, 2)), np.zeros(12, np.int64))
    assert encode(image_figures.embedding_figure([cloud], image_figures.attribute_groups(["$_{$"]), ["$}$"]), "svg")


def test_names_and_captions_fit_into_the_figure():
    name = "adversarial_reconstruction with a long name"
    figure = image_figures.image_grid(
        [ImageRow((name,), np.zeros((1, 3, 8, 8), np.uint8))], ["a caption of many words"] * 9
    )
    shown = opened(encode(figure, "png"))
    ink = (shown < 200).any(2)
    assert not ink[:, :4].any()
    assert not ink[:, -4:].any()
    assert not ink[:4].any()
    assert all(text_width(line, 7.5) <= 300 for line in wrap(["two words"] * 9, 300))


def test_points_have_the_colour_of_their_group_and_rare_groups_are_on_top():
    groups = image_figures.attribute_groups(["Smiling", "Eyeglasses"])
    names = [f"Smiling {a}, Eyeglasses {b}" for a in "−+" for b in "−+"]
    assert [group.name for group in groups] == names
    points = np.zeros((30, 2))
    kinds = np.array([0] * 20 + [2] * 7 + [3] * 3)
    figure = image_figures.embedding_figure([Embedding(("x",), "", points, kinds)], groups, [])
    drawn = figure.axes[0].collections
    assert [len(each.get_offsets()) for each in drawn if len(each.get_offsets())] == [20, 7, 3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [names[0], names[2], names[3]]


def test_labels_beyond_the_markers_are_shown_as_others():
    few, many = image_figures.label_groups([0, 1, 4]), image_figures.label_groups(list(range(100)))
    assert [group.name for group in few] == ["label 0", "label 1", "label 4"]
    assert len(many) == len(MARKERS)
    assert many[-1].name == "other labels"
    for groups in (few, many, image_figures.attribute_groups(["A"]), image_figures.attribute_groups(["A", "B"])):
        assert len({group.colour for group in groups}) == len(groups)
    assert len({group.marker for group in many[:-1]}) == len(many) - 1


@pytest.mark.parametrize(("count", "maximum", "columns"), [(1, 4, 1), (4, 4, 4), (5, 4, 3), (7, 3, 3), (10, 4, 4)])
def test_rows_of_panels_are_about_equally_long(count, maximum, columns):
    assert panel_columns(count, maximum) == columns


def test_tsne_keeps_groups_together_and_is_repeatable():
    generator = np.random.default_rng(0)
    kinds = np.arange(36) % 3
    z = (generator.normal(size=(36, 4, 5)) + 9 * kinds[:, None, None]).astype(np.float32)
    points = tsne(z)
    assert points.shape == (36, 2)
    assert (points == tsne(z)).all()
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag([np.inf] * 36)
    assert (kinds[distances.argmin(1)] == kinds).all()


def test_tsne_handles_constant_encodings_and_refuses_invalid_ones():
    assert np.isfinite(tsne(np.full((12, 7), 0.3, np.float32))).all()
    with pytest.raises(InvalidConfigurationError, match="at least 10 encodings to embed, got 9"):
        tsne(np.zeros((9, 3)))
    z = np.ones((20, 3))
    z[4, 1] = np.nan
    with pytest.raises(InvalidConfigurationError, match="finite encodings"):
        tsne(z)


def test_a_sweep_is_joined_in_the_order_of_its_field():
    found = tradeoff_series(together(*SWEEP, swept("none", mcc=0.64, ssim=0.31)))
    assert (found.plot.utility.definition.name, found.plot.leakage.definition.name) == ("mcc", "ssim")
    undefended, sweep = found.series
    assert (undefended.name, sweep.name) == ("none", "adversarial_reconstruction: lambda_2")
    assert (undefended.joined, sweep.joined) == (False, True)
    points = sweep.points(found.plot.panels[0])
    assert [note for _, note in points] == ["0", "1", "2", "10"]
    assert [round(point.y, 6) for point, _ in points] == [0.6, 0.55, 0.5, 0.1]


def test_fields_that_vary_together_give_one_line_and_crossed_fields_several():
    pairs = [swept("bido_hsic", lambda_x=x, lambda_y=10 * x) for x in (2.0, 0.5, 1.0)]
    (series,) = tradeoff_series(together(*pairs)).series
    assert series.name == "bido_hsic: lambda_x, lambda_y"
    assert [note for _, note in series.rows] == ["0.5, 5", "1, 10", "2, 20"]
    crossed = [swept(lambda_1=a, lambda_2=b) for a in (1.0, 0.0) for b in (0.0, 2.0, 1.0)]
    names = tuple(series.name for series in tradeoff_series(together(*crossed)).series)
    assert names == tuple(f"adversarial_reconstruction, lambda_1 = {a}: lambda_2" for a in (0, 1))
    words = [swept(kernel=kernel) for kernel in ("linear", "gaussian")]
    (series,) = tradeoff_series(together(*words)).series
    assert not series.joined
    assert {note for _, note in series.rows} == {"linear", "gaussian"}


def test_seeds_are_averaged_and_shown():
    records = [swept(lambda_2=1.0, seed=seed, mcc=0.5 + 0.1 * seed) for seed in range(3)]
    (panel,) = tradeoff_series(together(*records)).plot.panels
    (point,) = panel.points
    assert round(point.y, 6) == 0.6
    assert sorted(round(y, 6) for _, y in point.seeds) == [0.5, 0.6, 0.7]
    assert point.utility.interval[0] < 0.5


def test_each_attack_has_a_panel():
    records = [swept(attack=attack, lambda_2=x) for attack in ("decoder", "other") for x in (0.0, 1.0)]
    found = tradeoff_series(together(*records))
    assert [panel.attack for panel in found.plot.panels] == ["decoder", "other"]
    assert len(tradeoff_figure.draw(found).axes) == 2


def test_records_that_are_not_comparable_are_refused():
    with pytest.raises(InvalidConfigurationError, match=r"one protocol, got digits/v1 and toy_faces/v1"):
        tradeoff_series(together(SWEEP[0], samples.make_record()))
    with pytest.raises(InvalidConfigurationError, match="one budget, got smoke and quick"):
        tradeoff_series(together(samples.make_record(), samples.make_record(budget="smoke")))
    other = samples.make_record(cell={"dataset": samples.choice("digits", judge={"epochs": 9})})
    with pytest.raises(InvalidConfigurationError, match="one data set configuration"):
        tradeoff_series(together(samples.make_record(), other))
    with pytest.raises(UnknownComponentError, match="unknown score 'smim': did you mean 'ssim'"):
        tradeoff_series(together(*SWEEP), leakage="smim")
    quality = samples.make_record(scores={"fid_judge": samples.make_score("fid_judge", 3.0)})
    with pytest.raises(InvalidConfigurationError, match="measures utility, found none"):
        tradeoff_series(together(quality))


def test_records_without_a_score_are_left_out_with_the_reason():
    found = tradeoff_series(together(*SWEEP, swept("none", ssim=None)), leakage="ssim")
    assert [series.name for series in found.series] == ["adversarial_reconstruction: lambda_2"]
    assert found.left_out == ("none under decoder has no ssim: it is undefined",)
    with pytest.raises(
        InvalidConfigurationError, match="both mcc and ssim, found none: none under decoder has no ssim"
    ):
        tradeoff_series(together(swept("none", ssim=None)), leakage="ssim")
    assert tradeoff_series(together(*SWEEP), leakage="psnr", utility="mcc").plot.leakage.definition.name == "psnr"


def test_points_are_drawn_at_their_values_and_bars_at_their_intervals():
    found = tradeoff_series(together(*SWEEP, swept("none", mcc=0.64, ssim=0.31)))
    (axes,) = tradeoff_figure.draw(found).axes
    lines = {tuple(line.get_xdata()): tuple(line.get_ydata()) for line in axes.lines}
    for series in found.series:
        points = [point for point, _ in series.points(found.plot.panels[0])]
        assert lines[tuple(point.x for point in points)] == tuple(point.y for point in points)
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
    figure = tradeoff_figure.draw(tradeoff_series(together(*crowd, *far)))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_undefended_target_is_black_and_no_other_is():
    found = tradeoff_series(together(*SWEEP, swept("none"), swept("mid"), swept("bido_hsic")))
    styles = tradeoff_figure._line_styles(found.series)
    assert [name for name, style in styles.items() if style.get_color() == COLOURS[0]] == ["none"]
    assert len({style.get_marker() for style in styles.values()}) == 4


def test_figures_of_records_alone_do_not_import_torch():
    program = (
        "import sys; from privbench.benchmark.report.figures import series, tradeoff_figure, image_figures, labels; "
        "from privbench.benchmark.report.figures import tsne; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
