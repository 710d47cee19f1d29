"""Frechet distance per identity on unit-norm features, as in BiDO's evaluation of VMI."""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..benchmark.core.config import Definition, setting
from ..benchmark.core.evidence import ClassReconstructions, Evidence, Images, Score
from ..benchmark.core.statistics import sample_std, student
from ..benchmark.networks.judges import Judge, Judges
from ._fid import FrechetEvaluator, first_of_each, rank_flags, size_notes
from ._frechet import Moments, frechet_distance
from ._reasons import NO_RECONSTRUCTIONS


class FIDVMI(FrechetEvaluator):
    """Frechet distance per label on unit features (VMI's FID).

    `fid_vmi = mean_k mean_r d(real_k, fake_rk)`, where features are divided by their Euclidean norm (0 stays 0), real_k
    are all private images of label k, training before test, and fake_rk are its draws in trial r. The score is at most
    4, since the distance of two unit vectors is at most 2.

    The interval is Student-t over labels. `spreads["classes"]` is the sample standard deviation over labels, which
    corresponds to the +- of the other columns of BiDO's Table 4; `spreads["trials"]` is that of the R trial means.

    References:
        K. Wang et al., "Variational Model Inversion Attacks", NeurIPS 2021, https://arxiv.org/abs/2201.10787.
        X. Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022,
        https://arxiv.org/abs/2206.05483 (Table 4).

    Note:
        BiDO uses the 512 features of InsightFace's IR-SE50 with BGR input at 112 x 112; here they are those of the
        protocol's judge, so the values resemble Table 4's but are not equal.

    Note:
        BiDO reports the epoch with the highest accuracy under its evaluation classifier; here nothing is selected.

    Note:
        With at most 100 images in hundreds of features every covariance is rank-deficient and the value is mostly bias,
        so only values with equal numbers of images are comparable.
    """

    judges = ("classifier",)
    optional = True
    scores = (
        Definition(
            name="fid_vmi",
            title="FID (as VMI)",
            measures="quality",
            better="higher",
            unit="distance",
            formula="Frechet distance of the judge's unit-norm features between the private images of a label and its "
            "reconstructions in a trial, mean over trials and labels; biased upwards at small n",
            range="[0, 4]",
        ),
    )
    reference: int = setting(100, "largest number of private images per label", ge=2)
    draws: int = setting(100, "largest number of reconstructions per label and trial; the first ones are used", ge=2)

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `fid_vmi`, with one value per attacked label."""
        found: ClassReconstructions = evidence.get(ClassReconstructions)
        fake, judge = found.pixels[:, : self.draws], judges.classifier
        if not int(np.prod(fake.shape[:3])):
            return {"fid_vmi": Score(value=None, reason=NO_RECONSTRUCTIONS)}
        parts = [evidence.private(part) for part in ("private_train", "private_test")]
        rows, smallest, dims, reasons = [], self.reference, 0, []
        for k, label in enumerate(found.labels):
            real = _private_features(parts, label, self.reference, judge)
            values, reason = _distances(real, fake[:, :, k], judge)
            rows.append(values)
            if reason:
                reasons.append(reason)
            else:
                smallest, dims = min(smallest, len(real)), real.shape[1]
        notes = size_notes(smallest, fake.shape[1], dims) if dims else ()
        score = _score_labels(np.array(rows), int(np.prod(fake.shape[:3])), reasons, notes)
        flags = rank_flags(smallest, fake.shape[1], dims) if dims else {}
        return {"fid_vmi": dataclasses.replace(score, flags=flags)}


def _private_features(parts: list[Images], label: Tensor, count: int, judge: Judge) -> NDArray[np.float64]:
    """Unit-norm features of the first `count` images of `label` in `parts`; no rows if there are none."""
    chosen = [first_of_each(part, label[None], count)[0] for part in parts]
    pixels = torch.cat(chosen)[:count]
    return _unit_features(judge, pixels) if len(pixels) else np.zeros((0, 1))


def _distances(real: NDArray[np.float64], fake: Tensor, judge: Judge) -> tuple[list[float], str | None]:
    """Distance of each trial for one label (`fake` is `R S C H W`), NaN with the reason where undefined."""
    if len(real) == 0:
        return [np.nan] * len(fake), "there are no private images of the label"
    reference = Moments.of(real)
    found = [frechet_distance(reference, Moments.of(_unit_features(judge, trial))) for trial in fake]
    reason = next((distance.reason for distance in found if distance.reason), None)
    return [np.nan if reason or d.value is None else d.value for d in found], reason


def _unit_features(judge: Judge, pixels: Tensor) -> NDArray[np.float64]:
    features: NDArray[np.float64] = judge.features(pixels).double().numpy()
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float64] = features / np.where(length == 0, 1, length)
    return unit


def _score_labels(values: NDArray[np.float64], n: int, reasons: list[str], notes: tuple[str, ...]) -> Score:
    """Score of distances `K R`, NaN in the rows of undefined labels."""
    by_label = values.mean(1)
    defined = values[~np.isnan(by_label)]
    per_class = tuple(None if np.isnan(value) else float(value) for value in by_label)
    if reasons:
        notes = (*notes, f"{len(reasons)} of {len(values)} labels are undefined and left out: {reasons[0]}")
    if len(defined) == 0:
        return Score(value=None, n=n, per_class=per_class, reason=f"no label has a distance: {reasons[0]}")
    means = defined.mean(1)
    return Score(
        value=float(means.mean()),
        n=n,
        interval=student(means, (0, 4)),
        intervals={"trials": student(defined.mean(0), (0, 4))},
        spreads={"classes": sample_std(means), "trials": sample_std(defined.mean(0))},
        per_class=per_class,
        notes=notes,
    )
