"""Everything that is measured of a model: losses, answers, and paired statistics of them."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from swe_cli.contracts import Example, Questions, Setup, Split
from swe_cli.data.tokens import NUMBER
from swe_cli.errors import DataError, PruningError, SweError, SweWarning
from swe_cli.evaluation.cost import Metrics, activated
from swe_cli.evaluation.loss import (
    Evaluation,
    Measured,
    by_window,
    evaluating,
    fit_temperature,
    mean_of,
    random_batches_loss,
    row_pass,
)
from swe_cli.models.gpt import greedy
from swe_cli.records import Batch, Interval

FEW_WINDOWS = 10
DIFFERENCES = {"accuracy": "correct", "mae": "absolute_error"}
RESAMPLES = 9_999
FEWEST_WINDOWS = 2  # of one window, nothing tells how much another would differ
NORMAL_QUANTILE = 1.959963984540054  # of 97.5 %
CHUNK_BYTES = 64 * 2**20  # resampled window counts are drawn in pieces of at most this size


def measure(
    setup: Setup,
    evaluation: Evaluation,
    shuffle_images: int | None = None,
    *,
    calibrate: bool = True,
) -> Measured:
    """The full, deterministic pass. ``shuffle_images`` (a seed) shows every question another
    image of the split: what is left is what the questions alone give away. With ``calibrate`` also
    at the model's own softmax temperature, which a pass over the validation split tells.

    Raises PruningError where the loss is not a number.
    """
    dataset, split, size = setup.dataset, evaluation.split, evaluation.batch_size
    what, advice = "window", "Raise data.test_characters, or lower model.context."
    shown = {"shuffle_images": shuffle_images} if isinstance(dataset, Questions) else {}
    validation = setup.windows("validation", size, **shown, **evaluation.cut)
    temperature, plain = fit_temperature(setup, validation) if calibrate else (None, math.nan)
    judged = setup.windows(split, size, **shown, **evaluation.cut)
    rows = row_pass(setup, judged, temperature)
    if isinstance(dataset, Questions):
        what, advice = "image", "Ask about more of them."
        rows |= _answers(setup, dataset, dataset.examples(split, **shown), rows, size)
    measured = by_window(rows)
    if math.isfinite(plain):
        measured["validation_nats"] = plain * measured["tokens"]
    if not np.isfinite(measured["nats"]).all():
        raise PruningError("The loss of the cut model is not a finite number.")
    if (count := len(measured["nats"])) < FEW_WINDOWS:
        few = f"The {split} split has {count} {what}{'s' * (count > 1)}"
        says = f"{few}: an interval over so few says little. {advice}"
        warnings.warn(says, SweWarning, stacklevel=2)
    return measured


def metrics(
    setup: Setup,
    evaluation: Evaluation,
    after: Measured,
    before: Measured | None = None,
    references: Mapping[str, Measured] | None = None,
) -> Metrics:
    """Every metric of a model and its paired differences. Losses are nats per token.

    ``before``: measured before recovery, where there was one moment before. ``references``: what
    it is compared with, by kind of control: ``dense``, and after recovery ``dense_recovered``.
    """
    dataset, mean_loss = setup.dataset, mean_of(after, "nats")
    yield "loss", mean_interval(after["nats"], after["tokens"])
    if "calibrated" in after:
        yield "loss_calibrated", mean_interval(after["calibrated"], after["tokens"])
        yield "temperature", Interval(mean_of(after, "temperature"))
        if "validation_nats" in after:  # which may be older
            yield "validation_loss", Interval(mean_of(after, "validation_nats"))
        yield "top1", Interval(mean_of(after, "right"))
    if evaluation.random_batches:
        yield "random_batches_loss", Interval(random_batches_loss(setup, evaluation))
    characters = dataset.characters(evaluation.split)
    if characters is not None and not evaluation.cut:  # which may leave some out
        bits = float(after["nats"].sum()) / math.log(2)
        yield "bits_per_character", Interval(bits / characters)
    if isinstance(dataset, Questions):
        yield from measures(after)
        yield from baselines(dataset, evaluation.split)
    elif mean_loss < 700:  # or the exponential overflows
        # Of questions it would say nothing: most tokens are not predicted.
        yield "perplexity", Interval(math.exp(mean_loss))
    yield from activated(setup, evaluation)
    answered = {name: of for name, of in DIFFERENCES.items() if of in after}
    if before is not None:
        yield "loss_before_recovery", Interval(mean_of(before, "nats"))
        for name, of in answered.items():
            yield f"{name}_before_recovery", Interval(mean_of(before, of, "questions"))
    for kind, reference in (references or {}).items():
        delta = f"delta{kind.removeprefix('dense')}"
        yield delta, paired_difference(after, reference)
        if "calibrated" in after and "calibrated" in reference:  # which may be older
            yield f"{delta}_calibrated", paired_difference(after, reference, "calibrated")
        if kind == "dense":
            if before is not None:
                yield "delta_before_recovery", paired_difference(before, reference)
            for name, of in answered.items():
                if of in reference:  # which may be older than the measure
                    yield f"delta_{name}", paired_difference(after, reference, of, "questions")


# Answers to questions


class Answer(NamedTuple):
    """What a model says. Not ``ended``: cut off where the longest right answer would end."""

    text: str
    ended: bool
    tokens: int  # the end among them


def _answers(
    setup: Setup, dataset: Questions, examples: Sequence[Example], known: Measured, size: int
) -> Measured:
    """Question by question: "questions"; that and "correct" by type ("correct.color"); how many
    "answer_tokens" are said, and "unended"; for numbers "absolute_error", "squared_error" and
    "unparsable".

    A right answer is ``known`` with its tokens; only wrong ones need to be decoded. A number that
    is none, or never ends, counts as the median training answer, and is counted: what stands where
    it was cut off is nobody's number. Words are not decoded where only losses are asked for.
    """
    right = known["correct"]
    rows: Measured = {"questions": np.ones(len(right))}
    for kind in sorted({example.kind for example in examples}):
        of_kind = np.array([example.kind == kind for example in examples])
        rows |= {f"questions.{kind}": of_kind, f"correct.{kind}": of_kind & right}
    decodes = "calibrated" in known and hasattr(setup.model, "language")
    if not (dataset.numeric or decodes):
        return rows
    guess, wrong = median_answer(dataset) if dataset.numeric else 0.0, np.flatnonzero(~right)
    off, unparsable, unended = np.zeros((3, len(right)))
    rows |= {"answer_tokens": known["tokens"].copy(), "unended": unended}
    for some in (wrong[start : start + size] for start in range(0, len(wrong), size)):
        prompts = dataset.prompts([examples[row] for row in some])
        for row, answer in zip(some, answers_of(setup, prompts), strict=True):
            rows["answer_tokens"][row], unended[row] = answer.tokens, not answer.ended
            if not dataset.numeric:
                continue
            unparsable[row] = not (answer.ended and NUMBER.fullmatch(answer.text))
            number = guess if unparsable[row] else float(answer.text)
            off[row] = number - float(examples[row].answer)
    numbers = {"absolute_error": abs(off), "squared_error": off**2, "unparsable": unparsable}
    return rows | numbers if dataset.numeric else rows


@torch.inference_mode()
def answers_of(setup: Setup, prompts: Batch) -> list[Answer]:
    """What the model answers, greedily, prompt by prompt."""
    model, dataset, length = setup.model, setup.dataset, prompts["tokens"].shape[1]
    assert isinstance(dataset, Questions)
    if length > model.context:
        why = f"The question has {length} tokens; the model has room for {model.context}."
        raise DataError(why, "Ask a shorter one.")
    prompts = setup.machine.move(prompts)
    with evaluating(model), setup.machine.precision():
        decoded = greedy(model, prompts, length=dataset.answer_tokens, end=dataset.end)
    return [Answer(dataset.decode(ids), dataset.end in ids, len(ids)) for ids in decoded]


def median_answer(dataset: Questions) -> float:
    """Of the training split."""
    return median(float(example.answer) for example in dataset.examples("train"))


def baselines(dataset: Questions, split: Split) -> Metrics:
    """What one gets by always giving the commonest training answer, or the median number."""
    given = Counter(example.answer for example in dataset.examples("train"))
    commonest, _ = max(given.items(), key=lambda item: (item[1], item[0]))
    truths = [example.answer for example in dataset.examples(split)]
    yield "accuracy_majority", Interval(truths.count(commonest) / len(truths))
    if dataset.numeric:
        off = np.array([float(truth) for truth in truths]) - median_answer(dataset)
        yield "mae_median", Interval(float(abs(off).mean()))
        yield "rmse_median", Interval(float((off**2).mean() ** 0.5))


def measures(measured: Measured) -> Metrics:
    """Accuracy, overall with its interval and by type; of numbers MAE, RMSE, share unparsable."""
    questions = measured["questions"]
    yield "accuracy", share_interval(measured["correct"], questions)
    for name in measured:
        _, dot, kind = name.partition("questions.")
        if dot:
            yield f"accuracy.{kind}", Interval(mean_of(measured, f"correct.{kind}", name))
    for name in sorted({"answer_tokens", "unended"} & measured.keys()):
        yield name, Interval(mean_of(measured, name, "questions"))
    if "absolute_error" in measured:
        yield "mae", mean_interval(measured["absolute_error"], questions)
        yield "rmse", Interval(mean_of(measured, "squared_error", "questions") ** 0.5)
        yield "unparsable", Interval(mean_of(measured, "unparsable", "questions"))


# Intervals over windows


def paired_difference(
    measured: Measured, reference: Measured, of: str = "nats", per: str = "tokens"
) -> Interval:
    """``of`` less a reference's, per token or question; SweError where windows are not the same."""
    if not np.array_equal(measured[per], reference[per]):
        raise SweError("Two models evaluated on different windows cannot be compared.")
    return mean_interval(measured[of] - reference[of], measured[per])


