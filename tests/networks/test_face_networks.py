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
from torch import Tensor
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
