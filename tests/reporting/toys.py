"""Rows and curves small enough to work out by hand."""

from collections.abc import Mapping
from typing import Any

from swe_cli.records import Row, Scalar

COMMON: dict[str, Any] = {
    "model": "gpt_nano",
    "data": "kjv",
    "prunable": "linear",
    "fingerprint": "f1",
    "training": "t",
}
CONTROL_LOSSES = {
    "dense": 2.07,
    "dense_best": 1.84,
    "dense_recovered": 2.05,
    "dense_averaged": 1.81,
}
CURVE = {0.1: 2.06, 0.3: 2.0, 0.6: 1.91, 0.8: 2.19, 0.9: 2.9}


def pruned(ratio: float | None, loss: float, **changes: Any) -> Row:
    """A pruned row whose intervals are the loss, or the delta against 2.07, ± 0.005."""
    delta = loss - 2.07
    values: dict[str, Any] = {
        "kind": "pruned",
        "criterion": "swe",
        "allocation": "global",
        "pattern": "unstructured",
        "base": "final",
        "recovery": "adam",
        "seed": 0,
        "ratio": ratio,
        "sparsity": ratio,
        "loss_nats": loss,
        "loss_low": loss - 0.005,
        "loss_high": loss + 0.005,
        "loss_before_recovery_nats": loss * 2,
        "delta_nats": delta,
        "delta_low": delta - 0.005,
        "delta_high": delta + 0.005,
        "delta_recovered_nats": delta + 0.02,
        "delta_recovered_low": delta + 0.015,
        "delta_recovered_high": delta + 0.025,
        "jaccard_magnitude": 0.5,
        **COMMON,
        **changes,
    }
    values.setdefault("config_hash", f"{values['criterion']}-{ratio}-{values['seed']}")
    return Row(**values)


def controls(seed: int = 0) -> list[Row]:
    """The dense model and its three controls."""
    rows = []
    for kind, loss in CONTROL_LOSSES.items():
        values: dict[str, Any] = {
            "kind": kind,
            "seed": seed,
            "loss_nats": loss,
            "loss_low": loss - 0.01,
            "loss_high": loss + 0.01,
            "delta_nats": loss - 2.07,
            "delta_low": loss - 2.08,
            "delta_high": loss - 2.06,
            "config_hash": f"{kind}{seed}",
        }
        rows.append(Row(**values, **COMMON))
    return rows


def curve(
    criterion: str = "swe",
    *,
    shift: float = 0.0,
    axes: Mapping[str, Scalar] | None = None,
    **k: Any,
) -> list[Row]:
    """One line: every ratio of ``CURVE``."""
    return [
        pruned(ratio, loss + shift, criterion=criterion, axes=axes or {}, **k)
        for ratio, loss in CURVE.items()
    ]


def upper_bounds(bounds: Mapping[float, float]) -> list[Row]:
    """A line of which only the upper bounds of the delta matter."""
    return [
        pruned(ratio, 2.0, delta_high=high, delta_recovered_high=high + 0.02)
        for ratio, high in bounds.items()
    ]
