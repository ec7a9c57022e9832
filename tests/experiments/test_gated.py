"""Cells of DSMoE: what their rows tell, and what recovery does to their routers."""

from training.toys import opened, sweep_of, swept, trained

from swe_cli.experiments.cell import execute
from swe_cli.records import YOUNGER
from swe_cli.report.tables import frame

COMMON = ("training.steps=6", "transform=dsmoe", "transform.experts=4", "transform.samples=8")
COLUMNS = ["active_blocks", "activated_parameters", "activated_flops_per_token"]


def test_what_is_activated_stands_at_the_end_of_the_table(text, results):
    routers = "transform.router=published,predicted,soft"
    rows = swept(sweep_of(text, results, *COMMON, routers, "recovery.steps=2")).rows
    table = frame(rows)
    assert list(table.columns)[-3:] == COLUMNS == list(YOUNGER)[-3:]
    cuts = table[table["kind"] == "pruned"].set_index("transform.router")
    assert (cuts["sparsity"] == 0).all()
    assert (cuts["compression"] < 0).all()  # by the router
    assert "rank" not in table
    soft = cuts.loc["soft"]
    assert soft["active_blocks"] == 1
    assert soft["activated_parameters"] == soft["parameters"]
    for name in ("published", "predicted"):
        share, idle = cuts.loc[name, "active_blocks"], 2 * 16 * 64
        assert 0 < share < 1
        spared = cuts.loc[name, "parameters"] - cuts.loc[name, "activated_parameters"]
        assert abs(spared - (1 - share) * idle) < 1e-6
        spared = cuts.loc[name, "flops_per_token"] - cuts.loc[name, "activated_flops_per_token"]
        assert abs(spared - (1 - share) * 2 * idle) < 1e-6
    controls = table[table["kind"] != "pruned"]
    assert controls[COLUMNS].isna().all(axis=None)


def test_recovery_holds_predicted_routers_to_their_target(text, results):
    """Within 0.05 on a text of a few words; docs/LOG.md has what a real one gives."""
    words = ("transform.router=predicted", "recovery.steps=60", "recovery.learning_rate=3e-3")
    plan = sweep_of(text, results, *COMMON, *words, "transform.target=0.5,0.75")
    model = opened(trained(plan.trainings[0], results))
    for cell in plan.cells:
        if cell.kind == "pruned":
            target = cell.spec.transform.options["target"]
            found = execute(cell.spec, model).metrics["active_blocks"].mean
            assert abs(found - target) <= 0.05


def test_a_published_router_is_paid_to_close(text, results):
    plan = sweep_of(text, results, *COMMON, "recovery.steps=40", "recovery.learning_rate=3e-3")
    model = opened(trained(plan.trainings[0], results))
    (cell,) = (cell for cell in plan.cells if cell.kind == "pruned")
    assert execute(cell.spec, model).metrics["active_blocks"].mean < 0.25
