"""What a model answers: exact matches by type of question, and errors of numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from swe_cli.contracts import Example, Questions, Setup, Split
from swe_cli.data.tokens import NUMBER
from swe_cli.errors import DataError
from swe_cli.evaluation.compare import mean_interval, share_interval
from swe_cli.evaluation.loss import WindowLosses, by_window, evaluating, losses_of, row_pass
from swe_cli.models.gpt import greedy
from swe_cli.records import Batch, Interval

# Sums over the questions of every window, float64 (N,), by name: "questions", "correct", both again
# for every type ("correct.color"), and for numbers "absolute_error", "squared_error", "unparsable".
Answers = dict[str, NDArray[np.float64]]
Metrics = Iterator[tuple[str, Interval]]
DIFFERENCES = {"accuracy": "correct", "mae": "absolute_error"}


class Answer(NamedTuple):
    """What a model says. Not ``ended``: cut off where the longest right answer would end."""

    text: str
    ended: bool


def answer_all(
    setup: Setup, split: Split, *, size: int, shuffle_images: int | None = None
) -> tuple[WindowLosses, Answers]:
    """Losses and answers of a whole split. With a seed for ``shuffle_images``, of a blinded model.

    The pass for the loss shows which answers are right; only wrong numbers need to be decoded.
    """
    dataset = questions_of(setup)
    context = setup.model.context
    batches = dataset.windows(split, context=context, size=size, shuffle_images=shuffle_images)
    rows = row_pass(setup, batches)
    right = rows["correct"]
    examples = dataset.examples(split, shuffle_images=shuffle_images)
    values = {"questions": np.ones(len(right)), "correct": right}
    for kind in sorted({example.kind for example in examples}):
        of_kind = np.array([example.kind == kind for example in examples])
        values |= {f"questions.{kind}": of_kind, f"correct.{kind}": of_kind & right}
    if dataset.numeric:
        values |= _errors(setup, examples, ~right, size)
    answers = {name: by_window(of, rows["window"]) for name, of in values.items()}
    return losses_of(rows), answers


def _errors(
    setup: Setup, examples: Sequence[Example], wrong: NDArray[np.bool_], size: int
) -> Answers:
    """Question by question. An answer that is no number, or never ends, counts as the median
    training answer, and is counted: what stands where it was cut off is nobody's number.
    """
    dataset, rows = questions_of(setup), np.flatnonzero(wrong)
    guess = median_answer(dataset)
    off, unparsable = np.zeros(len(examples)), np.zeros(len(examples))
    for some in (rows[start : start + size] for start in range(0, len(rows), size)):
        prompts = dataset.prompts([examples[row] for row in some])
        for row, answer in zip(some, answers_of(setup, prompts), strict=True):
            unparsable[row] = not (answer.ended and NUMBER.fullmatch(answer.text))
            number = guess if unparsable[row] else float(answer.text)
            off[row] = number - float(examples[row].answer)
    return {"absolute_error": abs(off), "squared_error": off**2, "unparsable": unparsable}


def questions_of(setup: Setup) -> Questions:
    """The data set, of which one knows that it is of questions."""
    assert isinstance(setup.dataset, Questions)
    return setup.dataset


@torch.inference_mode()
def answers_of(setup: Setup, prompts: Batch) -> list[Answer]:
    """What the model answers, greedily, prompt by prompt."""
    model, dataset, length = setup.model, questions_of(setup), prompts["tokens"].shape[1]
    if length > model.context:
        raise DataError(
            f"The question has {length} tokens; the model has room for {model.context}.",
            "Ask a shorter one.",
        )
    prompts = setup.machine.move(prompts)
    with evaluating(model), setup.machine.precision():
        decoded = greedy(model, prompts, length=dataset.answer_tokens, end=dataset.end)  # type: ignore[arg-type]
    return [Answer(dataset.decode(ids), dataset.end in ids) for ids in decoded]


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


def measures(answers: Answers) -> Metrics:
    """Accuracy, overall with its interval and by type; of numbers MAE, RMSE, share unparsable."""
    questions = answers["questions"]
    yield "accuracy", share_interval(answers["correct"], questions)
    for name in answers:
        _, dot, kind = name.partition("questions.")
        if dot:
            yield f"accuracy.{kind}", _mean(answers, f"correct.{kind}", name)
    if "absolute_error" in answers:
        yield "mae", mean_interval(answers["absolute_error"], questions)
        yield "rmse", Interval(_mean(answers, "squared_error").mean ** 0.5)
        yield "unparsable", _mean(answers, "unparsable")


def measures_before(answers: Answers) -> Metrics:
    """Accuracy and, of numbers, MAE, before recovery."""
    for name, of in DIFFERENCES.items():
        if of in answers:
            yield f"{name}_before_recovery", _mean(answers, of)


def differences(answers: Answers, reference: Answers) -> Metrics:
    """Accuracy and MAE less those of a reference, paired image by image, with 95 % intervals."""
    for name, of in DIFFERENCES.items():
        if of in answers:
            yield f"delta_{name}", mean_interval(answers[of] - reference[of], answers["questions"])


def _mean(answers: Answers, of: str, questions: str = "questions") -> Interval:
    return Interval(float(answers[of].sum() / answers[questions].sum()))
