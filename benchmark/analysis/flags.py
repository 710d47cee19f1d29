"""Explanations of flags: findings that cast doubt on the numbers of a record.

`cell_flags` finds the flags of one cell, `cross_cell_flags` those that show only between cells. `docs/flags.md` has the
rules.
"""

from collections.abc import Mapping

#: Why each flag matters and what to do about it, for readers of a report.
EXPLANATIONS: Mapping[str, str] = {
    "weak_judge": "The judge is often wrong on real images, so its verdicts on reconstructions, and distances in its "
    "features, are unreliable. Train it longer before comparing defenses.",
    "target_collapsed": "The target is no better than guessing, so it holds little that could leak. Its low leakage is "
    "no achievement of the defense, which has no rank therefore. Weaken the defense or train the target longer.",
    "attack_loss_did_not_fall": "The loss that the attack minimises did not decrease, so the attack did not work, and "
    "its low success says nothing about the defense. Change its step size or number of steps, or check whether the "
    "target has useful gradients.",
    "fid_rank_deficient": "A Frechet distance needs more images than features. With fewer, the covariance is "
    "rank-deficient and the value is mostly bias. Compare it only with values from equal numbers of images.",
    "random_output": "The target answers the same image differently each time. Attack results are averages over this "
    "noise and the gradients are noisy, so an attack that averages several answers may succeed where this one did not. "
    "Attack the target with more draws, or without the noise, before calling it private.",
    "zero_input_gradient": "The target has no usable gradient with respect to its input (gradient masking). Attacks "
    "that follow gradients fail for lack of gradients, not of information; compare with attacks that use none.",
    "shared_lineage": "Target and judge have one architecture family, or start from weights trained on the same "
    "images, so they share mistakes, and a reconstruction that fools one fools the other. This comes on top of what "
    "every judge of the built-in protocols shares with the target, the private training images. Read the verified "
    "accuracy, whose second judge shares neither architecture nor initial weights.",
    "weaker_access_wins": "An attack with weaker access to the target reconstructs more than this one. This attack is "
    "not at its full strength, or the target masks its gradients. Its numbers are no bound on the leakage; tune it, or "
    "use the numbers of the other attack.",
    "placebo_above_chance": "The attack also succeeds on a placebo, a target that was trained on permuted labels and "
    "knows none. That part of its success comes from its public images or from the judge. Read the excess over the "
    "placebo.",
    "judges_disagree": "Two independent judges assign most reconstructions to different classes, so these are no clear "
    "images of any class. Trust the verified accuracy and the images, not the accuracy of one judge.",
    "high_false_positive_rate": "Both judges often classify public images as a private class once the images are "
    "pushed towards it with the target's gradient, so verdicts of this pair are weak evidence. Do not subtract the "
    "rate, since such images are no failed reconstructions; look at the pictures and the nearest private images.",
}
