"""Controls that are there where they are asked for, and averages as what is cut."""

import pytest
import torch
from training.toys import Silent, opened, spec_of, sweep_of, swept, trained

from swe_cli.controls import ASKED, KINDS
from swe_cli.errors import PruningError, UsageError
from swe_cli.experiments import cell as cell_module
from swe_cli.files import read_tensors

SHORT = ("training.steps=20", "recovery.steps=2", "criteria=magnitude", "ratios=0.5")
ALL = f"controls=[{','.join(ASKED)}]"


def planned(text, results, *words):
    return sweep_of(text, results, *SHORT, *words)


def of_kind(plan, kind):
    (cell,) = [cell for cell in plan.cells if cell.kind == kind]
    return cell


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    plan = planned(text, tmp_path_factory.mktemp("asked"), ALL, "keep=models")
    outcome = swept(plan)
    assert not outcome.failed, outcome.failed[0].error
    return plan, {row.kind: row for row in outcome.rows}


def test_none_is_there_by_default_and_none_changes_what_is(text, tmp_path):
    plain, asked = planned(text, tmp_path), planned(text, tmp_path, ALL)
    assert not {cell.kind for cell in plain.cells} & {*ASKED}
    before, now = ([cell.hash for cell in plan.cells] for plan in (plain, asked))
    assert [hash_ for hash_ in now if hash_ in before] == before
    assert len(now) == len(before) + len(ASKED)
    assert plain.trainings[0].hash == asked.trainings[0].hash
    assert len(plain.trainings) == 1


def test_each_that_is_asked_for_is_a_row_with_a_difference_to_dense(finished):
    _, rows = finished
    assert {*rows} == {*KINDS} - {"dense_blind"}
    for kind in ASKED:
        mean, low, high = rows[kind].metrics["delta"]
        assert low <= mean <= high
        assert mean != 0.0
    assert len({rows[kind].mean("loss") for kind in (*ASKED, "dense", "dense_averaged")}) == 6


@pytest.mark.parametrize(
    ("base", "need"), [("latest", "latest_average"), ("ema", "exponential_av")]
)
def test_what_a_base_or_a_control_is_made_of_is_recorded(text, tmp_path, base, need):
    for word in (f"base={base}", f"controls=[dense_{base}]", f"criteria=swe_{base}"):
        made = sweep_of(text, tmp_path, word, "ratios=0.5")
        assert [name for name in made.trainings[0].statistics if name.startswith(need)], word
    assert not [n for n in planned(text, tmp_path).trainings[0].statistics if n.startswith(need)]


def test_averages_that_are_not_cut_are_their_statistics(finished):
    plan, _ = finished
    trained_model = opened(plan.trainings[0].run)
    for kind, statistic in (("latest", "latest_average"), ("ema", "exponential_average")):
        kept = read_tensors(of_kind(plan, f"dense_{kind}").model_to)
        for name, weight in trained_model.trajectory[statistic].items():
            assert torch.equal(kept[name], weight)


def test_the_average_recovers_from_where_it_is(finished):
    _, rows = finished
    averaged, recovered = rows["dense_averaged"], rows["dense_averaged_recovered"]
    assert recovered.mean("loss_before_recovery") == averaged.mean("loss")
    assert recovered.mean("loss") != averaged.mean("loss")


def test_the_decayed_control_is_a_training_of_its_own_by_that_rate_alone(finished):
    plan, rows = finished
    ours, other = plan.trainings
    cell = of_kind(plan, "dense_decayed")
    assert cell.training.run == other.run
    assert rows["dense_decayed"].training == other.run.name != ours.run.name
    identities = (ours.config["identity"], other.config["identity"])
    one, two = (dict(identity["training"]) for identity in identities)
    changed = {key: value for key, value in two.items() if value != one[key]}
    assert changed == {"schedule": "linear_average", "warmup_steps": 0}
    assert all(
        identities[0][key] == identities[1][key] for key in identities[0].keys() - {"training"}
    )
    lines = (other.run.path / "metrics.jsonl").read_text().splitlines()
    rates = [float(line.partition('"learning_rate": ')[2].partition(",")[0]) for line in lines]
    assert rates == pytest.approx([1e-3 * (1 - i * (i - 1) / 420) for i in range(1, 21)])
    kept, final = read_tensors(cell.model_to), other.run.tensors("model.safetensors")
    assert all(torch.equal(kept[name], weight) for name, weight in final.items())


