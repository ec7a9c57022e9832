"""Texts and questions as data sets of token ids, by a tokenizer.

Shapes: n examples, B rows, T positions, M images, K channels.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from swe_cli.conform import conform
from swe_cli.contracts import IGNORED, Dataset, DataShape, Example, Questions, Split, Tokenizer
from swe_cli.data.images import read_image
from swe_cli.data.questions import QuestionSet
from swe_cli.data.text import Text
from swe_cli.errors import DataError, UsageError
from swe_cli.files import digest
from swe_cli.records import Batch
from swe_cli.seeds import derive

Tokens = NDArray[np.unsignedinteger]
NUMBER = re.compile(r"\s*[+-]?\d+(\.\d+)?\s*")


def dataset_of(
    built: Any, tokenizer: Callable[[Text], Any], names: Sequence[str] = ("data", "tokenizer")
) -> Dataset:
    """What a ``data`` choice builds as the ``Dataset`` that models see: a ``Text`` and a
    ``QuestionSet`` are tokenized, anything else must be one already.

    ``names``: as one types both, ``data=mine``, for a UsageError that says what one lacks.
    """
    if isinstance(built, Text):
        return TextDataset(built, conform(tokenizer(built), Tokenizer, names[1]))
    if isinstance(built, QuestionSet):
        return QuestionDataset(built, conform(tokenizer(built.text()), Tokenizer, names[1]))
    asks = getattr(built, "questions", hasattr(built, "answer_tokens"))
    expected = "no Text, QuestionSet or Dataset"
    return conform(built, Questions if asks else Dataset, names[0], expected)


class TokenizedDataset(Dataset):
    """What data sets have in common that a tokenizer makes out of characters."""

    def __init__(self, tokenizer: Tokenizer, sha256: str, shape: DataShape) -> None:
        self.tokenizer, self.sha256, self.shape = tokenizer, sha256, shape

    def encode(self, text: str) -> list[int]:
        ids: list[int] = np.asarray(self.tokenizer.encode(text)).tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)


class TextDataset(TokenizedDataset):
    """A text, encoded chunk by chunk; every token but the first is predicted.

    Raises DataError where a tokenizer of words does not know a word.
    """

    def __init__(self, text: Text, tokenizer: Tokenizer) -> None:
        sha256 = digest({"text": text.sha256, "splits": text.splits})
        super().__init__(tokenizer, sha256, DataShape(tokenizer.vocabulary_size))
        self.text = text
        self.tokens: dict[Split, Tokens] = {}
        dtype = np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32
        for split in text.splits:
            pieces = ["".join(text.chunks(split))] if tokenizer.whole else text.chunks(split)
            chunks = (np.asarray(tokenizer.encode(piece), dtype) for piece in pieces)
            tokens = np.concatenate([np.zeros(0, dtype), *chunks])
            if tokenizer.unknown is not None and (tokens == tokenizer.unknown).any():
                why = f"The {split} split holds words that the tokenizer does not know"
                hint = "For running text choose tokenizer=chars or tokenizer=bpe."
                raise DataError(f"{why}; their loss would mean nothing.", hint)
            self.tokens[split] = tokens

    def random_batch(self, split: Split, *, size: int, context: int, seed: int) -> Batch:
        """(B, T) int64. Raises DataError for a split shorter than one window."""
        tokens = self._tokens(split, context)
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(len(tokens) - context, (size, 1), generator=generator).numpy()
        return _windows(tokens, starts, context)

    def windows(self, split: Split, *, context: int, size: int, **how: Any) -> Iterator[Batch]:
        """(b, T) int64, stride T: every token but the first is predicted once. Or by ``how``.

        The last window is filled up with token 0 and targets ``IGNORED``. Raises DataError, before
        the first batch is asked for, when the split is shorter than one window.
        """
        cut = self._cut(context, **how)
        first, (place, bos) = cut.get("predict_first", True), cut.get("bos", ("none", None))
        tokens = self._tokens(split, context, first - (place != "none"))
        if place != "none":
            at = [0] if place == "text" else range(0, len(tokens), context - 1)
            tokens = np.insert(tokens, at, bos)
        whole = (len(tokens) - first) // context * context
        starts = np.arange(0, whole if "remainder" in cut else len(tokens) - 1, context)[:, None]
        batches = range(0, len(starts), size)
        return (_windows(tokens, starts[at : at + size], context, first) for at in batches)

    def steps_per_epoch(self, *, size: int, context: int) -> int:
        return -(-len(self.tokens["train"]) // (size * context))

    def fingerprint(self, split: Split, *, context: int, **how: Any) -> str:
        of_text = {"text": self.text.sha256, "characters": self.text.splits[split]}
        windows = {"split": split, **self._cut(context, **how)}
        return digest({"tokenizer": self.tokenizer.sha256, **of_text, **windows})[:16]

    def characters(self, split: Split) -> int:
        """Characters of a split less those of its first token, which nobody predicts."""
        start, end = self.text.splits[split]
        return end - start - len(self.decode(self._tokens(split, 1)[:1].tolist()))

    def _cut(self, context: int, *, bos: str = "none", **how: Any) -> dict[str, Any]:
        """What a loss depends on; but not what is as it was before one could choose."""
        bos = bos if bos != "default" else "text" if self.tokenizer.begins else "none"
        if bos != "none" and self.tokenizer.bos is None:
            why = "The tokenizer has no token that begins a text."
            raise UsageError(why, "Write evaluation.bos=none")
        cut: dict[str, Any] = {"window": context, "stride": context - (bos == "window")}
        cut |= {} if bos == "none" else {"bos": (bos, self.tokenizer.bos)}
        how |= {"predict_first": False} if bos == "window" else {}
        return cut | {name: False for name, of in how.items() if not of}

    def _tokens(self, split: Split, context: int, more: int = 1) -> Tokens:
        tokens = self.tokens[split]
        if len(tokens) < context + more:
            window = f"a window of context {context:,} needs {context + more:,}"
            hint = "Lower model.context (evaluation.window), or make that split of data larger."
            raise DataError(f"The {split} split has {len(tokens):,} tokens, but {window}.", hint)
        return tokens


def _windows(tokens: Tokens, starts: NDArray[np.int64], context: int, last: bool = True) -> Batch:
    """Windows that begin at ``starts`` (B, 1); what is beyond the last token is filled up."""
    places = starts + np.arange(context)
    predicted = places < len(tokens) - 1
    predicted[:, -1] &= last  # which predicts the first of the next
    inputs = tokens.take(places, mode="clip").astype(np.int64)
    targets = tokens.take(places + 1, mode="clip").astype(np.int64)
    inputs[~predicted], targets[~predicted] = 0, IGNORED
    return {"tokens": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}


class QuestionDataset(TokenizedDataset, Questions):
    """The ``Questions`` of a tokenized ``QuestionSet``.

    A sequence is question, separator, answer, end; what is predicted is answer and end. Raises
    DataError for an empty split, and for an answer that the tokenizer cannot write.
    """

    def __init__(self, source: QuestionSet, tokenizer: Tokenizer) -> None:
        size = tokenizer.vocabulary_size
        self.separator, self.end = tokenizer.ends or (size, size + 1)
        shape = DataShape(max(size, self.end + 1), source.pixels.shape[1:])
        super().__init__(tokenizer, source.sha256, shape)
        self.source, self.notes = source, source.notes
        ids = cache(self.encode)  # questions repeat
        self._encoded = {split: self._encode(split, ids) for split in source.examples}
        self.answer_tokens = max(
            int((of["targets"] != IGNORED).sum(1).max()) for of in self._encoded.values()
        )
        rows = [(s, n, e.answer) for s, of in source.examples.items() for n, e in enumerate(of)]
        others = [row for row in rows if not NUMBER.fullmatch(row[2])]
        self.numeric = not others
        if 0 < len(others) < len(rows) / 2:  # meant as numbers
            split, row, answer = others[0]
            why = f"{len(others)} of {len(rows)} answers are no plain numbers"
            first = f"the first of them {answer!r} in {source.place(split, row)}"
            self.notes += (f"MAE and RMSE are not measured: {why}, {first}.",)

    def examples(self, split: Split, *, shuffle_images: int | None = None) -> Sequence[Example]:
        """With a seed, images of the split change places; questions about one keep sharing one."""
        examples = self.source.examples[split]
        if shuffle_images is None:
            return examples
        images = sorted({example.image for example in examples})
        if len(images) < 2:
            message = "The split holds a single image: no other can take its place."
            raise DataError(message, "Give it more images.")
        generator = torch.Generator().manual_seed(derive(shuffle_images, "shuffle_images"))
        order = [images[i] for i in torch.randperm(len(images), generator=generator).tolist()]
        other = dict(zip(order, [order[-1], *order[:-1]], strict=True))
        return [example._replace(image=other[example.image]) for example in examples]

    def random_batch(self, split: Split, *, size: int, context: int, seed: int) -> Batch:
        encoded = self._checked(split, context)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(encoded["images"]), (size,), generator=generator)
        return self._batch(encoded, rows)

    def windows(
        self, split: Split, *, context: int, size: int, shuffle_images: int | None = None
    ) -> Iterator[Batch]:
        """All questions in order, ``size`` a batch. DataError, at once, where one does not fit."""
        examples = self.examples(split, shuffle_images=shuffle_images)
        images = torch.tensor([example.image for example in examples])
        encoded = self._checked(split, context) | {"images": images}
        return (self._batch(encoded, rows) for rows in torch.split(torch.arange(len(images)), size))

    def prompts(self, examples: Sequence[Example]) -> Batch:
        questions = self._questions([example.question for example in examples])
        return questions | self._pixels(torch.tensor([example.image for example in examples]))

    def about(self, image: Path, question: str) -> Batch:
        pixels = torch.from_numpy(read_image(image, self.source.pixels.shape[1:]))
        return self._questions([question]) | {"images": pixels[None], "image": torch.tensor([0])}

    def steps_per_epoch(self, *, size: int, context: int) -> int:
        return -(-len(self.source.examples["train"]) // size)

    def fingerprint(self, split: Split, *, context: int) -> str:
        windows = {"split": split, "questions": self.sha256, "window": "image"}
        ends = {"ends": self.tokenizer.ends} if self.tokenizer.ends else {}
        return digest({"tokenizer": self.tokenizer.sha256, **windows, **ends})[:16]

    def decode(self, ids: Sequence[int]) -> str:
        """Up to the end token; separators are left out."""
        ids = [*ids, self.end]
        answer = ids[: ids.index(self.end)]
        return self.tokenizer.decode([token for token in answer if token != self.separator])

    def _encode(self, split: Split, ids: Callable[[str], list[int]]) -> Batch:
        """``tokens``, ``targets`` int32 (n, longest); ``needed`` places, ``images``, ``window``."""
        examples = self.source.examples[split]
        if not examples:
            raise DataError(f"The {split} split holds no question.", "Give it more of the data.")
        images = [example.image for example in examples]
        windows = {image: number for number, image in enumerate(dict.fromkeys(images))}
        tokens, targets = [], []
        for row, example in enumerate(examples):
            answer = ids(example.answer)
            if self.tokenizer.unknown in answer or not answer:
                raise DataError(
                    f"{self.source.place(split, row)}: the answer {example.answer!r} holds a "
                    "word that nothing in the training split holds.",
                    "Leave the row out, or spell answers letter by letter: tokenizer=chars",
                )
            question = ids(example.question)
            tokens.append([*question, self.separator, *answer, self.end])
            targets.append([*[IGNORED] * len(question), *answer, self.end])
        return {
            "tokens": _filled(tokens).int(),
            "targets": _filled(targets, IGNORED).int(),
            "needed": torch.tensor([len(row) for row in targets]),
            "images": torch.tensor(images),
            "window": torch.tensor([windows[image] for image in images]),
        }

    def _checked(self, split: Split, context: int) -> Batch:
        encoded = self._encoded[split]
        row = int(encoded["needed"].argmax())
        needed = int(encoded["needed"][row])
        if needed > context:
            why = f"question and answer have {needed} tokens, but the model has room for {context}."
            hint = "Shorten the question, or raise the model's context (model.language.context) by"
            place = self.source.place(split, row)
            raise DataError(f"{place}: {why}", f"{hint} {needed - context}.")
        return encoded

    def _batch(self, encoded: Batch, rows: Tensor) -> Batch:
        longest = int(encoded["needed"][rows].max())
        batch = {of: encoded[of][rows, :longest].long() for of in ("tokens", "targets")}
        batch["window"] = encoded["window"][rows]
        return batch | self._pixels(encoded["images"][rows])

    def _questions(self, questions: Sequence[str]) -> Batch:
        ids = [[*self.encode(question), self.separator] for question in questions]
        return {"tokens": _filled(ids), "lengths": torch.tensor([len(row) for row in ids])}

    def _pixels(self, images: Tensor) -> Batch:
        """Each image once, and which of them a row is about."""
        unique, place = torch.unique(images, return_inverse=True)
        pixels = torch.from_numpy(self.source.pixels[unique.numpy()])
        return {"images": pixels.contiguous(), "image": place}


def _filled(rows: Sequence[Sequence[int]], value: int = 0) -> Tensor:
    """Rows filled up with ``value`` on the right, int64 (n, longest)."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
