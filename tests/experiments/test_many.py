"""Sweeps of many cells: what is common is worked out once, and each file is read once."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from swe_cli.controls import PRUNED
from swe_cli.experiments import cell as cells_module
from swe_cli.experiments import sweep as sweep_module
from swe_cli.experiments.cell import FILES, WINDOWS
from swe_cli.experiments.jobs import jobs_of
from swe_cli.experiments.sweep import SweepPlan
from swe_cli.files import canonical, sha256
from swe_cli.store import provenance
from tests.conftest import TINY
from tests.reporting.toys import controls, pruned, summed
from tests.training.toys import sweep_of, swept, write_text

# Of ten thousand cells, at most: CPU time in that of importing what swe report needs (about two
# seconds of an idle core), and MiB. What is wanted of each is three seconds and 500 MiB, which not
# all have (docs/LOG.md). What is said again is made anew in a checkout that is not clean.
LIMITS = {"runs": (1.5, 500), "plan": (5.5, 600), "resume": (12.0, 1000), "report": (10.5, 1000)}
SAID_AGAIN = {"resume": (4.5, 600), "again": (2.0, 500)}
MAIN = "import sys; sys.argv[0] = 'swe'; from swe_cli.app import main; main()"


def make_up(whole: SweepPlan, of: SweepPlan) -> None:
    """Every cell of a sweep as if it were done, from the rows of a few that are."""
    few = {(cell.kind, cell.spec.criterion and cell.spec.criterion.name): cell for cell in of.cells}
    for cell in (cell for cell in whole.cells if not cell.folder.exists()):
        like = few[cell.kind, cell.spec.criterion and cell.spec.criterion.name]
        shutil.copytree(like.folder, cell.folder)
        shift = 0.1 * (cell.spec.ratio or 0)
        told = like.row()
        moved = {
            name: of._replace(mean=of.mean + shift) if name == "loss" else of
            for name, of in told.metrics.items()
        }
        row = cell.new_row(metrics=moved, fingerprint=told.fingerprint)
        (cell.folder / "row.json").write_text(json.dumps(row.to_json()))
        (cell.folder / "cell.json").write_text(canonical(cell.config))
        known = {WINDOWS: sha256(cell.folder / WINDOWS)}
        (cell.folder / FILES).write_text(json.dumps(known))


def test_what_many_cells_share_is_worked_out_once(tmp_path, monkeypatch):
    """Counts, not seconds, of 300 cells by three criteria and the controls of them all."""
    text, calls = write_text(tmp_path), Counter[str]()

    def counted(module, name):
        real = getattr(module, name)

        def function(*args, **options):
            calls[name] += 1
            return real(*args, **options)

        monkeypatch.setattr(module, name, function)

    counted(sweep_module, "compose_point")
    counted(sweep_module, "training_spec")
    counted(cells_module, "identity")
    words = ("criteria=swe,magnitude,random", "recovery=none")
    plan = sweep_of(text, tmp_path, "ratios=0.005..0.5..0.005", *words)
    cuts = [cell for cell in plan.cells if cell.kind == PRUNED]
    assert len(cuts) == 300
    assert calls["compose_point"] == 1 + 3  # in common, and by criterion
    assert calls["training_spec"] == 1
    controls = len(plan.cells) - len(cuts)
    assert calls["identity"] <= len(plan.cells) + controls  # those of controls once more
    assert len({id(cell.spec.criterion) for cell in cuts}) == 3
    assert len({id(cell.reads["dense"]) for cell in cuts}) == 1

    few = sweep_of(text, tmp_path, "ratios=0.3", *words)
    swept(few)
    make_up(plan, few)
    read = Counter[Path]()
    real = cells_module.read_json

    def counting(path, *needed):
        read[path] += 1
        return real(path, *needed)

    monkeypatch.setattr(cells_module, "read_json", counting)
    cells_module._row_in.cache_clear()
    assert not any(job.cells for job in jobs_of(plan))
    assert swept(plan).reused == len(plan.cells)
    assert {path.name for path in read} == {"row.json"}
    assert len(read) == len(plan.cells)
    assert set(read.values()) == {1}


def test_a_row_that_changed_is_read_again(tmp_path):
    text = write_text(tmp_path)
    plan = sweep_of(text, tmp_path, "ratios=0.3", "criteria=swe", "recovery=none")
    swept(plan)
    cell = plan.cells[-1]
    before = cell.row()
    stored = json.loads((cell.folder / "row.json").read_text())
    (cell.folder / "row.json").write_text(json.dumps({**stored, "loss_nats": 123.0}))
    os.utime(cell.folder / "row.json", ns=(0, 0))
    assert cell.row().mean("loss") == 123.0 != before.mean("loss")


COST = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def cost_of(*words: object) -> tuple[float, float]:
    """CPU seconds and peak MiB of a command, started by a small process: what a process weighs
    when it forks counts for its child, too.
    """
    command = [sys.executable, "-c", MAIN if words else "import swe_cli.commands.report"]
    measured = subprocess.run(
        [sys.executable, "-c", COST, *command, *map(str, words)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    code, seconds, memory = json.loads(measured.stdout)
    assert code == 0, words
    return seconds, memory


@pytest.mark.slow
def test_ten_thousand_cells(tmp_path):
    """In units of an import, since a busy machine is slower at both."""
    results, common = tmp_path / "results", (*TINY, "model=gpt_nano", "launcher.workers=1")
    from swe_cli.config import ConfigRoot, read_tokens
    from swe_cli.experiments.sweep import plan_sweep

    names = "swe,magnitude,random,wanda,sparsegpt,fisher,obd,ria,swe_obd,obd_sqrt"

    def planned(ratios: str) -> SweepPlan:
        words = [f"ratios={ratios}", f"criteria={names}", *common]
        return plan_sweep(read_tokens(words), ConfigRoot(), results)

    few = planned("0.3")
    assert not swept(few).failed
    whole = planned("0.001..0.999..0.001")
    assert len(whole.cells) > 9990
    make_up(whole, few)
    words = (f"criteria={names}", *common, f"results_dir={results}", "-q")
    sweep = ("sweep", "ratios=0.001..0.999..0.001", *words)
    cost_of(*sweep)
    unit, _ = cost_of()
    at = f"results_dir={results}"
    typed = {"plan": (*sweep, "--plan"), "resume": sweep, "runs": ("runs", at)}
    typed["report"] = typed["again"] = ("report", "-q", at)
    seconds, memory = {}, {}
    for name, command in typed.items():
        seconds[name], memory[name] = cost_of(*command)
    told = {name: (round(of, 1), round(memory[name])) for name, of in seconds.items()}
    clean = not str(provenance()["commit"]).endswith("-dirty")
    for name, (units, most) in (LIMITS | SAID_AGAIN if clean else LIMITS).items():
        assert seconds[name] <= units * unit, (told, unit)
        assert memory[name] <= most, told


def test_a_figure_draws_a_hundred_amounts_of_a_line():
    rows = [pruned(n / 1000, 2.1) for n in range(1, 400)]
    whole = summed([*controls(), *rows])
    thin = whole.thinned()
    ratios = [point["ratio"] for point in thin.cuts]
    assert (len(ratios), ratios[0], ratios[-1]) == (100, 0.001, 0.399)
    assert "299 amounts of 399 not drawn." in thin.caveats
    assert not any("not drawn" in words for words in whole.caveats)
    assert thin.thinned() is thin
    assert len(thin.controls) == len(whole.controls)