def test_what_is_recorded_besides_is_not_asked_of_the_decayed_training(text, tmp_path):
    words = ("tracking.statistics=[mean]", "tracking.snapshots=[2]", "controls=[dense_decayed]")
    ours, other = planned(text, tmp_path, *words).trainings
    assert ([*ours.statistics], ours.snapshots) == (["mean", "weighted_average"], (2,))
    assert ([*other.statistics], other.snapshots) == (["weighted_average"], ())


def test_two_trainings_that_decay_to_one_are_each_compared_with_their_own(text, tmp_path):
    words = ("training.schedule=cosine,constant", "controls=[dense_decayed]")
    plan = planned(text, tmp_path, *words)
    assert len(plan.trainings) == 3
    one, other = [cell for cell in plan.cells if cell.kind == "dense_decayed"]
    assert one.training.hash == other.training.hash
    assert one.hash != other.hash
    assert [cell.config["against"] for cell in (one, other)] == [
        [cell.reads["dense"].training.hash] for cell in (one, other)
    ]


def test_an_old_training_without_the_average_is_trained_again_and_that_is_said(text, tmp_path):
    swept(planned(text, tmp_path))
    watching = Silent()
    outcome = swept(planned(text, tmp_path, "base=ema"), observer=watching)
    assert outcome.trained == 1
    assert not outcome.failed
    assert any("did not record exponential_average: training it again" in s for s in watching.said)


def test_a_run_that_lacks_an_average_names_who_asks_and_the_flag(text, tmp_path):
    plan = planned(text, tmp_path, "base=ema", "controls=[dense_latest]")
    cut, control = (of_kind(plan, kind).spec for kind in ("pruned", "dense_latest"))
    for spec, asks in (
        (cut, "base=ema needs exponential_average"),
        (control, r"controls=\[dense_latest\] needs latest_average"),
    ):
        with pytest.raises(PruningError, match=f"{asks}, which train-x did not record") as caught:
            spec.check_recorded(("weighted_average",), "train-x")
        assert "Train with tracking.statistics=[" in caught.value.hint
    lean = opened(trained(spec_of(text, statistics=()), tmp_path))
    assert [*lean.bases] == ["final", "best", "averaged"]


def test_the_mask_is_put_on_the_average(text, tmp_path):
    words = ("base=ema", "criteria=magnitude,swe_ema", "recovery=none", "keep=models")
    plan = sweep_of(text, tmp_path, "training.steps=10", "ratios=0.5", *words)
    rows = swept(plan).rows
    average = opened(plan.trainings[0].run).trajectory["exponential_average"]
    for cell in (cell for cell in plan.cells if cell.kind == "pruned"):
        for name, weight in read_tensors(cell.model_to).items():
            assert torch.equal(weight, average[name] * (weight != 0)), name
    losses = {row.mean("loss") for row in rows if row.kind == "pruned"}
    assert len(losses) == 1  # of |ema| both


def test_an_early_cut_starts_from_the_average_of_then_if_there_was_one(text, tmp_path):
    early = ("schedule=early", "recovery=none")
    plan = planned(text, tmp_path, *early, "schedule.at_step=4", "base=ema")
    assert not swept(plan).failed
    for words, said in (
        (("schedule.at_step=4", "base=latest"), "not the latest of later"),
        (("schedule.at_step=0", "base=ema"), "base=ema starts from how weights lived"),
    ):
        with pytest.raises(UsageError, match=said):
            planned(text, tmp_path, *early, *words)


def test_controls_are_no_axis(text, tmp_path):
    for typed in ("dense_latest,dense_ema", "[dense_latest],[dense_ema]"):
        with pytest.raises(UsageError, match="one list") as caught:
            planned(text, tmp_path, f"controls={typed}")
        assert caught.value.hint == "Write controls=[dense_latest,dense_ema]"


def test_without_recovery_the_recovered_control_is_the_dense_one_and_not_measured_again(
    text, tmp_path, monkeypatch
):
    plan = planned(text, tmp_path, "recovery=none")
    measured, counted = [], cell_module.measure

    def counting(*arguments, **options):
        measured.append(counted(*arguments, **options))
        return measured[-1]

    monkeypatch.setattr(cell_module, "measure", counting)
    rows = {row.kind: row for row in swept(plan).rows}
    assert len(measured) == len(plan.cells) - 1
    dense, recovered = (rows[kind].metrics for kind in ("dense", "dense_recovered"))
    for name in ("loss", "loss_calibrated", "temperature", "top1", "perplexity"):
        assert recovered[name] == dense[name], name
