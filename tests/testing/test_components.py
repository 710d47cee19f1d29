"""Every registered component, built in or not, keeps the laws of its kind; the list comes from the registry."""

import pytest
from privbench.benchmark import registry
from privbench.benchmark.testing.check import Check
from privbench.benchmark.testing.checks import checks

#: Laws that train a network; those of the digits are small, others take minutes.
TRAINING = ("resume", "record")


def trials(*, heavy: bool) -> list[object]:
    protocol = registry.load("dataset", "digits")().protocol
    small = {protocol.target_network, protocol.judge_network, protocol.second_judge_network}
    return [
        pytest.param(kind, name, law, id=f"{kind}-{name}-{law}")
        for kind in registry.KINDS
        for name in registry.names(kind)
        for law in checks(kind)
        if heavy == (kind == "network" and name not in small and law.name in TRAINING)
    ]


@pytest.mark.parametrize(("kind", "name", "law"), trials(heavy=False))
def test_law(kind: registry.Kind, name: str, law: Check, tmp_path_factory) -> None:
    """No data: data sets that need files say what is missing."""
    law(name, data=tmp_path_factory.getbasetemp() / "no data")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "law"), trials(heavy=True))
def test_law_of_a_heavy_network(kind: registry.Kind, name: str, law: Check) -> None:
    law(name)


def test_every_kind_has_laws_of_its_own() -> None:
    for kind in registry.KINDS:
        found = checks(kind)
        assert len({law.name for law in found}) == len(found) >= 5
        assert all(law.kind == kind and law.about.endswith(".") for law in found)
