"""Properties of the store: flipped bytes are detected, tensors round-trip exactly, equal input gives equal bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark.errors import CorruptArtifactError
from privbench.benchmark.files.tensors import pack, unpack
from privbench.benchmark.store.manifest import Manifest, examine, seal, unseal
from privbench.benchmark.store.store import Store

KEY = "0123456789abcdef" * 4
DTYPES = [
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.complex64,
]
NAMES = st.text(max_size=12).filter(lambda name: name != "__metadata__")
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


@st.composite
def tensors(draw):
    """A tensor of arbitrary bits, possibly a view that is not contiguous or shares memory."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    width = torch.empty((), dtype=dtype).element_size()
    count = 1
    for length in shape:
        count *= length
    bits = draw(st.binary(min_size=count * width, max_size=count * width))
    if dtype == torch.bool:
        return torch.tensor([byte % 2 == 1 for byte in bits], dtype=dtype).reshape(shape)
    values = torch.tensor(list(bits), dtype=torch.uint8).view(dtype) if bits else torch.empty(0, dtype=dtype)
    values = values.reshape(shape)
    return values.T if values.ndim == 2 and draw(st.booleans()) else values


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(NAMES, tensors(), max_size=4), st.randoms(use_true_random=False))
def test_tensors_round_trip_bit_for_bit(group, random):
    group |= {f"again {name}": tensor for name, tensor in group.items()}
    data = pack(group)
    found = unpack(data)
    assert list(found) == sorted(group)
    for name, tensor in group.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert raw(found[name]) == raw(tensor)
    names = list(group)
    random.shuffle(names)
    assert pack({name: group[name].clone() for name in names}) == data
    for tensor in found.values():
        tensor.zero_()  # They are the reader's own.


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_sealed_values_round_trip(facts):
    line = seal(facts)
    assert line.count(b"\n") == 1
    assert unseal(line) == facts
    assert seal(unseal(line)) == line


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_not_a_sealed_line(data):
    with pytest.raises(CorruptArtifactError):
        unseal(data)
    with pytest.raises(CorruptArtifactError):
        Manifest.decode(data)
    with pytest.raises(CorruptArtifactError):
        unpack(data)


@pytest.fixture(scope="module")
def artifact():
    with tempfile.TemporaryDirectory() as folder:
        tensors = {"network": {"weight": torch.arange(4.0), "bias": torch.zeros(())}}
        yield Store(Path(folder)).write("target", KEY, tensors=tensors, info={"loss": 0.5}, files={"a.png": b"\x89PNG"})


def test_every_flipped_byte_is_detected(artifact):
    """Every position of every file, and every bit over the positions."""
    files = sorted(artifact.path.iterdir())
    assert [file.name for file in files] == ["a.png", "manifest.json", "network.safetensors"]
    count = 0
    for file in files:
        data = file.read_bytes()
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1 << (position + position // 8) % 8
            file.write_bytes(damaged)
            with pytest.raises(CorruptArtifactError):
                examine(artifact.path, "target", KEY)
            count += 1
        file.write_bytes(data)
    assert count > 500
    assert examine(artifact.path, "target", KEY) == artifact.manifest


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_changed_file_is_detected(artifact, data):
    """Bytes replaced, removed or inserted anywhere."""
    file = data.draw(st.sampled_from(sorted(artifact.path.iterdir())))
    content = file.read_bytes()
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content)))
    damaged = content[:begin] + data.draw(st.binary(max_size=20)) + content[end:]
    try:
        file.write_bytes(damaged)
        if damaged == content:
            examine(artifact.path, "target", KEY)
        else:
            with pytest.raises(CorruptArtifactError):
                examine(artifact.path, "target", KEY)
    finally:
        file.write_bytes(content)
