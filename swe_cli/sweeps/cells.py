"""One cell: load, cut, recover, evaluate, and leave a row. Cells are shared by all sweeps."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from swe_cli.compose import ConfigRoot, default_part, described_options, part
from swe_cli.contracts import (
    Evidence,
    LayerwiseCriterion,
    Lens,
    Masks,
    RankedScores,
    Tensors,
    UnitPattern,
)
from swe_cli.errors import PruningError
from swe_cli.evaluation.compare import loss_interval, paired_difference
from swe_cli.evaluation.loss import Evaluation, perplexity, random_batches_loss
from swe_cli.evaluation.measure import (
    Measured,
    answered_before,
    characters_column,
    measure,
    measures,
)
from swe_cli.files import (
    canonical,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from swe_cli.masks.masks import jaccard_of_cuts, sparsity
from swe_cli.pruning.calibrate import Calibrated
from swe_cli.pruning.cut import Cut, Scoring, check_needs, cut, recorded_needs, zeros
from swe_cli.pruning.recover import Recovery
from swe_cli.pruning.shrink import shrink
from swe_cli.records import COLUMNS, Kind, Row
from swe_cli.runs import Run, identity, provenance
from swe_cli.sweeps.build import Subject, load_subject
from swe_cli.training.loop import as_module

DELTAS = tuple(name for name in COLUMNS if name.startswith("delta_"))
BASE_OF_CONTROL = {"dense_best": "best", "dense_averaged": "averaged"}


@dataclass(frozen=True)
class Cell:
    """What one row stands for. ``config`` is plain: the training's hash, the cut, the evaluation.

    ``training`` is the training run's path; ``model_to`` a file to keep the pruned model in;
    ``reads`` are the cells its deltas are measured against, by kind.
    """

    kind: Kind
    training: Path
    config: Mapping[str, Any]
    root: ConfigRoot
    device: str = "auto"
    threads: int | None = None
    model_to: Path | None = None
    reads: Mapping[str, "Cell"] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        return identity(self.config)

    @property
    def folder(self) -> Path:
        return self.training.parent / "cells" / self.hash

    @property
    def done(self) -> bool:
        files = [self.folder / "row.json", self.folder / "windows.safetensors", self.model_to]
        return all(file is None or file.is_file() for file in files)

    def row(self) -> Row:
        """The stored row of a cell that is done."""
        return Row.from_json(read_json(self.folder / "row.json"))

    def windows(self) -> Measured:
        """Every window of a cell that is done: what deltas are paired over."""
        return Measured.from_tensors(read_tensors(self.folder / "windows.safetensors"))


@dataclass(frozen=True)
class Watch:
    """What looks on while a cell runs: a progress bar, the user's Ctrl-C."""

    recovery_step: Callable[[int], None] = lambda step: None
    stop: Callable[[], bool] = lambda: False


@dataclass
class _Outcome:
    masks: Masks
    before: Measured
    after: Measured
    random_batches_nats: float | None
    compression: float
    jaccard: float | None
    seconds: dict[str, float]


def run_cell(cell: Cell, watch: Watch = Watch()) -> Row:
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
    model_weights, measured = _run(cell, subject, watch)
    row = _row(cell, subject, measured, references)
    started = time.perf_counter()
    if cell.model_to is not None:
        if "pattern" in cell.config and isinstance(_built("pattern", cell), UnitPattern):
            model_weights = shrink(subject.model, model_weights)
        write_tensors(cell.model_to, model_weights, {"cell": cell.hash})
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
    protocol: Evaluation = _build("evaluation", evaluation, root)
    measured = _evaluate(subject, protocol)
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
        measures={n: v for n, v in stored.measures.items() if n.startswith("sparsity.")}
        | measures(measured, subject.dataset, protocol, None),
        fingerprint=subject.dataset.fingerprint(protocol.split, context=subject.model.context),
        random_batches_loss_nats=_random_batches(subject, protocol),
    )


def _write(cell: Cell, row: Row, measured: _Outcome) -> None:
    stored = measured.after.tensors()
    if measured.before is not measured.after:
        stored["nats_before_recovery"] = torch.from_numpy(measured.before.losses.nats)
    write_tensors(cell.folder / "windows.safetensors", stored, {"fingerprint": row.fingerprint})
    write_json(cell.folder / "cell.json", dict(cell.config))
    write_json(cell.folder / "row.json", row.to_json())  # last: its presence means done


