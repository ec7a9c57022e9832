"""Whatever happens to a training, the same command finishes it bit for bit as if nothing had.

Dropout, a tied head and accumulation are on: see ``training.toys.TINY``.
"""

import pytest
from training.toys import (
    FILES,
    After,
    assert_same,
    assert_same_tensors,
    contents,
    files_under,
    metrics,
    run_of,
    spec_of,
    trained,
    write_text,
)

from swe_cli.errors import Interrupted
from swe_cli.training.run import read_snapshot

from .dying import Killed, assert_whole, dying_at

STEPS = 8  # of TINY; checkpoints at 2, 4 and 6, evaluations at 3, 6 and 8


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def expected(text, tmp_path_factory):
    return contents(trained(spec_of(text), tmp_path_factory.mktemp("uninterrupted")))


def test_the_configuration_is_the_hard_one(text):
    identity = spec_of(text).config["identity"]
    assert identity["model"]["dropout"] == 0.2
    assert identity["model"]["tied_head"]
    assert identity["training"]["accumulation"] == 2


def test_another_seed_gives_other_tensors(text, tmp_path, expected):
    """What makes every comparison below able to fail."""
    other = contents(trained(spec_of(text, "seed=7"), tmp_path))
    with pytest.raises(AssertionError):
        assert_same(other, expected)


def test_two_uninterrupted_runs_are_the_same_file_by_file(text, tmp_path, expected):
    run = trained(spec_of(text), tmp_path)
    assert_same(contents(run), expected)
    hidden = {".lock"}
    described = {"config.json", "manifest.json", "metrics.jsonl"}
    assert set(files_under(run.path)) == hidden | described | set(FILES)  # no litter


@pytest.mark.parametrize("step", range(1, STEPS))
def test_stopped_at_any_step_it_goes_on_bit_for_bit(step, text, tmp_path, expected):
    plan = spec_of(text)
    with pytest.raises(Interrupted, match=f"Stopped at step {step}; a checkpoint is safe"):
        trained(plan, tmp_path, stop=After(step))
    run = run_of(plan, tmp_path)
    assert run.status == "stopped"
    assert (run.path / "checkpoints" / f"step-{step:08d}").is_dir()
    assert metrics(run).count("\n") == step
    assert_same(contents(trained(plan, tmp_path)), expected)


def test_stopped_after_every_single_step_it_still_arrives(text, tmp_path, expected):
    plan = spec_of(text)
    for _ in range(STEPS - 1):
        with pytest.raises(Interrupted):
            trained(plan, tmp_path, stop=After(1))
    assert_same(contents(trained(plan, tmp_path)), expected)


def test_checkpoints_may_be_anywhere(text, tmp_path, expected):
    plan = spec_of(text, "training.checkpoint_every=3")
    assert plan.run.name == spec_of(text).run.name  # when results are safe is not what they are
    with pytest.raises(Interrupted):
        trained(plan, tmp_path, stop=After(5))
    assert_same(contents(trained(spec_of(text), tmp_path)), expected)


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_every_rename_it_goes_on_bit_for_bit(side, text, tmp_path, expected):
    plan = spec_of(text)
    with dying_at() as renames:
        trained(plan, tmp_path / "clean")
    assert renames.count > 20  # checkpoints, tensors, manifests: all of them are tried
    for index in range(renames.count):
        results = tmp_path / str(index)
        with pytest.raises(Killed), dying_at(index, side):
            trained(plan, results)
        assert_whole(run_of(plan, results))
        run = trained(plan, results)
        assert_same(contents(run), expected)
        assert not [name for name in files_under(run.path) if name.endswith(".tmp")], index


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_while_training_again_for_a_statistic_it_goes_on_too(side, text, tmp_path, expected):
    """A finished run must not be lost to the training that only adds to it."""
    lean, full = spec_of(text, statistics=()), spec_of(text)
    assert lean.run == full.run
    trained(lean, tmp_path / "clean")
    with dying_at() as renames:
        trained(full, tmp_path / "clean")
    for index in range(0 if side == "before" else 2, renames.count, 4):
        results = tmp_path / str(index)
        trained(lean, results)
        with pytest.raises(Killed), dying_at(index, side):
            trained(full, results)
        assert run_of(full, results).finished  # the run is still there
        assert run_of(full, results).tensors("model.safetensors")
        run = trained(full, results)
        assert_same(contents(run), expected)
        assert run.manifest["tracker"]["statistics"] == ["mean", "weighted_average"]


def test_a_checkpoint_without_a_wanted_statistic_is_no_start(text, tmp_path, expected):
    """It must not pass for the newest checkpoint of the training that starts afresh, either."""
    lean, full = spec_of(text, statistics=()), spec_of(text)
    with pytest.raises(Interrupted):
        trained(lean, tmp_path, stop=After(7))
    with pytest.raises(Interrupted, match="Stopped at step 3"):
        trained(full, tmp_path, stop=After(3))
    kept = {path.name for path in (run_of(full, tmp_path).path / "checkpoints").iterdir()}
    assert kept == {"step-00000002", "step-00000003"}
    assert metrics(run_of(full, tmp_path)).count("\n") == 3
    assert_same(contents(trained(full, tmp_path)), expected)


def test_a_checkpoint_with_more_statistics_serves_one_that_wants_fewer(text, tmp_path):
    lean, full = spec_of(text, statistics=()), spec_of(text)
    with pytest.raises(Interrupted):
        trained(full, tmp_path / "one", stop=After(5))
    run = trained(lean, tmp_path / "one")
    assert_same(contents(run), contents(trained(lean, tmp_path / "two")))
    assert run.manifest["tracker"]["statistics"] == ["weighted_average"]


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_every_rename_it_has_its_snapshots_in_the_end(side, text, tmp_path, expected):
    plan = spec_of(text, "tracking.snapshots=[0,3]")
    with dying_at() as renames:
        whole = trained(plan, tmp_path / "clean")
    for index in range(0, renames.count, 3):
        results = tmp_path / str(index)
        with pytest.raises(Killed), dying_at(index, side):
            trained(plan, results)
        run = trained(plan, results)
        assert_same(contents(run), expected)
        for step in (0, 3):
            again, clean = read_snapshot(run, step), read_snapshot(whole, step)
            assert_same_tensors(again.weights, clean.weights)
            assert_same_tensors(again.optimizer, clean.optimizer)
            for name, tensors in clean.trajectory.items():
                assert_same_tensors(again.trajectory[name], tensors, name)


def test_a_checkpoint_behind_a_wanted_snapshot_is_no_start(text, tmp_path, expected):
    plain, kept = spec_of(text), spec_of(text, "tracking.snapshots=[3]")
    with pytest.raises(Interrupted):
        trained(plain, tmp_path, stop=After(5))
    with pytest.raises(Interrupted, match="Stopped at step 4"):
        trained(kept, tmp_path, stop=After(4))  # from the start: step 3 had to come again
    run = trained(kept, tmp_path)
    assert read_snapshot(run, 3).trajectory.keys() == {"mean", "weighted_average"}
    assert_same(contents(run), expected)
