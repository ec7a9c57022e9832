"""The full, deterministic pass: every token of a split once, window by window."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from swe_cli.contracts import IGNORED, Count, Model, Setup
from swe_cli.models.gpt import token_losses
from swe_cli.records import Batch
from swe_cli.seeds import derive


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """``split`` of every table; ``random_batches`` > 0 adds the paper's way in its own column."""

    split: Literal["validation", "test"]
    batch_size: Count
    random_batches: NonNegativeInt

    @property
    def cut(self) -> dict[str, Any]:
        """What ``Setup.cut`` is told: nothing, where windows are as the model has them."""
        return {n: of for n, of in vars(self).items() if n not in Evaluation.__annotations__}


@dataclass(frozen=True, kw_only=True)
class OtherWindows(Evaluation):
    """Windows side by side, as in published tables (Frantar & Alistarh 2023; Sun et al. 2024); what
    its options mean is said in ``evaluation/wanda.yaml``.
    """

    window: Annotated[int, Field(ge=2)] | None
    predict_first: bool
    remainder: bool
    bos: Literal["default", "none", "text", "window"]


# Sums over every evaluation window (N,), by name, so that two models are compared paired: "nats"
# float64, its loss, and "tokens" int64, how many were predicted; of a calibrated model "calibrated"
# float64, its loss at its own "temperature" (once a token), "validation_nats", its loss on the
# validation split (once a token), and "right", how many tokens it ranks first; of questions also
# "correct", and what ``measure`` adds. And of every predicted token, in order (M,), where
# calibrated: "token_nats" float32, its loss, and "token_right" uint8.
Measured = dict[str, np.ndarray[Any, Any]]


def mean_of(measured: Measured, name: str, per: str = "tokens") -> float:
    """Σ ``name`` / Σ ``per`` over all windows: of "nats" the mean loss, nats per token."""
    return float(measured[name].sum() / measured[per].sum())


# 1/τ of the temperatures τ that are tried: from 16 to a quarter
SHARPNESSES = tuple(2.0 ** (k / 2) for k in range(-8, 5))


@torch.inference_mode()
def fit_temperature(setup: Setup, batches: Iterable[Batch]) -> tuple[float, float]:
    """The softmax temperature τ of the least loss over ``batches`` (Guo et al. 2017), and their
    loss at τ = 1, nats per token.

    In one pass, without keeping logits: the loss and its slope are summed at every one of
    ``SHARPNESSES``, and the minimum is that of the cubic spline through them. 1 where the loss is
    not finite.
    """
    from scipy.interpolate import CubicHermiteSpline  # a report needs none, and need not wait

    at = np.log(SHARPNESSES)
    sums, tokens = torch.zeros(2, len(at), dtype=torch.float64), 0
    with evaluating(setup.model):
        for batch in batches:
            moved = setup.machine.move(batch)
            with setup.machine.precision():
                logits = setup.model(moved).logits
            predicted = moved["targets"] != IGNORED
            z, target = logits[predicted].float(), moved["targets"][predicted]
            right = z.gather(-1, target[:, None])[:, 0]
            tokens += len(target)
            for place, sharpness in enumerate(SHARPNESSES):
                scaled = z * sharpness
                loss = scaled.logsumexp(-1) - sharpness * right
                slope = (scaled.softmax(-1) * z).sum(-1) - right
                sums[:, place] += torch.stack([loss, sharpness * slope]).cpu().double().sum(1)
    plain = float(sums[0, SHARPNESSES.index(1.0)]) / tokens
    if not sums.isfinite().all():
        return 1.0, plain
    spline = CubicHermiteSpline(at, *sums.numpy())
    flat = spline.derivative().roots(extrapolate=False)
    best = min((at[0], at[-1], *flat[np.isfinite(flat)]), key=spline)
    return math.exp(-best), plain


@torch.inference_mode()
def row_pass(setup: Setup, batches: Iterable[Batch], temperature: float | None = None) -> Measured:
    """Of every row, in order, "nats", "tokens", and the number of its "window", int64 (N,); with a
    ``temperature`` what a calibrated model has.

    Of questions also "correct" bool (N,): a greedy answer is right exactly where the likeliest
    token is right at every place of the right answer.
    """
    rows = defaultdict[str, list[Tensor]](list)
    with evaluating(setup.model):
        for batch in batches:
            moved = setup.machine.move(batch)
            with setup.machine.precision():
                losses, logits = setup.model(moved)
            targets = moved["targets"]
            rows["nats"].append(losses.cpu().double().sum(dim=1))
            rows["tokens"].append((targets != IGNORED).sum(dim=1).cpu())
            right = logits.argmax(-1) == targets
            if temperature is not None:
                nats = token_losses(logits.float() / temperature, targets)
                rows["calibrated"].append(nats.cpu().double().sum(dim=1))
                rows["right"].append(right.sum(dim=1).cpu())
                rows["temperature"].append(temperature * rows["tokens"][-1].double())
                rows["token_nats"].append(losses[targets != IGNORED].cpu())
                rows["token_right"].append(right[targets != IGNORED].cpu().byte())
            if "window" in batch:
                rows["window"].append(batch["window"])
                rows["correct"].append((right | (targets == IGNORED)).all(dim=1).cpu())
    found = {name: torch.cat(tensors).numpy() for name, tensors in rows.items()}
    return {"window": np.arange(len(found["nats"])), **found}


def by_window(rows: Measured) -> Measured:
    """Rows of one "window" added up, float64 (tokens int64); what is of single tokens stays."""
    alone = {name: of for name, of in rows.items() if name.startswith("token_")}
    summed = (name for name in rows if name != "window" and name not in alone)
    sums = {name: np.bincount(rows["window"], weights=rows[name]) for name in summed}
    return {**sums, "tokens": sums["tokens"].astype(np.int64), **alone}


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """The model without dropout, and then as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def validation_loss(setup: Setup, size: int) -> float:
    """The full pass over the validation split in batches of ``size``, nats per token."""
    return mean_of(by_window(row_pass(setup, setup.windows("validation", size))), "nats")


def random_batches_loss(setup: Setup, evaluation: Evaluation) -> float:
    """Mean loss over random windows, in nats: how the SWE paper evaluates, beside the full pass."""
    split, size = evaluation.split, evaluation.batch_size
    batches = (
        setup.random_batch(split, size, derive(setup.seed, "random_batches", index))
        for index in range(evaluation.random_batches)
    )
    return mean_of(by_window(row_pass(setup, batches)), "nats")
