import pytest

from swe_cli import store
from swe_cli.config import ConfigRoot, component, compose
from swe_cli.errors import UsageError
from swe_cli.files import canonical
from swe_cli.records import Interval, Row
from swe_cli.seeds import derive, global_randomness
from swe_cli.store import identity

CONFIG = {
    "model": {"name": "gpt_nano", "layers": 4, "dropout": 0.0},
    "seed": 1337,
    "machine": {"device": "cpu", "dtype": "float32", "threads": 2},
}


def test_some_names_are_pinned():
    """Whoever changes these renames every run that people have."""
    assert identity({}) == "44136fa355b3678a"
    assert identity(CONFIG) == "bba183653f817fc9"
    assert identity({"path": "é", "ratio": 0.3, "none": None, "flag": True}) == "0970806f381a89f4"


def test_the_order_of_keys_does_not_matter_and_every_value_does():
    reversed_ = {key: CONFIG[key] for key in reversed(CONFIG)}
    assert identity(reversed_) == identity(CONFIG)
    assert identity({**CONFIG, "seed": 1338}) != identity(CONFIG)
    assert identity({**CONFIG, "model": {**CONFIG["model"], "layers": 5}}) != identity(CONFIG)
    assert identity({**CONFIG, "new": None}) != identity(CONFIG)


def test_a_key_at_its_introduction_value_leaves_the_name_as_it_was(monkeypatch):
    introduced = {"model.rotary": False, "weighting": "flat"}
    monkeypatch.setattr(store, "INTRODUCTION_VALUES", introduced)
    before = identity(CONFIG)
    with_new = {**CONFIG, "weighting": "flat", "model": {**CONFIG["model"], "rotary": False}}
    assert identity(with_new) == before
    assert identity({**with_new, "weighting": "steep"}) != before
    assert identity({**CONFIG, "model": {**CONFIG["model"], "rotary": True}}) != before
    assert identity({**CONFIG, "rotary": False}) != before  # another place, another key


def test_zero_and_zero_point_zero_are_one_value_once_converted():
    options = [
        compose("train", (f"model.dropout={v}",)).components["model"].describe() for v in (0, 0.0)
    ]
    assert canonical(options[0]) == canonical(options[1])
    assert '"dropout":0.0' in canonical(options[0])
    whole = component("recovery", "finetune", ConfigRoot(), {"weight_decay": 0}).describe()
    assert identity(whole) == identity(
        component("recovery", "finetune", ConfigRoot(), {}).describe()
    )


def test_a_whole_number_stays_one():
    with pytest.raises(UsageError, match=r"model\.layers=1\.0"):
        compose("train", ("model.layers=1.0",))


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="Out of range"):
        identity({"ratio": float("nan")})


def test_seeds_differ_by_seed_name_and_step_and_are_pinned():
    seeds = {derive(s, n, t) for s in (0, 1) for n in ("batches", "dropout") for t in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(1337, "batches", 1) == 8434349575024124365


def test_global_randomness_is_named_and_leaves_the_callers_alone():
    import torch

    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    draws = []
    for step in (1, 1, 2):
        with global_randomness(5, "dropout", step):
            draws.append(torch.rand(2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_row_comes_back_from_json_and_unknown_columns_are_dropped():
    row = Row(
        kind="pruned",
        model="m",
        data="d",
        seed=1,
        config_hash="c",
        fingerprint="f",
        training="t",
        settings={"ratio": 0.3, "schedule": "iterative"},
        metrics={
            "loss": Interval(2.0, 1.9, 2.1),
            "perplexity": Interval(7.4),
            "delta": Interval(0.5),  # of one window: no bounds
            "accuracy": Interval(0.5, 0.4, 0.6),
        },
        axes={"tracking.every": 10},
    )
    assert row.columns()["loss_low"] == 1.9
    assert row.columns()["delta_low"] is None
    assert Row.from_json({**row.to_json(), "from_the_future": 1}) == row
