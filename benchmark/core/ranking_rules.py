"""Rules by which a protocol ranks defenses: its attack suite, its utility score and the margin of utility."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from .config import Configuration

#: Kinds of evidence that attacks yield, class names in `evidence`.
EvidenceKind = Literal["ClassReconstructions", "PairedReconstructions", "FeatureEstimates"]
SUITE_1: Mapping[EvidenceKind, tuple[str, ...]] = {
    "ClassReconstructions": ("gmi", "kedmi"),
    "PairedReconstructions": ("decoder",),
    "FeatureEstimates": ("feature_regression",),
}


class RankingRules(Configuration):
    """Rules by which the defenses of a protocol are ranked. They decide no result, so they are in no key.

    Example:
        >>> RankingRules(suite=2, attacks={"ClassReconstructions": ("gmi", "kedmi", "vmi")}).margin
        0.05
    """

    suite: int = Field(1, description="version of the attack suite; raised when its attacks change", ge=1)
    attacks: Mapping[EvidenceKind, tuple[str, ...]] = Field(
        SUITE_1,
        description="registered names of the suite's attacks, by the kind of evidence they yield; they belong to "
        "privbench or to the package of the data set, and count with the fields of their presets",
    )
    utility: str = Field("accuracy", description="name of the score by which utility is compared")
    margin: float = Field(
        0.05,
        description="how much lower than the undefended target's a ranked defense's utility may be; 0.05 is 5 points",
        ge=0,
    )
