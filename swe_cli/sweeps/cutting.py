"""The masks of one cell: its criterion, allocation and pattern put to work on a subject."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swe_cli.allocation.row import Row
from swe_cli.compose import default_part
from swe_cli.contracts import (
    DrawnCriterion,
    Evidence,
    LayerwiseCriterion,
    Lens,
    Masks,
    Model,
    RankedScores,
    Tensors,
)
from swe_cli.errors import PruningError
from swe_cli.files import canonical
from swe_cli.masks.masks import jaccard_of_cuts
from swe_cli.pruning.calibrate import Calibrated
from swe_cli.pruning.cut import Cut, Scoring, check_needs, recorded_needs
from swe_cli.sweeps.cell import Cell
from swe_cli.sweeps.subject import Subject
from swe_cli.training.loop import as_module


@dataclass(frozen=True)
class Start:
    """What is cut: the weights, and all that was known of their life by then."""

    weights: Tensors
    trajectory: Mapping[str, Tensors]


def live(model: Model) -> Tensors:
    """The parameters themselves, by name."""
    return {name: p.detach() for name, p in as_module(model).named_parameters()}


@dataclass(frozen=True)
class Cutting:
    """One round of cuts of the live model. ``kept``: the masks of the rounds before."""

    cell: Cell
    subject: Subject
    lens: Lens
    start: Start
    kept: Masks
    turn: int

    def masks(self, fraction: float) -> tuple[Masks, float | None]:
        """The masks of a round that cuts ``fraction`` of the ratio, and their overlap with
        magnitude's. Criteria that update weights have done so in the live model by then.
        """
        config = self.cell.config
        criterion, name = self.cell.built("criterion"), config["criterion"]["name"]
        scoring = self._scoring()
        self._check_evidence(scoring.evidence, criterion.needs, name)
        if isinstance(criterion, DrawnCriterion):
            drawn = criterion.draw(scoring.evidence, self.turn)
            if self.kept:
                drawn = {n: mask & self.kept[n].to(mask.device) for n, mask in drawn.items()}
            return drawn, None

        def rank_by(other: str) -> RankedScores:
            consulted = default_part("criterion", other, self.cell.root)
            judge = consulted.build()
            self._check_evidence(scoring.evidence, judge.needs, other)
            return scoring.rank(canonical(consulted.describe()), judge)

        ranked = scoring.rank(canonical(config["criterion"]), criterion)
        ratio = config.get("ratio")
        how = Cut(
            self.subject.model,
            self.lens,
            self.cell.built("allocation") if "allocation" in config else Row(),  # not asked
            self.cell.built("pattern"),
            None if ratio is None else ratio * fraction,
            config.get("rate"),
            rank_by,
            scoring.calibrated,
            self.kept,
        )
        if isinstance(criterion, LayerwiseCriterion):
            masks = how.prune(criterion, ranked)
        else:
            masks = how.masks(ranked)
        if name == "magnitude":
            return masks, 1.0
        if self.kept:  # what is left of one criterion's cut says little of another's
            return masks, None
        return masks, jaccard_of_cuts(masks, how.masks(rank_by("magnitude")))

    def _scoring(self) -> Scoring:
        """Scores of the first round serve all ratios; later rounds judge weights of their own."""
        config = self.cell.config
        if self.kept:
            now = self.lens(live(self.subject.model))
            return self._scored({name: w.to("cpu", copy=True) for name, w in now.items()})
        told = ("base", "prunable", "roles", "calibration")
        at_step = self.cell.built("schedule").at_step
        key = canonical({key: config[key] for key in told if key in config} | {"step": at_step})
        if key not in self.subject.scorings:
            self.subject.scorings[key] = self._scored(self.lens(self.start.weights))
        return self.subject.scorings[key]

    def _scored(self, weights: Tensors) -> Scoring:
        evidence = Evidence(
            weights=weights,
            trajectory={name: self.lens(of) for name, of in self.start.trajectory.items()},
            seed=self.subject.seed,
        )
        return Scoring(evidence, self._calibrated(), self.kept)

    def _calibrated(self) -> Calibrated | None:
        if "calibration" not in self.cell.config:
            return None
        return Calibrated(
            self.subject.model,
            self.subject.dataset,
            self.subject.machine,
            self.cell.built("calibration"),
            self.lens,
            self.subject.seed,
        )

    def _check_evidence(self, evidence: Evidence, needs: Sequence[str], criterion: str) -> None:
        """Raise PruningError where a criterion would judge what was not observed."""
        run = self.subject.run.name
        check_needs(criterion, needs, tuple(self.subject.trajectory), run)
        for statistic in recorded_needs(needs):
            if statistic not in evidence.trajectory:
                at_step = self.cell.built("schedule").at_step
                raise PruningError(
                    f"criterion={criterion} judges by {statistic}, and by step {at_step} nothing "
                    "had been observed.",
                    "Cut later, schedule.at_step=…, or by another criterion: criterion=snip",
                )
            if evidence.trajectory[statistic].keys() < evidence.weights.keys():
                raise PruningError(
                    f"criterion={criterion} judges by {statistic}, and {run} recorded none of "
                    "parts that it froze.",
                    "Train with tracking.frozen=true, or leave them out: roles=all",
                )
