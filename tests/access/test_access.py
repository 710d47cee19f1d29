"""Enforcement of access: answers of a view, query counts, and attempts to reach the target."""

import contextlib
import copy
import gc
import importlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from privbench.benchmark.access import open as opening_module
from privbench.benchmark.access import process as access_process
from privbench.benchmark.access import server
from privbench.benchmark.access.open import TargetSource, open_view, rebuild_target
from privbench.benchmark.access.process import LostTargetError
from privbench.benchmark.access.views import FeaturesView, ScoresView, WhiteBoxView
from privbench.benchmark.access.wire import read_message, write_message
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.errors import InvalidConfigurationError, MissingDataError
from safetensors.torch import load_file, save_file
from torch import nn

CPU = torch.device("cpu")
PROTOCOL = Protocol(
    name="toy",
    version=1,
    image=(1, 4, 4),
    classes=5,
    judge_classes=5,
    target_network="toy",
    judge_network="toy",
    attacked=5,
    draws=1,
)
TOYS = """
import os, signal, torch
from torch import nn
from privbench.benchmark.networks.classifiers.network import Network

class Noise(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
    def forward(self, x):
        return x + self.scale * torch.randn_like(x)

class Trap(nn.Module):
    def forward(self, x):
        print("a network that prints", flush=True)
        if bool((x == 0.75).all()):
            raise RuntimeError("no answer to this\\nsecond line")
        if bool((x == 0.5).all()):
            os.kill(os.getpid(), signal.SIGKILL)
        return x.flatten(1)

def toy(noise=0.0):
    return Network({"flat": Trap(), "latent": nn.Sequential(nn.Linear(16, 8), nn.ReLU(), Noise(noise)),
                    "logits": nn.Linear(8, 5)})
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    (folder / "privbench_toys.py").write_text(TOYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        torch.manual_seed(7)
        save_file(importlib.import_module("privbench_toys").toy().state_dict(), folder / "target.safetensors")
        yield folder
    del sys.modules["privbench_toys"]


def source(folder: Path, noise: float = 0.0) -> TargetSource:
    path = folder / "target.safetensors"
    return TargetSource(
        {"factory": "privbench_toys:toy", "arguments": {"noise": noise}}, lambda: load_file(path), PROTOCOL
    )


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def white_box(folder: Path, noise: float = 0.0) -> WhiteBoxView:
    with open_view("white_box", source(folder, noise), device=CPU, seed=0) as view:
        assert isinstance(view, WhiteBoxView)
        return view


@pytest.fixture(scope="module")
def scores(toys):
    with open_view("scores", source(toys, noise=0.1), device=CPU, seed=3) as view:
        yield view


@pytest.fixture(scope="module")
def features(toys):
    with open_view("features", source(toys), device=CPU, seed=3, layer="latent") as view:
        yield view


def reachable(folder: Path) -> list[str]:
    """Find traces of the target in this process: its modules, tensors equal to its weights, bytes that contain them."""
    weights = {name: value.clone() for name, value in load_file(folder / "target.safetensors").items()}
    needle = weights["stages.latent.0.weight"].numpy().tobytes()
    known = {id(value) for value in weights.values()}
    found = []
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor or type(thing) is nn.Parameter:
            if id(thing) not in known and any(
                thing.numel() == w.numel() and torch.equal(thing.detach().flatten(), w.flatten())
                for w in weights.values()
            ):
                found.append("tensor")
        elif type(thing).__module__ == "privbench_toys" or type(thing).__name__ in ("Network", "TargetSource"):
            found.append(type(thing).__name__)
        else:
            found += [
                "bytes"
                for value in gc.get_referents(thing)
                if type(value) in (bytes, bytearray) and value is not needle and needle in value
            ]
    return found


def test_a_scores_attack_cannot_reach_the_target(scores, toys):
    assert reachable(toys) == []
    x = images(4).requires_grad_()
    answer = scores.scores(x)
    assert not answer.requires_grad and answer.grad_fn is None
    with pytest.raises(RuntimeError):
        torch.autograd.grad(answer.sum(), x)
    frame = sys._getframe()
    while frame is not None:
        assert not any(isinstance(value, nn.Module | TargetSource) for value in frame.f_locals.values())
        frame = frame.f_back
    seen, edge = set(), [scores]
    while edge:
        thing = edge.pop()
        if id(thing) in seen or isinstance(thing, type | type(sys)):
            continue
        seen.add(id(thing))
        assert not isinstance(thing, nn.Module | TargetSource)
        closure = getattr(thing, "__closure__", None) or ()
        edge += [*(getattr(thing, "__dict__", None) or {}).values(), *closure, *gc.get_referents(thing)]
        if len(seen) > 20_000:
            break
    for name in ("network", "logits", "latents", "encode", "head", "features", "labels", "parameters"):
        assert not hasattr(scores, name)


def test_the_search_finds_a_target_in_this_process(toys):
    view = white_box(toys)
    found = reachable(toys)
    assert {"Network", "Trap", "tensor"} <= set(found)
    blob = [view.network.state_dict()["stages.latent.0.weight"].numpy().tobytes() + b"!"]
    assert "bytes" in reachable(toys)
    del blob


@pytest.mark.parametrize(
    "header", [{"do": "weights"}, {"do": "query", "access": "features"}, {"access": "features"}, {}]
)
def test_the_process_answers_only_its_kind_of_query(scores, header):
    before = scores.queries
    with pytest.raises(InvalidConfigurationError, match="answers nothing else"):
        scores._process.send(header, {"x": images(1), "layer": torch.zeros(1)})
    assert scores.queries == before


def test_scores_are_the_softmax_of_the_logits_and_counted_exactly(features, scores, toys):
    before = scores.queries["forward"]
    x = images(600)
    answer = scores.scores(x)
    assert answer.shape == (600, 5) and answer.dtype == torch.float32 and not answer.requires_grad
    torch.testing.assert_close(answer.sum(1), torch.ones(600))
    assert scores.queries == {"forward": before + 600, "backward": 0, "head": 0}
    empty = scores.scores(x[:0])
    assert empty.shape == (0, 5) and empty.dtype == torch.float32
    assert scores.queries["forward"] == before + 600
    assert scores.scores(x[:3].double()).dtype == torch.float32
    assert scores.queries["forward"] == before + 603


@pytest.mark.parametrize("access", ["scores", "labels", "features"])
def test_a_view_is_opened_for_its_access_layer_and_seed(access, toys, monkeypatch):
    """What the target's process is told; a process of its own for each would take seconds."""
    told = []

    class Told:
        def __init__(self, header, tensors):
            told.append((header, tensors))

        def close(self):
            told.append("closed")

    monkeypatch.setattr(opening_module, "TargetProcess", Told)
    with open_view(access, source(toys), device=CPU, seed=9, layer="flat") as view:
        assert (view.access, view.protocol) == (access, PROTOCOL)
    (header, tensors), closed = told
    assert closed == "closed"
    assert (header["access"], header["seed"], header["layer"]) == (access, 9, "flat")
    assert (header["device"], header["protocol"]["name"]) == ("cpu", "toy")
    assert set(tensors) == set(load_file(toys / "target.safetensors"))


