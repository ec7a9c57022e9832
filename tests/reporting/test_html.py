"""The page of toy rows, and what a browser makes of it: pytest -m browser, with the extra of that
name and Chromium."""

import json
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import vl_convert

from swe_cli.records import Interval
from swe_cli.report.html import Report, html, trainings
from swe_cli.report.panels import PANELS
from swe_cli.report.summary import summarise
from swe_cli.report.tables import frame, split_by_protocol
from tests.reporting.toys import CURVE, asked, asked_controls, changed, controls, curve, pruned

HOSTILE = "<script>alert(1)</script>"
GPT = Path(__file__).parents[2] / "results" / "criteria_gpt.csv"
SECTIONS = ["conclusion", "declared", "loss", "cost", "layers", "hurt", "lives", "training", "rows"]


BUNDLE = cache(vl_convert.javascript_bundle)  # a second of each page


@pytest.fixture(autouse=True)
def _one_bundle(monkeypatch) -> None:
    monkeypatch.setattr(vl_convert, "javascript_bundle", BUNDLE)


def report_of(table: pd.DataFrame, **parts) -> Report:
    summaries = [summarise(group) for group in split_by_protocol(table)]
    parts = {"title": "toy", "command": "swe sweep toy", "summaries": summaries} | parts
    return Report(**{"table": table, **parts})


def toy(**parts) -> Report:
    rows = [*controls(), *curve(), *curve("magnitude", shift=0.1), *curve("wanda", shift=-0.1)]
    table = frame(rows)
    # From the second ratio on, SWE is the dearer, and worse than Wanda at every one.
    table["bytes"] = 100 * (1 - table["sparsity"].fillna(0)) + (table["criterion"] == "swe").astype(
        float
    )
    return report_of(table, **parts)


def whole(name: str = "toy") -> Report:
    """Every section has something, and every name is ``name``."""
    cuts = [(ratio, tensor) for ratio in (0.5, 0.8) for tensor in (name, "b")]
    layers = [{"line": name, "ratio": r, "tensor": t, "sparsity": r} for r, t in cuts]
    slices = ((name, 0.2, 0.01), ("capitals", 0.01, 0.6))
    hurt = [
        {"line": name, "cut": "80%", "slice": s, "difference_nats": d, "p_holm": p, "tokens": 9}
        for s, d, p in slices
    ]
    lives = [
        {"step": step, "value": step / 10, "weight": weight, "group": name}
        for step in range(1, 200)
        for weight in range(50)
    ]
    steps = np.arange(1, 1001)
    training = pd.DataFrame({"run": name, "step": steps, "loss_nats": 3 / steps})
    training["validation_loss_nats"] = training["loss_nats"].where(steps % 100 == 0)
    table = pd.DataFrame([{"against": name, "ratio": 0.5, "difference_nats": -0.05}])
    return toy(
        title=name,
        sentences=[name],
        declared=(name, table),
        layers=pd.DataFrame(layers),
        hurt=pd.DataFrame(hurt).assign(low=-0.1, high=0.3),
        hurt_sentences=[name],
        lives=pd.DataFrame(lives),
        training=training.assign(tracked=steps % 7 == 0),
    )


def drawn(page: str) -> dict[str, dict]:
    """Of each chart the names of its panels, what is left out, and all rows that these draw."""
    (text,) = re.findall(r'id="drawn">(.*?)</script>', page)
    found = json.loads(text)
    for one in found.values():
        tables = [
            {
                key: [of[at] if at >= 0 else None for at in codes]
                for key, (codes, of) in columns.items()
            }
            for columns in one["datasets"].values()
        ]
        one["rows"] = pd.concat(map(pd.DataFrame, tables), ignore_index=True)
    return found


def missing(page: str) -> dict[str, list[str]]:
    """Of each section, in order, what it says of parts that are not there."""
    parts = re.split(r'<section id="(\w+)">', page)[1:]
    said = (re.findall(r'<p class="missing">(.*?)</p>', text) for text in parts[1::2])
    return dict(zip(parts[::2], said, strict=True))


