"""``WeightTracker`` in loops of others, against an oracle in float64 that sees every step."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from swe_cli.errors import ModelError, UsageError
from swe_cli.training.own_loop import WeightTracker, read_trajectory

STEPS = 6


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3, bias=False)).to(dtype)


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 5, generator=generator), torch.randn(4, 3, generator=generator)


class Oracle:
    """W̄ = Σ t·W_t / Σ t and E[g²] weighted alike, in float64, of what it is shown."""

    def __init__(self):
        self.weights, self.squares = [], []

    def see(self, model):
        self.squares.append({n: p.grad.double().square() for n, p in model.named_parameters()})

    def observe(self, model):
        self.weights.append({n: p.detach().double().clone() for n, p in model.named_parameters()})

    @staticmethod
    def mean(observations):
        total = len(observations) * (len(observations) + 1) / 2
        return {
            name: sum(i * of[name] for i, of in enumerate(observations, 1)) / total
            for name in observations[0]
        }


def close(found, expected):
    """To 1e-6 of each tensor's largest."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(
            found[name].double(), value, rtol=0, atol=1e-6 * float(value.abs().max())
        )


def average(tracker, statistic="weighted_average"):
    return tracker.statistics[statistic].state()


BOTH = ("weighted_average", "square_gradient")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("autocast", [False, True])
def test_plain_torch(accumulation, compiled, autocast):
    model, oracle = network(), Oracle()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    run = torch.compile(model, backend="aot_eager") if compiled else model
    tracker = WeightTracker(run, optimizer, statistics=BOTH)
    precision = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
    for step in range(STEPS):
        for part in range(accumulation):
            x, y = batch(step * accumulation + part)
            with precision:
                loss = F.mse_loss(run(x).float(), y) / accumulation
            loss.backward()
        oracle.see(model)
        optimizer.step()
        optimizer.zero_grad()
        oracle.observe(model)
    assert tracker.count == STEPS
    close(average(tracker), oracle.mean(oracle.weights))
    close(average(tracker, "square_gradient"), oracle.mean(oracle.squares))


def test_weights_in_bfloat16_are_averaged_in_float32():
    model, oracle = network(torch.bfloat16), Oracle()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = WeightTracker(model, optimizer)
    for step in range(200):
        x, y = batch(step)
        F.mse_loss(model(x.bfloat16()), y.bfloat16()).backward()
        optimizer.step()
        optimizer.zero_grad()
        oracle.observe(model)
    close(average(tracker), oracle.mean(oracle.weights))


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_is_none(fused):
    """Outside a fused optimizer a scaler does not call it; a fused one skips inside its step."""
    model, oracle = network(), Oracle()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    tracker = WeightTracker(model, optimizer, statistics=BOTH)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(STEPS):
        x, y = batch(step)
        loss = F.mse_loss(model(x), y)
        scaler.scale(loss * (torch.inf if step == 2 else 1.0)).backward()
        if step != 2:
            scale = scaler.get_scale()
            oracle.squares.append(
                {n: (p.grad.double() / scale).square() for n, p in model.named_parameters()}
            )
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if step != 2:
            oracle.observe(model)
    assert tracker.count == STEPS - 1
    close(average(tracker), oracle.mean(oracle.weights))
    close(average(tracker, "square_gradient"), oracle.mean(oracle.squares))


def test_gradients_are_those_before_clipping_where_the_loop_shows_them():
    told = {}
    for shows in (False, True):
        model, oracle = network(), Oracle()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        tracker = WeightTracker(model, optimizer, statistics=["square_gradient"])
        for step in range(STEPS):
            x, y = batch(step)
            F.mse_loss(model(x), y).backward()
            if shows:
                oracle.see(model)
                tracker.before_clip()
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            if not shows:
                oracle.see(model)
            optimizer.step()
            optimizer.zero_grad()
        close(average(tracker, "square_gradient"), oracle.mean(oracle.squares))
        told[shows] = tracker.info()["as_received"]
    assert told == {False: ["square_gradient"], True: []}


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_that_were_shown_for_a_step_that_is_skipped_are_not_seen(fused):
    model, oracle = network(), Oracle()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    tracker = WeightTracker(model, optimizer, statistics=BOTH)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(STEPS):
        x, y = batch(step)
        loss = F.mse_loss(model(x), y) * (torch.inf if step == 2 else 1.0)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        tracker.before_clip()
        if step != 2:
            oracle.see(model)
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if step != 2:
            oracle.observe(model)
    assert tracker.count == STEPS - 1
    close(average(tracker), oracle.mean(oracle.weights))
    close(average(tracker, "square_gradient"), oracle.mean(oracle.squares))


def trained(model, optimizer, tracker, first, last):
    for step in range(first, last):
        x, y = batch(step)
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


STATISTICS = ("weighted_average", "weighted_variance", "path_length", "adam_v", "movement")


def test_resumed_it_goes_on_bit_for_bit():
    def made():
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        return model, optimizer, WeightTracker(model, optimizer, statistics=STATISTICS, every=2)

    model, optimizer, whole = made()
    trained(model, optimizer, whole, 0, 7)
    model, optimizer, first = made()
    trained(model, optimizer, first, 0, 3)
    states = copy.deepcopy([model.state_dict(), optimizer.state_dict(), first.state_dict()])
    model, optimizer, second = made()
    for part, state in zip((model, optimizer, second), states, strict=True):
        part.load_state_dict(state)
    trained(model, optimizer, second, 3, 7)
    assert second.info() == whole.info()
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name


