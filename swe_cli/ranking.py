"""Exact selection: rank once, then cut at any number of ratios, and exactly that many weights."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from swe_cli.errors import PruningError
from swe_cli.records import Counts, Masks, Scores, Tensors

Array = np.ndarray[Any, np.dtype[Any]]
Within = Literal["tensor", "row"]  # among which scores a tensor's lowest are looked for


def exact_count(ratio: float, total: int) -> int:
    """``round(ratio · total)``, refusing what is not a fraction in [0, 1]."""
    if not 0.0 <= ratio <= 1.0:
        raise PruningError(f"The ratio {ratio} is not a fraction between 0 and 1.")
    return round(ratio * total)


class Ranking:
    """Scores in order, per tensor. Built once per criterion; every ratio reads from it.

    ``scores``: float tensors by name, low = pruned first; or what makes them, if they cost passes
    over data, of which an allocation that looks at sizes only asks none. ``magnitudes`` (same
    shapes) break ties: among equal scores the smaller ``|W|`` goes first, then the lower index.

    Raises PruningError for scores that are NaN, naming the tensor, once they are there.
    """

    def __init__(
        self, scores: Scores | Callable[[], Scores], magnitudes: Tensors | None = None
    ) -> None:
        shaped = magnitudes if callable(scores) else scores
        if not shaped:
            raise PruningError("There is nothing to prune: the prunable set is empty.")
        self.sizes = {name: tensor.numel() for name, tensor in shaped.items()}
        self._scores, self._magnitudes = scores, magnitudes or {}
        if not callable(scores):
            _ = self._flat

    @cached_property
    def scores(self) -> Scores:
        return self._scores() if callable(self._scores) else self._scores

    @cached_property
    def _flat(self) -> dict[str, Array]:
        flat = {name: _flat(score) for name, score in self.scores.items()}
        for name, values in flat.items():
            if values.size and np.isnan(values.max()):  # which is NaN where any of them is
                raise PruningError(f"The scores of {name} hold NaN; they cannot be ranked.")
        return flat

    @cached_property
    def _sorted(self) -> dict[str, Array]:
        """Ascending; made when it is first read, since N:M looks at small groups only."""
        return dict(zip(self._flat, _in_threads(np.sort, self._flat.values()), strict=True))

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(self.sizes.values())

    def lowest(self, count: int) -> Counts:
        """How many of the ``count`` lowest scores over *all* tensors fall into each tensor."""
        if not 0 <= count <= self.total:
            raise PruningError(f"Cannot cut {count} of {self.total} weights.")
        if count == 0:
            return dict.fromkeys(self.sizes, 0)
        last = self._value_at(count - 1)
        counts = {name: int(of.searchsorted(last, "left")) for name, of in self._sorted.items()}
        # Those that equal it go by |W|, whatever tensor they are in, as far as the count allows.
        names = [n for n, of in self._sorted.items() if of.searchsorted(last, "right") > counts[n]]
        keys = [self._tie_keys(name, np.flatnonzero(self._flat[name] == last)) for name in names]
        owners = np.repeat(np.arange(len(names)), [len(of) for of in keys])
        order = np.argsort(np.concatenate(keys), kind="stable")[: count - sum(counts.values())]
        for name, tied in zip(names, np.bincount(owners[order], minlength=len(names)), strict=True):
            counts[name] += int(tied)
        return counts

    def below(self, thresholds: Mapping[str, float]) -> Counts:
        """How many scores of each tensor lie strictly below that tensor's threshold."""
        return {
            name: int(np.searchsorted(scores, scores.dtype.type(thresholds[name]), "left"))
            for name, scores in self._sorted.items()
        }

    def divided_by(self, divisors: Mapping[str, float]) -> "Ranking":
        """With every tensor's scores over its divisor, not sorted anew; one that is not positive
        puts its tensor last: those weights are never cut first.
        """
        _ = self.scores  # so that copies share what was made
        scaled = copy(self)
        scaled._flat = {n: _divided(flat, divisors[n]) for n, flat in self._flat.items()}
        scaled._sorted = {n: _divided(flat, divisors[n]) for n, flat in self._sorted.items()}
        return scaled

    def masks(self, counts: Counts, within: Within | int = "tensor") -> Masks:
        """Keep-masks (bool, True = kept): exactly ``counts[name]`` lowest scores are cut.

        The lowest of the whole tensor, or with ``row`` of each row, or of every so many consecutive
        scores of a row, all of these losing the same (the first ones one more, where it does not
        come out even). What has one dimension is one row.

        Raises PruningError where rows are not a multiple of so many long.
        """
        for name, size in self.sizes.items():
            if not 0 <= counts[name] <= size:
                raise PruningError(f"Cannot cut {counts[name]} of the {size} weights of {name}.")
        parts = {name: _parts(name, score.shape, within) for name, score in self.scores.items()}
        if 1 in parts.values():
            _ = self._sorted  # made before threads ask for it

        def mask(name: str) -> Tensor:
            shape = self.scores[name].shape
            if not self.sizes[name]:
                return torch.ones(shape, dtype=torch.bool)
            return torch.from_numpy(self._kept(name, parts[name], counts[name])).view(shape)

        return dict(zip(self.scores, _in_threads(mask, self.scores), strict=True))

    def _kept(self, name: str, rows: int, count: int) -> Array:
        """All but the ``count`` lowest, bool (rows, n); the first rows may lose one more."""
        scores = self._flat[name].reshape(rows, -1)
        length = scores.shape[1]
        ordered = self._sorted[name][None] if rows == 1 else np.sort(scores, axis=1)
        counts = np.full(rows, count // rows)
        counts[: count % rows] += 1
        every = np.arange(rows)
        last = np.where(counts > 0, ordered[every, counts - 1], -np.inf).astype(scores.dtype)
        kept: Array = scores > last[:, None]
        # Where the next one equals the last that goes, not all of its equals go.
        for row in np.flatnonzero(ordered[every, np.minimum(counts, length - 1)] == last):
            tied = np.flatnonzero(scores[row] == last[row])
            going = counts[row] - ordered[row].searchsorted(last[row], "left")
            order = np.argsort(self._tie_keys(name, tied + row * length), kind="stable")
            kept[row, tied[order[going:]]] = True
        return kept

    def _tie_keys(self, name: str, indices: Array) -> Array:
        if name not in self._magnitudes:
            return np.zeros(len(indices), dtype=np.float32)
        return np.asarray(np.abs(_flat(self._magnitudes[name])[indices]))

    def _value_at(self, position: int) -> Any:
        """The score at a position of the order over all tensors, without merging them.

        Two neighbours in the largest tensor bracket it; few scores of others lie between them.
        """
        arrays = list(self._sorted.values())
        largest = max(arrays, key=len)

        def upto(place: int) -> list[int]:
            """How many scores of each tensor are no higher than the largest one's at ``place``."""
            if not 0 <= place < len(largest):
                return [len(array) if place > 0 else 0 for array in arrays]
            return [int(array.searchsorted(largest[place], "right")) for array in arrays]

        place = bisect_right(range(len(largest)), position, key=lambda at: sum(upto(at)))
        starts, ends = upto(place - 1), upto(place)
        pairs = zip(arrays, starts, ends, strict=True)
        between = np.concatenate([array[start:end] for array, start, end in pairs])
        return np.sort(between)[position - sum(starts)]


def _in_threads(function: Callable[[Any], Any], jobs: Iterable[Any]) -> list[Any]:
    """Results in order. numpy sorts outside the interpreter lock, with vector instructions."""
    with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
        return list(pool.map(function, jobs))


def _parts(name: str, shape: torch.Size, within: Within | int) -> int:
    """Into how many parts a tensor falls, of which each loses the same."""
    if isinstance(within, str):
        return shape[0] if within == "row" and len(shape) > 1 else 1
    if shape[-1] % within:
        why = f"{name} has rows of {shape[-1]}, which {within} does not divide."
        raise PruningError(why, "Choose another N:M, or leave it out (prunable=linear, roles=…).")
    return shape.numel() // within


def _flat(tensor: Tensor) -> Array:
    """The tensor as one row, on the CPU, in float32 (or float64 where it is float64)."""
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    return tensor.detach().to("cpu", dtype).reshape(-1).numpy()


def _divided(values: Array, divisor: float) -> Array:
    if not divisor > 0:
        return np.full_like(values, np.inf)
    return np.asarray(values / values.dtype.type(divisor))