def test_every_section_is_there_in_order_and_every_row_has_its_source() -> None:
    report = whole()
    page = html(report)
    assert list(missing(page)) == SECTIONS
    assert [name for name, said in missing(page).items() if said] == ["loss", "cost"]
    assert "no calibrated loss is known" in missing(page)["loss"][0]
    for cell in report.table["config_hash"]:
        assert f"<td>{cell}" in page
    assert "fingerprint f1" in page
    assert page.count("swe sweep toy") == 2  # the page's source, and the rows'
    assert "<td>−0.05" in page  # a true minus


def test_what_is_missing_is_said_where_it_would_stand_with_a_command() -> None:
    page = html(Report(title="nothing", command="swe report"))
    assert list(missing(page)) == SECTIONS
    assert all(len(said) == 1 and "<code>swe " in said[0] for said in missing(page).values())
    assert "data-chart" not in page.split("<script")[0]


def test_one_row_without_controls_is_a_page() -> None:
    page = html(report_of(frame([pruned(0.5, 2.0, delta_nats=None, delta_low=None)])))
    assert "No cut has a finite difference" in page
    assert "<td>swe-0.5-0" in page


def test_failed_rows_are_counted_and_shown() -> None:
    lost = pruned(0.7, 2.0, status="failed", error="no memory", loss_nats=None)
    page = html(report_of(frame([*controls(), *curve(), lost])))
    assert "1 of 10 rows failed" in page
    assert "<td>no memory" in page


def test_a_panel_is_a_criterion_as_in_the_figure_with_its_rules_explained() -> None:
    page = html(toy())
    loss = drawn(page)["loss"]
    assert loss["names"] == ["wanda", "swe", "magnitude"]
    assert loss["left"] == []
    cuts = loss["rows"].dropna(subset=["stage"]).drop_duplicates()
    assert set(cuts.groupby(["label", "stage"]).size()) == {len(CURVE)}
    assert cuts["label"].nunique() == len(loss["names"])
    for control in ("dense", "dense recovered −0.020", "dense averaged −0.260"):
        assert f"</svg> {control}</li>" in page
    assert "dashed: before recovery; grey: other criteria" in page


def test_at_most_twelve_criteria_are_drawn_and_the_others_named() -> None:
    names = [f"c{place}" for place in range(PANELS + 2)]
    rows = [row for place, name in enumerate(names) for row in curve(name, shift=place)]
    page = html(report_of(frame([*controls(), *rows])))
    assert drawn(page)["loss"]["names"] == names[:PANELS]
    assert f"In the table only: {names[PANELS]}, {names[PANELS + 1]}." in page


def test_calibrated_losses_are_drawn_too() -> None:
    about = {"loss_calibrated": Interval(2.0), "delta_calibrated": Interval(-0.07)}
    rows = [replace(of, metrics={**of.metrics, **about}) for of in [*controls(), *curve()]]
    calibrated = drawn(html(report_of(frame(rows))))["calibrated"]
    assert calibrated["names"] == ["swe"]
    assert {of for of in calibrated["rows"]["value"] if of == of} == {-0.07}


def test_protocols_share_no_panel() -> None:
    other = [changed(row, data="other", fingerprint="f2") for row in [*controls(), *curve()]]
    loss = drawn(html(report_of(frame([*controls(), *curve(), *other]))))["loss"]
    assert loss["names"] == ["gpt_nano on kjv (f1): swe", "gpt_nano on other (f2): swe"]


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    page = html(toy())
    cost = drawn(page)["cost"]
    assert cost["names"] == ["bytes, as stored"]
    front = cost["rows"].query("front == True")
    ratios = [0.9, 0.8, 0.6]
    assert list(zip(front["label"], front["ratio"], strict=True)) == [("wanda", r) for r in ratios]
    (table,) = re.findall("<caption>On the front</caption>.*?</table>", page, re.DOTALL)
    assert re.findall(r"<td>wanda<td>([\d.]+)<td>", table) == [str(ratio) for ratio in ratios]
    assert "Not known of these rows: bytes, compressed; FLOPs per token; median lat" in page


def test_long_trainings_and_lives_are_thinned_but_keep_what_was_validated() -> None:
    found = drawn(html(whole()))
    (panel,) = found["training"]["names"]
    assert panel == "toy: 142 of 1000 steps tracked"
    rows = found["training"]["rows"]
    assert rows["validation_loss_nats"].notna().sum() == 10
    assert len(rows) < 400
    assert (rows.query("tracked == True")["step"] % 7 == 0).all()
    assert found["lives"]["rows"]["weight"].nunique() == 20
    assert found["lives"]["rows"]["step"].nunique() <= 60


