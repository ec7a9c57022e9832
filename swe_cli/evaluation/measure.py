"""Everything that is measured of a model on a split, whatever the data set is.

What is measured are pairs of a name and an interval: a new metric is one more pair.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from swe_cli.contracts import Questions, Setup, WindowLosses
from swe_cli.errors import PruningError, SweWarning
from swe_cli.evaluation import answers as answering
from swe_cli.evaluation.compare import loss_interval, paired_difference
from swe_cli.evaluation.loss import (
    Evaluation,
    bits_per_character,
    perplexity,
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
    def from_tensors(cls, stored: Mapping[str, torch.Tensor]) -> "Measured":
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
        measured = Measured(
            *answering.answer_all(setup, split, size=size, shuffle_images=shuffle_images)
        )
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
        yield "bits_per_character", Interval(bits_per_character(after.losses, characters))
    if after.answers is None:  # of questions it would say nothing: most tokens are not predicted
        found = perplexity(after.losses.mean_nats)
        yield from [] if found is None else [("perplexity", Interval(found))]
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
            difference = paired_difference(before.losses, reference.losses)
            yield "delta_before_recovery", difference
        if kind == "dense" and after.answers is not None and reference.answers is not None:
            yield from answering.differences(after.answers, reference.answers)
