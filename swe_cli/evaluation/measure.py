"""Everything that is measured of a model on a split, whatever the data set is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from swe_cli.contracts import Dataset, Model, Questions, RunningText, Tensors, WindowLosses
from swe_cli.evaluation import answers as answering
from swe_cli.evaluation.loss import Evaluation, bits_per_character, window_losses
from swe_cli.machine import Machine
from swe_cli.records import Kind


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
        arrays = {name: tensor.numpy() for name, tensor in stored.items()}
        losses = WindowLosses(arrays.pop("nats"), arrays.pop("tokens"))
        arrays.pop("nats_before_recovery", None)
        return cls(losses, arrays or None)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.losses.nats).all())


def measure(
    model: Model,
    dataset: Dataset,
    evaluation: Evaluation,
    *,
    machine: Machine,
    shuffle_images: int | None = None,
) -> Measured:
    """The full, deterministic pass. ``shuffle_images`` (a seed) shows every question another
    image of the split: what is left is what the questions alone give away.
    """
    if isinstance(dataset, Questions):
        return Measured(
            *answering.answer_all(
                model,
                dataset,
                evaluation.split,
                size=evaluation.batch_size,
                machine=machine,
                shuffle_images=shuffle_images,
            )
        )
    windows = dataset.windows(evaluation.split, context=model.context, size=evaluation.batch_size)
    return Measured(window_losses(model, windows, machine=machine))


def controls_of(dataset: Dataset) -> tuple[Kind, ...]:
    """Controls beside those that every data set has."""
    return ("dense_blind",) if isinstance(dataset, Questions) else ()


def characters_column(measured: Measured, dataset: Dataset, evaluation: Evaluation) -> float | None:
    """Bits per character, of a running text."""
    if not isinstance(dataset, RunningText):
        return None
    return bits_per_character(measured.losses, dataset.characters(evaluation.split))


def measures(
    measured: Measured, dataset: Dataset, evaluation: Evaluation, dense: Measured | None
) -> dict[str, float]:
    """Columns that only data sets of questions have; see ``evaluation.answers``."""
    if measured.answers is None or not isinstance(dataset, Questions):
        return {}
    found = answering.measures(measured.answers)
    if dense is not None and dense.answers is not None:
        found |= answering.differences(measured.answers, dense.answers)
    return found | answering.baselines(dataset, evaluation.split)


def answered_before(measured: Measured | None) -> dict[str, float]:
    """Accuracy and MAE before recovery; nothing where there was none, or for a text."""
    if measured is None or measured.answers is None:
        return {}
    found = answering.means(measured.answers)
    return {f"{name}_before_recovery": value for name, value in found.items()}
