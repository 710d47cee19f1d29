"""The attack impostors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from privbench import Attack, ClassReconstructions, Images, PrivbenchError, Request, setting
from privbench.benchmark.contracts import Prior
from privbench.benchmark.core.config import Access

if TYPE_CHECKING:
    from privbench.benchmark.access.views import ScoresView
    from privbench.benchmark.training.context import Context

#: Images in one query to the target.
CHUNK = 256


class Impostors(Attack):
    """Return the public images that the target assigns to the label with the highest score.

    The attack reconstructs nothing. It is a baseline: an attack with no higher success has found public images, not
    private ones.

    In each trial the attack asks the target for the scores of a random half of the pool. It returns the `draws` images
    with the highest score of a label, and repeats the best one if there are fewer.
    """

    access: ClassVar[Access] = "scores"
    yields: ClassVar[str] = "ClassReconstructions"
    prior: ClassVar[Literal["none", "public", "target"]] = "public"
    pool: int = setting(10_000, "public images at most, evenly spaced", smoke=50, ge=2, stages=("prior",))

    def learn(self, view: None, public: Images, context: Context) -> Prior:
        """Select the pool."""
        if len(public) == 0:
            raise PrivbenchError("expected public images to hold at least one image, got none")
        step = -(-len(public) // self.pool)
        return {"public": {"pixels": public.pixels[::step].contiguous()}}

    def run(self, view: ScoresView, prior: Prior, request: Request, context: Context) -> ClassReconstructions:
        """Ask for scores and take the highest."""
        import torch

        pixels, labels = prior["public"]["pixels"].cpu(), torch.tensor(request.labels)
        trials = []
        for trial in range(request.trials):
            source = context.generator("trial", trial)
            order = torch.randperm(len(pixels), generator=source, device=context.device).cpu()
            half = order[: (len(pixels) + 1) // 2]
            asked = (x.to(context.device).float() / 255 for x in pixels[half].split(CHUNK))
            scores = torch.cat([view.scores(x).cpu() for x in asked])[:, labels]
            best = scores.argsort(dim=0, descending=True)[: request.draws]
            missing = request.draws - len(best)
            trials.append(pixels[half[torch.cat([best, best[:1].expand(missing, -1)])]])
        return ClassReconstructions(torch.stack(trials), labels)
