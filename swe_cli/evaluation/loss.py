"""The full, deterministic pass: every token of a split once, window by window."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeInt

from swe_cli.contracts import IGNORED, Count, Model, Setup, WindowLosses
from swe_cli.records import Batch
from swe_cli.seeds import derive


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """``split`` of every table; ``random_batches`` > 0 adds the paper's way in its own column."""

    split: Literal["validation", "test"]
    batch_size: Count
    random_batches: NonNegativeInt


@torch.inference_mode()
def window_losses(setup: Setup, batches: Iterable[Batch]) -> WindowLosses:
    """Summed loss (nats) and predicted tokens of every window, in order."""
    nats, tokens, windows = [], [], []
    with evaluating(setup.model):
        for batch in batches:
            moved = setup.machine.move(batch)
            with setup.machine.precision():
                losses = setup.model(moved).losses
            nats.append(losses.cpu().double().sum(dim=1).numpy())
            tokens.append((moved["targets"] != IGNORED).sum(dim=1).cpu().numpy())
            windows.append(window_of(batch))
    if windows[0] is None:
        return WindowLosses(np.concatenate(nats), np.concatenate(tokens))
    places = np.concatenate(windows)
    return WindowLosses(by_window(nats, places), by_window(tokens, places).astype(np.int64))


def window_of(batch: Batch) -> Any:
    """Which window every row belongs to, int64 (B,); None where every row is a window."""
    return batch["window"].numpy() if "window" in batch else None


def by_window(values: Sequence[Any], windows: Any) -> Any:
    """Values of rows, batch by batch, summed window by window: float64 (N,)."""
    return np.bincount(windows, weights=np.concatenate(values))


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
    drawn = (
        setup.dataset.random_batch(
            evaluation.split,
            size=evaluation.batch_size,
            context=setup.model.context,
            seed=derive(setup.seed, "random_batches", index),
        )
        for index in range(evaluation.random_batches)
    )
    return window_losses(setup, drawn).mean_nats


def perplexity(loss_nats: float) -> float | None:
    """``exp(loss)`` per token; None where the exponential overflows."""
    return math.exp(loss_nats) if loss_nats < 700 else None


def bits_per_character(losses: WindowLosses, characters: int) -> float:
    """Total information in bits over the characters predicted: comparable across tokenizers."""
    return float(losses.nats.sum()) / math.log(2) / characters