def mean_interval(sums: NDArray[Any], counts: NDArray[Any]) -> Interval:
    """Σ sums / Σ counts over windows (N,) with its 95 % percentile bootstrap interval.

    Efron & Tibshirani 1993, ch. 13; windows are resampled whole, so what they count (tokens,
    questions) keeps its weight. Zeros give [0, 0]; fewer than two windows no interval.

    Every comparison over the same number of windows uses the same resamples: rows of a table are
    compared on equal terms, and a resample becomes one row of a matrix product.
    """
    count = len(sums)
    mean = float(sums.sum() / counts.sum())
    if count < FEWEST_WINDOWS:
        return Interval(mean)
    means = np.concatenate([(drawn @ sums) / (drawn @ counts) for drawn in _resamples(count)])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(mean, float(low), float(high))


def share_interval(hits: NDArray[Any], counts: NDArray[Any]) -> Interval:
    """Σ hits / Σ counts over windows (N,) with its 95 % Wilson interval (Wilson 1927).

    Unlike a bootstrap it has a width where nothing, or everything, is a hit. Answers about one
    window are not independent: n is divided by their design effect (Kish 1965), which is taken to
    be 1 where it would be smaller; with no or only hits n is the number of windows.
    """
    windows, n = len(hits), float(counts.sum())
    share = float(hits.sum()) / n
    if windows < FEWEST_WINDOWS:
        return Interval(share)
    spread = share * (1 - share)
    residuals = hits - share * counts
    variance = float(residuals @ residuals) / n**2 * windows / (windows - 1)
    if spread == 0:
        n = float(windows)
    elif variance > 0:
        n = min(n, spread / variance)
    z = NORMAL_QUANTILE**2 / n
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(NORMAL_QUANTILE**2 * (spread + z / 4) / n) / (1 + z)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def _resamples(count: int) -> Iterator[NDArray[np.float64]]:
    rows = max(1, CHUNK_BYTES // (8 * count))
    starts = range(0, RESAMPLES, rows)
    draw = _draw if len(starts) <= 2 else _draw.__wrapped__  # more would not be kept
    for start in starts:
        yield draw(count, min(rows, RESAMPLES - start), start)


@lru_cache(maxsize=4)
def _draw(count: int, rows: int, start: int) -> NDArray[np.float64]:
    """How often each window is drawn in each resample: (rows, count)."""
    generator = np.random.default_rng([count, start])
    picks = generator.integers(count, size=(rows, count))
    picks += np.arange(rows)[:, None] * count
    counts = np.bincount(picks.ravel(), minlength=rows * count)
    return counts.reshape(rows, count).astype(np.float64)
