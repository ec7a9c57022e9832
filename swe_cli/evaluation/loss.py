"""The full, deterministic pass: every token of a split once, window by window."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from swe_cli.contracts import IGNORED, Batch, Dataset, Model, Split, WindowLosses
from swe_cli.errors import UsageError
from swe_cli.machine import Machine
from swe_cli.seeds import derive


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """``split`` of every table; ``random_batches`` > 0 adds the paper's way in its own column."""

    split: Literal["validation", "test"]
    batch_size: int
    random_batches: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.random_batches < 0:
            raise UsageError("evaluation.batch_size must be positive, random_batches not negative.")


@torch.inference_mode()
def window_losses(model: Model, batches: Iterable[Batch], *, machine: Machine) -> WindowLosses:
    """Summed loss (nats) and predicted tokens of every window, in order."""
    nats, tokens, windows = [], [], []
    with evaluating(model):
        for batch in batches:
            moved = machine.move(batch)
            with machine.precision():
                losses = model(moved).losses
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
    module = _module(model)
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def random_batches_loss(
    model: Model,
    dataset: Dataset,
    split: Split,
    *,
    batches: int,
    size: int,
    seed: int,
    machine: Machine,
) -> float:
    """Mean loss over random windows, in nats: how the SWE paper evaluates, beside the full pass."""
    drawn = (
        dataset.random_batch(
            split, size=size, context=model.context, seed=derive(seed, "random_batches", index)
        )
        for index in range(batches)
    )
    return window_losses(model, drawn, machine=machine).mean_nats


def perplexity(loss_nats: float) -> float | None:
    """``exp(loss)`` per token; None where the exponential overflows."""
    return math.exp(loss_nats) if loss_nats < 700 else None


def bits_per_character(losses: WindowLosses, characters: int) -> float:
    """Total information in bits over the characters predicted: comparable across tokenizers."""
    return float(losses.nats.sum()) / math.log(2) / characters


def _module(model: Model) -> torch.nn.Module:
    assert isinstance(model, torch.nn.Module)
    return model
