"""What the tab key offers, without a wait."""

import subprocess
import sys

import pytest

from swe_cli.config import ConfigRoot, completions, compose, read_tokens

ROOT = ConfigRoot()


@pytest.mark.parametrize(
    ("incomplete", "words"),
    [
        ("criterion=swe_m", ["criterion=swe_mean"]),
        ("criterion=swe,wan", ["criterion=swe,wanda"]),
        ("criteria=wanda,sn", ["criteria=wanda,snip"]),
        ("criteria=snip,sn", []),
        ("recoveries=n", ["recoveries=none"]),
        ("training.st", ["training.steps="]),
        ("model.vision.pa", ["model.vision.patch="]),
        ("se", ["seed=", "seeds="]),
        ("criteri", ["criteria=", "criterion="]),
        ("experiment=dem", ["experiment=demo"]),
        ("experiment.tr", []),
        ("nothing=", []),
        ("nothing.", []),
        ("../=", []),
    ],
)
def test_a_half_typed_word_is_completed(incomplete, words):
    assert completions(incomplete, ROOT) == words


def test_every_key_that_is_offered_is_one_of_a_command():
    for word in completions("", ROOT):
        key = next(iter(read_tokens([f"{word}x"]).axes), word[:-1])
        trees = [compose(command) for command in ("train", "sweep")]
        known = {k for tree in trees for k in (*tree.components, *tree.values)}
        assert key in known | {"statistic", "experiment"}, word


def test_choices_and_keys_of_a_folder_of_one_s_own(tmp_path):
    (tmp_path / "criterion").mkdir()
    (tmp_path / "criterion" / "steady.yaml").write_text("_target_: mine.Steady\npower: 0.5\n")
    (tmp_path / "criterion" / "torn.yaml").write_text("power: [")
    own = ConfigRoot(tmp_path)
    assert completions("criterion=st", own) == ["criterion=stability", "criterion=steady"]
    assert completions("criterion.pow", own) == ["criterion.power="]


def test_nothing_slow_is_imported():
    code = (
        "import sys; from swe_cli.config import ConfigRoot, completions;"
        "assert completions('criteria=sw', ConfigRoot());"
        "print([m for m in ('torch', 'hydra', 'omegaconf', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
