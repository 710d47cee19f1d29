"""What a plan says before anything runs: files that are missing, grouped by cause, and images without support."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers import command_line
from privbench.attacks.gmi import GMI
from privbench.attacks.kedmi import KEDMI
from privbench.attacks.networks.dcgan import DCDiscriminator, DCGenerator
from privbench.attacks.networks.discriminators import Critic, LabelDiscriminator
from privbench.attacks.networks.generators import Generator
from privbench.attacks.networks.stylegan import StyleDiscriminator, StyleGenerator
from privbench.attacks.vmi import VMI
from privbench.benchmark import api
from privbench.benchmark.contracts import Dataset
from privbench.benchmark.core.config import Protocol, setting
from privbench.benchmark.errors import InvalidConfigurationError, MissingDataError, PrivbenchError
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.weights import published
from privbench.benchmark.pipeline.cell import Cell, Choice
from privbench.benchmark.pipeline.plan import Plan, build_plan
from privbench.benchmark.pipeline.preflight import Gap, missing_files, require_supported, unavailable_scores
from privbench.benchmark.records.record import NotRun
from privbench.benchmark.store.store import Store
from privbench.benchmark.testing.run_cell import choose
from privbench.benchmark.testing.samples import Sample
from privbench.defenses.none import NoDefense
from torch import nn


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders of weights, and no network."""
    monkeypatch.setenv("PRIVBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "older"))
    monkeypatch.setattr(published.urllib.request, "urlopen", lambda *_, **__: pytest.fail("a download"))
    return tmp_path / "hub" / "checkpoints"


class Described(Dataset):
    """A data set with the protocol that a test gives it."""

    pretrained: bool = setting(True, "start from published weights")
    changes: ClassVar[dict[str, Any]] = {}

    @property
    def protocol(self) -> Protocol:
        return Sample().protocol.model_copy(update=self.changes)

    def load(self, part: Any, root: Path) -> Any:
        raise AssertionError("images were read")


def cell(attack: str = "gmi", evaluators: tuple[str, ...] = ("accuracy", "verified_acc"), **changes: Any) -> Cell:
    """A cell on a data set whose protocol has other values."""

    class Changed(Described):
        pass

    Changed.changes = changes
    chosen = tuple(choose("evaluator", name) for name in evaluators)
    dataset = Choice("dataset", "described", "tests", Changed())
    return Cell(dataset, choose("defense", "none"), choose("attack", attack), chosen, 0, "smoke")


FACES = {"image": (3, 64, 64), "target_network": "vgg16_bn", "judge_network": "facenet", "pretrained": True,
         "second_judge_network": "resnet34", "second_judge_pretrained": False}  # fmt: skip


def planned(*cells: Cell) -> Plan:
    return build_plan(cells, Path("nowhere"))


def gaps(plan: Plan) -> list[Gap]:
    return missing_files(plan, plan.stages.values())


def test_missing_weights_are_grouped_by_cause_and_nothing_is_downloaded(hub: Path) -> None:
    faces = cell(**FACES)
    other = dataclasses.replace(faces, seed=1)
    found = {gap.users: gap for gap in gaps(planned(faces, other, cell()))}
    assert found.keys() == {("target vgg16_bn",), ("judge facenet",)}
    assert {gap.cells for gap in found.values()} == {2}, "the third cell needs none"
    assert str(found["judge facenet",]) == (
        f"judge facenet (2 cells): expected the VGGFace2 weights of facenet at {hub}/20180402-114759-vggface2.pt, "
        f"found nothing; run `privbench weights fetch facenet_vggface2`, or put {published.vggface2().url} there, or "
        "train from random weights with --set dataset.pretrained=false"
    )
    same = {**FACES, "judge_network": "vgg16_bn"}
    assert [gap.users for gap in gaps(planned(cell(**same)))] == [("target vgg16_bn", "judge vgg16_bn")]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"<!DOCTYPE html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, which only names the file"),
        (b"", "is an empty file, not weights"),
        (b"PK\x03\x04", "has a SHA-256 that starts with"),
    ],
)
def test_what_lies_in_place_of_weights_is_named(content: bytes, fault: str, hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "vgg16_bn-6c64b313.pth").write_bytes(content)
    reasons = [gap.reason for gap in gaps(planned(cell(**FACES))) if gap.users == ("target vgg16_bn",)]
    assert reasons[0].startswith(f"{hub / 'vgg16_bn-6c64b313.pth'} {fault}")


