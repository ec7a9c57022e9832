"""DSMoE: MLPs cut into blocks that a router switches on and off, token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from swe_cli.contracts import IGNORED, Candidate, Learner, Model, Prediction, Setup, Transform
from swe_cli.errors import UsageError
from swe_cli.records import Batch, Tensors
from swe_cli.seeds import derive
from swe_cli.transforms.trawl import EXPAND, dense_mlps


@dataclass(frozen=True, kw_only=True)
class DSMoE(Transform):
    """MLPs of n = ``experts`` blocks o_i and gates of them, straight-through; Lv et al. 2025, arXiv
    2502.12455. Means are over MLPs, tokens and blocks, g = σ(hY).

    ``published``: n / #active · Σ o_i G_i, G = g·1[g > ½]; recovery's loss is the model's + mean G.
    ``predicted`` (ours): Σ o_i·1[g_i > ½], with a bias in σ, that starts by predicting each token's
    ``target`` · n blocks of largest ‖o_i‖ in ``samples`` windows; + 10 (mean 1[g > ½] − target)².
    ``soft`` (a control): Σ o_i g_i; nothing is skipped, and nothing added to the loss.
    """

    experts: PositiveInt
    router: Literal["published", "predicted", "soft"]
    target: Annotated[float, Field(gt=0, le=1, description="Write transform.target=0.5")]
    samples: PositiveInt

    def candidates(self, prunable: Mapping[str, Tensor]) -> Sequence[Candidate]:
        """All MLPs at once; see ``contracts.Transform``."""
        mlps = dense_mlps(prunable)
        hidden = gcd(*(len(prunable[mlp + EXPAND]) for mlp in mlps))
        fits = next(n for n in range(min(self.experts, hidden), 0, -1) if hidden % n == 0)
        if fits != self.experts:
            why = f"transform.experts={self.experts} does not divide {hidden} hidden neurons."
            raise UsageError(why, f"Write transform.experts={fits}")
        width = sum(prunable[mlp + EXPAND].shape[1] + (self.router == "predicted") for mlp in mlps)
        return [Candidate(tuple(mlps), 0, -self.experts * width)]

    def apply(self, weights: Tensors, candidate: Candidate, seed: int) -> Tensors:
        """Y is ``X.router.<kind>.weight``, drawn with GPT-2's 0.02; predicted, all on at first."""
        new = dict(weights)
        for mlp in candidate.layers:
            like, router = weights[mlp + EXPAND], f"{mlp}.router.{self.router}"
            generator = torch.Generator().manual_seed(derive(seed, f"transform/{mlp}"))
            drawn = torch.randn(self.experts, like.shape[1], generator=generator)
            deviation = 0.0 if self.router == "predicted" else 0.02
            new[f"{router}.weight"] = (deviation * drawn).to(like)
            if self.router == "predicted":
                new[f"{router}.bias"] = like.new_ones(self.experts)
        return new

    def start(self, setup: Setup, candidate: Candidate) -> None:
        """Let predicted routers predict: 150 steps of Adam on the logistic loss of all tokens."""
        if self.router != "predicted":
            return
        drawn = setup.random_batch("train", self.samples, derive(setup.seed, "calibration"))
        setup.mean_loss(setup.machine.move(drawn))
        mlps: Any = map(setup.model.get_submodule, candidate.layers)
        for mlp in mlps:
            x, router = mlp.fed.flatten(0, -2).to(mlp.expand.weight), mlp.router.predicted
            most = mlp.contributions(x).topk(max(1, round(self.target * self.experts))).indices
            wanted = x.new_zeros(len(x), self.experts).scatter_(1, most, 1.0)
            optimizer = torch.optim.Adam(router.parameters(), lr=0.03)
            for _ in range(150):
                error = (torch.sigmoid(router(x)) - wanted) / len(x)
                router.weight.grad, router.bias.grad = error.T @ x, error.sum(0)
                optimizer.step()
            optimizer.zero_grad()

    def learner(self, model: Model, learner: Learner) -> Learner:
        """``learner``, and what routers pay at every token that is predicted."""
        mlps: Any = [module for module in model.modules() if hasattr(module, "gates")]

        def predict(batch: Batch) -> Prediction:
            (losses, logits), gates = learner(batch), [mlp.gates(mlp.fed).float() for mlp in mlps]
            # G itself is flat below ½; what is straight-through is its use as a gate.
            means = [(of.relu() if self.router == "published" else of).mean() for of in gates]
            pays = torch.stack(means).mean()
            if self.router == "predicted":
                pays = 10 * (pays - self.target).square()
            return Prediction(losses + pays * (batch["targets"] != IGNORED), logits)

        return learner if self.router == "soft" else predict