def test_trainings_are_read_with_their_tracked_steps(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    lines = [json.dumps({"step": step, "loss_nats": 1.0}) for step in range(1, 11)]
    (tmp_path / "t" / "metrics.jsonl").write_text("\n".join(lines))
    manifest = {"tracker": {"start": 4, "every_steps": 3}, "status": "done", "files": {}}
    (tmp_path / "t" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "untrained").mkdir()
    (tmp_path / "untrained" / "manifest.json").write_text("{}")
    (tmp_path / "untrained" / "metrics.jsonl").touch()
    rows = trainings(tmp_path, ["t", "gone", "untrained"])
    assert rows is not None
    assert list(rows.query("tracked")["step"]) == [7, 10]
    assert set(rows["run"]) == {"t"}
    assert rows["validation_loss_nats"].isna().all()
    assert drawn(html(toy(training=rows)))["training"]["names"] == ["t: 2 of 10 steps tracked"]
    assert trainings(tmp_path, ["gone", "untrained"]) is None


def test_hostile_names_stay_text() -> None:
    page = html(whole(HOSTILE))
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10
    lost = changed(pruned(0.7, 2.0), status="failed", error=HOSTILE, criterion=HOSTILE)
    assert HOSTILE not in html(report_of(frame([*controls(), *curve(HOSTILE), lost])))


def test_accuracy_is_explained_where_it_is_shown() -> None:
    assert "Accuracy is in %" in html(report_of(frame([*asked_controls(), *asked({0.5: 0.8})])))
    assert "Accuracy is in %" not in html(toy())


def test_two_thousand_rows_are_less_than_two_megabytes() -> None:
    page = html(report_of(pd.read_csv(GPT)))
    assert len(page.encode()) < 2e6
    assert page.count("<tr>") > 2000


def test_a_report_writes_its_page_beside_the_tables(swe, own_run) -> None:
    shown = swe("report", own_run.name, "--html", "--output", "out")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.rstrip().endswith(str(Path("out") / "report.html"))
    page = (Path("out") / "report.html").read_text()
    assert f"swe report {own_run.name} --html</code>" in page
    assert f"{own_run.name}: " in str(drawn(page)["training"]["names"])
    swe("report", own_run.name, "--output", "plain")
    assert not (Path("plain") / "report.html").exists()
    tables = [(Path(name) / "table.csv").read_bytes() for name in ("out", "plain")]
    assert tables[0] == tables[1]


# In a browser


@pytest.fixture(scope="module")
def chromium():
    sync = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or pytest.skip("no chromium: apt-get install chromium")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, tmp_path):
    """Open a page in a scheme, at a width; gives it, and what it asked for or complained about."""
    contexts = []

    def open_page(text: str, scheme: str = "light", width: int = 1200):
        (tmp_path / "report.html").write_text(text)
        context = chromium.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 900}
        )
        contexts.append(context)
        page, said = context.new_page(), []
        page.on("request", lambda request: said.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-ready]")
        return page, said[1:]

    yield open_page
    for context in contexts:
        context.close()


