"""Small texts and a tokenizer whose answers are known by hand."""

from swe_cli.data.text import StringSource, Text
from swe_cli.data.tokenizers import CharTokenizer
from swe_cli.data.tokens import TextDataset


def text_of(train: str, validation: str = "ab", test: str = "ab") -> Text:
    middle = len(train) + len(validation)
    whole = train + validation + test
    return Text(
        StringSource(whole),
        {
            "train": (0, len(train)),
            "validation": (len(train), middle),
            "test": (middle, len(whole)),
        },
    )


def dataset_of(train: str, validation: str = "ab", test: str = "ab") -> TextDataset:
    text = text_of(train, validation, test)
    return TextDataset(text, CharTokenizer(text))
