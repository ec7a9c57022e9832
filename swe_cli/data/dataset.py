"""From what a ``data`` choice builds to the ``Dataset`` that models see."""

from collections.abc import Callable
from typing import Any

from swe_cli.contracts import Dataset
from swe_cli.data.questions import QuestionDataset, QuestionSet
from swe_cli.data.text import Text
from swe_cli.data.tokenizer import Tokenizer
from swe_cli.data.tokens import tokenize


def dataset_of(built: Any, tokenizer: Callable[[Text], Tokenizer]) -> Dataset:
    """A text or a set of questions is tokenized; anything else is a ``Dataset`` already."""
    if isinstance(built, Text):
        return tokenize(built, tokenizer(built))
    if isinstance(built, QuestionSet):
        return QuestionDataset(built, tokenizer(built.text()))
    dataset: Dataset = built
    return dataset
