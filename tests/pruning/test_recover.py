import math

import pytest
import torch
from training.toys import dataset, gpt, setup_of

from swe_cli.config import ConfigRoot, component
from swe_cli.errors import Interrupted, TrainingError
from swe_cli.pruning.masks import apply_masks, cut_counts, zeros
from swe_cli.pruning.recover import EnforceMasks, Recovery
from swe_cli.ranking import Ranking
from swe_cli.training.state import Callback, StopWhen, fit

DATA = dataset()


def recovery(**options) -> Recovery:
    return Recovery(**{**component("recovery", "finetune", ConfigRoot()).options, **options})


class Look(Callback):
    """Calls a function after every step."""

    def __init__(self, function):
        self.function = function

    def after_step(self, state, metrics):
        self.function(state.step)


def recover(made, model, masks, which="linear", callbacks=(), *, data=DATA, seed=1):
    state = made.begin(setup_of(model, data, seed), 3, teacher=None)
    enforce = EnforceMasks(model.prunable(model.weights(), which), masks)
    fit(state, made.steps, [enforce, *callbacks])


def pruned_model(ratio=0.6, which="linear", **options):
    model = gpt(DATA.shape.vocabulary_size, **options)
    views = model.prunable(model.weights(), which)
    ranking = Ranking({name: view.abs() for name, view in views.items()}, views)
    masks = ranking.masks(ranking.lowest(round(ratio * ranking.total)))
    apply_masks(masks, views)
    return model, masks


def snapshot(model):
    return {name: weight.clone() for name, weight in model.weights().items()}


def cut_count(masks):
    return sum(cut_counts(masks).values())


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("which", ["linear", "all"])
@pytest.mark.parametrize("preset", ["gpt_nano", "gpt_paper"])
def test_masks_hold_after_every_step_with_decay_and_momentum(optimizer, which, preset):
    model, masks = pruned_model(which=which, name=preset, dropout=0.2)
    views, checked, before = model.prunable(model.weights(), which), [], snapshot(model)

    def after_step(step):
        checked.append(step)
        for name, mask in masks.items():
            assert (views[name][~mask] == 0).all(), (step, name)

    made = recovery(steps=6, optimizer=optimizer, weight_decay=0.1, learning_rate=1e-2)
    recover(made, model, masks, which, [Look(after_step)])
    assert checked == [1, 2, 3, 4, 5, 6]
    assert zeros(model.weights()) == cut_count(masks)  # and nothing but what was cut is zero
    kept = masks[next(iter(masks))]
    first = next(iter(views))
    assert (views[first][kept] != model.prunable(before, which)[first][kept]).any()


def test_without_enforcement_the_same_steps_would_fill_the_holes():
    """What makes the test above able to fail."""
    model, masks = pruned_model()
    recover(recovery(steps=1, learning_rate=1e-2), model, {})
    assert zeros(model.weights()) < 0.1 * cut_count(masks)


def test_zero_steps_change_nothing():
    model, masks = pruned_model()
    before = snapshot(model)
    recover(component("recovery", "none", ConfigRoot()).build(), model, masks)
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
        model, masks = pruned_model(ratio or 0.0)
        watched = Watched()
        recover(recovery(steps=4), model, masks if ratio else {}, data=watched)
        seen.append(watched)
    assert seen[0].asked == seen[1].asked == seen[2].asked
    assert all(split == "train" for split, _ in seen[0].asked)
    assert len({tuple(batch.flatten().tolist()) for batch in seen[0].seen}) == 4
    other = Watched()
    model, masks = pruned_model()
    recover(recovery(steps=4), model, masks, data=other, seed=2)
    assert other.asked != seen[0].asked


def test_recovering_the_dense_model_is_recovery_with_masks_that_cut_nothing():
    weights = []
    for masked in (False, True):
        model, masks = pruned_model(0.0, dropout=0.2)
        recover(recovery(steps=3), model, masks if masked else {})
        weights.append(snapshot(model))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_batch_size_is_that_of_the_training_unless_given():
    for given, expected in ((None, 3), (5, 5)):
        watched = Watched()
        model, masks = pruned_model()
        recover(recovery(steps=1, batch_size=given), model, masks, data=watched)
        assert len(watched.seen[0]) == expected


def test_recovery_lowers_the_training_loss():
    model, masks = pruned_model()
    batch = DATA.random_batch("train", size=8, context=16, seed=0)
    before = model(batch).losses.mean().item()
    recover(recovery(steps=30, learning_rate=1e-2), model, masks)
    assert model(batch).losses.mean().item() < before - 0.1


def test_a_loss_that_is_no_number_names_the_step():
    model, masks = pruned_model()

    def poison(step):
        if step == 2:
            with torch.no_grad():
                model.norm.weight.fill_(math.nan)

    with pytest.raises(TrainingError, match="The loss is nan at recovery step 3"):
        recover(recovery(steps=5), model, masks, callbacks=[Look(poison)])


def test_it_can_be_stopped():
    model, masks = pruned_model()
    steps = []
    callbacks = [Look(steps.append), StopWhen(lambda: bool(steps[1:]), "Stopped.")]
    with pytest.raises(Interrupted, match="Stopped"):
        recover(recovery(steps=9), model, masks, callbacks=callbacks)
    assert steps == [1, 2]
