"""Settings of the attacks' presets against the published ones, as numbers."""

import pytest
from privbench.attacks.decoder import DecoderAttack
from privbench.attacks.feature_regression import FeatureRegression
from privbench.attacks.gmi import GMI
from privbench.attacks.kedmi import KEDMI
from privbench.attacks.vmi import VMI

GAN = {"latent": 100, "batch_size": 64, "learning_rate": 2e-4, "betas": (0.5, 0.999), "n_critic": 5, "max_steps": None}
#: Zhang et al. 2020 and the code of BiDO.
GMI_ = {**GAN, "gradient_weight": 10, "momentum": 0.9, "identity_weight": 100, "restarts": None}
#: Chen et al. 2021 and the code of BiDO.
KEDMI_ = {**GAN, "entropy_weight": 1e-4, "attack_learning_rate": 2e-2, "identity_weight": 100}
#: Wang et al. 2021 and the code of BiDO.
VMI_ = {"attack_learning_rate": 1e-4, "momentum": 0.9, "kl_weight": 1e-3, "identity_weight": 1, "batch_size": 64,
        "max_steps": None, "max_gradient": None, "flow_hidden": 100, "affine": False}  # fmt: skip
STYLE = {"generator": "stylegan", "latent": 512, "channel_base": 16384, "channel_max": 512, "mapping_layers": 2,
         "learning_rate": 2.5e-3, "betas": (0.0, 0.99), "r1_weight": 0.0128, "r1_interval": 16, "style_mixing": 0.9,
         "average_images": 20_000, "shown": 1_169_000 + 2_298_000, "flow_steps": 30}  # fmt: skip
DCGAN = {"generator": "dcgan", "learning_rate": 2e-4, "betas": (0.5, 0.999), "flow_steps": 5}
#: What the paper of Xiao et al. leaves open.
ADAM = {"epochs": 50, "batch_size": 64, "learning_rate": 1e-3, "max_steps": None}

PUBLISHED = [
    (GMI, "celeba", {**GMI_, "epochs": 300, "iterations": 2000, "attack_learning_rate": 2e-2}),
    (
        GMI,
        "mnist",
        {**GMI_, "epochs": 300, "learning_rate": 4e-3, "iterations": 3000, "attack_learning_rate": 1e-2},
    ),
    (GMI, "cifar10", {**GMI_, "epochs": 300, "iterations": 3000, "attack_learning_rate": 1e-2}),
    (GMI, "original", {**GMI_, "epochs": 280, "iterations": 1500, "attack_learning_rate": 2e-2}),
    (GMI, "original-mnist", {**GMI_, "epochs": 100, "iterations": 1500, "attack_learning_rate": 1e-2}),
    (KEDMI, "celeba", {**KEDMI_, "epochs": 100, "iterations": 5000, "initial_logvar": 0}),
    (KEDMI, "mnist", {**KEDMI_, "epochs": 100, "iterations": 5000, "initial_logvar": 0}),
    (KEDMI, "cifar10", {**KEDMI_, "epochs": 100, "iterations": 5000, "initial_logvar": 0}),
    (KEDMI, "original", {**KEDMI_, "epochs": 120, "iterations": 2400, "initial_logvar": 1}),
    (VMI, "celeba", {**VMI_, **STYLE, "samples": 32, "iterations": 32 * 10, "instance_noise": 0}),
    (VMI, "original", {**VMI_, **STYLE, "samples": 64, "iterations": 20 * 157}),
    (VMI, "mnist", {**VMI_, **DCGAN, "latent": 50, "width": 10, "spectral": True, "instance_noise": 0.1}),
    (VMI, "cifar10", {**VMI_, **DCGAN, "latent": 100, "width": 64, "spectral": False, "instance_noise": 0}),
    (DecoderAttack, None, {**ADAM, "mu_1": 0, "mu_2": 0, "max_channels": 2048, "perceptual": "vgg16"}),
    (FeatureRegression, None, {**ADAM, "hidden": 1024, "embedder": "facenet_vggface2"}),
    (FeatureRegression, "mnist", {**ADAM, "hidden": 1024, "embedder": "hog"}),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "preset", "published"), PUBLISHED)
def test_a_preset_has_the_published_settings(attack, preset, published):
    configured = attack(**(attack.presets[preset] if preset else {}))
    assert {name: getattr(configured, name) for name in published} == published