def _run(cell: Cell, subject: Subject, watch: Watch) -> tuple[Tensors, _Outcome]:
    seconds: dict[str, float] = {}
    evaluation: Evaluation = _built("evaluation", cell)
    clock = _Clock(seconds)
    base = BASE_OF_CONTROL.get(cell.kind, cell.config.get("base", "final"))
    weights = subject.weights(base)
    model = subject.load(weights)
    parameters = {name: p.detach() for name, p in as_module(model).named_parameters()}
    clock.lap("load")
    lens = subject.lens(cell.config.get("prunable", "linear"), cell.config.get("roles", "all"))
    masks, jaccard = _masks(cell, subject, weights, lens) if cell.kind == "pruned" else ({}, None)
    if masks:
        cut(parameters, masks, lens)
    clock.lap("cut")
    blinded = subject.identity["seed"] if cell.kind == "dense_blind" else None
    before = _evaluate(subject, evaluation, blinded)
    clock.lap("evaluation")
    if "recovery" in cell.config:
        recovery: Recovery = _built("recovery", cell)
        recovery(
            model,
            masks,
            subject.dataset,
            lens,
            seed=subject.identity["seed"],
            machine=subject.machine,
            batch_size=subject.identity["training"]["batch_size"],
            after_step=watch.recovery_step,
            stop=watch.stop,
        )
        clock.lap("recovery")
        after = _evaluate(subject, evaluation) if recovery.steps else before
    else:
        after = before
    random_nats = _random_batches(subject, evaluation) if blinded is None else None
    clock.lap("evaluation")
    total = sum(p.numel() for p in parameters.values())
    compression = zeros(parameters) / total
    return parameters, _Outcome(masks, before, after, random_nats, compression, jaccard, seconds)


def _masks(cell: Cell, subject: Subject, weights: Tensors, lens: Lens) -> tuple[Masks, float]:
    """The masks of a cell, and their overlap with magnitude's. Criteria that update weights have
    done so in the live model by then.
    """
    config = cell.config
    criterion = _built("criterion", cell)
    name = config["criterion"]["name"]
    check_needs(name, criterion.needs, tuple(subject.trajectory), subject.run.name)
    scoring = _scoring(subject, cell, weights, lens)
    _check_tracked(scoring.evidence, criterion.needs, name, subject.run.name)

    def rank_by(other: str) -> RankedScores:
        consulted = default_part("criterion", other, cell.root)
        return scoring.rank(canonical(consulted.describe()), consulted.build())

    ranked = scoring.rank(canonical(config["criterion"]), criterion)
    how = Cut(
        subject.model,
        lens,
        _built("allocation", cell),
        _built("pattern", cell),
        config.get("ratio"),
        config.get("rate"),
        rank_by,
        scoring.calibrated,
    )
    if isinstance(criterion, LayerwiseCriterion):
        masks = how.prune(criterion, ranked)
    else:
        masks = how.masks(ranked)
    if name == "magnitude":
        return masks, 1.0
    return masks, jaccard_of_cuts(masks, how.masks(rank_by("magnitude")))


def _scoring(subject: Subject, cell: Cell, weights: Tensors, lens: Lens) -> Scoring:
    config = cell.config
    told = ("base", "prunable", "roles", "calibration")
    key = canonical({key: config[key] for key in told if key in config})
    if key not in subject.scorings:
        evidence = Evidence(
            weights=lens(weights),
            trajectory={name: lens(of) for name, of in subject.trajectory.items()},
            seed=subject.identity["seed"],
        )
        subject.scorings[key] = Scoring(evidence, _calibrated(subject, cell, lens))
    return subject.scorings[key]


def _calibrated(subject: Subject, cell: Cell, lens: Lens) -> Calibrated | None:
    if "calibration" not in cell.config:
        return None
    return Calibrated(
        subject.model,
        subject.dataset,
        subject.machine,
        _built("calibration", cell),
        lens,
        subject.identity["seed"],
    )


def _check_tracked(evidence: Evidence, needs: Sequence[str], criterion: str, run: str) -> None:
    """Raise PruningError where a criterion would judge parts that were frozen and not observed."""
    for statistic in recorded_needs(needs):
        if evidence.trajectory[statistic].keys() < evidence.weights.keys():
            raise PruningError(
                f"criterion={criterion} judges by {statistic}, and {run} recorded none of parts "
                "that it froze.",
                "Train with tracking.frozen=true, or leave them out: roles=all",
            )


