"""What a checkpoint holds of an optimizer, by names and, as version 0.1 wrote it, by positions."""

import pytest
import torch

from swe_cli.errors import Interrupted
from swe_cli.experiments.ensure import build
from swe_cli.files import read_directory, write_directory

from .toys import After, assert_same, contents, run_of, spec_of, trained, write_text

SLOTS = ("exp_avg", "exp_avg_sq", "step")


def by_position(names, matrices, state):
    """The same state as version 0.1 named it: matrices have the first group, vectors the second."""
    ordered = [name for name in names if matrices[name]] + [n for n in names if not matrices[n]]
    return {
        f"{place}/{slot}": state[f"{name}/{slot}"]
        for place, name in enumerate(ordered)
        for slot in SLOTS
    }


def test_state_is_written_by_name_and_by_position_it_is_still_read_bit_for_bit(tmp_path):
    spec = spec_of(write_text(tmp_path))
    whole = contents(trained(spec, tmp_path / "whole"))
    with pytest.raises(Interrupted):
        trained(spec, tmp_path / "stopped", stop=After(5))
    checkpoint = run_of(spec, tmp_path / "stopped").path / "checkpoints" / "step-00000005"
    files, state = read_directory(checkpoint)
    names = list(dict(build(spec).setup.model.named_parameters()))
    optimizer = files["optimizer"]
    assert optimizer.keys() == {f"{name}/{slot}" for name in names for slot in SLOTS}
    old = by_position(names, {n: files["model"][n].dim() >= 2 for n in names}, optimizer)
    assert len(old) == len(optimizer)
    write_directory(checkpoint, {**files, "optimizer": old}, state)
    assert_same(contents(trained(spec, tmp_path / "stopped")), whole)


@pytest.mark.parametrize("written_by", ["name", "position"])
def test_with_frozen_parts_positions_are_those_of_what_is_trained(written_by, tmp_path):
    setup = build(spec_of(write_text(tmp_path)))
    model = setup.setup.model
    frozen = next(name for name, _ in model.named_parameters() if "qkv" in name)
    model.get_parameter(frozen).requires_grad_(False)
    states = []
    for _ in range(2):
        state = setup.recipe.begin(setup.setup)
        for place, parameter in enumerate(state.parameters):
            parameter.grad = torch.full_like(parameter, float(place + 1))
        state.optimizer.step()
        states.append(state.optimizer_tensors())
    saved, _ = states
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert saved.keys() == {f"{name}/{slot}" for name in names for slot in SLOTS}
    if written_by == "position":
        matrices = {name: p.dim() >= 2 for name, p in model.named_parameters()}
        saved = by_position(names, matrices, saved)
    fresh = setup.recipe.begin(setup.setup)
    fresh.load_optimizer(saved)
    loaded = fresh.optimizer_tensors()
    assert all(torch.equal(loaded[name], value) for name, value in states[0].items())
    value = next(iter(saved.values()))
    assert all(of.data_ptr() != value.data_ptr() for of in loaded.values())  # a copy
