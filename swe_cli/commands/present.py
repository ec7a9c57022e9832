"""Rows → table, figures and the terminal: the end of swe sweep and all of swe report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from torch import Tensor

from swe_cli.compose import ConfigRoot, default_part
from swe_cli.contracts import Evidence, Tensors
from swe_cli.errors import SweError
from swe_cli.masks.rank import exact_count
from swe_cli.pruning.cut import Scoring
from swe_cli.records import Row
from swe_cli.reporting.aggregate import split_by_protocol, summarise
from swe_cli.reporting.curve_figure import curve_figure
from swe_cli.reporting.figures import write_figure
from swe_cli.reporting.grid_figure import grid_figure
from swe_cli.reporting.loss_figure import loss_figure
from swe_cli.reporting.quantity import OF_QUESTIONS
from swe_cli.reporting.selection import MANY
from swe_cli.reporting.table import frame, write
from swe_cli.reporting.terminal import print_summary
from swe_cli.reporting.weight_figure import weight_evolution_figure
from swe_cli.runs import Run
from swe_cli.sweeps.subject import load_subject
from swe_cli.training.tracker import gather

SHOWN_CRITERION, SHOWN_RATIO = "swe", 0.5


def present(
    console: Console, folder: Path, rows: Sequence[Row], root: ConfigRoot, results: Path
) -> list[Path]:
    """Write the table and the figures of ``rows`` into ``folder`` and print their summary.

    One set of figures per protocol: rows that were measured differently never share one.
    """
    written = write(frame(rows), folder)
    groups = split_by_protocol(rows)
    for place, group in enumerate(groups):
        summary = summarise(group)
        print_summary(console, summary)
        points = [point for line in summary.lines for point in line.points]
        if all(point.loss is None for point in points):
            continue  # every cell failed, or none was pruned: their own errors say more
        suffix = f"-{place + 1}" if len(groups) > 1 else ""
        figures = folder / "figures"
        grid = f"grid{suffix}"
        loss = loss_figure(summary, elsewhere=f"{grid}.png")
        written += write_figure(loss, figures, f"loss{suffix}")
        if len(summary.lines) > MANY:
            written += write_figure(grid_figure(summary), figures, grid)
        for quantity in OF_QUESTIONS:
            if quantity.drawable(summary):
                figure = curve_figure(summary, quantity, elsewhere=f"{grid}.png")
                written += write_figure(figure, figures, f"{quantity.name}{suffix}")
        try:
            written += _weights(group, root, results, figures, f"weights{suffix}")
        except SweError as error:  # the rows are there; only the trajectory cannot be drawn
            console.print(f"No weight figure: {error.message}", markup=False, soft_wrap=True)
    return written


def _weights(
    rows: Sequence[Row], root: ConfigRoot, results: Path, folder: Path, name: str
) -> list[Path]:
    """The weight-evolution figure of the first training of a group, judged by SWE at one half."""
    run = Run(results / "runs" / rows[0].training)
    if not run.finished:
        raise SweError(f"{run.name} is gone; its weights cannot be drawn.")
    subject = load_subject(run, root, device="cpu")
    saved = run.tensors("trajectory.safetensors")
    if "sample/values" not in saved:
        return []
    tracked = next(iter(subject.trajectory.values())).keys()

    def lens(tensors: Mapping[str, Tensor]) -> Tensors:
        """What the sample was drawn from: matrices that were tracked, frozen ones too."""
        known = {name: tensor for name, tensor in tensors.items() if name in tracked}
        return subject.model.prunable(known, "linear")

    trajectory = {statistic: lens(tensors) for statistic, tensors in subject.trajectory.items()}
    weights = lens(subject.weights("final"))
    scoring = Scoring(Evidence(weights, trajectory, subject.identity["seed"]))
    criterion = default_part("criterion", SHOWN_CRITERION, root).build()
    ranked = scoring.rank(SHOWN_CRITERION, criterion)
    masks = ranked.masks(ranked.lowest(exact_count(SHOWN_RATIO, ranked.total)))
    kept = gather({n: mask.float() for n, mask in masks.items()}, saved["sample/index"]) > 0.5
    figure = weight_evolution_figure(
        saved["sample/steps"].tolist(),
        saved["sample/values"].numpy(),
        kept.numpy(),
        criterion=SHOWN_CRITERION,
        ratio=SHOWN_RATIO,
    )
    return write_figure(figure, folder, name)
