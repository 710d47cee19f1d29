"""EfficientNet-Lite0: TensorFlow's padding, and the published activations with the published weights."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from privbench.benchmark.networks.perceptual.efficientnet_lite0 import EfficientNetLite0, _Convolution
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur


@pytest.fixture
def weights(real_data: Path) -> dict[str, Tensor]:
    """The published weights in half precision, without the unused classifier."""
    path = real_data / "weights" / "efficientnet_lite0_imagenet_fp16.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    with np.load(path) as arrays:
        kept = [name for name in arrays.files if not name.startswith(("_conv_head.", "_bn1.", "_fc."))]
        return {name: torch.from_numpy(arrays[name]).float() for name in kept}


@pytest.fixture
def trained(weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> EfficientNetLite0:
    monkeypatch.setattr("privbench.benchmark.networks.weights.named.read", lambda name: weights)
    return EfficientNetLite0()


@pytest.fixture
def photographs(real_data: Path) -> tuple[Tensor, Tensor]:
    """The first 300 test images of CIFAR-10 in [0, 1], and their classes."""
    path = real_data / "cifar-10-batches-py" / "test_batch"
    if not path.is_file():
        pytest.skip("CIFAR-10 is not here")
    with path.open("rb") as stream:
        batch = pickle.load(stream, encoding="bytes")  # noqa: S301
    pixels = torch.from_numpy(batch[b"data"][:300]).reshape(-1, 3, 32, 32)
    return pixels.float() / 255, torch.tensor(batch[b"labels"][:300])


def padded_like_tensorflow(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """SAME padding: ceil(n / stride) outputs; an odd number of zeros has one more after the image than before it."""
    kernel = weight.shape[0]
    rows, columns = (math.ceil(side / stride) for side in x.shape)
    above, left = (
        max((count - 1) * stride + kernel - side, 0) // 2 for count, side in zip((rows, columns), x.shape, strict=True)
    )
    out = np.zeros((rows, columns))
    for r in range(rows):
        for c in range(columns):
            for i in range(kernel):
                for j in range(kernel):
                    y, z = r * stride + i - above, c * stride + j - left
                    if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                        out[r, c] += weight[i, j] * x[y, z]
    return out


@pytest.mark.parametrize("size", [(6, 6), (7, 7), (6, 9), (5, 8), (1, 2)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
def test_padding_equals_a_slow_loop(size: tuple[int, int], kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    convolution = _Convolution(2, 2, kernel, stride, groups=2).double()
    with torch.no_grad():
        convolution.weight.copy_(torch.rand(convolution.weight.shape, generator=generator))
        x = torch.rand(1, 2, *size, dtype=torch.float64, generator=generator)
        found = convolution(x).numpy()
    for channel in range(2):
        weight = convolution.weight[channel, 0].detach().numpy()
        assert np.allclose(found[0, channel], padded_like_tensorflow(x[0, channel].numpy(), weight, stride))


def test_shape_and_size_are_the_published_ones() -> None:
    network = EfficientNetLite0(pretrained=False)
    found = network.activations(torch.zeros(1, 3, 224, 96))
    assert [tuple(part.shape[1:]) for part in found] == [
        (16, 112, 48),
        (24, 56, 24),
        (40, 28, 12),
        (112, 14, 6),
        (320, 7, 3),
    ]
    # Of the published 4,652,008 parameters the classifier has 320 x 1280 + 2 x 1280 + 1280 x 1000 + 1000.
    assert sum(part.numel() for part in network.parameters()) == 4_652_008 - 409_600 - 2_560 - 1_281_000


#: Blocks of Tan and Le's table: kernel, stride, expansion, outputs, count.
TABLE = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
         (3, 1, 6, 320, 1))  # fmt: skip


@torch.inference_mode()
def test_activations_equal_the_table() -> None:
    """With drawn weights; activations exceed 6, so that a ReLU6 is noticed."""
    network = EfficientNetLite0(pretrained=False)
    drawn = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 6, generator=drawn)
            nn.init.uniform_(module.bias, -1, 2, generator=drawn)
            nn.init.uniform_(module.running_mean, -0.5, 0.5, generator=drawn)
            nn.init.uniform_(module.running_var, 0.5, 2, generator=drawn)
    layers = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d))

    def convolve(x: Tensor, kernel: int, stride: int = 1, groups: int = 1) -> Tensor:
        missing = []
        for side in (x.shape[3], x.shape[2]):
            total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            missing += [total // 2, total - total // 2]
        x = functional.conv2d(functional.pad(x, missing), next(layers).weight, stride=stride, groups=groups)
        norm = next(layers)
        scale = norm.weight / (norm.running_var + 1e-3).sqrt()
        return (x - norm.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)

    images = torch.rand(2, 3, 64, 72, generator=drawn)
    x = convolve((255 * images - 127) / 128, 3, 2).clamp(0, 6)
    expected = []
    for kernel, stride, expansion, outputs, count in TABLE:
        if stride == 2:
            expected.append(x)
        for i in range(count):
            y = convolve(x, 1).clamp(0, 6) if expansion > 1 else x
            y = convolve(y, kernel, 1 if i else stride, y.shape[1])
            assert y.max() > 6
            y = convolve(y.clamp(0, 6), 1)
            x = x + y if i else y
            assert x.shape[1] == outputs
    for found, wanted in zip(network.activations(images), [*expected, x], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    a, b = images.split(1)
    parts = zip(network.layers(a), network.layers(b), (6.113, 9.173, 8.278, 7.022, 3.263), strict=True)
    apart = sum(float(((p - q) / s).square().mean()) for p, q, s in parts)
    assert network.distance(a, b).item() == pytest.approx(apart, rel=1e-4)


def test_activations_are_the_published_ones(trained: EfficientNetLite0) -> None:
    """Compare with root mean squares of the package efficientnet-lite-pytorch 0.1.0 with these weights at 224 x 224.

    Padding of one row on either side instead gives 7.657, 10.516, 9.131, 6.125, 2.188.
    """
    steps = torch.arange(224) / 224

    def wave(down: int, right: int) -> Tensor:
        return 0.5 + 0.5 * torch.sin(6.28 * (down * steps[:, None] + right * steps))

    found = trained.activations(torch.stack([wave(1, 2), wave(3, -1), wave(0, 5)])[None])
    sizes = [float(part.double().square().mean().sqrt()) for part in found]
    assert sizes == pytest.approx([7.63172, 9.77654, 8.78412, 5.38163, 2.29592], rel=1e-4)
    means = [float(part.double().mean()) for part in found]
    assert means == pytest.approx([0.08783, 0.87030, -0.50531, 0.20807, 0.00684], abs=1e-4)


def neighbours_agree(features: Tensor, labels: Tensor) -> float:
    """Accuracy of the five nearest neighbours by cosine, each image left out."""
    unit = functional.normalize(features.double(), dim=1)
    nearest = (unit @ unit.T).fill_diagonal_(-2).topk(5).indices
    return float((labels[nearest].mode(1).values == labels).double().mean())


def pooled(network: EfficientNetLite0, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network.activations(part)[-1].mean((2, 3)) for part in pixels.split(100)])


def test_features_classify_photographs(trained: EfficientNetLite0, photographs: tuple[Tensor, Tensor]) -> None:
    """Accuracy with 10 classes: measured 0.46, for pixels 0.19, for a random network 0.17."""
    pixels, labels = photographs
    assert neighbours_agree(pixels.flatten(1), labels) < 0.3
    assert neighbours_agree(pooled(trained, pixels), labels) > 0.4


def test_distance_of_photographs(trained: EfficientNetLite0, photographs: tuple[Tensor, Tensor]) -> None:
    x = photographs[0][:10]
    assert torch.equal(trained.distance(x, x), torch.zeros(10))
    assert torch.equal(trained.distance(x, x.roll(1, 0)), trained.distance(x.roll(1, 0), x))
    growing = torch.stack([trained.distance(x, gaussian_blur(x, [9, 9], [s, s])) for s in (0.5, 1.0, 2.0)])
    assert bool((growing.diff(dim=0) > 0).all())
    assert bool((growing[0] < trained.distance(x, x.roll(1, 0))).all())
