"""What one can choose from: every YAML is there, nothing is cut off, one's own appears."""

import pytest
from rich.cells import cell_len

from swe_cli.config import shipped_conf

COMMANDS = {"criteria": "criterion", "allocations": "allocation", "patterns": "pattern"}
each = pytest.mark.parametrize(("command", "group"), COMMANDS.items())
STEADY = '''
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Steady:
    """``|W̄|^power · |W|``: large at the end *and* on the way.

    A second paragraph.
    """

    power: float
    needs = ("weighted_average", "mean")
    updates_weights = True
    published = "row"

    def score(self, evidence):
        return {}


class Drawn:
    needs = ()

    def draw(self, evidence, turn):
        return {}
'''


def names(group):
    return sorted(path.stem for path in (shipped_conf() / group).glob("*.yaml"))


def squeezed(result):
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "catalogued.py").write_text(STEADY)
    folder = tmp_path / "myconf" / "criterion"
    folder.mkdir(parents=True)
    (folder / "steady.yaml").write_text("_target_: mine.catalogued.Steady\npower: 0.5  # of W̄\n")
    (folder / "steadier.yaml").write_text("defaults: [steady, _self_]\npower: 0.9\n")
    (folder / "drawn.yaml").write_text("_target_: mine.catalogued.Drawn\n")
    (folder / "lost.yaml").write_text("_target_: mine.catalogued.Lost\n")
    (folder / "asking.yaml").write_text("_target_: mine.catalogued.Steady\npower: ???\n")
    return tmp_path / "myconf"


@each
def test_every_yaml_is_listed_within_eighty_columns(swe, command, group):
    shown = swe(command)
    assert shown.exit_code == 0, shown.output
    listed = [line.split()[0] for line in shown.stdout.splitlines() if line.strip()]
    assert [name for name in names(group) if name not in listed] == []
    assert max(map(cell_len, shown.stdout.splitlines())) <= 80
    assert "…" not in shown.stdout


@each
def test_every_one_can_be_shown_whole(swe, command, group):
    for name in names(group):
        shown = swe(command, name)
        lines = squeezed(shown)
        assert lines[0] == name
        assert any(line.startswith(f"YAML {shipped_conf()}"[:20]) for line in lines)
        assert max(map(cell_len, shown.stdout.splitlines())) <= 80


def test_criteria_say_what_they_need_and_how_often_they_run(swe):
    lines = squeezed(swe("criteria"))
    assert "magnitude – all, scored once kept global" in lines
    assert "|W| of the weights that are cut (Han et al. 2015)." in lines
    assert "wanda input_norm one run each kept row" in lines
    assert "fisher mean_square_gradient all, scored once kept global" in lines
    heads = [line for line in lines if line.startswith("Needs ")]
    assert heads == [
        "Needs statistics of training",
        "Needs gradients",
        "Needs layer inputs",
        "Needs nothing but the weights",
    ]
    assert lines.index(heads[1]) < lines.index("taylor mean_saliency all, scored once kept global")


def test_allocations_and_patterns_say_what_they_are(swe):
    lines = squeezed(swe("allocations"))
    assert "sigma scores tensor ratio or rate" in lines
    assert lines[lines.index("owl scores row ratio") + 1] == "ranks by wanda"
    assert lines[lines.index("ecoflap scores row ratio") + 1] == "the loss, probed"
    lines = squeezed(swe("patterns"))
    assert "head any whole heads smaller" in lines
    assert "4of8 fixed, 0.5 single weights, in groups of 8 same size" in lines
    assert "unstructured any single weights same size" in lines


def test_one_criterion_whole(swe):
    lines = squeezed(swe("criteria", "criterion=stability"))
    assert "W̄ and V are the weighted average and variance over training; `epsilon`" in " ".join(
        lines
    )
    assert "criterion.epsilon 0.001 of the tensor's mean √V" in lines
    assert any("swe train tracking.statistics=[weighted_variance]" in line for line in lines)
    assert "to prune swe prune --ratio 0.5 criterion=stability" in lines


def test_one_s_own_appear_and_what_cannot_be_used_says_why(swe, own):
    shown = swe("criteria", "--config-dir", own)
    lines = squeezed(shown)
    place = lines.index("steady weighted_average all, scored once updated row")
    assert lines[place + 1 : place + 3] == [
        "mean",
        "|W̄|^power · |W|: large at the end *and* on the way.",
    ]
    assert "steadier weighted_average all, scored once updated row" in lines
    place = lines.index("drawn – none: finds its own kept –")
    assert lines[place + 1] == "(its class has no docstring)"
    unusable = lines[lines.index("Cannot be used as it is") :]
    assert unusable[1] == "asking"
    assert "lost" in unusable
    assert "criterion.power is needed. Add criterion.power=…" in lines
    assert "names mine.catalogued.Lost, which cannot be" in " ".join(lines)
    assert max(map(cell_len, shown.stdout.splitlines())) <= 80
    whole = squeezed(swe("criteria", "steadier", "--config-dir", own))
    assert "criterion.power 0.9 of W̄" in whole
    assert "A second paragraph." in whole


@each
def test_an_unknown_name(swe, command, group):
    name = names(group)[0]
    refused = swe(command, name + "x")
    assert refused.exit_code == 2
    assert f"{group}={name}x is not known here. Did you mean {name}?" in refused.stderr
    assert f"Known: {', '.join(names(group))}." in refused.stderr
    assert refused.stdout == ""


def test_a_folder_that_is_not_there(swe):
    refused = swe("criteria", "--config-dir", "gone")
    assert refused.exit_code == 2
    assert "gone is not a folder" in refused.stderr
