"""One cell: load, cut, recover, evaluate, and leave a row. Cells are shared by all sweeps."""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from swe_cli.compose import ConfigRoot
from swe_cli.contracts import Tensors
from swe_cli.evaluation.compare import loss_interval, paired_difference
from swe_cli.evaluation.loss import Evaluation, perplexity
from swe_cli.evaluation.measure import Measured, answered_before, characters_column, measures
from swe_cli.files import write_json, write_tensors
from swe_cli.masks.masks import sparsity
from swe_cli.pruning.cut import zeros
from swe_cli.pruning.recover import UNWATCHED, Watch
from swe_cli.records import COLUMNS, COSTS, Row
from swe_cli.runs import Run, provenance
from swe_cli.sweeps.cell import Cell, build
from swe_cli.sweeps.subject import Subject, load_subject
from swe_cli.sweeps.treatment import Treated, measured_on, random_batches, treat
from swe_cli.training.loop import as_module

DELTAS = tuple(name for name in COLUMNS if name.startswith("delta_"))


def run_cell(cell: Cell, watch: Watch = UNWATCHED) -> Row:
    """Run a cell, and first the controls it is compared with, unless they are already there."""
    if cell.done:
        return cell.row()
    references = {}
    for kind, reference in cell.reads.items():
        run_cell(reference, Watch(stop=watch.stop))
        references[kind] = reference.windows()
    subject = _subject(
        Run(cell.training), cell.root, cell.device, cell.threads, _written(cell.training)
    )
    measured = treat(cell, subject, watch)
    row = _row(cell, subject, measured, references)
    started = time.perf_counter()
    if cell.model_to is not None:
        write_tensors(cell.model_to, measured.weights, {"cell": cell.hash})
    _write(cell, row, measured)
    measured.seconds["write"] = time.perf_counter() - started
    write_json(cell.folder / "timing.json", {**provenance(), "seconds": measured.seconds})
    return row


def evaluate_model(
    stored: Row,
    training: Run,
    weights: Tensors,
    evaluation: Mapping[str, Any],
    root: ConfigRoot,
    *,
    device: str,
    threads: int | None,
) -> Row:
    """Measure a stored pruned model anew; what was cut, and how, is as ``stored`` says."""
    subject = load_subject(training, root, device, threads)
    dense = sum(p.numel() for p in as_module(subject.model).parameters())
    subject.load(weights)
    protocol: Evaluation = build("evaluation", evaluation, root)
    measured = measured_on(subject, protocol)
    loss = loss_interval(measured.losses)
    cleared: dict[str, Any] = dict.fromkeys(("loss_before_recovery_nats", *DELTAS))
    return replace(
        stored,
        **cleared,
        compression=1 - (sum(w.numel() for w in weights.values()) - zeros(weights)) / dense,
        loss_nats=loss.mean,
        loss_low=loss.low,
        loss_high=loss.high,
        bits_per_character=characters_column(measured, subject.dataset, protocol),
        perplexity=_perplexity(measured),
        measures={
            n: v for n, v in stored.measures.items() if n.startswith("sparsity.") or n in COSTS
        }
        | measures(measured, subject.dataset, protocol, None),
        fingerprint=subject.dataset.fingerprint(protocol.split, context=subject.model.context),
        random_batches_loss_nats=random_batches(subject, protocol),
    )


def _write(cell: Cell, row: Row, measured: Treated) -> None:
    stored = measured.after.tensors()
    if measured.before is not None and measured.before is not measured.after:
        stored["nats_before_recovery"] = torch.from_numpy(measured.before.losses.nats)
    write_tensors(cell.folder / "windows.safetensors", stored, {"fingerprint": row.fingerprint})
    write_json(cell.folder / "cell.json", dict(cell.config))
    if measured.grid:
        write_json(cell.folder / "grid.json", [asdict(tried) for tried in measured.grid])
    write_json(cell.folder / "row.json", row.to_json())  # last: its presence means done