def test_a_component_that_needs_files_is_planned_and_named() -> None:
    made = cell("feature_regression", ("feature_similarity",))
    attack = made.attack.component.model_copy(update={"embedder": "mobilefacenet"})
    plan = planned(dataclasses.replace(made, attack=dataclasses.replace(made.attack, component=attack)))
    (gap,) = gaps(plan)
    assert gap.users == ("attack feature_regression",)
    assert gap.reason.endswith("run `privbench weights import mobilefacenet FILE`"), "no data set can change that"
    assert missing_files(plan, [stage for stage in plan.stages.values() if stage.kind in ("target", "scores")]) == []


def test_a_stored_stage_needs_no_weights(tmp_path: Path) -> None:
    plan = planned(cell(evaluators=("accuracy",), **FACES))
    todo = [stage for stage in plan.stages.values() if stage.kind != "target"]
    assert [gap.users for gap in gaps(plan)] == [("target vgg16_bn",)]
    assert missing_files(plan, todo) == []


def test_a_run_without_its_weights_is_refused_before_its_first_stage(tmp_path: Path) -> None:
    folders = {"data": tmp_path, "store": tmp_path / "store", "results": tmp_path / "results"}
    with pytest.raises(MissingDataError) as caught:
        api.execute([cell(**FACES)], **folders, device="cpu")
    assert str(caught.value).startswith("target vgg16_bn (1 cell): expected the ImageNet weights of vgg16_bn at ")
    assert str(caught.value).endswith("(1 more problem: `privbench plan` lists them)")
    assert not any((tmp_path / "store").rglob("*.safetensors"))


def test_scores_that_are_unavailable_for_one_reason_are_one_line() -> None:
    lost = NotRun(code="unavailable", reason="no weights")
    made = dataclasses.replace(
        cell(), not_run=(("b", lost), ("a", lost), ("c", NotRun(code="not_applicable", reason="no weights")))
    )
    assert list(map(str, unavailable_scores([made, made, cell()]))) == ["b, a (2 cells): no weights"]


@pytest.mark.parametrize(
    ("changes", "attack", "message"),
    [
        ({"image": (1, 48, 48)}, "gmi", "images for gmi to be 32 x 32 or 64 x 64, got 1 x 48 x 48; choose"),
        ({"image": (1, 48, 48)}, "kedmi", "images for kedmi to be 32 x 32 or 64 x 64, got 1 x 48 x 48"),
        ({"image": (1, 48, 48)}, "vmi", "images for vmi with attack.generator=dcgan to be 32 x 32 or 64 x 64, got 1 x"),
        ({"image": (1, 32, 64)}, "gmi", "images for gmi to be 32 x 32 or 64 x 64, got 1 x 32 x 64"),
        ({"image": (1, 8, 8)}, "decoder", "images for mcnn to be at least 1 x 32 x 32 (C x H x W), got 1 x 8 x 8"),
        ({"judge_network": "scnn", "target_network": "lenet5", "image": (1, 28, 28)}, "decoder", "images for scnn to"),
        ({"second_judge_network": "facenet"}, "kedmi", "images for facenet to have 3 channels, got 1 x 32 x 32"),
        ({"target_network": "resnet34", "pretrained": True}, "kedmi", "images for resnet34 to have 3 channels, got"),
        ({"pretrained": True}, "kedmi", "expected dataset.pretrained to be false for mcnn, got True"),
    ],
)  # fmt: skip
def test_images_without_support_are_refused_before_anything_runs(
    changes: dict[str, Any], attack: str, message: str, tmp_path: Path
) -> None:
    made = cell(attack, **changes)
    with pytest.raises(InvalidConfigurationError) as caught:
        require_supported([cell(), made])
    assert message in str(caught.value)
    folders = {"data": tmp_path, "store": tmp_path / "store", "results": tmp_path / "results"}
    with pytest.raises(InvalidConfigurationError):
        api.execute([made], **folders, device="cpu")


