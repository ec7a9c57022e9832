"""Exact selection: rank once, then cut at any number of ratios, and exactly that many weights."""

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
    Ties are where threshold-based cuts take too many, or everything.

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
        """Float tensors by name."""
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
        threshold = self._value_at(count - 1)
        below = {n: int(np.searchsorted(s, threshold, "left")) for n, s in self._sorted.items()}
        upto = {n: int(np.searchsorted(s, threshold, "right")) for n, s in self._sorted.items()}
        missing = count - sum(below.values())
        tied = {name: upto[name] - below[name] for name in below}
        for name, extra in self._share_ties(threshold, tied, missing).items():
            below[name] += extra
        return below

    def below(self, thresholds: Mapping[str, float]) -> Counts:
        """How many scores of each tensor lie strictly below that tensor's threshold."""
        return {
            name: int(np.searchsorted(scores, scores.dtype.type(thresholds[name]), "left"))
            for name, scores in self._sorted.items()
        }

    def divided_by(self, divisors: Mapping[str, float]) -> "Ranking":
        """The same ranking with every tensor's scores over a divisor of its own, unsorted anew.

        A divisor that is not positive puts its tensor last: those weights are never cut first.
        """
        _ = self.scores  # so that copies share what was made
        scaled = copy(self)
        scaled._flat = {n: _divided(flat, divisors[n]) for n, flat in self._flat.items()}
        scaled._sorted = {n: _divided(flat, divisors[n]) for n, flat in self._sorted.items()}
        return scaled

    def masks(self, counts: Counts, within: Within = "tensor") -> Masks:
        """Keep-masks (bool, True = kept): exactly ``counts[name]`` lowest scores are cut.

        The lowest of the whole tensor, or with ``row`` of each row, all rows losing the same (the
        first ones one more, where it does not come out even). What has one dimension is one row.
        """
        whole = self._sorted if within == "tensor" else {}  # made before threads ask for it

        def mask(name: str) -> Tensor:
            count, size, shape = counts[name], self.sizes[name], self.scores[name].shape
            if not 0 <= count <= size:
                raise PruningError(f"Cannot cut {count} of the {size} weights of {name}.")
            rows = shape[0] if within == "row" and len(shape) > 1 else 1
            scores = self._flat[name].reshape(rows, -1)
            ordered = whole[name][None] if whole else np.sort(scores, axis=1)
            each = (count + rows - 1 - np.arange(rows)) // rows
            return torch.from_numpy(self._keep(name, scores, ordered, each)).view(shape)

        return dict(zip(self.scores, _in_threads(mask, self.scores), strict=True))

    def best_of(self, keep: int, of: int) -> Masks:
        """Keep the ``keep`` highest of every ``of`` consecutive scores of a row.

        Raises PruningError where rows are not a multiple of ``of`` long.
        """
        masks = {}
        for name, score in self.scores.items():
            if score.shape[-1] % of:
                raise PruningError(
                    f"{name} has rows of {score.shape[-1]}, which {of} does not divide.",
                    "Choose another N:M, or leave it out (prunable=linear, roles=…).",
                )
            scores = self._flat[name].reshape(-1, of)
            counts = np.full(len(scores), of - keep)
            kept = self._keep(name, scores, np.sort(scores, axis=1), counts)
            masks[name] = torch.from_numpy(kept).view(score.shape)
        return masks

    def _keep(self, name: str, scores: Array, ordered: Array, counts: Array) -> Array:
        """Bool (rows, n): all but the ``counts`` lowest of each row; ``ordered``: rows sorted."""
        rows, length = np.arange(len(scores)), scores.shape[1]
        if not length:
            return np.ones(scores.shape, dtype=bool)
        threshold = np.where(counts > 0, ordered[rows, np.maximum(counts, 1) - 1], -np.inf)
        threshold = threshold.astype(scores.dtype)
        kept: Array = scores > threshold[:, None]
        follows = ordered[rows, np.minimum(counts, length - 1)]
        for row in np.flatnonzero((follows == threshold) & (counts < length)):  # some ties stay
            tied = np.flatnonzero(scores[row] == threshold[row])
            stay = ordered[row].searchsorted(threshold[row], "right") - counts[row]
            order = np.argsort(self._tie_keys(name, tied + row * length), kind="stable")
            kept[row, tied[order[len(tied) - stay :]]] = True
        return kept

    def _tie_keys(self, name: str, indices: Array) -> Array:
        if name not in self._magnitudes:
            return np.zeros(len(indices), dtype=np.float32)
        return np.asarray(np.abs(_flat(self._magnitudes[name])[indices]))

    def _share_ties(self, threshold: Any, tied: Counts, missing: int) -> Counts:
        """Share ``missing`` cuts among scores equal to the threshold: by ``|W|``, tensor, index."""
        names = [name for name, number in tied.items() if number]
        keys = [
            self._tie_keys(name, np.flatnonzero(self._flat[name] == threshold)) for name in names
        ]
        owners = np.repeat(np.arange(len(names)), [len(k) for k in keys])
        chosen = owners[np.argsort(np.concatenate(keys), kind="stable")[:missing]]
        return dict(zip(names, np.bincount(chosen, minlength=len(names)).tolist(), strict=True))

    def _value_at(self, position: int) -> Any:
        """The score at a position of the order over all tensors, without merging them.

        Bisection over the values themselves: float order is the order of their bit patterns (with
        the bits of negative ones flipped), so at most 64 rounds of binary searches find it.
        """
        arrays = [array for array in self._sorted.values() if array.size]
        integer = np.dtype(f"i{arrays[0].itemsize}")

        def flipped(bits: int) -> int:
            return bits ^ int(np.iinfo(integer).max) if bits < 0 else bits

        def value(key: int) -> Any:
            return integer.type(flipped(key)).view(arrays[0].dtype)

        low = min(flipped(int(array[0].view(integer))) for array in arrays)
        high = max(flipped(int(array[-1].view(integer))) for array in arrays)
        while low < high:
            middle = (low + high) // 2
            upto = value(middle)
            if sum(int(array.searchsorted(upto, "right")) for array in arrays) > position:
                high = middle
            else:
                low = middle + 1
        return value(low)


def _in_threads(function: Callable[[Any], Any], jobs: Iterable[Any]) -> list[Any]:
    """Results in order. numpy sorts and compares outside the interpreter lock, with vector
    instructions.
    """
    with ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads())) as pool:
        return list(pool.map(function, jobs))


def _flat(tensor: Tensor) -> Array:
    """The tensor as one row, on the CPU, in float32 (or float64 where it is float64)."""
    tensor = tensor.detach().to("cpu")
    if tensor.dtype is not torch.float64:
        tensor = tensor.to(torch.float32)
    return tensor.reshape(-1).numpy()


def _divided(values: Array, divisor: float) -> Array:
    if not divisor > 0:
        return np.full_like(values, np.inf)
    return np.asarray(values / values.dtype.type(divisor))