def test_features_equal_the_white_box(features, toys):
    assert isinstance(features, FeaturesView) and features.layer == "latent"
    x = images(300)
    z = features.features(x)
    expected = white_box(toys).encode(x, "latent")
    torch.testing.assert_close(z, expected, rtol=1e-6, atol=1e-6)
    assert z.dtype == torch.float32 and not z.requires_grad and not z.is_inference()
    assert features.features(x[:0]).shape == (0, 8)
    assert features.queries["forward"] == 300


def test_a_failing_query_has_a_one_line_message_and_the_target_stays_usable(features):
    before = features.queries
    with pytest.raises(LostTargetError, match=r"RuntimeError: no answer to this$"):
        features.features(torch.full((2, 1, 4, 4), 0.75))
    assert features.queries == before
    assert features.features(images(1)).shape == (1, 8)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 1, 5, 4), r"floating images Nx1x4x4 in \[0, 1\], got float32 2x1x5x4"),
        (torch.zeros(1, 4, 4), "got float32 1x4x4"),
        (torch.tensor(0.5), "got float32 scalar"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "got uint8 2x1x4x4"),
        (torch.full((1, 1, 4, 4), 1.5), "got values from 1.5 to 1.5; clamp or rescale"),
        (torch.full((1, 1, 4, 4), -0.1), r"got values from -0.1 to -0.1"),
        (torch.full((1, 1, 4, 4), float("nan")), "got values from nan to nan"),
        (torch.full((1, 1, 4, 4), float("inf")), "got values from inf to inf"),
        ([[0.0]], "to be a tensor Nx1x4x4, got list"),
    ],
)
def test_both_processes_reject_anything_but_images(scores, x, message):
    before = scores.queries
    with pytest.raises(InvalidConfigurationError, match=message):
        scores.scores(x)
    if isinstance(x, torch.Tensor):
        with pytest.raises(InvalidConfigurationError, match=message):
            scores._process.send({"do": "query"}, {"x": x})
    assert scores.queries == before


