"""Every update: new weights where they are kept, the same twice, and nothing else touched."""

import pytest
import torch

from swe_cli.contracts import INPUTS, Update

from .conftest import built, fed, names

UPDATES = [name for name in names("update") if built("update", name) is not None]
every = pytest.mark.parametrize("name", UPDATES)


def test_none_is_no_update():
    assert built("update", "none") is None
    assert UPDATES


@every
def test_it_needs_what_layers_can_tell(name):
    update = built("update", name)
    assert isinstance(update, Update)
    assert {*update.needs} <= {*INPUTS}


@every
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_new_weights_of_what_is_kept_never_worse_than_the_masked_ones(name, share):
    generator = torch.Generator().manual_seed(1)
    weight, inputs = torch.randn(5, 12, generator=generator), fed(12)
    kept = torch.rand(5, 12, generator=generator) >= share
    given = [weight.clone(), kept.clone(), inputs.gram.clone()]
    state = torch.get_rng_state()
    first, second = (built("update", name).solve(weight, kept, inputs) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, given, [weight, kept, inputs.gram]))
    assert torch.equal(first, second)
    assert (first.shape, first.dtype) == (weight.shape, weight.dtype)
    assert first.isfinite().all()

    def error(solved):
        apart = weight - solved * kept
        return float(((apart @ inputs.gram) * apart).sum())

    assert error(first) <= error(weight) * (1 + 1e-3)  # of the objective without damping
    if share == 0.0:
        assert torch.equal(first, weight)
