"""Plain values that stages hand to each other: tensors by parameter name, and rows of the table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor

Tensors = dict[str, Tensor]
Scores = dict[str, Tensor]  # low score = pruned first
Masks = dict[str, Tensor]  # bool, True = kept
Counts = dict[str, int]  # how many weights each prunable tensor loses
# At least "tokens" and "targets", both int64 (B, T). With images: "images" uint8 (M, K, height,
# width) and "image" int64 (B,), which of them a row is about. "window" int64 (B,): rows of one
# window are resampled together; without it every row is a window.
Batch = dict[str, Tensor]

Scalar = str | int | float | bool | None


class Interval(NamedTuple):
    """A mean and its 95 % interval, in the unit of what was measured; no bounds, no interval."""

    mean: float
    low: float | None = None
    high: float | None = None


# The columns of every table, in order; what only some rows have follows them.
COLUMNS: tuple[str, ...] = (
    *("kind", "status", "error", "model", "data"),
    *("criterion", "allocation", "pattern", "base", "prunable", "recovery"),
    *("seed", "ratio", "rate", "sparsity", "compression"),
    *("loss_nats", "loss_low", "loss_high", "loss_before_recovery_nats"),
    *("delta_nats", "delta_low", "delta_high", "bits_per_character", "perplexity"),
    *("config_hash", "fingerprint"),
    *("delta_before_recovery_nats", "delta_before_recovery_low", "delta_before_recovery_high"),
    *("delta_recovered_nats", "delta_recovered_low", "delta_recovered_high"),
    *("jaccard_magnitude", "random_batches_loss_nats", "training"),
)
# What a row shows of its training.
OF_TRAINING = ("spikes", "training_flops", "weights_moved")
# Those of a later version, at the end of tables that have them.
YOUNGER: tuple[str, ...] = (
    *("loss_calibrated_nats", "loss_calibrated_low", "loss_calibrated_high"),
    *("delta_calibrated_nats", "delta_calibrated_low", "delta_calibrated_high"),
    *("delta_recovered_calibrated_nats", "delta_recovered_calibrated_low"),
    *("delta_recovered_calibrated_high", "temperature", "validation_loss_nats"),
    *("top1", *OF_TRAINING),
    *("answer_tokens", "unended", "flops_per_answer"),
    *("active_blocks", "activated_parameters", "activated_flops_per_token"),
)
# Of COLUMNS, those that say what a row is of; and what says how it was cut, in COLUMNS or beside.
OF_ROW = (
    *("kind", "status", "error", "model", "data", "seed"),
    *("config_hash", "fingerprint", "training"),
)
OPTIONAL_SETTINGS = ("roles", "schedule", "fuse")  # there where a row has them
SETTINGS = (
    *("criterion", "allocation", "pattern", "base", "prunable", "recovery"),
    *(*OPTIONAL_SETTINGS, "ratio", "rate"),
)
# What a model costs, counted, among the metrics.
COSTS = (
    *("parameters", "nonzeros", "bytes", "bytes_compressed"),
    *("flops_per_token", "nonzero_flops_per_token", "rank"),
    *("activated_parameters", "activated_flops_per_token"),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was cut, how, and what it cost.

    ``settings`` say how it was cut; one that does not apply is left out. ``metrics`` hold what was
    measured, by name. Losses and deltas are nats per token, their intervals 95 % over the windows
    of the test split; deltas are paired, window by window: ``delta`` against ``dense``,
    ``delta_recovered`` against ``dense_recovered``, both after recovery. ``…_calibrated``: at each
    model's own softmax ``temperature``, fitted on validation; ``top1``: the fraction of tokens that
    it ranks first. ``axes`` holds the keys that a sweep varies and that have no column of their own
    (``tracking.every``, …).
    """

    kind: str
    status: Literal["done", "failed"] = "done"
    error: str | None = None
    model: str
    data: str
    seed: int
    config_hash: str
    fingerprint: str
    training: str
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    metrics: Mapping[str, Interval] = field(default_factory=dict)
    axes: Mapping[str, Scalar] = field(default_factory=dict)

    def mean(self, metric: str) -> float | None:
        """The mean of a metric; None where it was not measured."""
        return self.metrics[metric].mean if metric in self.metrics else None

    @property
    def varied(self) -> dict[str, Scalar]:
        """Axes, and settings that are younger than the columns of the table, which stand there."""
        return {**self.axes, **{n: v for n, v in self.settings.items() if n not in SETTINGS}}

    def columns(self) -> dict[str, Scalar]:
        """All of ``COLUMNS``, None where nothing is known; and what else was measured."""
        values = dict.fromkeys(COLUMNS) | {name: getattr(self, name) for name in OF_ROW}
        values |= {name: self.settings[name] for name in self.settings.keys() - self.varied.keys()}
        for name, (mean, low, high) in self.metrics.items():
            values[f"{name}_nats" if f"{name}_nats" in (*COLUMNS, *YOUNGER) else name] = mean
            bounds = {f"{name}_low": low, f"{name}_high": high}
            values |= {column: bound for column, bound in bounds.items() if bound is not None}
        return values

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``row.json``: columns flat, metrics without one as ``measures``."""
        values: dict[str, Any] = self.columns()
        beside = [name for name in values if name not in (*COLUMNS, *OPTIONAL_SETTINGS)]
        measures = {name: values.pop(name) for name in beside}
        values = dict.fromkeys(OPTIONAL_SETTINGS) | values
        younger = sorted(self.varied.keys() - self.axes.keys())
        values |= {"settings": {name: self.settings[name] for name in younger}} if younger else {}
        return {**values, "measures": measures, "axes": dict(self.axes)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Row":
        """Read a row back; columns this version does not know are dropped."""
        settings = {name: values.get(name) for name in SETTINGS} | values.get("settings", {})
        measured = [n for n in COLUMNS if n in values and n not in (*OF_ROW, *SETTINGS)]
        columns = {name: values[name] for name in measured} | values.get("measures", {})
        metrics = {}
        for column, mean in columns.items():  # loss_nats, loss_low, loss_high are one metric
            name = column.removesuffix("_nats")
            if mean is not None and not column.endswith(("_low", "_high")):
                bounds = columns.get(f"{name}_low"), columns.get(f"{name}_high")
                metrics[name] = Interval(mean, *bounds)
        return cls(
            **{name: values[name] for name in OF_ROW if name in values},
            settings={name: value for name, value in settings.items() if value is not None},
            metrics=metrics,
            axes=values.get("axes", {}),
        )