def test_noise_repeats_for_the_same_queries_and_a_killed_process_has_a_one_line_message(scores, toys):
    """Start one more process: its noise, resuming its count, and its end while it answers."""
    x = images(5)
    ahead = 10_000
    with open_view("scores", source(toys, noise=0.1), device=CPU, seed=3) as view:
        assert isinstance(view, ScoresView)
        scores.resume({"forward": ahead})
        expected = [scores.scores(x), scores.scores(x)]
        assert not torch.equal(*expected)
        view.resume({"forward": ahead, "backward": 0, "head": 0})
        assert view.queries["forward"] == ahead
        assert torch.equal(view.scores(x), expected[0])
        assert view.scores(x[:0]).numel() == 0
        assert torch.equal(view.scores(x), expected[1])
        view.resume({"forward": 0})
        assert view.queries["forward"] == ahead + 10
        began = time.monotonic()
        with pytest.raises(LostTargetError, match="was killed by signal 9 before it answered") as caught:
            view.scores(torch.full((1, 1, 4, 4), 0.5))
        assert time.monotonic() - began < 5 and "\n" not in str(caught.value)
        with pytest.raises(LostTargetError, match="is closed"):
            view.scores(x)
    assert view.queries["forward"] == ahead + 10
    with pytest.raises(ProcessLookupError):
        os.kill(view._process.pid, 0)


def serve_messages(header: dict, state: dict, *queries: tuple[dict, dict]) -> list:
    """Run the server's loop without a process: all messages in, all answers out."""
    sent, got = io.BytesIO(), io.BytesIO()
    for message in ((header, state), *queries):
        write_message(sent, *message)
    sent.seek(0)
    with contextlib.suppress(EOFError):
        server.serve(sent, got)
    got.seek(0)
    answers = []
    while got.tell() < len(got.getvalue()):
        answers.append(read_message(got))
    return answers


def opening(access: str = "labels", **changes: object) -> dict:
    return {
        "access": access,
        "rebuild": {"factory": "privbench_toys:toy"},
        "protocol": PROTOCOL.model_dump(mode="json"),
        "device": "cpu",
        "seed": 0,
        "layer": None,
        "threads": torch.get_num_threads(),
        "deterministic": False,
        "precision": torch.get_float32_matmul_precision(),
        **changes,
    }


def test_labels_and_attributes(toys):
    state, x = load_file(toys / "target.safetensors"), images(30)
    logits = white_box(toys).logits(x)
    query = ({"do": "query"}, {"x": x})
    _, (header, labels) = serve_messages(opening("labels"), state, query)
    assert header == {"answered": 30} and torch.equal(labels["answer"], logits.argmax(1))
    attributes = PROTOCOL.model_copy(update={"task": "attributes"}).model_dump(mode="json")
    _, (_, decisions) = serve_messages(opening("labels", protocol=attributes), state, query)
    assert torch.equal(decisions["answer"], logits > 0) and decisions["answer"].any()
    _, (_, scores) = serve_messages(opening("scores", protocol=attributes), state, query)
    torch.testing.assert_close(scores["answer"], logits.sigmoid())
    _, (_, latents) = serve_messages(opening("features"), state, query)
    torch.testing.assert_close(latents["answer"], white_box(toys).encode(x, "latent"))


def test_a_target_that_cannot_be_opened_has_a_one_line_message(toys):
    state = load_file(toys / "target.safetensors")
    cases = [
        (opening("features", layer="conv9"), state, "expected layer to be one of flat, latent, got 'conv9'"),
        (opening("white_box"), state, "expected access to be scores, labels or features, got 'white_box'"),
        (opening(rebuild={"factory": "privbench_toys:absent"}), state, "AttributeError"),
        (opening(rebuild={"defense": "bido_hsicc", "fields": {}}), state, "unknown defense 'bido_hsicc'"),
    ]
    for header, tensors, message in cases:
        ((answer, values),) = serve_messages(header, tensors)
        assert message in answer["error"] and "\n" not in answer["error"] and values == {}


