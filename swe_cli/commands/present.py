"""Rows → table, figures and the terminal: the end of swe sweep and all of swe report."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from rich.console import Console
from torch import Tensor

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import Evidence
from swe_cli.errors import SweError
from swe_cli.experiments.model import open_run
from swe_cli.experiments.spec import built, judge_of
from swe_cli.pruning.prune import Scorer
from swe_cli.ranking import exact_count
from swe_cli.records import Tensors
from swe_cli.report.curve import curve
from swe_cli.report.figures import weight_evolution, write_figure
from swe_cli.report.grid import grid
from swe_cli.report.quantities import LOSS, QUANTITIES
from swe_cli.report.selection import MANY
from swe_cli.report.summary import Summary, summarise
from swe_cli.report.tables import split_by_protocol
from swe_cli.report.terminal import print_summary
from swe_cli.report.write import write
from swe_cli.store import Run
from swe_cli.training.tracker import gather

SHOWN_CRITERION, SHOWN_RATIO = "swe", 0.5


def present(
    console: Console, folder: Path, table: pd.DataFrame, root: ConfigRoot, runs: Path
) -> list[Path]:
    """Write the table and the figures of all rows into ``folder`` and print their summary.

    One set of figures per protocol: rows that were measured differently never share one. ``runs``
    is where their trainings lie.
    """
    published, layerwise = published_allocations(table["criterion"].dropna().unique(), root)
    written = write(table, folder, published=published, layerwise=layerwise)
    groups = split_by_protocol(table)
    for place, group in enumerate(groups):
        summary = summarise(group, published)
        print_summary(console, summary)
        suffix = f"-{place + 1}" if len(groups) > 1 else ""
        if not LOSS.drawable(summary.cuts):
            continue  # every cell failed, or none was pruned: their own errors say more
        written += _figures(summary, folder / "figures", suffix)
        try:
            training = Run(runs / group["training"].iloc[0])
            written += _weights(training, root, folder / "figures", f"weights{suffix}")
        except SweError as error:  # the rows are there; only the trajectory cannot be drawn
            console.print(f"No weight figure: {error.message}", markup=False, soft_wrap=True)
    return written


def published_allocations(
    criteria: Iterable[str], root: ConfigRoot
) -> tuple[dict[str, str], set[str]]:
    """Criterion → the allocation it was published with; and which judge layer by layer.

    Nothing of a criterion that is not at hand.
    """
    at_hand = [name for name in criteria if name in root.options("criterion")]
    judges = {name: built(component("criterion", name, root)) for name in at_hand}
    layerwise = {name for name, judge in judges.items() if judge.granularity == "layer"}
    return {name: judge.published for name, judge in judges.items()}, layerwise


def _figures(summary: Summary, folder: Path, suffix: str) -> list[Path]:
    name, written = f"grid{suffix}", []
    for quantity in QUANTITIES:
        if quantity.drawable(summary.cuts):
            figure = curve(summary, quantity, elsewhere=f"{name}.png")
            written += write_figure(figure, folder, f"{quantity.name}{suffix}")
    if len(summary.lines) > MANY:
        written += write_figure(grid(summary), folder, name)
    return written


def _weights(run: Run, root: ConfigRoot, folder: Path, name: str) -> list[Path]:
    """The weight-evolution figure of a training, judged by SWE at one half."""
    if not run.finished:
        raise SweError(f"{run.name} is gone; its weights cannot be drawn.")
    trained = open_run(run, root, device="cpu")
    saved = run.tensors("trajectory.safetensors")
    if "sample/values" not in saved:
        return []
    tracked = next(iter(trained.trajectory.values())).keys()

    def lens(tensors: Mapping[str, Tensor]) -> Tensors:
        """What the sample was drawn from: matrices that were tracked, frozen ones too."""
        of_tracked = {name: tensor for name, tensor in tensors.items() if name in tracked}
        return trained.model.prunable(of_tracked, "linear")

    trajectory = {statistic: lens(tensors) for statistic, tensors in trained.trajectory.items()}
    evidence = Evidence(lens(trained.weights("final")), trajectory, trained.seed)
    scorer = Scorer(trained, lens, evidence)
    ranking = scorer.rank(judge_of(component("criterion", SHOWN_CRITERION, root)))
    masks = ranking.masks(ranking.lowest(exact_count(SHOWN_RATIO, ranking.total)))
    kept = gather({n: mask.float() for n, mask in masks.items()}, saved["sample/index"]) > 0.5
    figure = weight_evolution(
        saved["sample/steps"].tolist(),
        saved["sample/values"].numpy(),
        kept.numpy(),
        criterion=SHOWN_CRITERION,
        ratio=SHOWN_RATIO,
    )
    return write_figure(figure, folder, name)
