"""The full, deterministic pass: every token of a split once, window by window."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt
from torch import Tensor

from swe_cli.contracts import IGNORED, Count, Model, Setup
from swe_cli.records import Batch
from swe_cli.seeds import derive


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """``split`` of every table; ``random_batches`` > 0 adds the paper's way in its own column."""

    split: Literal["validation", "test"]
    batch_size: Count
    random_batches: NonNegativeInt


# Sums over every evaluation window (N,), by name, so that two models are compared paired: "nats"
# float64, its loss, and "tokens" int64, how many were predicted; of questions also "correct", and
# what ``measure`` adds to it.
Measured = dict[str, np.ndarray[Any, Any]]


def mean_of(measured: Measured, name: str, per: str = "tokens") -> float:
    """Σ ``name`` / Σ ``per`` over all windows: of "nats" the mean loss, nats per token."""
    return float(measured[name].sum() / measured[per].sum())


@torch.inference_mode()
def row_pass(setup: Setup, batches: Iterable[Batch]) -> Measured:
    """Of every row, in order, "nats", "tokens", and the number of its "window", int64 (N,).

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
            if "window" in batch:
                right = (logits.argmax(-1) == targets) | (targets == IGNORED)
                rows["window"].append(batch["window"])
                rows["correct"].append(right.all(dim=1).cpu())
    found = {name: torch.cat(tensors).numpy() for name, tensors in rows.items()}
    return {"window": np.arange(len(found["nats"])), **found}


def by_window(rows: Measured) -> Measured:
    """Rows of one "window" added up, float64; tokens stay whole numbers."""
    sums = {n: np.bincount(rows["window"], weights=of) for n, of in rows.items() if n != "window"}
    return sums | {"tokens": sums["tokens"].astype(np.int64)}


def window_losses(setup: Setup, batches: Iterable[Batch]) -> Measured:
    """Summed loss (nats) and predicted tokens of every window, in order."""
    return by_window(row_pass(setup, batches))


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
    windows = setup.dataset.windows("validation", context=setup.model.context, size=size)
    return mean_of(window_losses(setup, windows), "nats")


def random_batches_loss(setup: Setup, evaluation: Evaluation) -> float:
    """Mean loss over random windows, in nats: how the SWE paper evaluates, beside the full pass."""
    split, size = evaluation.split, evaluation.batch_size
    batches = (
        setup.random_batch(split, size, derive(setup.seed, "random_batches", index))
        for index in range(evaluation.random_batches)
    )
    return mean_of(window_losses(setup, batches), "nats")