def test_what_is_saved_is_known_by_the_weights_it_led_to(tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = WeightTracker(model, optimizer, statistics=BOTH)
    trained(model, optimizer, tracker, 0, 3)
    tracker.save(tmp_path / "lived")
    weights = {f"network.{n}": p.detach().clone() for n, p in model.named_parameters()}
    tensors, told = read_trajectory(tmp_path / "lived", weights, "network.")
    assert told["statistics"] == [*sorted(BOTH)]
    assert told["count"] == 3
    for name, of in average(tracker).items():
        assert torch.equal(tensors[f"weighted_average/network.{name}"], of)
    for dtype in (torch.bfloat16, torch.float16):  # as which it may have been saved
        rounded = {n: w.to(dtype) for n, w in weights.items()}
        assert read_trajectory(tmp_path / "lived", rounded, "network.")[1] == told
    nearly = {n: w * (1 + 1e-4) for n, w in weights.items()}
    with pytest.raises(ModelError, match="did not lead to these weights"):
        read_trajectory(tmp_path / "lived", nearly, "network.")
    weights["network.0.weight"] += 0.1
    with pytest.raises(ModelError, match=r"did not lead to these weights: not in network\.0"):
        read_trajectory(tmp_path / "lived", weights, "network.")
    del weights["network.0.bias"]
    with pytest.raises(ModelError, match=r"trajectory of another model: it differs in 0\.bias"):
        read_trajectory(tmp_path / "lived", weights, "network.")
    with pytest.raises(ModelError, match=r"holds no trajectory\.json"):
        read_trajectory(tmp_path, weights, "network.")


def test_it_tells_how_far_the_weights_moved_from_the_first_on_over_a_resume():
    model = nn.Linear(90, 130)  # of whose 11,700 weights every third is looked at
    first = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = WeightTracker(model, optimizer)
    assert tracker.info()["weights_moved"] == 0.0
    with torch.no_grad():
        model.weight.mul_(1.5)
        model.bias.add_(1.0)
    state = copy.deepcopy(tracker.state_dict())
    resumed = WeightTracker(model, optimizer)
    resumed.load_state_dict(state)
    few = model.weight.detach().flatten()[::3][:4096] / 1.5
    stands_for = model.weight.numel() / len(few)
    far = stands_for * (0.5 * few).square().sum() + 130
    long = stands_for * few.square().sum() + first.bias.detach().square().sum()
    for of in (tracker, resumed):
        assert of.moved() == pytest.approx(float((far / long).sqrt()), rel=1e-5)


def _on_shards(rank, store, out):
    torch.distributed.init_process_group("gloo", f"file://{store}", world_size=2, rank=rank)
    from torch.distributed.fsdp import fully_shard

    model, oracle = network(), Oracle()
    whole = {n: tuple(p.shape) for n, p in model.named_parameters()}
    fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    tracker = WeightTracker(model, optimizer, statistics=[*BOTH, "adam_v"])
    for step in range(STEPS):
        x, y = batch(2 * step + rank)
        F.mse_loss(model(x), y).backward()
        local = {n: p.grad.to_local().double().square() for n, p in model.named_parameters()}
        oracle.squares.append(local)
        optimizer.step()
        optimizer.zero_grad()
        here = {n: p.to_local().detach().double().clone() for n, p in model.named_parameters()}
        oracle.weights.append(here)
    close(average(tracker), oracle.mean(oracle.weights))
    close(average(tracker, "square_gradient"), oracle.mean(oracle.squares))
    slots = {n: optimizer.state[p]["exp_avg_sq"].to_local() for n, p in model.named_parameters()}
    assert all(torch.equal(of, slots[n]) for n, of in average(tracker, "adam_v").items())
    assert {n: tuple(w.shape) for n, w in here.items()} != whole
    torch.save(average(tracker), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_of_shards_each_process_tracks_its_own(tmp_path):
    """Two processes of FSDP: put together they are the average of the whole."""
    torch.multiprocessing.spawn(_on_shards, (tmp_path / "store", tmp_path), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    model, oracle = network(), Oracle()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(STEPS):
        for rank in (0, 1):
            x, y = batch(2 * step + rank)
            (F.mse_loss(model(x), y) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        oracle.observe(model)
    for name, expected in oracle.mean(oracle.weights).items():
        together = torch.cat([part[name] for part in parts]).double()
        torch.testing.assert_close(together, expected, rtol=0, atol=1e-5)


def test_one_step_that_was_not_shown_may_have_been_clipped():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker, told = WeightTracker(model, optimizer, statistics=BOTH), []
    for shows in (True, False, True):
        x, y = batch(0)
        F.mse_loss(model(x), y).backward()
        if shows:
            tracker.before_clip()
        optimizer.step()
        told.append(tracker.info()["as_received"])
    assert told == [[], ["square_gradient"], ["square_gradient"]]


def test_closed_it_looks_on_no_longer():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = WeightTracker(model, optimizer)
    trained(model, optimizer, tracker, 0, 2)
    tracker.close()
    trained(model, optimizer, tracker, 2, 4)
    assert tracker.count == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"statistics": ["latest_average"]}, "statistic=latest_average must know how long"),
        ({"start": "90%"}, "A part of a run is known where its length is"),
        ({"statistics": ["none_such"]}, "statistic=none_such is not known here"),
        ({"every": 0}, "tracking.every=0"),
        ({"every": "epoch"}, "Only the loop knows how long an epoch is"),
        ({"evry": 2}, "tracking.evry is not a key"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    model = network()
    with pytest.raises(UsageError, match=said):
        WeightTracker(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)
