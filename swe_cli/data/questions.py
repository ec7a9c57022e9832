"""Questions about images: splits of (image, question, answer), and the token windows of them.

Shapes: n examples, B rows, T positions, M images, K channels.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from swe_cli.contracts import IGNORED, DataShape, Example, Questions, Split, Tokenizer
from swe_cli.data.cache import digest
from swe_cli.data.images import Pixels, read_image
from swe_cli.data.text import StringSource, Text, consecutive
from swe_cli.data.tokens import TokenizedDataset
from swe_cli.errors import DataError
from swe_cli.records import Batch
from swe_cli.seeds import derive

NUMBER = re.compile(r"\s*[+-]?\d+(\.\d+)?\s*")


@dataclass(frozen=True)
class QuestionSet:
    """Images and what is asked about them, before any tokenizer.

    ``pixels`` uint8 (M, K, height, width), possibly mapped from disk. ``examples`` of a split name
    images by their place in ``pixels``; no image belongs to two splits. ``sha256`` is of all of
    it. ``where`` says in words where an example comes from, for errors. ``notes`` are to be told
    to the user once.
    """

    pixels: Pixels
    examples: Mapping[Split, Sequence[Example]]
    sha256: str
    where: Mapping[Split, Sequence[str]]
    notes: tuple[str, ...] = ()

    def text(self) -> Text:
        """All that is written, one example a line: what tokenizers learn from."""
        lines = {
            split: "".join(f"{e.question}\n{e.answer}\n" for e in examples)
            for split, examples in self.examples.items()
        }
        sizes = {split: len(text) for split, text in lines.items()}
        return Text(StringSource("".join(lines.values())), consecutive(sizes))


class QuestionDataset(TokenizedDataset, Questions):
    """The ``Questions`` of a tokenized ``QuestionSet``.

    A sequence is question, separator, answer, end; what is predicted is answer and end.
    """

    def __init__(self, source: QuestionSet, tokenizer: Tokenizer) -> None:
        self.separator = tokenizer.vocabulary_size
        self.end = self.separator + 1
        shape = DataShape(self.end + 1, source.pixels.shape[1:])
        super().__init__(tokenizer, source.sha256, shape)
        self.source, self.notes = source, source.notes
        ids = cache(self.encode)  # questions repeat
        self._encoded = {split: self._encode(split, ids) for split in source.examples}
        self.answer_tokens = max(
            int((of.lengths - of.question_lengths).max()) - 1 for of in self._encoded.values()
        )
        answers = [
            (example.answer, where)
            for split, examples in source.examples.items()
            for example, where in zip(examples, source.where[split], strict=True)
        ]
        others = [(answer, where) for answer, where in answers if not NUMBER.fullmatch(answer)]
        self.numeric = not others
        if 0 < len(others) < len(answers) / 2:  # meant as numbers
            self.notes += (
                f"MAE and RMSE are not measured: {len(others)} of {len(answers)} answers are no "
                f"plain numbers, the first of them {others[0][0]!r} in {others[0][1]}.",
            )

    def examples(self, split: Split, *, shuffle_images: int | None = None) -> Sequence[Example]:
        examples = self.source.examples[split]
        if shuffle_images is None:
            return examples
        images = _deranged(self._encoded[split].images, shuffle_images).tolist()
        return [e._replace(image=image) for e, image in zip(examples, images, strict=True)]

    def random_batch(self, split: Split, *, size: int, context: int, seed: int) -> Batch:
        encoded = self._checked(split, context)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(encoded.lengths), (size,), generator=generator).numpy()
        return self._batch(encoded, rows, encoded.images[rows])

    def windows(
        self, split: Split, *, context: int, size: int, shuffle_images: int | None = None
    ) -> Iterator[Batch]:
        """Every question once, in order, in batches of ``size`` questions.

        Raises DataError, before the first batch is asked for, for a question that does not fit.
        """
        encoded = self._checked(split, context)
        images = encoded.images
        if shuffle_images is not None:
            images = _deranged(images, shuffle_images)
        parts = np.split(np.arange(len(images)), range(size, len(images), size))
        return (self._batch(encoded, rows, images[rows]) for rows in parts)

    def prompts(self, examples: Sequence[Example]) -> Batch:
        questions = self._questions([example.question for example in examples])
        return questions | self._images(np.array([example.image for example in examples]))

    def about(self, image: Path, question: str) -> Batch:
        pixels = torch.from_numpy(read_image(image, self.source.pixels.shape[1:]))
        return self._questions([question]) | {"images": pixels[None], "image": torch.tensor([0])}

    def steps_per_epoch(self, *, size: int, context: int) -> int:
        return -(-len(self.source.examples["train"]) // size)

    def protocol(self, split: Split, context: int) -> dict[str, object]:
        return {"questions": self.source.sha256, "window": "image"}

    def decode(self, ids: Sequence[int]) -> str:
        """Up to the end token; separators are left out."""
        ids = [*ids, self.end]
        answer = ids[: ids.index(self.end)]
        return self.tokenizer.decode([token for token in answer if token != self.separator])

    def _encode(self, split: Split, ids: Callable[[str], list[int]]) -> "_Encoded":
        examples = self.source.examples[split]
        if not examples:
            raise DataError(f"The {split} split holds no question.", "Give it more of the data.")
        sequences = []
        for example, where in zip(examples, self.source.where[split], strict=True):
            question, answer = ids(example.question), ids(example.answer)
            if self.tokenizer.unknown in answer or not answer:
                raise DataError(
                    f"{where}: the answer {example.answer!r} holds a "
                    "word that nothing in the training split holds.",
                    "Leave the row out, or spell answers letter by letter: tokenizer=chars",
                )
            sequences.append([*question, self.separator, *answer, self.end])
        tokens, lengths = _padded(sequences)
        question_lengths = np.array([len(ids(example.question)) for example in examples])
        images = np.array([example.image for example in examples])
        places = {image: place for place, image in enumerate(dict.fromkeys(images.tolist()))}
        windows = np.array([places[image] for image in images.tolist()])
        return _Encoded(tokens.astype(np.int32), lengths, question_lengths, images, windows)

    def _checked(self, split: Split, context: int) -> "_Encoded":
        encoded = self._encoded[split]
        needed = encoded.lengths - 1
        if needed.max() > context:
            row = int(needed.argmax())
            raise DataError(
                f"{self.source.where[split][row]}: question and answer have {needed[row]} tokens, "
                f"but the model has room for {context}.",
                "Shorten the question, or raise the model's context (model.language.context) by "
                f"{needed[row] - context}.",
            )
        return encoded

    def _batch(self, encoded: "_Encoded", rows: NDArray[Any], images: NDArray[Any]) -> Batch:
        lengths, question_lengths = encoded.lengths[rows], encoded.question_lengths[rows]
        width = lengths.max()
        tokens = encoded.tokens[rows, :width].astype(np.int64)
        places = np.arange(width - 1)
        predicted = (places >= question_lengths[:, None]) & (places < lengths[:, None] - 1)
        return {
            "tokens": torch.from_numpy(tokens[:, :-1].copy()),
            "targets": torch.from_numpy(np.where(predicted, tokens[:, 1:], IGNORED)),
            "window": torch.from_numpy(encoded.windows[rows]),
            **self._images(images),
        }

    def _questions(self, questions: Sequence[str]) -> Batch:
        ids = [[*self.encode(question), self.separator] for question in questions]
        tokens, lengths = map(torch.from_numpy, _padded(ids))
        return {"tokens": tokens, "lengths": lengths}

    def _images(self, images: NDArray[Any]) -> Batch:
        """Each image once, and which of them a row is about."""
        unique, place = np.unique(images, return_inverse=True)
        return {
            "images": torch.from_numpy(np.ascontiguousarray(self.source.pixels[unique])),
            "image": torch.from_numpy(place.reshape(-1)),
        }


class _Encoded(NamedTuple):
    """A split as arrays: ``tokens`` (n, longest), the rest (n,)."""

    tokens: NDArray[np.int32]
    lengths: NDArray[Any]
    question_lengths: NDArray[Any]
    images: NDArray[Any]
    windows: NDArray[Any]  # images counted in order of appearance


def digest_of(examples: Mapping[Split, Sequence[Example]], pixels_sha256: str) -> str:
    """Hash of questions, answers, splits and pixels."""
    return digest([{split: list(of) for split, of in examples.items()}, pixels_sha256])


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sequences filled up on the right with 0, (n, longest), and their lengths (n,)."""
    lengths = np.array([len(sequence) for sequence in sequences])
    padded = np.zeros((len(sequences), lengths.max()), np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded, lengths


def _deranged(images: NDArray[Any], seed: int) -> NDArray[Any]:
    """Every image replaced by another of the split; questions about one keep sharing one."""
    distinct, place = np.unique(images, return_inverse=True)
    if len(distinct) < 2:
        raise DataError(
            "The split holds a single image: no other can take its place.", "Give it more images."
        )
    generator = torch.Generator().manual_seed(derive(seed, "shuffle_images"))
    order = torch.randperm(len(distinct), generator=generator).numpy()
    other = np.empty_like(distinct)
    other[order] = distinct[np.roll(order, 1)]
    return other[place]
