"""Attacks of a plugin: one that looks for what it must not see, and a plain one for each access."""

import gc
import os
import socket
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from privbench import Attack, FeatureAttack, setting
from privbench.benchmark.core.evidence import ClassReconstructions, Images, PairedReconstructions
from privbench.benchmark.errors import InvalidConfigurationError

#: Modules that hold private images or compute with them; the attack's process needs none.
PRIVATE = ("privbench.benchmark.pipeline.session", "privbench.benchmark.pipeline.stages", "privbench.evaluators")


def answers(view: Any, x: torch.Tensor) -> torch.Tensor:
    ask = {"white_box": "logits", "scores": "scores", "labels": "labels", "features": "features"}[view.access]
    return getattr(view, ask)(x)


class Plain(Attack):
    """Climbs towards a label by random steps, with a prior, a loop and checkpoints."""

    access: ClassVar[Any] = "scores"
    prior: ClassVar[Any] = "public"
    steps: int = setting(3, "steps", stages=("evidence",))
    scale: float = setting(0.5, "size of a step")

    def learn(self, view, public, context):
        noise = torch.rand(4, generator=context.generator("noise"))
        return {"mean": {"image": public.pixels.float().mean(0) / 255}, "noise": {"values": noise}}

    def run(self, view, prior, request, context):
        point = torch.nn.ParameterDict({"x": torch.nn.Parameter(prior["mean"]["image"].clone()[None])})

        def step(i, generator):
            change = self.scale * torch.rand(point["x"].shape, generator=generator)
            point["x"].data = (point["x"].data + change).clamp(0, 1)
            return {"loss": answers(view, point["x"].detach()).float().mean().detach()}

        context.loop("climb", self.steps, {"point": point}, step)
        context.notes["noise"] = float(prior["noise"]["values"].sum())
        shape = (request.trials, request.draws, len(request.labels), *point["x"].shape[1:])
        pixels = (point["x"].detach()[0] * 255).round().to(torch.uint8).expand(shape).contiguous()
        return ClassReconstructions(pixels, torch.tensor(request.labels))


class Picky(Plain):
    """Supports no image."""

    def require(self, protocol):
        raise InvalidConfigurationError(f"expected images of 3 x 3 pixels for picky, got those of {protocol.id}")


class PlainFeatures(FeatureAttack):
    """Paints the mean of each observed latent."""

    yields: ClassVar[str] = "PairedReconstructions"

    def run(self, view, prior, request, context):
        values = request.encodings.float().flatten(1).mean(1).sigmoid()
        shape = (len(values), *context.protocol.image)
        pixels = (values * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(shape).contiguous()
        return PairedReconstructions(pixels, request.items)


class Prying(Plain):
    """Looks for private images, for other processes, files and the network, and notes what it finds."""

    folders: str = setting("", "folders that it should not see, separated by |")
    harness: int = setting(0, "process number of the harness")
    port: int = setting(9, "of a server on this machine")

    def run(self, view, prior, request, context):
        found = super().run(view, prior, request, context)
        seen = [name for name in PRIVATE if name in sys.modules]
        for value in gc.get_objects():
            if isinstance(value, Images) and len(value) > 0 and value.pixels is not context.public().pixels:
                seen.append("images")
        seen += [folder for folder in self.folders.split("|") if folder and list(Path(folder).glob("*"))]
        seen += [name for name in os.environ if name in ("PRIVBENCH_STORE", "PRIVBENCH_DATA", "SECRET")]
        try:
            Path(f"/proc/{self.harness}/environ").read_bytes()
            Path(f"/proc/{self.harness}/mem").open("rb").close()
            seen.append("memory")
        except OSError:
            pass
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            seen.append("network")
        except OSError:
            pass
        # What it changes in its own process must change nothing elsewhere.
        view._answered = 1
        for name in list(sys.modules):
            if name.startswith("privbench.benchmark.core"):
                sys.modules[name].__dict__.clear()
        context.notes["seen"] = " ".join(seen)
        return found


class Failing(Plain):
    """Fails."""

    prior: ClassVar[Any] = "none"

    def run(self, view, prior, request, context):
        raise ArithmeticError("nothing works")
