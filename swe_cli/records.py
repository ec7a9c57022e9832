"""Frozen rows: the plain values that stages hand to each other and that tables are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, NamedTuple

Scalar = str | int | float | bool | None

Kind = Literal["dense", "dense_best", "dense_recovered", "dense_averaged", "dense_blind", "pruned"]
# Keys whose axis has a column of its own in every table.
AXIS_COLUMNS = frozenset(
    {"model", "data", "seed", "criterion", "allocation", "pattern", "base", "prunable"}
    | {"roles", "recovery", "ratio", "rate", "schedule", "fuse", "transform"}
)
CONTROLS: tuple[Kind, ...] = ("dense_best", "dense_recovered", "dense_averaged", "dense_blind")


class Interval(NamedTuple):
    """A mean and its 95 % interval, all in the unit of what was measured."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was cut, how, and what it cost.

    Losses and deltas are nats per token. ``loss_low``/``loss_high`` and every ``delta_*`` bound are
    95 % intervals over the windows of the test split; deltas are paired, window by window.
    ``delta_nats`` is against ``dense``; ``delta_recovered_nats`` against ``dense_recovered``;
    both compare what remains after recovery. ``axes`` holds the keys that a sweep varies and that
    have no column of their own (``tracking.every``, …).

    ``roles`` says which modules could be cut, where the model has several; ``schedule`` is named
    where it is not one cut at the end, and then ``loss_before_recovery_nats`` is that of the model
    training ended with, or empty where the recovery lay between cuts; ``fuse``: the fraction of
    zeros beyond which whole slices were cut afterwards. ``measures`` holds what
    only some data sets have: ``accuracy`` and ``mae`` with their intervals, ``accuracy.<type>``,
    ``sparsity.<role>`` (achieved, of the prunable weights of that role), …; and of models that are
    smaller than the dense one ``COSTS``, as stored.
    """

    kind: Kind
    status: Literal["done", "failed"] = "done"
    error: str | None = None
    model: str
    data: str
    criterion: str | None = None
    allocation: str | None = None
    pattern: str | None = None
    base: str | None = None
    prunable: str | None = None
    recovery: str | None = None
    seed: int
    ratio: float | None = None
    rate: float | None = None
    sparsity: float | None = None
    compression: float | None = None
    loss_nats: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    loss_before_recovery_nats: float | None = None
    delta_nats: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    bits_per_character: float | None = None
    perplexity: float | None = None
    config_hash: str
    fingerprint: str
    # Stable names end here; what follows may grow.
    delta_before_recovery_nats: float | None = None
    delta_before_recovery_low: float | None = None
    delta_before_recovery_high: float | None = None
    delta_recovered_nats: float | None = None
    delta_recovered_low: float | None = None
    delta_recovered_high: float | None = None
    jaccard_magnitude: float | None = None
    random_batches_loss_nats: float | None = None
    training: str
    roles: str | None = None
    schedule: str | None = None
    fuse: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    axes: Mapping[str, Scalar] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``row.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Row":
        """Read a row back; columns this version does not know are dropped."""
        known = {column.name for column in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


# What a model that is smaller than the dense one costs, among ``measures``.
COSTS = ("parameters", "bytes", "flops_per_token", "rank")
# Columns of these are there where a row has them.
OPTIONAL = ("roles", "schedule", "fuse", "measures", "axes")
COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Row) if f.name not in OPTIONAL)
