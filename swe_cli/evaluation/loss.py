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


@dataclass(frozen=True)
class WindowLosses:
    """The loss of every evaluation window, kept so that two models are compared paired.

    ``nats`` float64 (N,): summed loss of a window. ``tokens`` int64 (N,): tokens predicted in it.
    """

    nats: np.ndarray[Any, np.dtype[np.float64]]
    tokens: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def mean_nats(self) -> float:
        """Token-weighted mean loss, nats per token."""
        return float(self.nats.sum() / self.tokens.sum())


@torch.inference_mode()
def row_pass(setup: Setup, batches: Iterable[Batch]) -> dict[str, np.ndarray[Any, Any]]:
    """Of every row, in order: "nats" float64 (N,), its summed loss, and "tokens" int64 (N,).

    Of questions also "window" int64 (N,), and "correct" bool (N,): a greedy answer is right exactly
    where the likeliest token is right at every place of the right answer.
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
    return {name: torch.cat(tensors).numpy() for name, tensors in rows.items()}


def losses_of(rows: dict[str, np.ndarray[Any, Any]]) -> WindowLosses:
    """The losses of ``row_pass`` by window: rows of one window added up."""
    if "window" not in rows:
        return WindowLosses(rows["nats"], rows["tokens"])
    nats, tokens = (by_window(rows[of], rows["window"]) for of in ("nats", "tokens"))
    return WindowLosses(nats, tokens.astype(np.int64))


def by_window(values: Any, windows: Any) -> Any:
    """Values of rows (N,) summed window by window, float64."""
    return np.bincount(windows, weights=values)


def window_losses(setup: Setup, batches: Iterable[Batch]) -> WindowLosses:
    """Summed loss (nats) and predicted tokens of every window, in order."""
    return losses_of(row_pass(setup, batches))


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
    return window_losses(setup, windows).mean_nats


def random_batches_loss(setup: Setup, evaluation: Evaluation) -> float:
    """Mean loss over random windows, in nats: how the SWE paper evaluates, beside the full pass."""
    batches = (
        setup.dataset.random_batch(
            evaluation.split,
            size=evaluation.batch_size,
            context=setup.model.context,
            seed=derive(setup.seed, "random_batches", index),
        )
        for index in range(evaluation.random_batches)
    )
    return window_losses(setup, batches).mean_nats
