"""No stale numbers: what a user edits is another thing, and what was made of it is made anew."""

import pytest
from training.toys import Silent, sweep_of, swept

from swe_cli.config.compose import _alone

FILES = {
    "lab/reduce.py": """
        def combined(peak, weight):
            return peak.max(weight)
    """,
    "lab/peaks.py": """
        from lab.reduce import combined

        SCALE = 1.0

        class Peak:
            def __init__(self, weights, *, scale: float):
                self.scale = scale
                self.peak = {name: w.abs() for name, w in weights.items()}

            def update(self, weights, index, share):
                for name, peak in self.peak.items():
                    peak.copy_(combined(peak, self.scale * SCALE * weights[name].abs()))

            def state(self):
                return self.peak

            def load(self, state):
                self.peak = state
    """,
    "lab/criteria.py": """
        class ByPeak:
            needs = ("peak",)

            def score(self, evidence):
                return evidence.trajectory["peak"]
    """,
    "conf/statistic/peak.yaml": "_target_: lab.peaks.Peak\nscale: 1.0\n",
    "conf/criterion/by_peak.yaml": "_target_: lab.criteria.ByPeak\n",
}
# One of the modules, and an edit of it.
EDITS = {
    "of the statistic": ("lab/peaks.py", ("SCALE = 1.0", "SCALE = 0.3")),
    "of its options": ("conf/statistic/peak.yaml", ("scale: 1.0", "scale: 0.3")),
    "of what it imports": ("lab/reduce.py", ("peak.max(", "peak.min(")),
    "of what it imports, new": ("lab/reduce.py", ("peak.max(weight)", "peak + weight")),
}
WORDS = ("training.steps=6", "training.learning_rate=0.05", "recovery=none", "ratio=0.5")


@pytest.fixture
def swept_with(text, tmp_path, package):
    """Run the sweep with these files of the user's: its outcome, what was said, its plan."""

    def run(files, *words):
        root = package(tmp_path / "own", files)
        _alone.cache_clear()  # YAMLs are read once a process
        plan, observer = sweep_of(text, tmp_path / "results", *WORDS, *words, root=root), Silent()
        return swept(plan, observer=observer), observer.said, plan

    return run


def pruned(outcome):
    return next(row for row in outcome.rows if row.kind == "pruned")


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(
    "words", [("criterion=by_peak",), ("criterion=random", "allocation=like",
                                       "allocation.criterion=by_peak")]
)  # fmt: skip
def test_an_edited_statistic_is_recorded_anew_and_its_cells_are_others(edit, words, swept_with):
    name, (before, after) = EDITS[edit]
    first, _, plan = swept_with(FILES, *words)
    again, said, _ = swept_with(FILES, *words)
    assert (again.trained, again.ran, again.rows, said) == (0, 0, first.rows, [])
    assert before in FILES[name]
    edited, said, _ = swept_with({**FILES, name: FILES[name].replace(before, after)}, *words)
    assert said == [f"{plan.trainings[0].run.name} did not record peak: training it again."]
    assert (edited.trained, edited.ran) == (1, 1)  # the controls are what they were
    one, other = pruned(first), pruned(edited)
    assert one.training == other.training
    assert one.config_hash != other.config_hash
    assert one.mean("loss") != other.mean("loss")
    back, said, _ = swept_with(FILES, *words)  # the cells are there still
    assert (back.trained, back.ran, back.rows) == (1, 0, first.rows)


def test_an_edited_criterion_cuts_anew(swept_with):
    """Its package is the statistic's, which is therefore taken for another: nobody can tell."""
    first, _, _ = swept_with(FILES, "criterion=by_peak")
    files = {
        **FILES,
        "lab/criteria.py": FILES["lab/criteria.py"].replace("needs", "other = 1; needs"),
    }
    edited, said, plan = swept_with(files, "criterion=by_peak")
    assert said == [f"{plan.trainings[0].run.name} did not record peak: training it again."]
    assert pruned(edited).config_hash != pruned(first).config_hash
    assert pruned(edited).metrics == pruned(first).metrics


def test_what_asks_no_component_of_the_users_is_not_touched_by_an_edit(swept_with):
    first, _, _ = swept_with(FILES, "criterion=swe")
    name, (before, after) = EDITS["of the statistic"]
    again, said, _ = swept_with(
        {**FILES, name: FILES[name].replace(before, after)}, "criterion=swe"
    )
    assert (again.trained, again.ran, again.rows, said) == (0, 0, first.rows, [])


def test_a_prune_by_a_statistic_that_was_edited_since_is_refused(swept_with, swe, tmp_path):
    _, _, plan = swept_with(FILES, "criterion=by_peak")
    name, (before, after) = EDITS["of the statistic"]
    swept_with({**FILES, name: FILES[name].replace(before, after)}, "criterion=magnitude")
    run, own = plan.trainings[0].run, ("--config-dir", tmp_path / "own" / "conf")
    refused = swe("prune", run.path, *own, "criterion=by_peak", "ratio=0.5", "recovery=none")
    assert refused.exit_code == 1
    said = f"criterion=by_peak needs peak, which {run.name} did not record."
    assert said in " ".join(refused.output.split())
