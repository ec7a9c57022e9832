import pytest
from training.toys import sweep_of

from swe_cli.config import ConfigRoot, read_tokens
from swe_cli.errors import PruningError, UsageError
from swe_cli.experiments.sweep import preview


@pytest.fixture
def plan(text, tmp_path):
    def make(*words, results=tmp_path):
        return sweep_of(text, results, *words)

    return make


def pruned(made):
    return [planned for planned in made.cells if planned.kind == "pruned"]


def ratios(made):
    return sorted({cell.config["ratio"] for cell in pruned(made)})


def test_by_default_three_criteria_at_nine_exact_ratios(plan):
    made = plan()
    assert ratios(made) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert len(made.trainings) == 1
    assert len(pruned(made)) == 27
    assert len(made.cells) == 27 + 4


def test_ratios_are_decimal_exact(plan):
    made = plan("ratios=0.1..0.4", "criteria=swe")
    assert ratios(made) == [0.1, 0.2, 0.3, 0.4]  # no 0.30000000000000004
    assert ratios(plan("ratios=0.05..0.15..0.05", "criteria=swe")) == [0.05, 0.1, 0.15]


def test_the_same_amount_written_otherwise_is_the_same_cell(plan):
    one, other = (plan("criteria=swe", f"ratios={words}") for words in ("0.3,0.6", "0.30,0.6"))
    assert {c.hash for c in pruned(one)} == {c.hash for c in pruned(other)}


def test_controls_come_first_and_are_shared_by_all_cuts(plan):
    made = plan("ratios=0.2,0.4", "criteria=swe,random", "allocations=global,uniform")
    kinds = [planned.kind for planned in made.cells]
    assert kinds == [
        "dense",
        "dense_best",
        "dense_averaged",
        "dense_recovered",
        *["pruned"] * 8,
    ]
    for cell in pruned(made):
        assert {kind: read.hash for kind, read in cell.reads.items()} == {
            "dense": made.cells[0].hash,
            "dense_recovered": made.cells[3].hash,
        }


def test_each_training_is_planned_once_for_all_that_is_cut_from_it(plan):
    made = plan("seeds=1,2", "tracking.every=1,4", "ratios=0.5", "criteria=swe,random")
    assert len(made.trainings) == 4
    assert len(pruned(made)) == 8
    axes = {
        (planned.axes["tracking.every"], planned.training.run.name)
        for planned in made.cells
        if planned.kind == "pruned"
    }
    assert len(axes) == 4


def test_a_training_records_what_all_criteria_and_those_they_consult_need(plan):
    assert plan("criteria=magnitude", "ratios=0.5").trainings[0].statistics.keys() == {
        "weighted_average"
    }
    consulted = plan(
        "criteria=random", "ratios=0.5", "allocation=like", "allocation.criterion=swe_mean"
    )
    assert [*consulted.trainings[0].statistics] == ["mean", "weighted_average"]


def test_statistics_do_not_name_a_training_but_cadence_does(plan):
    ratio = "ratios=0.5"
    one, other = (plan(f"criteria={name}", ratio) for name in ("magnitude", "swe_mean"))
    assert one.trainings[0].hash == other.trainings[0].hash
    assert (
        plan("tracking.every=2", "criteria=swe", ratio).trainings[0].hash != one.trainings[0].hash
    )


def test_results_and_checkpoints_do_not_name_a_cell_but_every_choice_does(plan, tmp_path):
    def hashes(*words, **options):
        made = plan("criteria=swe", "ratios=0.5", *words, **options)
        return {planned.kind: planned.hash for planned in made.cells}

    before = hashes()
    assert hashes(results=tmp_path / "elsewhere") == before
    assert hashes("training.checkpoint_every=1") == before
    assert hashes("keep=models") == before
    for word in ("base=averaged", "prunable=all", "allocation=uniform"):
        changed = hashes(word)
        assert changed["pruned"] != before["pruned"], word
        assert changed["dense"] == before["dense"], word
    recovered = hashes("recovery.steps=1")
    assert recovered["dense_recovered"] != before["dense_recovered"]
    assert recovered["dense"] == before["dense"]
    assert hashes("seed=2")["dense"] != before["dense"]
    assert hashes("evaluation.batch_size=3")["dense"] != before["dense"]


def test_a_rate_replaces_the_default_ratios(plan):
    made = plan("rates=1.0,1.575", "allocation=sigma", "criteria=swe")
    assert sorted(cell.config["rate"] for cell in pruned(made)) == [1.0, 1.575]
    assert all("ratio" not in cell.config for cell in pruned(made))


def test_both_a_ratio_and_a_rate_are_refused_before_any_work(plan, tmp_path):
    with pytest.raises(UsageError, match="a ratio or a rate, not both"):
        plan("rates=1.0,2.0", "ratios=0.5,0.6", "allocation=sigma", "criteria=swe")
    with pytest.raises(UsageError, match="standard deviation"):
        plan("rates=1.0,2.0", "allocation=global", "criteria=swe")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_writes_nothing(plan, tmp_path):
    plan("ratios=0.5")
    assert list(tmp_path.iterdir()) == []