def _evaluate(
    subject: Subject, evaluation: Evaluation, shuffle_images: int | None = None
) -> Measured:
    measured = measure(
        subject.model,
        subject.dataset,
        evaluation,
        machine=subject.machine,
        shuffle_images=shuffle_images,
    )
    if not measured.finite:
        raise PruningError("The loss of the cut model is not a finite number.")
    return measured


def _random_batches(subject: Subject, evaluation: Evaluation) -> float | None:
    if not evaluation.random_batches:
        return None
    return random_batches_loss(
        subject.model,
        subject.dataset,
        evaluation.split,
        batches=evaluation.random_batches,
        size=evaluation.batch_size,
        seed=subject.identity["seed"],
        machine=subject.machine,
    )


def _row(
    cell: Cell, subject: Subject, measured: _Outcome, references: Mapping[str, Measured]
) -> Row:
    evaluation: Evaluation = _built("evaluation", cell)
    config, after = cell.config, measured.after
    loss = loss_interval(after.losses)
    row = Row(
        kind=cell.kind,
        model=subject.identity["model"]["name"],
        data=subject.identity["data"]["name"],
        seed=subject.identity["seed"],
        sparsity=sparsity(measured.masks) if measured.masks else 0.0,
        compression=measured.compression,
        loss_nats=loss.mean,
        loss_low=loss.low,
        loss_high=loss.high,
        bits_per_character=characters_column(after, subject.dataset, evaluation),
        perplexity=_perplexity(after),
        measures=measures(after, subject.dataset, evaluation, references.get("dense", after))
        | answered_before(measured.before if "recovery" in config else None),
        config_hash=cell.hash,
        fingerprint=subject.dataset.fingerprint(evaluation.split, context=subject.model.context),
        jaccard_magnitude=measured.jaccard,
        random_batches_loss_nats=measured.random_batches_nats,
        training=subject.run.name,
        recovery=config["recovery"]["name"] if "recovery" in config else None,
    )
    if cell.kind == "pruned":
        row = replace(
            row,
            criterion=config["criterion"]["name"],
            allocation=config["allocation"]["name"],
            pattern=config["pattern"]["name"],
            base=config["base"],
            prunable=config["prunable"],
            ratio=config.get("ratio"),
            rate=config.get("rate"),
        )
        row = _with_roles(row, cell, subject, measured)
    return _with_deltas(row, measured, {"dense": after, **references})


def _with_roles(row: Row, cell: Cell, subject: Subject, measured: _Outcome) -> Row:
    """Which modules could be cut, and how much each was, where the model has several."""
    if "roles" not in cell.config:
        return row
    masks, role_of = measured.masks, subject.model.role_of
    achieved = {
        f"sparsity.{role}": sparsity({n: m for n, m in masks.items() if role_of(n) == role})
        for role in dict.fromkeys(role_of(name) for name in masks)
    }
    return replace(row, roles=cell.config["roles"], measures={**row.measures, **achieved})


def _with_deltas(row: Row, measured: _Outcome, references: Mapping[str, Measured]) -> Row:
    dense = references["dense"].losses
    delta = paired_difference(measured.after.losses, dense)
    row = replace(row, delta_nats=delta.mean, delta_low=delta.low, delta_high=delta.high)
    if row.recovery is not None:
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


def _built(group: str, cell: Cell) -> Any:
    return _build(group, cell.config[group], cell.root)


def _perplexity(measured: Measured) -> float | None:
    """Per token; of questions it would say nothing: most tokens are not predicted."""
    return perplexity(measured.losses.mean_nats) if measured.answers is None else None


def _build(group: str, described: Mapping[str, Any], root: ConfigRoot) -> Any:
    return part(group, described["name"], described_options(described), root).build()


@lru_cache(maxsize=1)
def _subject(
    training: Run, root: ConfigRoot, device: str, threads: int | None, written: int
) -> Subject:
    return load_subject(training, root, device, threads)


def _written(training: Path) -> int:
    """When a run was last finished: one trained again, for one more statistic, is loaded again."""
    manifest = training / "manifest.json"
    return manifest.stat().st_mtime_ns if manifest.is_file() else 0


class _Clock:
    """Wall seconds by stage."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now
