"""Every registered component, built in or not, passes the checks of its kind; the list comes from the registry."""

import pytest
from privbench.benchmark import registry
from privbench.benchmark.testing.check import Check, ConformanceError
from privbench.benchmark.testing.checks import checks

pytestmark = pytest.mark.usefixtures("local_targets")
#: Checks that train a network; the networks of the digits are small, others take minutes.
TRAINING = ("resume", "record")


def trials(*, large: bool) -> list[object]:
    protocol = registry.load("dataset", "digits")().protocol
    small = {protocol.target_network, protocol.judge_network, protocol.second_judge_network}
    return [
        pytest.param(kind, name, check, id=f"{kind}-{name}-{check}")
        for kind in registry.KINDS
        for name in registry.names(kind)
        for check in checks(kind)
        if large == (kind == "network" and name not in small and check.name in TRAINING)
    ]


@pytest.mark.parametrize(("kind", "name", "check"), trials(large=False))
def test_check(kind: registry.Kind, name: str, check: Check, tmp_path_factory) -> None:
    """There is no data folder: data sets that need files name what is missing."""
    check(name, data=tmp_path_factory.getbasetemp() / "no data")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "check"), trials(large=True))
def test_check_of_a_large_network(kind: registry.Kind, name: str, check: Check) -> None:
    check(name)


def test_every_kind_has_its_own_checks() -> None:
    for kind in registry.KINDS:
        found = checks(kind)
        assert len({check.name for check in found}) == len(found) >= 5
        assert all(check.kind == kind and check.about.endswith(".") for check in found)


def test_an_attack_that_dies_of_an_image_size_must_refuse_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    support = next(check for check in checks("attack") if check.name == "support")
    monkeypatch.setattr(registry.load("attack", "gmi"), "require", lambda self, protocol: None)
    with pytest.raises(ConformanceError, match=r"48 x 48 pixels are not attacked: .* raise an Invalid.* in require"):
        support("gmi")