def test_embedders_and_perceptual_networks_are_asked() -> None:
    made = cell("feature_regression", ())
    attack = made.attack.component.model_copy(update={"embedder": "mobilefacenet"})
    made = dataclasses.replace(made, attack=dataclasses.replace(made.attack, component=attack))
    with pytest.raises(InvalidConfigurationError, match="images for mobilefacenet to be aligned faces with a face_box"):
        require_supported([made])
    made = cell("decoder", (), image=(2, 32, 32))
    attack = made.attack.component.model_copy(update={"mu_2": 1.0})
    made = dataclasses.replace(made, attack=dataclasses.replace(made.attack, component=attack))
    with pytest.raises(InvalidConfigurationError, match="images for VGG16 to have 1 or 3 channels, got 2"):
        require_supported([made])


def test_a_network_that_needs_real_numbers_is_not_checked() -> None:
    class Needs(NoDefense):
        def network(self, protocol: Protocol) -> Network:
            scale = float(nn.Linear(4, 4).weight.abs().max())
            return super().network(protocol.model_copy(update={"image": (1, 8, int(scale))}))

    made = cell()
    require_supported([dataclasses.replace(made, defense=Choice("defense", "needs", "tests", Needs()))])


@pytest.mark.parametrize("image", [(1, 32, 32), (3, 64, 64), (1, 48, 48), (1, 32, 64), (1, 8, 8), (1, 128, 128)])
@pytest.mark.parametrize(
    ("attack", "networks"),
    [
        (GMI(), [Generator, Critic]),
        (KEDMI(), [Generator, lambda image: LabelDiscriminator(image, 3)]),
        (VMI(generator="dcgan"), [DCGenerator, DCDiscriminator]),
        (VMI(), [StyleGenerator, StyleDiscriminator]),
    ],
    ids=["gmi", "kedmi", "dcgan", "stylegan"],
)
def test_attacks_support_the_images_that_their_networks_do(
    attack: Any, networks: list[Callable[..., Any]], image: tuple[int, int, int]
) -> None:
    def refuses(function: Callable[[], object]) -> bool:
        try:
            function()
        except InvalidConfigurationError:
            return True
        return False

    protocol = Sample().protocol.model_copy(update={"image": image})
    with torch.device("meta"):
        of_networks = {refuses(lambda network=network: network(image)) for network in networks}
    assert of_networks == {refuses(lambda: attack.require(protocol))}


WORDS = ["--dataset", "cifar10", "--defense", "none", "--attack", "kedmi", "--no-controls", "--evaluator", "accuracy"]


def test_the_plan_lists_missing_weights_once_and_exits_with_1(
    privbench: command_line.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privbench.benchmark.datasets.cifar10.CIFAR10.fingerprint", lambda self, root: "")
    result = privbench("plan", *WORDS, "--seed", "0", "--seed", "1")
    assert result.code == 1
    lines = [line for line in result.out.splitlines() if line.startswith("cannot run")]
    assert len(lines) == 1
    assert lines[0].startswith("cannot run: target vgg16_bn (2 cells): expected the ImageNet weights of vgg16_bn at ")
    assert "target cifar10 none seed 1" in result.out, "the plan is shown all the same"
    facts = json.loads(privbench("plan", *WORDS, "--json").out)
    assert [(entry["what"], entry["cells"]) for entry in facts["missing"]] == [("target vgg16_bn", 1)]
    refused = privbench("run", *WORDS)
    assert refused.code == 1
    assert refused.err.startswith("privbench: target vgg16_bn (1 cell): expected the ImageNet weights")
    done = privbench("plan", *WORDS, "--set", "dataset.pretrained=false")
    assert (done.code, "cannot run" in done.out) == (0, False)
    store = Store(tmp_path / "store")
    key = next(row["key"] for row in facts["stages"] if row["kind"] == "target")
    store.write("target", key, tensors={}, info={"seconds": 1.0})
    assert privbench("plan", *WORDS).code == 0, "a stored target needs no weights"


def test_a_run_says_at_its_beginning_which_scores_it_will_lack(
    privbench: command_line.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--defense", "none", "--attack", "kedmi", "--no-controls", "--evaluator", "fid_inception"]

    def begin(*_: object, **__: object) -> None:
        raise PrivbenchError("the first stage begins")

    monkeypatch.setattr(api, "execute", begin)
    line = (
        "n/a: fid_inception (1 cell): the file of the weights inception_fid is missing; run `privbench weights fetch "
        "inception_fid`"
    )
    assert privbench("run", *words).err.splitlines() == [line, "privbench: the first stage begins"]
    assert line in privbench("plan", *words).out.splitlines()
