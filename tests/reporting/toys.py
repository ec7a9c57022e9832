"""Rows and curves small enough to work out by hand."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from zlib import crc32

from swe_cli.records import Row, Scalar
from swe_cli.report.summary import Line, Summary, summarise
from swe_cli.report.tables import OF_LINE, frame

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


def row_of(**columns: Any) -> Row:
    """A row by the columns of its table."""
    return Row.from_json(columns)


def changed(row: Row, **columns: Any) -> Row:
    """The same row with other values in some columns."""
    return Row.from_json({**row.to_json(), **columns})


def summed(rows: Iterable[Row], **k: Any) -> Summary:
    return summarise(frame(rows), **k)


def only(rows: Iterable[Row]) -> Line:
    (line,) = summed(rows).lines
    return line


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
    # Two lines are two models, however alike their losses: they differ where nobody sees it.
    settings = repr([values.get(name) for name in ("criterion", *OF_LINE, "axes")])
    if values["loss_before_recovery_nats"] is not None:
        values["loss_before_recovery_nats"] += 1e-19 * crc32(settings.encode())
    return row_of(**values)


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
        rows.append(row_of(**values, **COMMON))
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


ACCURACIES = {"dense": 0.9, "dense_best": 0.9, "dense_recovered": 0.91, "dense_averaged": 0.89}


def measured(accuracy: float, *, mae: float | None = None, **more: float) -> dict[str, float]:
    """Measures of a row: ± 0.02, and against 0.9 ± 0.005; MAE ± 0.2, and against 1 ± 0.1."""
    delta = accuracy - 0.9
    found = {
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.02,
        "accuracy_high": accuracy + 0.02,
        "accuracy.color": accuracy / 2,
        "delta_accuracy": delta,
        "delta_accuracy_low": delta - 0.005,
        "delta_accuracy_high": delta + 0.005,
        "accuracy_majority": 0.372,
    }
    if mae is not None:
        found |= {"mae": mae, "mae_low": mae - 0.2, "mae_high": mae + 0.2, "mae_median": 4.65}
        found |= {"delta_mae": mae - 1, "delta_mae_low": mae - 1.1, "delta_mae_high": mae - 0.9}
        found |= {"rmse": mae * 2, "rmse_median": 6.0, "unparsable": 0.125}
    return found | more


def asked_controls(seed: int = 0, *, mae: float | None = None) -> list[Row]:
    """The dense model, its controls and the blinded one, of questions."""
    rows = [
        changed(row, measures=measured(ACCURACIES[row.kind], mae=mae)) for row in controls(seed)
    ]
    blind = changed(rows[0], kind="dense_blind", loss_nats=2.5, config_hash=f"blind{seed}")
    return [*rows, changed(blind, measures=measured(0.61, mae=mae and mae * 2))]


def asked(
    accuracies: Mapping[float, float],
    *,
    roles: str | None = "all",
    mae: float | None = None,
    seed: int = 0,
    criterion: str = "swe",
) -> list[Row]:
    """One line of questions: accuracy by ratio, 0.1 lower before recovery."""
    rows = []
    for ratio, accuracy in accuracies.items():
        found = measured(accuracy, mae=mae, accuracy_before_recovery=accuracy - 0.1)
        if roles not in (None, "all"):
            found[f"sparsity.{roles}"] = ratio
        rows.append(
            pruned(
                ratio,
                2.0,
                seed=seed,
                criterion=criterion,
                roles=roles,
                measures=found,
                config_hash=f"{criterion}-{roles}-{ratio}-{seed}",
            )
        )
    return rows


# What a figure's specification says


def layers_of(chart: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every layer that is drawn, from the lowest, with its data."""
    if "mark" in chart:
        yield chart
    inside = [chart["spec"]] if "spec" in chart else chart.get("vconcat", chart.get("concat", []))
    for part in (*chart.get("layer", []), *inside):
        yield from layers_of({"data": chart.get("data"), **part})


def marks(chart: dict[str, Any]) -> list[str]:
    return [layer["mark"]["type"] for layer in layers_of(chart)]


def channel(chart: dict[str, Any], mark: str, name: str) -> dict[str, Any]:
    """One channel of the first layer of a mark."""
    layer = next(layer for layer in layers_of(chart) if layer["mark"]["type"] == mark)
    return layer["encoding"][name]


def data_of(figure: dict[str, Any], mark: str, place: int = 0) -> list[dict[str, Any]]:
    """What all layers of a mark are drawn from, each row once; ``place``: the panel, where there
    are several."""
    chart = {"data": figure.get("data"), **figure.get("hconcat", [figure])[place]}
    layers = [layer for layer in layers_of(chart) if layer["mark"]["type"] == mark]
    tables = dict.fromkeys(layer["data"]["name"] for layer in layers)
    rows = [row for name in tables for row in figure["datasets"][name]]
    return list({repr(row): row for row in rows}.values())


def names(figure: dict[str, Any]) -> list[list[str]]:
    """What is written at the right end of each panel of a curve, from the lowest to the highest."""
    texts = [
        [layer for layer in layers_of(panel) if layer["mark"].get("baseline") == "middle"]
        for panel in figure["concat"]
    ]
    return [[row["name"] for row in figure["datasets"][text["data"]["name"]]] for (text,) in texts]


def title(figure: dict[str, Any]) -> list[str]:
    """The title, then the lines below it, rejoined where they were wrapped."""
    said = figure["title"]
    return [said["text"], *said.get("subtitle", [])]
