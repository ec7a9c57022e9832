"""What depends on the machine: that it is taken fairly, and said with what it depends on."""

from copy import deepcopy
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from training.toys import gpt, setup_of

from swe_cli.contracts import DataShape
from swe_cli.errors import SweWarning
from swe_cli.evaluation import cost
from swe_cli.evaluation.cost import Meter, SkipZeros, a_batch, measured_cost, times
from swe_cli.report.costs import faster, with_energy


def setup_with(**options):
    model = gpt(5, **{"width": 32, "heads": 2, "context": 16, **options})
    return setup_of(model.eval(), SimpleNamespace(shape=DataShape(5)))


def test_work_is_timed_in_turn_and_warmed_up():
    order = []
    work = {name: (lambda name=name: order.append(name)) for name in ("one", "two")}
    taken = times(work, lambda: None)
    rounds = len(taken["one"])
    assert order == ["one", "two"] * (rounds + 2)
    assert rounds == len(taken["two"]) == cost.MOST


def test_timings_say_what_they_are_of(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.01)
    monkeypatch.setattr(cost.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    setup = setup_with()
    found = measured_cost(setup, deepcopy(setup.model), 4)
    assert found["latency_p50_ms"] <= found["latency_p95_ms"]
    assert found["saved_low"] <= found["saved_ms"] <= found["saved_high"]
    assert found["conditions"]["threads"] == setup.machine.threads
    assert found["only_masked"]  # both compute the same
    assert faster({**found, "saved_low": 1.0, "saved_high": 2.0}).startswith("No faster")
    narrow = measured_cost(setup_with(width=16), setup.model, 4)
    assert not narrow["only_masked"]
    told = faster({**narrow, "saved_low": 1.0, "saved_high": 2.0, "speedup": 1.5})
    assert told.endswith("as fast as dense at batch 4.")
    weights = sum(p.nbytes for p in setup.model.parameters())
    logits = 4 * 16 * 5 * 4
    assert weights + logits <= found["peak_memory_bytes"] < 3 * weights + 100 * logits


def test_timings_of_a_busy_machine_are_marked(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.01)
    monkeypatch.setattr(cost.os, "getloadavg", lambda: (1e3, 0.0, 0.0))
    setup = setup_with()
    with pytest.warns(SweWarning, match="load 1000"):
        found = measured_cost(setup, deepcopy(setup.model), 2)
    assert "the machine was busy" in found["warnings"][-1]


EXPAND = "layers.0.mlp.expand"


@torch.no_grad()
def test_products_that_skip_zeros_give_the_same(monkeypatch):
    setup = setup_with()
    mlp = setup.model.layers[0].mlp
    mlp.expand.weight.mul_(torch.rand_like(mlp.expand.weight) > 0.9)
    batch = a_batch(setup, 3)
    dense = setup.model(batch).logits
    monkeypatch.setattr(cost, "times", lambda work, *_: {n: [float(n == "dense")] for n in work})
    monkeypatch.setattr(cost, "median", lambda of: of[0] or 0.5)
    sparse = SkipZeros(setup, rows=48)
    assert [n for n, m in setup.model.named_modules() if "forward" in vars(m)] == [EXPAND]
    tried = {name: speedup for name, (_, speedup) in sparse.layers.items()}
    assert tried.pop(f"{EXPAND}.weight") == 2.0
    assert set(tried.values()) == {0.0}  # without zeros none was tried
    torch.testing.assert_close(setup.model(batch).logits, dense)
    monkeypatch.undo()
    monkeypatch.setattr(cost, "SECONDS", 0.01)
    monkeypatch.setattr(cost.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    found = measured_cost(setup, setup_with().model, 2)  # while products are replaced
    assert not found["only_masked"]


def test_joules_are_those_of_the_counters_which_begin_again(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "POWERCAP", tmp_path)
    assert "joules" not in Meter().lap()
    for name, of, so_far in (
        ("intel-rapl:0", "package-0", 262_142_000_000),
        ("intel-rapl:1", "package-1", 0),
        ("intel-rapl:2", "psys", 0),  # of all the machine, packages too
        ("intel-rapl:0:0", "core", 5),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{of}\n")
        (tmp_path / name / "energy_uj").write_text(f"{so_far}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("262143000000\n")
    meter = Meter()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("500000\n")  # it began again
    (tmp_path / "intel-rapl:2" / "energy_uj").write_text("9000000\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("2000000\n")
    passed = meter.lap()
    assert passed["joules"] == pytest.approx(1.5 + 2.0)
    assert passed["seconds"] > 0
    meter.last["seconds"] -= 1000  # in which it could have begun again twice
    assert "joules" not in meter.lap()
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert list(Meter().counters) == ["RAPL intel-rapl:0"]


def test_means_and_medians_that_contradict_each_other_are_noise():
    timed = {"only_masked": False, "saved_low": 1.0, "saved_high": 2.0, "batch": 4}
    assert faster({**timed, "speedup": 1.5}).startswith("1.50× as fast")
    assert "less than the noise" in faster({**timed, "speedup": 0.97})


def test_energy_says_which_part_of_it_was_read():
    spent = {"cut.seconds": [2.0] * 3, "tracking.seconds": [None, 10.0, 10.0]}
    costs = pd.DataFrame(spent | {"cut.joules": [30.0, 30.0, None]})
    read, guessed = (with_energy(costs, watts, None) for watts in (None, 5.0))
    assert read["energy"].tolist() == ["measured", "", ""]
    assert read["spent_joules"].dropna().tolist() == [30.0]
    assert guessed["energy"].tolist() == ["measured", "partly estimated", "estimated"]
    assert guessed["spent_joules"].tolist() == [30.0, 80.0, 60.0]
