"""What lies beside the rows of a report: windows, tokens, masks, costs, lives of weights."""

import warnings
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import Evidence
from swe_cli.controls import DENSE
from swe_cli.errors import CorruptFileError, RunError, SweError, SweWarning
from swe_cli.evaluation.loss import Measured
from swe_cli.experiments.cell import config_of, measured_beside, windows_of
from swe_cli.experiments.model import ALWAYS_RECORDED
from swe_cli.experiments.spec import built
from swe_cli.experiments.training import stored_training
from swe_cli.files import read_json, read_or_none, set_aside
from swe_cli.pruning.prune import recorded_needs
from swe_cli.ranking import Ranking, exact_count
from swe_cli.report.costs import faster, ledger, with_energy
from swe_cli.report.figures import weight_lives
from swe_cli.report.slices import hurt, slices_of
from swe_cli.report.summary import Line, Point, Summary, cut_of
from swe_cli.report.tables import records
from swe_cli.store import Run
from swe_cli.training.tracker import gather

JUDGES, SHARE = ("swe", "magnitude"), 0.5  # of the figure of weights


@lru_cache(maxsize=256)
def _windows(path: Path) -> Measured:
    if not path.is_file():
        why = f"{path} is gone: without the windows of its cells nothing is compared."
        hint = "Put it back, or type the same swe sweep: it makes them again."
        raise RunError(why, hint)
    try:
        return windows_of(path.parent)
    except CorruptFileError as error:
        why = f"{error.message} It is set aside, in {set_aside(path)}."
        hint = "Type the same swe sweep: it makes it again."
        warnings.warn(f"{why} {hint}", SweWarning, stacklevel=2)  # who asks may go on without
        raise RunError(why, hint) from None