def test_an_axis_named_like_a_column_is_still_shown(plan):
    made = plan("training=adamw,adam_paper", "criteria=swe", "ratios=0.5")
    assert {planned.axes["training recipe"] for planned in made.cells} == {"adamw", "adam_paper"}


def test_an_option_of_one_choice_of_an_axis_is_set_where_it_is_one(plan):
    made = plan("criteria=magnitude,sparsegpt,stability", "criterion.damping=0.5", "ratio=0.5")
    criteria = {
        cell.config["criterion"]["name"]: cell.config["criterion"]
        for cell in made.cells
        if cell.kind == "pruned"
    }
    assert criteria["sparsegpt"]["damping"] == 0.5
    assert "damping" not in criteria["magnitude"]
    with pytest.raises(UsageError, match=r"criterion\.damping is not a key of magnitude, swe"):
        plan("criteria=magnitude,swe", "criterion.damping=0.5", "ratio=0.5")


def test_n_of_m_asks_no_allocation_and_is_one_cell_under_all(plan):
    ratio = ("criteria=magnitude,wanda", "pattern=2of4", "ratio=0.5")
    made = plan(*ratio, "allocations=global,uniform,row,owl,ecoflap,like")
    assert len(pruned(made)) == 2
    assert all("allocation" not in cell.config for cell in pruned(made))
    assert [c.hash for c in pruned(made)] == [c.hash for c in pruned(plan(*ratio))]
    assert "calibration" not in pruned(made)[0].config  # which ecoflap would have asked for


def test_n_of_m_is_one_cell_on_an_axis_of_rates(plan):
    made = plan("criteria=swe", "patterns=unstructured,2of4", "rates=1.0,1.5", "allocation=sigma")
    (fixed,) = [cell for cell in pruned(made) if cell.spec.pattern.name == "2of4"]
    assert (fixed.spec.ratio, fixed.spec.rate) == (0.5, None)
    assert len(pruned(made)) == 3


def test_a_layerwise_criterion_that_is_ranked_over_layers_unasked_is_noted(plan):
    (note,) = plan("criteria=swe,wanda", "ratio=0.5").notes
    assert note.startswith("wanda ranks all layers together here; as published, allocation=row")
    for words in (
        ("criteria=swe,magnitude", "ratio=0.5"),
        ("criteria=wanda", "allocation=global", "ratio=0.5"),
        ("criteria=wanda", "allocations=row,uniform", "ratio=0.5"),
        ("criteria=wanda", "pattern=2of4"),
    ):
        assert plan(*words).notes == ()


# The preview


def previewed(*words):
    return preview(read_tokens(words), ConfigRoot())


def test_a_preview_shows_the_axes_that_would_run():
    values = previewed("ratios=0.5..0.8", "criteria=wanda", "training.steps=10,20").values
    assert values["axes"] == {
        "ratio": [0.5, 0.6, 0.7, 0.8],
        "criterion": ["wanda"],
        "training.steps": [10, 20],
    }


def test_a_preview_is_the_first_cell_with_the_options_that_are_its_own():
    shown = previewed("criteria=sparsegpt,wanda", "criterion.damping=0.3", "training.steps=10,20")
    assert shown["criterion"].describe()["name"] == "sparsegpt"
    assert shown["criterion"].options["damping"] == 0.3
    assert shown["training"].options["steps"] == 10
    assert (shown.values["ratio"], shown.values["axes"]["ratio"][-1]) == (0.1, 0.9)
    assert "ratio" not in previewed("ratio=0.3").values["axes"]
    assert previewed("ratio=0.3").values["ratio"] == 0.3


@pytest.mark.parametrize("word", ["seeds=0-2", "training.steps=10,x", "criteria=swe,wandda"])
def test_a_preview_refuses_what_planning_would(word):
    with pytest.raises(UsageError):
        previewed(word)


def test_what_points_of_one_training_keep_and_record_is_joined(plan):
    made = plan(
        "tracking.statistics=[mean],[path_length]", "criteria=magnitude", "ratios=0.5",
        "schedule=early", "schedule.at_step=1,2", "recovery=none",
    )  # fmt: skip
    (training,) = made.trainings
    assert [*training.statistics] == ["mean", "path_length", "weighted_average"]
    assert training.snapshots == (1, 2)


def test_an_axis_is_shown_of_the_cells_that_it_makes_a_difference_to(plan):
    made = plan("calibration.samples=2,4", "criteria=magnitude,wanda", "ratios=0.5")
    shown = {
        cell.spec.settings()["criterion"]: cell.axes for cell in made.cells if cell.kind == "pruned"
    }
    assert shown["magnitude"] == {}
    assert shown["wanda"].keys() == {"calibration.samples"}


def test_a_missing_statistic_names_who_asks_and_the_flag(plan):
    (own,) = pruned(plan("criteria=swe_mean", "ratio=0.5"))
    asked = "criterion=swe_mean needs mean, which train-x did not record"
    with pytest.raises(PruningError, match=asked) as caught:
        own.spec.check_recorded(("weighted_average",), "train-x")
    assert "tracking.statistics=[mean]" in str(caught.value)
