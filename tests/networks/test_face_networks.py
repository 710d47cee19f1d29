"""Face networks: their layers against an independent implementation, and their similarity of real faces."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch import InceptionResnetV1
from helpers.faces import crops, protocol
from privbench.benchmark.networks.embedders.dlib_resnet import DlibResNet
from privbench.benchmark.networks.embedders.facenet_vggface2 import FaceNetVGGFace2
from privbench.benchmark.networks.embedders.mobilefacenet import MobileFaceNet
from privbench.benchmark.networks.factory import build_embedder
from privbench.benchmark.networks.perceptual.efficientnet_lite0 import EfficientNetLite0
from privbench.benchmark.networks.weights import importing
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
BROUGHT = {"mobilefacenet": MobileFaceNet, "dlib_resnet": DlibResNet, "efficientnet_lite0": EfficientNetLite0}
FACES = protocol()


def faces(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_facenet_equals_facenet_pytorch() -> None:
    torch.manual_seed(0)
    network = FaceNetVGGFace2(pretrained=False).eval()
    theirs = InceptionResnetV1(pretrained=None).eval()
    theirs.load_state_dict(network.embedding.body.state_dict(), strict=True)
    x = faces(2, 64)
    resized = functional.interpolate(x, (160, 160), mode="bilinear")
    with torch.inference_mode():
        wanted = theirs((255 * resized - 127.5) / 128)
        torch.testing.assert_close(network.embed(x, FACES), wanted, rtol=1e-3, atol=1e-4)


def test_shapes_of_dlibs_network() -> None:
    """150, 72 after the stem, 35 after its pool, then 17, 8, 4 and 2 (skip 8 to 4, convolution 8 to 3)."""
    network = DlibResNet(pretrained=False).eval()
    sides = {}
    for name in ("conv1", "b32_0", "d64", "d128", "d256", "d256b"):
        network.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: sides.update({name: tuple(out.shape[1:])})
        )
    with torch.inference_mode():
        assert network.compute(faces(1, 150)).shape == (1, 128)
    assert sides == {
        "conv1": (32, 72, 72),
        "b32_0": (32, 35, 35),
        "d64": (64, 17, 17),
        "d128": (128, 8, 8),
        "d256": (256, 4, 4),
        "d256b": (256, 2, 2),
    }


def test_a_halving_block_adds_the_mean_and_pads_with_zeros() -> None:
    network = DlibResNet(pretrained=False).eval()
    block = network.get_submodule("d256")
    for part in block.children():
        torch.nn.init.zeros_(part.gamma)
    torch.nn.init.constant_(block.conv2.beta, 3.0)
    x = faces(1, 8)[:, :1].expand(1, 128, 8, 8)
    with torch.inference_mode():
        found = block(x)
    skip = functional.avg_pool2d(x, 2)
    wanted = torch.zeros(1, 256, 4, 4)
    wanted[:, :128] += skip
    wanted[:, :, :3, :3] += 3
    torch.testing.assert_close(found, wanted)


def draw_weights(network: nn.Module) -> None:
    """Give weights, offsets and slopes values that keep activations in size and differ from channel to channel."""
    drawn = torch.Generator().manual_seed(3)
    for name, value in network.named_parameters():
        if value.dim() > 1:
            nn.init.normal_(value, std=(1.5 / value[0].numel()) ** 0.5, generator=drawn)
        else:
            low, high = (0.7, 1.3) if name.endswith("gamma") else (-0.1, 0.3)
            nn.init.uniform_(value, low, high, generator=drawn)


@torch.inference_mode()
def test_dlibs_network_equals_its_list_of_layers() -> None:
    """7 x 7 of stride 2, pool of 3; blocks of two 3 x 3, of which four halve the image; mean, matrix."""
    network = DlibResNet(pretrained=False).eval()
    draw_weights(network)
    w = dict(network.named_parameters())

    def affine(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        y = functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding)
        return y * w[f"{name}.gamma"].view(-1, 1, 1) + w[f"{name}.beta"].view(-1, 1, 1)

    chips = faces(2, 150)
    mean = torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1)
    x = functional.max_pool2d(affine((chips * 255 - mean) / 256, "conv1", 2).relu(), 3, 2)
    groups = (("b32_", 3), ("d64", 0), ("b64_", 3), ("d128", 0), ("b128_", 2), ("d256", 0), ("b256_", 2), ("d256b", 0))
    for name in (f"{group}{i}" if count else group for group, count in groups for i in range(count or 1)):
        halves = name.startswith("d")
        y = affine(x, f"{name}.conv1", 2 if halves else 1, 0 if halves else 1).relu()
        y = affine(y, f"{name}.conv2", padding=1)
        skip = functional.avg_pool2d(x, 2) if halves else x
        x = torch.zeros(2, y.shape[1], *(max(a, b) for a, b in zip(y.shape[2:], skip.shape[2:], strict=True)))
        x[:, :, : y.shape[2], : y.shape[3]] += y
        x[:, : skip.shape[1], : skip.shape[2], : skip.shape[3]] += skip
        x = x.relu()
    expected = x.mean((2, 3)) @ w["fc.weight"]
    assert expected.std(0).max() > 1e-3
    torch.testing.assert_close(network.compute(chips), expected, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_mobilefacenet_equals_its_table() -> None:
    """Stem, depthwise, groups of inverted bottlenecks (width, outputs, count, stride), 512, global depthwise, 192."""
    network = MobileFaceNet(pretrained=False).eval()
    draw_weights(network)
    layers = (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.PReLU))

    def convolve(x: Tensor, kernel: int, stride: int = 1, groups: int = 1, *, linear: bool = False) -> Tensor:
        layer = next(layers)
        total = max(kernel - stride, 0)  # SAME: an odd number of zeros has one more at the end
        x = functional.pad(x, (total // 2, total - total // 2) * 2)
        x = functional.conv2d(x, layer.weight, layer.bias, stride, groups=groups)
        return x if linear else torch.where(x > 0, x, next(layers).weight.view(-1, 1, 1) * x)

    chips = faces(2, 112)
    x = convolve((chips * 255 - 127.5) / 128, 3, 2)
    x = convolve(convolve(x, 3, groups=64), 1, linear=True)
    for width, count, stride in ((128, 1, 2), (128, 4, 1), (256, 1, 2), (256, 6, 1), (512, 1, 2), (256, 2, 1)):
        for _ in range(count):
            y = convolve(convolve(convolve(x, 1), 3, stride, width), 1, linear=True)
            x = x + y if stride == 1 else y
    x = convolve(x, 1)
    for groups in (512, 1, 1):
        layer = next(layers)
        x = functional.conv2d(x, layer.weight, layer.bias, groups=groups)
    assert next(layers, None) is None
    assert x.std(0).max() > 1e-3
    torch.testing.assert_close(network.compute(chips), x.flatten(1), rtol=1e-3, atol=1e-4)
    found = network.embed(chips, FACES)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


@pytest.fixture(scope="module")
def archives(real_data: Path) -> Path:
    folder = real_data / "weights"
    if not list(folder.glob("*.npz")):
        pytest.skip(f"{folder} holds no archives of weights")
    return folder


@pytest.fixture(scope="module")
def imported(archives: Path, tmp_path_factory) -> Path:
    """The archives, converted as documented and imported into a separate folder."""
    folder = tmp_path_factory.mktemp("converted")
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "npz" in block)
    code = re.sub(r'"(\w+\.npz)"', rf'"{archives}/\1"', code)
    code = re.sub(r'"(\w+\.safetensors)"', rf'"{folder}/\1"', code)
    exec(compile(code, "docs/weights.md", "exec"), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVBENCH_WEIGHTS", str(folder / "weights"))
        for name, network in BROUGHT.items():
            importing.import_weights(name, folder / f"{name}.safetensors", network)
    return folder / "weights"


@pytest.fixture
def here(imported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVBENCH_WEIGHTS", str(imported))


def test_mobilefacenet_equals_its_list_of_layers(here: None, archives: Path) -> None:
    """Run the layers one by one, in the order and with the residual connections of the list."""
    layers = json.loads((archives / "mobilefacenet192_layers.json").read_text())["layers"]
    arrays = np.load(archives / "mobilefacenet192.npz")
    chips = faces(3, 112)
    outputs: list[Tensor] = []
    x = (255 * chips - 127.5) / 128
    for layer in layers:
        weight, bias = (torch.from_numpy(arrays[f"{layer['name']}.{part}"]) for part in ("weight", "bias"))
        total = max(layer["k"] - layer["stride"], 0) if layer["pad"] == "same" else 0
        x = functional.pad(x, [total // 2, total - total // 2] * 2)
        x = functional.conv2d(x, weight, bias, layer["stride"], groups=layer["cin"] if layer["type"] == "dwconv" else 1)
        if layer["prelu"]:
            x = functional.prelu(x, torch.from_numpy(arrays[f"{layer['name']}.alpha"]))
        if layer["add"] is not None:
            x = x + outputs[layer["add"]]
        outputs.append(x)
    with torch.inference_mode():
        found = MobileFaceNet().eval().compute(chips)
    torch.testing.assert_close(found, x.flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "gap", "accuracy"), [("mobilefacenet", 0.5, 0.94), ("dlib_resnet", 0.09, 0.94)])
def test_faces_of_one_person_are_more_similar(
    name: str, gap: float, accuracy: float, here: None, real_data: Path, record_property
) -> None:
    """Measured: 0.657 and 0.077 at 96.2 % for MobileFaceNet, 0.949 and 0.838 at 96.3 % for dlib."""
    pixels, people = crops(real_data / "celeba")
    network = build_embedder(name)
    with torch.inference_mode():
        z = torch.cat([network.embed(part / 255, FACES) for part in pixels.split(20)]).double().numpy()
    above = np.triu_indices(len(z), 1)
    cosines, same = (z @ z.T)[above], (people[:, None] == people[None])[above]
    limits = np.linspace(cosines.min(), cosines.max(), 400)
    best = max(((cosines[same] > limit).mean() + (cosines[~same] <= limit).mean()) / 2 for limit in limits)
    record_property("same, different, accuracy", (cosines[same].mean(), cosines[~same].mean(), best))
    assert cosines[same].mean() > cosines[~same].mean() + gap
    assert best > accuracy
