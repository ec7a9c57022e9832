"""Plain values that stages hand to each other: tensors by parameter name, and rows of the table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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


def _bounded(name: str, meaning: str) -> dict[str, str]:
    """A column and those of its interval."""
    ends = {end: f"{end} end of the 95 % interval of {name}" for end in ("low", "high")}
    return {name: meaning} | {f"{name.removesuffix('_nats')}_{end}": of for end, of in ends.items()}


# The columns of every table, in order, and what each means; what only some rows have follows them.
COLUMNS = {
    "kind": "pruned, or which control: what nothing was cut from",
    "status": "done or failed",
    "error": "why it failed",
    "model": "model, by the name of its YAML or of the folder it came from",
    "data": "data set",
    "criterion": "what the weights were scored by",
    "allocation": "how the ratio was shared out between tensors",
    "pattern": "which masks were legal",
    "base": "the weights that were cut: final, averaged, best, latest or ema",
    "prunable": "linear: matrices of linear layers; all: every trained parameter",
    "recovery": "how it was trained on after the cut",
    "seed": "of the training, and of what is drawn for the cut",
    "ratio": "fraction to cut that was asked for, [0, 1)",
    "rate": "or the multiplier of a standard deviation that was asked for",
    "sparsity": "fraction cut of what may be cut",
    "compression": "fraction of all parameters that is zero or no longer stored",
    **_bounded("loss_nats", "loss on the test split, nats per token"),
    "loss_before_recovery_nats": "the same before recovery, nats per token",
    **_bounded("delta_nats", "loss less that of dense, paired by window, nats per token"),
    "bits_per_character": "loss on the test split, bits per character of its text",
    "perplexity": "exp of loss_nats",
    "config_hash": "identity of the cell: its folder under runs/cells",
    "fingerprint": "identity of how it was measured; only rows of one are compared",
    **_bounded("delta_before_recovery_nats", "delta_nats before recovery, nats per token"),
    **_bounded("delta_recovered_nats", "loss less that of dense_recovered, nats per token"),
    "jaccard_magnitude": "overlap of what is cut with magnitude's cut, [0, 1]",
    "random_batches_loss_nats": "loss over random windows, as in the paper, nats per token",
    "training": "the run that was cut",
}
# What a row shows of its training.
OF_TRAINING = {
    "spikes": "steps of its training whose loss stood out",
    "training_flops": "of all matrix products of its training, FLOPs",
    "weights_moved": "how far its training moved the weights, fraction of their norm",
}
_CALIBRATED = "calibrated loss less that of"
# Those of a later version, at the end of tables that have them.
YOUNGER = {
    **_bounded("loss_calibrated_nats", "loss at its own temperature, nats per token"),
    **_bounded("delta_calibrated_nats", f"{_CALIBRATED} dense, nats per token"),
    **_bounded("delta_recovered_calibrated_nats", f"{_CALIBRATED} dense_recovered, nats per token"),
    "temperature": "its own softmax temperature, fitted on validation",
    "top1": "fraction of tokens that are ranked first",
    **OF_TRAINING,
    "validation_loss_nats": "loss on the validation split, nats per token",
    "answer_tokens": "tokens of an answer, mean",
    "unended": "fraction of answers that are cut off",
    "flops_per_answer": "of all matrix products of an answer, mean, FLOPs",
    "active_blocks": "fraction of gated blocks that are on",
    "activated_parameters": "parameters that are used for a token, mean",
    "activated_flops_per_token": "of the matrix products that are used for a token, mean, FLOPs",
}
# What says how a row was cut, in COLUMNS or beside.
OPTIONAL_SETTINGS = {  # there where a row has them
    "roles": "the modules that could be cut",
    "schedule": "when it was cut: at once, in rounds, or early in training",
    "fuse": "fraction of zeros beyond which slices were cut whole",
}
SETTINGS = (
    *("criterion", "allocation", "pattern", "base", "prunable", "recovery"),
    *(*OPTIONAL_SETTINGS, "ratio", "rate"),
)
# What a model costs, among the metrics.
COSTS = {
    "parameters": "parameters that are stored",
    "nonzeros": "parameters that are not zero",
    "bytes": "of its tensors as they are stored",
    "bytes_compressed": "of its tensors without their zeros, compressed",
    "flops_per_token": "of the matrix products for a token, zeros counted, FLOPs",
    "nonzero_flops_per_token": "the same, zeros not counted, FLOPs",
    "rank": "of the factors that matrices became",
    **{name: YOUNGER[name] for name in ("activated_parameters", "activated_flops_per_token")},
}
# What only some data, or a sweep, or a table of means have; <…> stands for any name.
FAMILIES = {
    **_bounded("accuracy", "fraction of questions that are answered right"),
    "accuracy.<type>": "the same, of one type of question",
    "accuracy_majority": "accuracy of always giving the commonest training answer",
    **_bounded("delta_accuracy", "accuracy less that of dense, paired by image"),
    **_bounded("mae", "mean absolute error, in the unit of the answers"),
    "mae_median": "MAE of always giving the median training answer",
    **_bounded("delta_mae", "MAE less that of dense, paired by image"),
    "rmse": "root mean square error, in the unit of the answers",
    "rmse_median": "RMSE of always giving the median training answer",
    "unparsable": "fraction of answers that are no number",
    "sparsity.<role>": "fraction cut of what may be cut of one module",
    **_bounded("<measure>_before_recovery", "the same before recovery"),
    "host": "the machine it ran on (costs.csv)",
    "spent_seconds": "what it took before it could save: tracking, scoring, recovery, s",
    "spent_joules": "the same, J",
    "energy": "how joules are known: measured, estimated, or not at all",
    "<difference>_q": "of that difference, among all such of a report (Benjamini–Hochberg)",
    "cut": "how much was cut, of what was held against dense token by token (hurt.csv)",
    "slice": "which tokens",
    "tokens": "how many they are",
    "lost": "answers among them that turned wrong, of all seeds",
    "won": "answers among them that turned right, of all seeds",
    "against": "dense; or all tokens: the difference to what all of them lost",
    **_bounded("difference_nats", "loss of these tokens less that, nats per token"),
    "low": "low end of its 95 % interval over windows",
    "high": "high end of it",
    "p": "of no difference",
    "p_holm": "the same, corrected for all slices and cuts",
    "<group>.<option>": "an option that was varied, as typed",
    "quantize": "what matrices are stored as",
    "update": "what became of the weights that stay",
    "transform": "what matrices were rewritten as",
    "training recipe": "the choice of training that was varied",
    "label": "what the line of a table of means is called",
    "seeds": "how many seeds a mean is over",
    "failed": "whether a seed of it failed",
    "interval": "what its intervals are over: windows, or seeds",
}
MEANINGS = {**COLUMNS, **OPTIONAL_SETTINGS, **YOUNGER, **COSTS, **FAMILIES}


def meaning_of(column: str) -> str | None:
    """What a column of a table holds, with its unit; None where no table has such a one."""
    for name, meaning in MEANINGS.items():
        if re.fullmatch(re.sub(r"<\w+>", r"[\\w. ]+", name.replace(".", r"\.")), column):
            return meaning
    return None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what was cut, how, and what it cost.

    ``settings`` say how it was cut; one that does not apply is left out. ``metrics`` hold what was
    measured, by the names of ``MEANINGS`` without ``_nats``; intervals are over the windows of the
    test split. ``axes``: what a sweep varies that has no column of its own (``tracking.every``).
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
        values |= {name: of for name, of in self.settings.items() if name in SETTINGS}
        for name, (mean, low, high) in self.metrics.items():
            values[f"{name}_nats" if f"{name}_nats" in _TABLED else name] = mean
            values |= {f"{name}_low": low} if low is not None else {}
            values |= {f"{name}_high": high} if high is not None else {}
        return values

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``row.json``: columns flat, metrics without one as ``measures``."""
        measures = self.columns()
        flat = {name: measures.pop(name, None) for name in (*COLUMNS, *OPTIONAL_SETTINGS)}
        younger = {n: v for n, v in self.settings.items() if n not in (*SETTINGS, *self.axes)}
        beside = {"settings": younger} if younger else {}
        return {**flat, **beside, "measures": measures, "axes": dict(self.axes)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Row":
        """Read a row back; columns this version does not know are dropped. TypeError for what is
        no number where one should be.
        """
        settings = {name: values.get(name) for name in SETTINGS} | values.get("settings", {})
        measured = {name: values[name] for name in _MEASURED if name in values}
        columns = measured | values.get("measures", {})
        metrics = {}
        for column, mean in columns.items():  # loss_nats, loss_low, loss_high are one metric
            name = column.removesuffix("_nats")
            if not isinstance(mean, _NUMBER):
                raise TypeError(f"{column} is no number")
            if mean is not None and not column.endswith(("_low", "_high")):
                bounds = columns.get(f"{name}_low"), columns.get(f"{name}_high")
                metrics[name] = Interval(mean, *bounds)
        return cls(
            **{name: values[name] for name in OF_ROW if name in values},
            settings={name: value for name, value in settings.items() if value is not None},
            metrics=metrics,
            axes=values.get("axes", {}),
        )


# Of COLUMNS, those that say what a row is of.
OF_ROW = tuple(of.name for of in fields(Row) if of.name not in ("settings", "metrics", "axes"))
# Those that are measured; and of all tables.
_MEASURED = tuple(name for name in COLUMNS if name not in {*OF_ROW, *SETTINGS})
_TABLED = {*COLUMNS, *YOUNGER}
_NUMBER = (int, float, type(None))  # of a union the making takes longer than the asking
