"""Questions about images: splits of (image, question, answer), and the token windows of them.

Shapes: n examples, B rows, T positions, M images, K channels.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from swe_cli.contracts import IGNORED, Batch, DataShape, Example, Split
from swe_cli.data.images import Pixels, read_image
from swe_cli.data.sources import StringSource
from swe_cli.data.text import Text
from swe_cli.data.tokenizer import Tokenizer
from swe_cli.errors import DataError
from swe_cli.files import canonical
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
        bounds: dict[Split, tuple[int, int]] = {}
        start = 0
        for split, text in lines.items():
            bounds[split] = (start, start + len(text))
            start += len(text)
        return Text(StringSource("".join(lines.values())), bounds)


class QuestionDataset:
    """The ``Questions`` of a tokenized ``QuestionSet``; see ``swe_cli.contracts``.

    A sequence is question, separator, answer, end; what is predicted is answer and end.
    """

    def __init__(self, source: QuestionSet, tokenizer: Tokenizer) -> None:
        self.source, self.tokenizer = source, tokenizer
        self.sha256 = source.sha256
        self.separator = tokenizer.vocabulary_size
        self.end = self.separator + 1
        image: tuple[int, int, int] = source.pixels.shape[1:]
        self.shape = DataShape(self.end + 1, image)
        self.notes = source.notes
        self._encoded = {split: self._encode(split) for split in source.examples}
        self.answer_tokens = max(
            int((of.lengths - of.asked).max()) - 1 for of in self._encoded.values()
        )

    @cached_property
    def numeric(self) -> bool:
        return all(
            NUMBER.fullmatch(example.answer)
            for examples in self.source.examples.values()
            for example in examples
        )

    def examples(self, split: Split, *, shuffle_images: int | None = None) -> Sequence[Example]:
        asked = self.source.examples[split]
        if shuffle_images is None:
            return asked
        images = _deranged(np.array([example.image for example in asked]), shuffle_images)
        return [e._replace(image=image) for e, image in zip(asked, images.tolist(), strict=True)]

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
        rows = np.arange(len(images))
        parts = (rows[start : start + size] for start in range(0, len(rows), size))
        return (self._batch(encoded, part, images[part]) for part in parts)

    def prompts(self, examples: Sequence[Example]) -> Batch:
        asked = self._asked([example.question for example in examples])
        return asked | self._images(np.array([example.image for example in examples]))

    def about(self, image: Path, question: str) -> Batch:
        pixels = torch.from_numpy(read_image(image, self.source.pixels.shape[1:]))
        return self._asked([question]) | {"images": pixels[None], "image": torch.tensor([0])}

    def _asked(self, questions: Sequence[str]) -> Batch:
        asked = [[*self._ids(question), self.separator] for question in questions]
        lengths = np.array([len(ids) for ids in asked])
        tokens = np.zeros((len(asked), lengths.max()), np.int64)
        for row, ids in enumerate(asked):
            tokens[row, : len(ids)] = ids
        return {"tokens": torch.from_numpy(tokens), "lengths": torch.from_numpy(lengths)}

    def steps_per_epoch(self, *, size: int, context: int) -> int:
        return -(-len(self.source.examples["train"]) // size)

    def fingerprint(self, split: Split, *, context: int) -> str:
        """Sixteen hex digits of what a loss on this split depends on, besides the weights."""
        protocol = {
            "questions": self.source.sha256,
            "split": split,
            "window": "image",
            "tokenizer": self.tokenizer.sha256,
        }
        return hashlib.sha256(canonical(protocol).encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        return self._ids(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Up to the end token; separators are left out."""
        known = []
        for token in ids:
            if token == self.end:
                break
            if token != self.separator:
                known.append(token)
        return self.tokenizer.decode(known)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).tolist()
        return ids

    def _encode(self, split: Split) -> "_Encoded":
        known: dict[str, list[int]] = {}  # questions repeat

        def ids(text: str) -> list[int]:
            if text not in known:
                known[text] = self._ids(text)
            return known[text]

        unknown = getattr(self.tokenizer, "unknown", None)
        sequences, asked = [], []
        for place, example in enumerate(self.source.examples[split]):
            question, answer = ids(example.question), ids(example.answer)
            if unknown in answer or not answer:
                raise DataError(
                    f"{self.source.where[split][place]}: the answer {example.answer!r} holds a "
                    "word that nothing in the training split holds.",
                    "Leave the row out, or spell answers letter by letter: tokenizer=chars",
                )
            sequences.append([*question, self.separator, *answer, self.end])
            asked.append(len(question))
        if not sequences:
            raise DataError(f"The {split} split holds no question.", "Give it more of the data.")
        lengths = np.array([len(s) for s in sequences])
        tokens = np.zeros((len(sequences), lengths.max()), np.int32)
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = sequence
        images = np.array([example.image for example in self.source.examples[split]])
        return _Encoded(tokens, lengths, np.array(asked), images, _in_order(images))

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
        lengths, asked = encoded.lengths[rows], encoded.asked[rows]
        width = lengths.max()
        tokens = encoded.tokens[rows, :width].astype(np.int64)
        places = np.arange(width - 1)
        predicted = (places >= asked[:, None]) & (places < lengths[:, None] - 1)
        return {
            "tokens": torch.from_numpy(tokens[:, :-1].copy()),
            "targets": torch.from_numpy(np.where(predicted, tokens[:, 1:], IGNORED)),
            "window": torch.from_numpy(encoded.windows[rows]),
            **self._images(images),
        }

    def _images(self, images: NDArray[Any]) -> Batch:
        """Each image once, and which of them a row is about."""
        unique, place = np.unique(images, return_inverse=True)
        return {
            "images": torch.from_numpy(np.ascontiguousarray(self.source.pixels[unique])),
            "image": torch.from_numpy(place.reshape(-1)),
        }


@dataclass(frozen=True)
class _Encoded:
    """A split as arrays: ``tokens`` (n, longest), the rest (n,)."""

    tokens: NDArray[np.int32]
    lengths: NDArray[Any]
    asked: NDArray[Any]  # tokens of the question
    images: NDArray[Any]
    windows: NDArray[Any]  # images counted in order of appearance


def digest_of(examples: Mapping[Split, Sequence[Example]], pixels_sha256: str) -> str:
    """Hash of questions, answers, splits and pixels."""
    written = {split: [list(e) for e in of] for split, of in examples.items()}
    return hashlib.sha256(canonical([written, pixels_sha256]).encode()).hexdigest()


def _in_order(images: NDArray[Any]) -> NDArray[Any]:
    """0, 1, 2, … by first appearance."""
    places: dict[int, int] = {}
    return np.array([places.setdefault(int(image), len(places)) for image in images])


def _deranged(images: NDArray[Any], seed: int) -> NDArray[Any]:
    """Every image replaced by another of the split; questions about one keep sharing one."""
    distinct = np.unique(images)
    if len(distinct) < 2:
        raise DataError(
            "The split holds a single image: no other can take its place.", "Give it more images."
        )
    generator = torch.Generator().manual_seed(derive(seed, "shuffle_images"))
    order = distinct[torch.randperm(len(distinct), generator=generator).numpy()]
    other = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    return np.array([other[int(image)] for image in images])
