"""From what a ``data`` choice builds to the ``Dataset`` that models see."""

from collections.abc import Callable
from typing import Any

from swe_cli.contracts import Dataset, Questions, Tokenizer, conform
from swe_cli.data.questions import QuestionDataset, QuestionSet
from swe_cli.data.text import Text
from swe_cli.data.tokens import tokenize


def dataset_of(
    built: Any,
    tokenizer: Callable[[Text], Any],
    data_name: str = "data",
    tokenizer_name: str = "tokenizer",
) -> Dataset:
    """A text or a set of questions is tokenized; anything else must be a ``Dataset`` already.

    The names are those that one types, ``data=mine``, for errors: a UsageError says what a
    component lacks.
    """
    if isinstance(built, Text):
        return tokenize(built, conform(tokenizer(built), Tokenizer, tokenizer_name))
    if isinstance(built, QuestionSet):
        made = conform(tokenizer(built.text()), Tokenizer, tokenizer_name)
        return QuestionDataset(built, made)
    asks = getattr(built, "questions", hasattr(built, "answer_tokens"))
    expected = "no Text, QuestionSet or Dataset"
    return conform(built, Questions if asks else Dataset, data_name, expected)
