"""What others take: Markdown, LaTeX and HTML of the means, JSON and nothing else."""

import json
import shutil
import subprocess
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from reporting.toys import curve
from swe_cli.report.formats import formatted
from swe_cli.report.quantities import sign
from swe_cli.report.summary import means, summarise
from swe_cli.report.tables import frame, markdown, split_by_protocol

RESULTS = Path(__file__).parents[2] / "results"


def summaries_of(path):
    return [summarise(group) for group in split_by_protocol(pd.read_csv(RESULTS / path))]


@pytest.fixture(scope="module")
def seeds():
    return summaries_of("demo_seeds/table.csv")


def cells(line):
    return [cell.strip(" \\") for cell in line.split("&")]


def test_latex_has_a_line_for_every_line_and_its_means(seeds):
    (summary,) = seeds
    tex = formatted(seeds, "latex")
    assert tex.count("\\toprule") == tex.count("\\bottomrule") == tex.count("\\begin{tabular}")
    lost, paired, *_ = tex.split("\n\n")
    head = cells(lost.splitlines()[4])
    rows = {cells(line)[0]: cells(line) for line in lost.splitlines() if "&" in line}
    assert head[:3] == ["", "0", "0.1"]
    assert {*rows} - {""} == {p["label"] for p in (*summary.controls, *summary.cuts)}
    point = next(p for p in summary.cuts if p["criterion"] == "swe" and p["ratio"] == 0.5)
    half = (point["loss_high"] - point["loss_low"]) / 2
    expected = f"{point['loss_nats']:.3f} $\\pm$ {half:.3f}"
    assert rows[point["label"]][head.index("0.5")] == expected
    assert "less dense's (paired), ± half of the 95% t interval over seeds" in paired
    rows = {cells(line)[0]: cells(line) for line in paired.splitlines() if "&" in line}
    half = (point["delta_high"] - point["delta_low"]) / 2
    mark = " $\\downarrow$" * (sign(point, "delta_nats") < 0)
    expected = f"{point['delta_nats']:+.3f} $\\pm$ {half:.3f}{mark}".replace("-", "$-$")
    assert rows[point["label"]][head.index("0.5")] == expected
    assert "this training only" not in tex


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_latex_compiles(tmp_path):
    text = formatted(summaries_of("multimodal_demo/table.csv"), "latex")
    body = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{text}"
    (tmp_path / "t.tex").write_text(f"{body}\\end{{document}}")
    subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)


def test_what_latex_and_html_would_take_for_their_own_is_escaped():
    rows = frame(curve(axes={"x_y": "<a&b> 5%"}) + curve(axes={"x_y": "plain"}))
    summary = [summarise(rows)]
    assert "x\\_y \\textless a\\&b" in formatted(summary, "latex").replace("<", "\\textless ")
    assert "<a&b>" not in formatted(summary, "html")
    assert "&lt;a&amp;b&gt; 5%" in formatted(summary, "html")


def test_html_and_markdown_hold_the_same_cells_and_csv_all_columns(seeds):
    html, text = formatted(seeds, "html"), formatted(seeds, "md")
    tables = [
        [line for line in part.splitlines() if line[:1] == "|"] for part in text.split("\n\n")
    ]
    rows = [line for table in tables for line in table[2:]]
    lines = [line.strip("| ").split(" | ")[1:] for line in rows]
    shown = [cell for line in lines for cell in line]
    assert [cell.partition("<")[0] for cell in html.split("<td>")[1:]] == shown
    assert len(shown) > 50
    read = pd.read_csv(StringIO(formatted(seeds, "csv")))
    assert list(read.columns) == list(means(seeds).columns)


def test_every_committed_table_can_be_given_so():
    for path in ("criteria_llava.csv", "multimodal_demo/table.csv", "smollm2_finetune.csv"):
        summaries = summaries_of(path)
        for form in ("md", "latex", "html"):
            assert "±" in formatted(summaries, form).replace("$\\pm$", "±"), path
        accuracy = formatted(summaries, "md").partition("accuracy (% of questions)")[2]
        assert bool(accuracy) is ("llava" in path or "multimodal" in path)


def test_markdown_prints_no_empty_column_and_differences_at_three_digits():
    text = markdown(pd.read_csv(RESULTS / "demo" / "table.csv"))
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    table = pd.DataFrame(lines[2:], columns=lines[0])
    assert not (table == "").all().any()
    assert table["delta"].str.fullmatch(r"[+-]\d+\.\d{3} \[[+-]\d+\.\d{3}, [+-]\d+\.\d{3}\]").all()
    assert table["loss"].str.match(r"\d\.\d{4} ").all()


@pytest.mark.parametrize(
    "words",
    [
        ["train"],
        ["prune", "--ratio", "0.5", "recovery.steps=2"],
        ["evaluate"],
        ["report"],
        ["compare", "{name}", "{pruned}"],
        ["runs"],
        ["doctor"],
        ["columns"],
    ],
    ids=lambda words: words[0],
)
def test_json_is_one_value_and_nothing_else(swe, own_run, tiny_words, words):
    typed = [word.format(name=own_run.name, pruned=own_run.pruned) for word in words]
    typed += tiny_words if words[0] == "train" else ()
    done = swe(*typed, "--json")
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    told = json.dumps(value)
    assert ("nats" in told) is (words[0] not in ("runs", "doctor"))
    if words[0] in ("train", "prune", "evaluate", "runs", "compare"):
        assert own_run.name.partition("-")[2] in told


def test_json_of_a_sweep_with_a_failed_cell_is_whole(swe, tiny_words):
    words = ["criteria=magnitude", "ratio=0.5", "recovery.steps=2", "recovery.learning_rate=1e30"]
    done = swe("sweep", *tiny_words, *words, "--json", "-q")
    value = json.loads(done.stdout)
    assert value["failed"] == sum(row["status"] == "failed" for row in value["rows"])
    assert {row["kind"] for row in value["rows"]} >= {"dense", "pruned"}


def test_the_report_in_another_format_is_all_that_is_printed(swe, own_run):
    shown = swe("report", "--format", "csv")
    assert len(pd.read_csv(StringIO(shown.stdout))) > 1
    assert swe("report", "--format", "latex").stdout.startswith("% loss (nats per token)")
    assert json.loads(swe("report", "--format", "json").stdout)
    assert swe("report", "--format", "word").exit_code == 2


def test_the_configuration_is_yaml_whatever_else_is_asked(swe):
    assert swe("train", "--cfg", "--json").stdout == swe("train", "--cfg").stdout
