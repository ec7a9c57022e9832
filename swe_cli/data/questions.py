"""Questions about images: splits of (image, question, answer), and the token windows of them.

Shapes: n examples, B rows, T positions, M images, K channels.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from swe_cli.conform import conform
from swe_cli.contracts import (
    IGNORED,
    Dataset,
    DataShape,
    Example,
    Questions,
    Split,
    Tokenizer,
)
from swe_cli.data.cache import digest
from swe_cli.data.images import Pixels, read_image
from swe_cli.data.text import StringSource, Text, consecutive
from swe_cli.data.tokens import TextDataset, TokenizedDataset
from swe_cli.errors import DataError
from swe_cli.records import Batch
from swe_cli.seeds import derive

NUMBER = re.compile(r"\s*[+-]?\d+(\.\d+)?\s*")


@dataclass(frozen=True)
class QuestionSet:
    """Images and what is asked about them, before any tokenizer.

    ``pixels`` uint8 (M, K, height, width), possibly mapped from disk. ``examples`` of a split name
    images by their place in ``pixels``; no image belongs to two splits. ``sha256`` is of all of
    it. ``where`` says in words where an example comes from, for errors, if that is not simply its
    number in the split. ``notes`` are to be told to the user once.
    """

    pixels: Pixels
    examples: Mapping[Split, Sequence[Example]]
    sha256: str
    where: Mapping[Split, Sequence[str]] | None = None
    notes: tuple[str, ...] = ()

    def place(self, split: Split, row: int) -> str:
        """In words, where an example comes from."""
        return self.where[split][row] if self.where else f"Question {row + 1:,} of {split}"

    def text(self) -> Text:
        """All that is written, one example a line: what tokenizers learn from."""
        lines = {
            split: "".join(f"{e.question}\n{e.answer}\n" for e in examples)
            for split, examples in self.examples.items()
        }
        sizes = {split: len(text) for split, text in lines.items()}
        return Text(StringSource("".join(lines.values())), consecutive(sizes))


def digest_of(examples: Mapping[Split, Sequence[Example]], pixels_sha256: str) -> str:
    """Hash of questions, answers, splits and pixels."""
    return digest([{split: list(of) for split, of in examples.items()}, pixels_sha256])


class QuestionDataset(TokenizedDataset, Questions):
    """The ``Questions`` of a tokenized ``QuestionSet``.

    A sequence is question, separator, answer, end; what is predicted is answer and end. Raises
    DataError for an empty split, and for an answer that the tokenizer cannot write.
    """

    def __init__(self, source: QuestionSet, tokenizer: Tokenizer) -> None:
        self.separator = tokenizer.vocabulary_size
        self.end = self.separator + 1
        shape = DataShape(self.end + 1, source.pixels.shape[1:])
        super().__init__(tokenizer, source.sha256, shape)
        self.source, self.notes = source, source.notes
        ids = cache(self.encode)  # questions repeat
        # "tokens", "targets" int32 (n, longest); "images", "window", "needed" positions int64 (n,).
        self._encoded = {split: self._encode(split, ids) for split in source.examples}
        predicted = [(of["targets"] != IGNORED).sum(dim=1) for of in self._encoded.values()]
        self.answer_tokens = int(torch.cat(predicted).max())
        answers = [
            (example.answer, split, row)
            for split, examples in source.examples.items()
            for row, example in enumerate(examples)
        ]
        others = [answer for answer in answers if not NUMBER.fullmatch(answer[0])]
        self.numeric = not others
        if 0 < len(others) < len(answers) / 2:  # meant as numbers
            answer, split, row = others[0]
            self.notes += (
                f"MAE and RMSE are not measured: {len(others)} of {len(answers)} answers are no "
                f"plain numbers, the first of them {answer!r} in {source.place(split, row)}.",
            )

    def examples(self, split: Split, *, shuffle_images: int | None = None) -> Sequence[Example]:
        """In the order of ``windows``. With a seed, each image is replaced by another of the split;
        questions about one keep sharing one.
        """
        examples = self.source.examples[split]
        if shuffle_images is None:
            return examples
        images = sorted({example.image for example in examples})
        if len(images) < 2:
            message = "The split holds a single image: no other can take its place."
            raise DataError(message, "Give it more images.")
        generator = torch.Generator().manual_seed(derive(shuffle_images, "shuffle_images"))
        order = torch.randperm(len(images), generator=generator).tolist()
        other = {images[order[i]]: images[order[i - 1]] for i in range(len(order))}
        return [example._replace(image=other[example.image]) for example in examples]

    def random_batch(self, split: Split, *, size: int, context: int, seed: int) -> Batch:
        encoded = self._checked(split, context)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(encoded["images"]), (size,), generator=generator)
        return self._batch(encoded, rows)

    def windows(
        self, split: Split, *, context: int, size: int, shuffle_images: int | None = None
    ) -> Iterator[Batch]:
        """Every question once, in order, in batches of ``size`` questions.

        Raises DataError, before the first batch is asked for, for a question that does not fit.
        """
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
        return self.fingerprint_of(split, questions=self.sha256, window="image")

    def decode(self, ids: Sequence[int]) -> str:
        """Up to the end token; separators are left out."""
        ids = [*ids, self.end]
        answer = ids[: ids.index(self.end)]
        return self.tokenizer.decode([token for token in answer if token != self.separator])

    def _encode(self, split: Split, ids: Callable[[str], list[int]]) -> Batch:
        examples = self.source.examples[split]
        if not examples:
            raise DataError(f"The {split} split holds no question.", "Give it more of the data.")
        tokens, targets, windows = [], [], dict[int, int]()
        for row, example in enumerate(examples):
            question, answer = ids(example.question), ids(example.answer)
            if self.tokenizer.unknown in answer or not answer:
                raise DataError(
                    f"{self.source.place(split, row)}: the answer {example.answer!r} holds a "
                    "word that nothing in the training split holds.",
                    "Leave the row out, or spell answers letter by letter: tokenizer=chars",
                )
            predicted = [*answer, self.end]
            tokens.append([*question, self.separator, *predicted])
            targets.append([*[IGNORED] * len(question), *predicted, IGNORED])
            windows.setdefault(example.image, len(windows))
        images = [example.image for example in examples]
        return {
            "tokens": _padded(tokens).int(),
            "targets": _padded(targets, IGNORED).int(),
            "needed": torch.tensor([len(row) - 1 for row in tokens]),
            "images": torch.tensor(images),
            "window": torch.tensor([windows[image] for image in images]),
        }

    def _checked(self, split: Split, context: int) -> Batch:
        encoded = self._encoded[split]
        row = int(encoded["needed"].argmax())
        needed = int(encoded["needed"][row])
        if needed > context:
            raise DataError(
                f"{self.source.place(split, row)}: question and answer have {needed} tokens, "
                f"but the model has room for {context}.",
                "Shorten the question, or raise the model's context (model.language.context) by "
                f"{needed - context}.",
            )
        return encoded

    def _batch(self, encoded: Batch, rows: Tensor) -> Batch:
        width = encoded["needed"][rows].max()
        return {
            "tokens": encoded["tokens"][rows, :width].long(),
            "targets": encoded["targets"][rows, :width].long(),
            "window": encoded["window"][rows],
            **self._pixels(encoded["images"][rows]),
        }

    def _questions(self, questions: Sequence[str]) -> Batch:
        ids = [[*self.encode(question), self.separator] for question in questions]
        return {"tokens": _padded(ids), "lengths": torch.tensor([len(row) for row in ids])}

    def _pixels(self, images: Tensor) -> Batch:
        """Each image once, and which of them a row is about."""
        unique, place = torch.unique(images, return_inverse=True)
        pixels = torch.from_numpy(self.source.pixels[unique.numpy()])
        return {"images": pixels.contiguous(), "image": place}


def _padded(rows: Sequence[Sequence[int]], padding: int = 0) -> Tensor:
    """Rows filled up on the right, int64 (n, longest)."""
    return pad_sequence([torch.tensor(row) for row in rows], True, padding)


def dataset_of(
    built: Any,
    tokenizer: Callable[[Text], Any],
    data_name: str = "data",
    tokenizer_name: str = "tokenizer",
) -> Dataset:
    """What a ``data`` choice builds as the ``Dataset`` that models see: a ``Text`` and a
    ``QuestionSet`` are tokenized, anything else must be one already.

    The names are those that one types, ``data=mine``, for errors: a UsageError says what a
    component lacks.
    """
    if isinstance(built, Text):
        return TextDataset(built, conform(tokenizer(built), Tokenizer, tokenizer_name))
    if isinstance(built, QuestionSet):
        made = conform(tokenizer(built.text()), Tokenizer, tokenizer_name)
        return QuestionDataset(built, made)
    asks = getattr(built, "questions", hasattr(built, "answer_tokens"))
    expected = "no Text, QuestionSet or Dataset"
    return conform(built, Questions if asks else Dataset, data_name, expected)
