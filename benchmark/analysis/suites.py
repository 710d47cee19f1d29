"""Attack suites: the attacks over which a protocol takes its worst case, fixed by version.

More attacks in the records are further columns of a leaderboard and change no rank.
"""

from collections.abc import Iterable, Mapping

from .. import registry
from ..core.config import BUILT_IN, Definition
from ..core.ranking_rules import EvidenceKind, RankingRules
from ..errors import PrivbenchError
from .aggregate import Row, Section

_CLASSES = RankingRules()
_ATTRIBUTES = RankingRules(
    attacks={"PairedReconstructions": ("decoder",), "FeatureEstimates": ("feature_regression",)}, utility="mcc"
)
#: Rules of the built-in data sets, all versions of their protocols, so that a report need not import them.
RULES: Mapping[str, RankingRules] = {
    **dict.fromkeys(("digits", "mnist", "cifar10", "celeba", "celeba_subset", "celeba_vmi"), _CLASSES),
    **dict.fromkeys(("celeba_attributes", "celeba_attributes_subset"), _ATTRIBUTES),
}
_PAIRS: tuple[EvidenceKind, ...] = ("PairedReconstructions",)
#: Kinds of evidence that the scores of built-in evaluators read; the first with attacks in the suite is ranked.
READS: Mapping[str, tuple[EvidenceKind, ...]] = {
    **dict.fromkeys(("attack_acc", "attack_acc5", "verified_acc", "knn_distance"), ("ClassReconstructions",)),
    "face_similarity": ("ClassReconstructions", "PairedReconstructions"),
    **dict.fromkeys(("ssim", "psnr", "mse"), _PAIRS),
    "feature_similarity": ("FeatureEstimates",),
    **dict.fromkeys(("lda", "lda_within", "lda_between"), ("PairedReconstructions", "FeatureEstimates")),
}


def rules_of(section: Section) -> RankingRules:
    """Return the rules of a section's protocol.

    Those of data sets of other packages are their class attribute `ranking`, if the package is installed.
    """
    dataset = section.rows[0].records[0].cell.dataset
    if dataset.distribution == BUILT_IN:
        return RULES.get(dataset.name, _CLASSES)
    try:
        if registry.find("dataset", dataset.name).distribution != dataset.distribution:
            return _CLASSES
        found = registry.load("dataset", dataset.name).ranking
    except PrivbenchError:
        return _CLASSES  # it is not installed, or does not import: its records can be read all the same
    return found if isinstance(found, RankingRules) else _CLASSES


def suite_attacks(rules: RankingRules, column: Definition, rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the names of the suite's attacks whose evidence the score reads.

    A score of another package reads the kinds of evidence of the attacks for which the rows have it. Of several kinds,
    the first in the suite counts: a rank speaks of one kind of knowledge of the attacker.
    """
    found = {row.records[0].cell.attack.name for row in rows}
    kinds = READS.get(column.name) or [kind for kind, names in rules.attacks.items() if found & set(names)]
    return next((rules.attacks[kind] for kind in kinds if rules.attacks.get(kind)), ())


def is_of_suite(row: Row, name: str) -> bool:
    """Return whether the attack of a row is the suite's attack `name`, with no field set by the user."""
    cell = row.records[0].cell
    return (
        cell.attack.name == name
        and cell.attack.distribution in (BUILT_IN, cell.dataset.distribution)
        and not any(record.changed.get("attack") for record in row.records)
    )