def _row(
    cell: Cell, subject: Subject, measured: Treated, references: Mapping[str, Measured]
) -> Row:
    evaluation: Evaluation = cell.built("evaluation")
    config, after = cell.config, measured.after
    loss = loss_interval(after.losses)
    row = Row(
        kind=cell.kind,
        model=subject.identity["model"]["name"],
        data=subject.identity["data"]["name"],
        seed=subject.identity["seed"],
        sparsity=measured.sparsity,
        compression=measured.compression,
        loss_nats=loss.mean,
        loss_low=loss.low,
        loss_high=loss.high,
        bits_per_character=characters_column(after, subject.dataset, evaluation),
        perplexity=_perplexity(after),
        measures=measures(after, subject.dataset, evaluation, references.get("dense", after))
        | answered_before(measured.before if "recovery" in config else None)
        | measured.cost,
        config_hash=cell.hash,
        fingerprint=subject.dataset.fingerprint(evaluation.split, context=subject.model.context),
        jaccard_magnitude=measured.jaccard,
        random_batches_loss_nats=measured.random_batches_nats,
        training=subject.run.name,
        recovery=config["recovery"]["name"] if "recovery" in config else None,
        **staged(config),
    )
    if cell.kind == "pruned":
        row = replace(
            row,
            criterion=config[judge_of(config)]["name"],
            **{g: config[g]["name"] for g in ("allocation", "pattern") if g in config},
            base=config["base"],
            prunable=config["prunable"],
            ratio=config.get("ratio"),
            rate=config.get("rate"),
        )
        row = _with_roles(row, cell, subject, measured)
    return _with_deltas(row, measured, {"dense": after, **references})


def _with_roles(row: Row, cell: Cell, subject: Subject, measured: Treated) -> Row:
    """Which modules could be cut, and how much each was, where the model has several."""
    if "roles" not in cell.config or not measured.masks:
        return row
    masks, role_of = measured.masks, subject.model.role_of
    achieved = {
        f"sparsity.{role}": sparsity({n: m for n, m in masks.items() if role_of(n) == role})
        for role in dict.fromkeys(role_of(name) for name in masks)
    }
    return replace(row, roles=cell.config["roles"], measures={**row.measures, **achieved})


def _with_deltas(row: Row, measured: Treated, references: Mapping[str, Measured]) -> Row:
    dense = references["dense"].losses
    delta = paired_difference(measured.after.losses, dense)
    row = replace(row, delta_nats=delta.mean, delta_low=delta.low, delta_high=delta.high)
    if row.recovery is not None and measured.before is not None:
        before = paired_difference(measured.before.losses, dense)
        row = replace(
            row,
            loss_before_recovery_nats=measured.before.losses.mean_nats,
            delta_before_recovery_nats=before.mean,
            delta_before_recovery_low=before.low,
            delta_before_recovery_high=before.high,
        )
    if "dense_recovered" not in references:
        return row
    recovered = paired_difference(measured.after.losses, references["dense_recovered"].losses)
    return replace(
        row,
        delta_recovered_nats=recovered.mean,
        delta_recovered_low=recovered.low,
        delta_recovered_high=recovered.high,
    )


def judge_of(config: Mapping[str, Any]) -> str:
    """What a row is named after: the transform where there is one, else the criterion."""
    return "transform" if "transform" in config else "criterion"


def staged(config: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that say it was not one cut and one recovery."""
    schedule = config["schedule"]["name"] if "schedule" in config else "one_shot"
    named = {} if schedule == "one_shot" else {"schedule": schedule}
    return {**named, **({"fuse": config["fuse"]} if "fuse" in config else {})}


def _perplexity(measured: Measured) -> float | None:
    """Per token; of questions it would say nothing: most tokens are not predicted."""
    return perplexity(measured.losses.mean_nats) if measured.answers is None else None


@lru_cache(maxsize=1)
def _subject(
    training: Run, root: ConfigRoot, device: str, threads: int | None, written: int
) -> Subject:
    return load_subject(training, root, device, threads)


def _written(training: Path) -> int:
    """When a run was last finished: one trained again, for one more statistic, is loaded again."""
    manifest = training / "manifest.json"
    return manifest.stat().st_mtime_ns if manifest.is_file() else 0