def test_weights_must_fit_exactly(toys):
    path = toys / "target.safetensors"
    bias = "stages.logits.bias"
    for change, message in [
        ({bias: None}, "got none for 'stages.logits.bias'"),
        ({"extra": torch.zeros(1)}, "got an unexpected 'extra'"),
        ({bias: torch.zeros(4)}, r"'stages.logits.bias' of shape \(4,\) instead of \(5,\)"),
    ]:
        state = {name: value for name, value in {**load_file(path), **change}.items() if value is not None}
        with pytest.raises(MissingDataError, match=message):
            rebuild_target(TargetSource({"factory": "privbench_toys:toy"}, lambda state=state: state, PROTOCOL))


def test_rebuilding_does_not_change_the_global_generator(toys):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    rebuild_target(source(toys))
    assert torch.equal(torch.rand(3), expected)


def test_white_box_counts_every_kind_of_call_once(toys):
    view = white_box(toys)
    x = images(6)
    view.logits(x)
    view.network(x)
    view.latents(x)
    z = view.encode(x, "latent")
    assert view.queries == {"forward": 24, "backward": 0, "head": 0}
    view.head(z, "latent")
    assert view.queries == {"forward": 24, "backward": 0, "head": 6}
    copy.deepcopy(view.network)(x)
    assert view.queries["forward"] == 30
    view.queries["forward"] = 0
    assert view.queries["forward"] == 30


def test_white_box_counts_gradients_once_for_each_backward_pass(toys):
    view, direct = white_box(toys), rebuild_target(source(toys))
    x = images(6).requires_grad_()
    for step in range(1, 4):
        (gradient,) = torch.autograd.grad(view.logits(x).logsumexp(1).sum(), x)
        assert view.queries == {"forward": 6 * step, "backward": 6 * step, "head": 0}
    (expected,) = torch.autograd.grad(direct(x).logsumexp(1).sum(), x)
    assert torch.equal(gradient, expected)
    with torch.no_grad():
        view.logits(x)
    assert view.queries == {"forward": 24, "backward": 18, "head": 0}
    torch.func.grad(lambda v: view.logits(v).sum())(x.detach())
    view.resume({"forward": 100, "backward": 7, "head": 1})
    view.logits(x)
    assert view.queries == {"forward": 106, "backward": 7, "head": 1}
    view.resume({"forward": 0, "backward": 0, "head": 0})
    for step in range(1, 4):
        torch.autograd.grad(view.network.stages["flat"](x).sum(), x)
        assert view.queries == {"forward": 6 * step, "backward": 6 * step, "head": 0}


def test_white_box_gives_no_gradient_of_weights_and_notices_change(toys):
    view = white_box(toys)
    assert not any(p.requires_grad for p in view.network.parameters()) and view.unchanged()
    view.logits(images(2).requires_grad_()).sum().backward()
    assert view.unchanged()
    weight = view.network.stages["logits"].weight
    kept = weight.detach().clone()
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    assert not view.unchanged()
    weight.copy_(kept)
    assert view.unchanged()
    view.network.stages["latent"].train()
    assert not view.unchanged()
    network = rebuild_target(source(toys))
    network.stages["latent"].register_buffer("mean", torch.zeros(2))
    view = WhiteBoxView(network, PROTOCOL)
    network.stages["latent"].mean += 1
    assert not view.unchanged()


