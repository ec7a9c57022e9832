import math
from functools import partial

import pytest
import torch
from training.toys import MACHINE, dataset, gpt

from swe_cli.compose import ConfigRoot, default_part
from swe_cli.contracts import Evidence
from swe_cli.criteria.magnitude import Magnitude
from swe_cli.errors import Interrupted, TrainingError, UsageError
from swe_cli.masks.masks import cut_count
from swe_cli.pruning.cut import Scoring, cut, zeros
from swe_cli.pruning.recover import Recovery, Watch

DATA = dataset()


def recovery(**options) -> Recovery:
    return Recovery(**{**default_part("recovery", "finetune", ConfigRoot()).options, **options})


def begin(made, model, which="linear", *, data=DATA, seed=1, teacher=None, done=0, **watching):
    return made.begin(
        model,
        data,
        partial(model.prunable, which=which),
        seed=seed,
        machine=MACHINE,
        batch_size=3,
        teacher=lambda: teacher,
        watch=Watch(**watching),
        done=done,
    )


def recover(made, model, masks, which="linear", **options):
    begin(made, model, which, **options).run(made.steps, masks)


def pruned_model(ratio=0.6, which="linear", **options):
    model = gpt(DATA.shape.vocabulary_size, **options)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    ranked = Scoring(Evidence(model.prunable(parameters, which))).rank("m", Magnitude())
    masks = ranked.masks(ranked.lowest(round(ratio * ranked.total)))
    cut(parameters, masks, partial(model.prunable, which=which))
    return model, masks, parameters


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("which", ["linear", "all"])
@pytest.mark.parametrize("preset", ["gpt_nano", "gpt_paper"])
def test_masks_hold_after_every_step_with_decay_and_momentum(optimizer, which, preset):
    model, masks, parameters = pruned_model(which=which, name=preset, dropout=0.2)
    views, checked, before = model.prunable(parameters, which), [], snapshot(model)

    def after_step(step):
        checked.append(step)
        for name, mask in masks.items():
            assert (views[name][~mask] == 0).all(), (step, name)

    made = recovery(steps=6, optimizer=optimizer, weight_decay=0.1, learning_rate=1e-2)
    recover(made, model, masks, which, after_step=after_step)
    assert checked == [1, 2, 3, 4, 5, 6]
    assert zeros(parameters) == cut_count(masks)  # and nothing but what was cut is zero
    kept = masks[next(iter(masks))]
    first = next(iter(views))
    assert (views[first][kept] != model.prunable(before, which)[first][kept]).any()


def test_without_enforcement_the_same_steps_would_fill_the_holes():
    """What makes the test above able to fail."""
    model, masks, parameters = pruned_model()
    recover(recovery(steps=1, learning_rate=1e-2), model, {})
    assert zeros(parameters) < 0.1 * cut_count(masks)


def test_zero_steps_change_nothing():
    model, masks, _ = pruned_model()
    before = snapshot(model)
    recover(default_part("recovery", "none", ConfigRoot()).build(), model, masks)
    after = snapshot(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


class Watched:
    """A data set that remembers which batches were asked for."""

    def __init__(self):
        self.asked, self.seen = [], []

    def random_batch(self, split, **options):
        self.asked.append((split, tuple(sorted(options.items()))))
        batch = DATA.random_batch(split, **options)
        self.seen.append(batch["tokens"])
        return batch


def test_every_cell_and_the_dense_control_see_the_same_batches():
    seen = []
    for ratio in (0.3, 0.8, None):
        model, masks, _ = pruned_model(ratio or 0.0)
        watched = Watched()
        recover(recovery(steps=4), model, masks if ratio else {}, data=watched)
        seen.append(watched)
    assert seen[0].asked == seen[1].asked == seen[2].asked
    assert all(split == "train" for split, _ in seen[0].asked)
    assert len({tuple(batch.flatten().tolist()) for batch in seen[0].seen}) == 4
    other = Watched()
    model, masks, _ = pruned_model()
    recover(recovery(steps=4), model, masks, data=other, seed=2)
    assert other.asked != seen[0].asked


def test_recovering_the_dense_model_is_recovery_with_masks_that_cut_nothing():
    weights = []
    for masked in (False, True):
        model, masks, _ = pruned_model(0.0, dropout=0.2)
        recover(recovery(steps=3), model, masks if masked else {})
        weights.append(snapshot(model))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_batch_size_is_that_of_the_training_unless_given():
    for given, expected in ((None, 3), (5, 5)):
        watched = Watched()
        model, masks, _ = pruned_model()
        recover(recovery(steps=1, batch_size=given), model, masks, data=watched)
        assert len(watched.seen[0]) == expected


def test_recovery_lowers_the_training_loss():
    model, masks, _ = pruned_model()
    batch = DATA.random_batch("train", size=8, context=16, seed=0)
    before = model(batch).losses.mean().item()
    recover(recovery(steps=30, learning_rate=1e-2), model, masks)
    assert model(batch).losses.mean().item() < before - 0.1


def test_a_loss_that_is_no_number_names_the_step():
    model, masks, _ = pruned_model()

    def poison(step):
        if step == 2:
            with torch.no_grad():
                model.norm.weight.fill_(math.nan)

    with pytest.raises(TrainingError, match="The loss is nan at recovery step 3"):
        recover(recovery(steps=5), model, masks, after_step=poison)


def test_it_can_be_stopped():
    model, masks, _ = pruned_model()
    steps = []
    with pytest.raises(Interrupted):
        recover(recovery(steps=9), model, masks, after_step=steps.append, stop=lambda: steps[1:])
    assert steps == [1, 2]


@pytest.mark.parametrize("options", [{"steps": -1}, {"learning_rate": 0.0}])
def test_impossible_values_are_refused(options):
    with pytest.raises(UsageError, match="recovery"):
        recovery(**options)
