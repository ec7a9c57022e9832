"""One live model serves many cells: none leaves anything behind that another would see."""

import random
import shutil

import pytest
import torch
from training.toys import sweep_of, trained, write_text

from swe_cli.experiments.cell import run_cell
from swe_cli.experiments.training import OPEN
from swe_cli.files import read_tensors

COMMON = ("training.steps=6", "recovery.steps=4", "model.layers=2", "keep=models")
CALIBRATED = ("calibration.samples=6", "calibration.batch_size=4")
KEPT = ("tracking.snapshots=[3]", "tracking.statistics=[sqrt_average]")
EARLY = "schedule=early schedule.at_step=3"
CUTS = (
    "criterion=sparsegpt allocation=owl ratio=0.5",
    "criterion=sparsegpt pattern=2of4 ratio=0.5",
    "criterion=sparsegpt allocation=like allocation.criterion=snip ratio=0.4",
    "criterion=wanda allocation=row ratio=0.5 schedule=iterative schedule.rounds=2",
    "criterion=bezier_actual schedule=iterative schedule.rounds=2",
    "criterion=snip ratio=0.3",
    "criterion=snip ratio=0.3 calibration.samples=3",
    f"criterion=snip ratio=0.7 schedule.rounds=2 {EARLY}",
    f"criterion=snip ratio=0.6 base=averaged {EARLY}",
    "criterion=fisher ratio=0.5 allocation=ecoflap",
    "criterion=magnitude ratio=0.5 allocation=ecoflap",
    "criterion=magnitude pattern=neuron ratio=0.5 allocation=uniform",
    "criterion=taylor pattern=head ratio=0.5 allocation=uniform",
    "criterion=swe ratio=0.5 fuse=0.55",
    "criterion=swe ratio=0.5 recovery=distill",
    "criterion=random allocation=owl ratio=0.4 base=best",
)
TRANSFORMS = (
    "transform=trawl_cp transform.ranks=[2,4]",
    "transform=trawl_tucker transform.ranks=[2] transform.stack=all transform.layers=all "
    "recovery=distill",
    "transform=dsmoe transform.experts=4 transform.router=predicted transform.samples=4",
    "transform=dsmoe transform.experts=4 recovery=distill",
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """What is cut or rewritten, its controls among it; and where cells are kept. One training."""
    folder = tmp_path_factory.mktemp("order")
    text, found = write_text(folder), []
    cuts = [(*(() if "calibration" in cut else CALIBRATED), *cut.split()) for cut in CUTS]
    for words in (*cuts, *(transform.split() for transform in TRANSFORMS)):
        plan = sweep_of(text, folder, *COMMON, *KEPT, *words)
        trained(plan.trainings[0], folder)
        found += [p for p in plan.cells if p.hash not in {cell.hash for cell in found}]
    assert len({cell.training.run for cell in found}) == 1
    return found, folder / "runs" / "cells"


def ran(made, where, *, fresh):
    """Everything that was measured of every cell, and its weights."""
    shutil.rmtree(where, ignore_errors=True)
    OPEN.clear()
    found = {}
    for cell in made:
        if fresh:
            OPEN.clear()
        row = run_cell(cell)
        found[cell.hash] = row.metrics, read_tensors(cell.model_to)
    return found


def test_cells_in_any_order_in_one_model_are_what_each_is_alone(planned):
    made, where = planned
    assert sum(cell.kind == "pruned" for cell in made) == len(CUTS) + len(TRANSFORMS)
    alone = ran(made, where, fresh=True)
    shuffled = random.Random(0).sample(made, len(made))
    together = ran(shuffled, where, fresh=False)
    for cell in made:
        (numbers, weights), (others, theirs) = alone[cell.hash], together[cell.hash]
        said = {key: cell.config[key] for key in cell.config if key not in ("training", "machine")}
        assert numbers == others, said
        assert weights.keys() == theirs.keys(), said
        assert all(torch.equal(weights[name], theirs[name]) for name in weights), said