def test_messages_preserve_dtype_and_shape():
    tensors = {
        "half": torch.rand(2, 3).half(),
        "brain": torch.rand(4).bfloat16(),
        "scalar": torch.tensor(3),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 7, dtype=torch.int64),
        "strided": torch.arange(6.0).reshape(2, 3).T,
    }
    stream = io.BytesIO()
    write_message(stream, {"a": [1, "ü"]}, tensors)
    size = stream.tell()
    stream.seek(0)
    header, got = read_message(stream)
    assert header == {"a": [1, "ü"]} and list(got) == list(tensors)
    for name, value in tensors.items():
        assert got[name].dtype == value.dtype and torch.equal(got[name], value)
    for cut in (0, 2, size // 2, size - 1):
        with pytest.raises(EOFError):
            read_message(io.BytesIO(stream.getvalue()[:cut]))


def test_an_unreferenced_target_is_collected_before_the_attack_and_the_process_ends_with_its_input(toys):
    """If the parent is killed, the process notices only the end of its input."""
    trained = rebuild_target(source(toys))
    trained.itself = [trained]
    gc.disable()
    try:
        del trained
        assert "Network" in reachable(toys)
        with open_view("labels", source(toys), device=CPU, seed=0) as view:
            assert reachable(toys) == []
            labels = view.labels(images(2))
            assert labels.dtype == torch.int64 and labels.shape == (2,) and view.unchanged()
            child = view._process._process
            assert os.getsid(child.pid) == child.pid != os.getsid(0)
            child.stdin.close()
            assert child.wait(timeout=10) == 0
    finally:
        gc.enable()


PARENT = """
import sys, time, torch
from safetensors.torch import load_file
from privbench.benchmark.access.open import TargetSource, open_view
from privbench.benchmark.contracts import Protocol
protocol = Protocol.model_validate_json(sys.argv[2])
source = TargetSource({"factory": "privbench_toys:toy"}, lambda: load_file(sys.argv[1]), protocol)
try:
    with open_view("labels", source, device=torch.device("cpu"), seed=0) as view:
        answer = view.labels(torch.zeros(2, 1, 4, 4))
        print(view._process.pid, answer.dtype, tuple(answer.shape), flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def start_parent(toys: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PARENT, str(toys / "target.safetensors"), PROTOCOL.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_the_process_ends_with_its_parent(toys):
    """Ctrl-C to the foreground group ends it without output, and so does a killed parent."""
    parents = {sent: start_parent(toys) for sent in (signal.SIGINT, signal.SIGKILL)}
    lines = {sent: parent.stdout.readline().split() for sent, parent in parents.items()}
    pids = {sent: int(line[0]) for sent, line in lines.items()}
    assert all(line[1:] == ["torch.int64", "(2,)"] for line in lines.values())
    assert all(map(alive, pids.values()))
    for sent, parent in parents.items():
        os.killpg(parent.pid, sent)
    output = {sent: parent.communicate(timeout=20) for sent, parent in parents.items()}
    assert output[signal.SIGINT] == ("interrupted\n", "") and parents[signal.SIGINT].returncode == 0
    assert output[signal.SIGKILL] == ("", "")
    deadline = time.monotonic() + 10
    while any(map(alive, pids.values())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids.values()))


class Started(subprocess.Popen):
    """Start Python with other code in place of the server, and record the last process."""

    code = ""
    last: subprocess.Popen

    def __init__(self, command, **options):
        super().__init__([sys.executable, "-c", self.code], **options)
        type(self).last = self


READY = r"""
import sys, time
sys.stdout.write('\0\0\0\x37{"header": {}, "tensors": [["answer", "float32", [0]]]}')
sys.stdout.flush()
time.sleep(60)
"""


@pytest.fixture
def started(monkeypatch):
    monkeypatch.setattr(access_process.subprocess, "Popen", Started)
    return monkeypatch


def test_an_interrupted_exchange_closes_the_view(started):
    """A late answer must not be taken for the answer to the next query."""
    started.setattr(Started, "code", READY)
    process = access_process.TargetProcess({}, {})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            process.send({})
    finally:
        signal.signal(signal.SIGINT, before)
    assert Started.last.returncode == -signal.SIGKILL
    with pytest.raises(LostTargetError, match="is closed"):
        process.send({})


def test_an_unreferenced_process_is_ended(started):
    started.setattr(Started, "code", READY)
    process = access_process.TargetProcess({}, {})
    assert alive(process.pid)
    del process
    gc.collect()
    assert Started.last.returncode == -signal.SIGKILL and not alive(Started.last.pid)


def test_a_process_that_does_not_start_reports_the_reason(started):
    started.setattr(Started, "code", "import privbench_absent")
    message = (
        'ended with code 1 before it answered; the last line of its output is "ModuleNotFoundError: No module named'
    )
    with pytest.raises(LostTargetError, match=message):
        access_process.TargetProcess({}, {})
    assert Started.last.returncode == 1
