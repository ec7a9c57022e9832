"""Everything that is measured of a model, whatever the data set is, and what it costs.

What is measured are pairs of a name and an interval: a new metric is one more pair.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from swe_cli.contracts import Questions, Setup
from swe_cli.errors import PruningError, SweWarning
from swe_cli.evaluation import answers as answering
from swe_cli.evaluation.compare import loss_interval, paired_difference
from swe_cli.evaluation.loss import (
    Evaluation,
    WindowLosses,
    evaluating,
    random_batches_loss,
    window_losses,
)
from swe_cli.records import Interval, Tensors

FEW_WINDOWS = 10


@dataclass(frozen=True)
class Measured:
    """Window by window, so that two models are compared paired."""

    losses: WindowLosses
    answers: answering.Answers | None = None

    def tensors(self) -> Tensors:
        """What is stored beside a row."""
        arrays = {"nats": self.losses.nats, "tokens": self.losses.tokens, **(self.answers or {})}
        return {name: torch.from_numpy(np.ascontiguousarray(of)) for name, of in arrays.items()}

    @classmethod
    def from_tensors(cls, stored: Mapping[str, Tensor]) -> "Measured":
        """Read back what ``tensors`` gave."""
        arrays = {name: tensor.numpy() for name, tensor in stored.items()}
        losses = WindowLosses(arrays.pop("nats"), arrays.pop("tokens"))
        arrays.pop("nats_before_recovery", None)
        return cls(losses, arrays or None)


def measure(setup: Setup, evaluation: Evaluation, shuffle_images: int | None = None) -> Measured:
    """The full, deterministic pass. ``shuffle_images`` (a seed) shows every question another
    image of the split: what is left is what the questions alone give away.

    Raises PruningError where the loss is not a number.
    """
    split, size = evaluation.split, evaluation.batch_size
    if setup.dataset.questions:
        answered = answering.answer_all(setup, split, size=size, shuffle_images=shuffle_images)
        measured = Measured(*answered)
    else:
        windows = setup.dataset.windows(split, context=setup.model.context, size=size)
        measured = Measured(window_losses(setup, windows))
    if not np.isfinite(measured.losses.nats).all():
        raise PruningError("The loss of the cut model is not a finite number.")
    if (count := len(measured.losses.nats)) < FEW_WINDOWS:
        what, advice = "window", "Raise data.test_characters, or lower model.context."
        if measured.answers is not None:
            what, advice = "image", "Ask about more of them."
        warnings.warn(
            f"The {split} split has {count} {what}{'s' * (count > 1)}: an interval over so few "
            f"says little. {advice}",
            SweWarning,
            stacklevel=2,
        )
    return measured


def metrics(
    setup: Setup,
    evaluation: Evaluation,
    after: Measured,
    before: Measured | None = None,
    references: Mapping[str, Measured] | None = None,
) -> Iterator[tuple[str, Interval]]:
    """Every metric of a model and its paired differences. Losses are nats per token.

    ``before``: measured before recovery, where there was one moment before. ``references``: what
    it is compared with, by kind of control: ``dense``, and after recovery ``dense_recovered``.
    """
    dataset, references = setup.dataset, references or {}
    yield "loss", loss_interval(after.losses)
    if evaluation.random_batches:
        yield "random_batches_loss", Interval(random_batches_loss(setup, evaluation))
    characters = dataset.characters(evaluation.split)
    if characters is not None:
        bits = float(after.losses.nats.sum()) / math.log(2)
        yield "bits_per_character", Interval(bits / characters)
    if after.answers is None:  # of questions it would say nothing: most tokens are not predicted
        if after.losses.mean_nats < 700:  # or the exponential overflows
            yield "perplexity", Interval(math.exp(after.losses.mean_nats))
    elif isinstance(dataset, Questions):
        yield from answering.measures(after.answers)
        yield from answering.baselines(dataset, evaluation.split)
    if before is not None:
        yield "loss_before_recovery", Interval(before.losses.mean_nats)
        if before.answers is not None:
            yield from answering.measures_before(before.answers)
    for kind, reference in references.items():
        end = "" if kind == "dense" else kind.removeprefix("dense")
        yield f"delta{end}", paired_difference(after.losses, reference.losses)
        if kind == "dense" and before is not None:
            yield "delta_before_recovery", paired_difference(before.losses, reference.losses)
        if kind == "dense" and after.answers is not None and reference.answers is not None:
            yield from answering.differences(after.answers, reference.answers)


def cost(setup: Setup) -> Iterator[tuple[str, float]]:
    """``parameters``: stored numbers, shared ones once. ``bytes``: of them, in their dtypes.
    ``flops_per_token``: of one forward pass over a full context, divided by its text tokens.

    Counted on a real forward pass of one window, about one image where there are images.
    FLOPs are those of matrix products, 2 · in · out for each row that a matrix is applied to:
    linear layers, factors, the head, scores and values of attention between all positions (a causal
    one computes as much). Look-ups, norms, activations and diagonals are left out. A masked zero is
    stored and multiplied like any number: a masked model is no smaller and no faster.
    """
    model, image = setup.model, setup.dataset.shape.image
    parameters = list(model.parameters())  # a tied one comes once
    with torch.device(parameters[0].device):
        tokens = torch.zeros(1, model.context, dtype=torch.int64)
        batch = {"tokens": tokens, "targets": tokens}
        if image is not None:
            batch["images"] = torch.zeros(1, *image, dtype=torch.uint8)
            batch["image"] = torch.zeros(1, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    # Fused attention would hide its products from the counter.
    with torch.no_grad(), evaluating(model), sdpa_kernel(SDPBackend.MATH), counter:
        model(batch)
    yield "parameters", float(sum(p.numel() for p in parameters))
    yield "bytes", float(sum(p.numel() * p.element_size() for p in parameters))
    yield "flops_per_token", counter.get_total_flops() / model.context