@dataclass(frozen=True)
class Beside:
    """A folder of runs, and the YAMLs by which their trainings are opened."""

    runs: Path
    root: ConfigRoot

    def cell(self, config_hash: str) -> Path:
        return self.runs / "cells" / config_hash

    def windows(self, config_hash: str) -> Measured:
        """The losses of a cell's windows. Raises RunError where they are gone."""
        return _windows(self.cell(config_hash) / "windows.safetensors")

    def both(self, config_hash: str) -> tuple[Measured, Measured]:
        """The same, after and before recovery; the latter is stored where it is another."""
        after = self.windows(config_hash)
        return after, after | {"nats": after.get("nats_before_recovery", after["nats"])}

    def costs(self, table: pd.DataFrame, watts: float | None, country: str | None) -> pd.DataFrame:
        """By ``config_hash`` what each cell took, and what was timed (see ``with_energy``); of a
        criterion that judges by it, the tracking of its training, too. Trainings, by name, first.
        """
        runs = [Run(self.runs / name) for name in table["training"].unique()]
        names = {*table["criterion"].dropna()} & {*self.root.options("criterion")}
        judges = {n: built(component("criterion", n, self.root)) for n in names}
        tracked = {name for name, judge in judges.items() if recorded_needs(judge.needs)}
        lines, told = list[dict[str, Any]](), dict[str, Any]()
        for path in (run.path for run in runs if run.exists):
            of = read_or_none(lambda path: Run(path).manifest, path)
            told |= {path.name: of} if of and of["status"] == "done" else {}
        for name, of in told.items():
            seconds = of["results"]["steps"] * of["seconds_per_step"]
            lines.append({"config_hash": name, "host": of["host"], "training.seconds": seconds})
        for row in records(table):
            line = {"config_hash": row["config_hash"]}
            line |= read_or_none(measured_beside, self.cell(row["config_hash"])) or {}
            if row["criterion"] in tracked and (of := told.get(row["training"])):
                seconds = of.get("tracking_seconds_per_step", 0.0)
                line["tracking.seconds"] = of["results"]["steps"] * seconds
            lines.append(line)
        return with_energy(pd.DataFrame(lines), watts, country)

    def lives(self, training: str) -> pd.DataFrame:
        """``weight_lives`` of a training's stored sample, cut at one half; empty where none was
        kept. Raises SweError where the training is gone, or its trajectory cannot be read.
        """
        if not (run := Run(self.runs / training)).finished:
            raise SweError(f"{run.name} is gone; its weights cannot be drawn.")
        trained = stored_training(run, self.root, device="cpu").open()
        saved = run.tensors("trajectory.safetensors")
        if "sample/values" not in saved:
            return pd.DataFrame()
        average, final = trained.trajectory[ALWAYS_RECORDED], trained.weights("final")
        # The sample is of all matrices that were tracked, frozen ones too.
        lens = partial(trained.model.prunable, which="linear")
        weights = lens({name: final[name] for name in average})
        evidence = Evidence(weights, {ALWAYS_RECORDED: lens(average)}, trained.seed)
        kept = []
        for judge in JUDGES:
            scores = built(component("criterion", judge, self.root)).score(evidence)
            ranking = Ranking(scores, weights)
            masks = ranking.masks(ranking.lowest(exact_count(SHARE, ranking.total)))
            mask = gather({n: mask.float() for n, mask in masks.items()}, saved["sample/index"])
            kept.append(mask.numpy() > 0.5)
        return weight_lives(saved["sample/steps"].tolist(), saved["sample/values"].numpy(), *kept)

    def hurt(self, line: Line, summary: Summary) -> pd.DataFrame:
        """What the cuts of a line hurt. SweError where windows, or the dense model, are gone."""
        dense = next((point for point in summary.controls if point["kind"] == DENSE.kind), None)
        if dense is None:
            raise SweError("No dense row is there to hold it against.")
        row = dense["cells"][dense["seeds"][0]]
        options = config_of(self.cell(row["config_hash"]))["evaluation"]
        trained = stored_training(Run(self.runs / row["training"]), self.root, device="cpu").open()
        protocol = built(component("evaluation", options.pop("name"), self.root, options))

        def tokens(point: Point) -> list[Measured]:
            return [self.windows(point["cells"][s]["config_hash"]) for s in dense["seeds"]]

        whole = [point for point in line.points if point["seeds"] == dense["seeds"]]
        if not whole:
            raise SweError(f"No cut of {line.label} was measured at all seeds of dense.")
        cuts = {f"{100 * point['x']:.4g}%": tokens(point) for point in whole}
        return hurt(cuts, tokens(dense), slices_of(trained, protocol))

    def layers(self, line: Line) -> pd.DataFrame:
        """Of every cut of a line what was cut of each tensor: line, ratio, tensor, sparsity (of its
        first seed). Empty where an older version kept none.
        """
        rows: list[dict[str, Any]] = []
        for point in line.points:
            first = next(iter(point["cells"].values()))
            path = self.cell(first["config_hash"]) / "layers.json"
            by_tensor = read_or_none(read_json, path) if path.is_file() else None
            for tensor, (cut, of) in (by_tensor or {}).items():
                about = {"line": line.label, "ratio": point["x"], "tensor": tensor}
                rows.append(about | {"sparsity": cut / of if of else 0.0})
        return pd.DataFrame(rows)


def judged(summary: Summary) -> Line:
    """The line that is looked into: of ``JUDGES`` the first there is, else the first of all."""
    by = [(judge, line) for judge in JUDGES for line in summary.lines if judge in line.criteria]
    alone = (line for judge, line in by if (judge,) == tuple(line.criteria))
    return next(alone, by[0][1] if by else summary.lines[0])


def paid_back(summary: Summary, costs: pd.DataFrame) -> list[str]:
    """Of every line the cut that was timed to be the fastest: whether it is, and when it pays."""
    told = {line["config_hash"]: line for line in records(costs) if line.get("speedup")}
    said = []
    for line in summary.lines:
        cells = [
            (of, told.get(next(iter(of["cells"].values()))["config_hash"])) for of in line.points
        ]
        timed = [(timing["speedup"], cut_of(point), timing) for point, timing in cells if timing]
        if timed:
            _, at, timing = max(timed, key=lambda of: of[0])
            said.append(f"{line.label} at {at}: {faster(timing)} {ledger(timing)}".strip())
    return said