# The lowest contrast of what is drawn, but grid lines and bands, against the page.
CONTRAST = """() => {
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true})
  const light = (colour) => {
    paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1)
    const parts = [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
  }
  const paper = light(getComputedStyle(document.body).backgroundColor)
  const marks = [...document.querySelectorAll(".role-mark path, .role-mark line")]
    .map((mark) => getComputedStyle(mark))
    .filter((style) => style.fillOpacity * style.opacity === 1)
    .flatMap((style) => [style.stroke, style.fill])
    .filter((colour) => !/none|rgba|transparent/.test(colour))
  return [marks.length, Math.min(...marks.map(light).map((mark) =>
    (Math.max(mark, paper) + 0.05) / (Math.min(mark, paper) + 0.05)))]
}"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_accessible_in_both_themes_and_asks_for_nothing(opened, scheme) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page, said = opened(html(whole()), scheme)
    assert said == []
    panels = drawn(page.content())
    assert page.locator("[data-chart] svg").count() == sum(
        len(one["names"]) for one in panels.values()
    )
    for details in page.locator("summary").all():
        details.click()
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    marks, lowest = page.evaluate(CONTRAST)
    assert marks > 20
    assert lowest >= 3
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (scheme == "dark")


@pytest.mark.browser
def test_a_narrow_page_does_not_overflow(opened) -> None:
    page, _ = opened(
        html(whole("a_name_of_a_run_that_is_so_long_that_it_fits_no_telephone" * 2)), width=400
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert all(box.bounding_box()["width"] <= 400 for box in page.locator("svg").all())


# What stands in a column, by its name, of the rows that are shown.
COLUMN = """(name) => {
  const table = document.getElementById("table"), heads = [...table.tHead.rows[0].cells]
  const place = heads.findIndex((head) => head.textContent === name)
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden)
  return rows.map((row) => row.cells[place].textContent.trim())
}"""


@pytest.mark.browser
def test_the_keyboard_sorts_filters_and_reaches_what_scrolls(opened) -> None:
    page, _ = opened(html(whole()))
    page.get_by_role("button", name="ratio").focus()
    page.keyboard.press("Enter")
    ratios = [float(text) for text in page.evaluate(COLUMN, "ratio") if text]
    assert ratios == sorted(float(ratio) for ratio in [*CURVE] * 3)
    page.keyboard.press("Enter")
    assert [float(text) for text in page.evaluate(COLUMN, "ratio") if text] == ratios[::-1]
    assert page.evaluate(COLUMN, "ratio")[-1] == ""  # what has none is last, both ways
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("ratio")
    page.get_by_role("searchbox").focus()
    page.keyboard.type("WANDA 0.9")
    assert page.evaluate(COLUMN, "ratio") == ["0.9"]
    assert page.get_by_role("status").inner_text() == "1 of 19 rows"
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.textContent + document.activeElement.ariaLabel")
        )
    for one in page.locator("button, .wide, nav a, summary").all():
        if one.is_visible():
            assert one.evaluate("(one) => one.textContent + one.ariaLabel") in reached


@pytest.mark.browser
def test_percentages_sort_as_numbers_and_a_minus_is_found_as_it_is_typed(opened) -> None:
    rows = [*asked_controls(), *asked({0.3: 0.8, 0.5: 0.095, 0.7: 0.5})]
    page, _ = opened(html(report_of(frame(rows))))
    page.get_by_role("button", name="accuracy", exact=True).click()
    means = [text.split("%")[0] for text in page.evaluate(COLUMN, "accuracy")]
    assert means == sorted(means, key=float)
    assert means[0] == "9.5"
    page.get_by_role("searchbox").fill("swe -80.5")
    assert page.evaluate(COLUMN, "ratio") == ["0.5"]
    assert page.evaluate(COLUMN, "accuracy against dense")[0].startswith("−80.5")


@pytest.mark.browser
def test_paper_is_white_and_holds_a_hundred_rows(opened) -> None:
    rows = [*controls(), *(row for name in range(40) for row in curve(f"c{name}"))]
    page, _ = opened(html(report_of(frame(rows))), "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = page.locator("#table tbody tr:visible").count()
    assert shown == 100
    assert not page.get_by_role("searchbox").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.browser
def test_a_hostile_name_does_nothing(opened) -> None:
    page, said = opened(html(whole(HOSTILE)))
    assert said == []
    assert page.locator("h1").inner_text() == HOSTILE
    assert HOSTILE in page.locator("figcaption").all_inner_texts()
    assert page.locator("main script").count() == 0


@pytest.mark.browser
def test_two_thousand_rows_open_in_two_seconds_of_work(opened) -> None:
    page, _ = opened("<html data-ready></html>")
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})
    file = Path(page.url.removeprefix("file://"))
    file.write_text(html(report_of(pd.read_csv(GPT))))
    page.reload()
    page.wait_for_selector("html[data-ready]")
    metrics = client.send("Performance.getMetrics")["metrics"]
    (seconds,) = [of["value"] for of in metrics if of["name"] == "TaskDuration"]
    assert 0.1 < seconds < 2
