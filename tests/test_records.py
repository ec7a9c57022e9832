"""Rows: flat columns, and what a younger setting or metric does to them."""

from swe_cli.records import COLUMNS, Interval, Row
from swe_cli.report.tables import axes_of, frame

ROW = Row(
    kind="pruned",
    model="m",
    data="d",
    seed=0,
    config_hash="c",
    fingerprint="f",
    training="t",
    settings={"criterion": "swe", "ratio": 0.5, "roles": "vision", "fuse": 0.75},
    metrics={
        "loss": Interval(2.0, 1.9, 2.1),
        "perplexity": Interval(7.4),
        "mae": Interval(1.0, 0, 2),
    },
    axes={"tracking.every": 10},
)


def test_a_row_is_read_back_from_its_json():
    stored = ROW.to_json()
    assert Row.from_json(stored) == ROW
    assert stored["loss_nats"] == 2.0
    assert stored["loss_low"] == 1.9
    assert stored["measures"] == {"mae": 1.0, "mae_low": 0, "mae_high": 2}
    assert stored["schedule"] is None
    assert "settings" not in stored
    assert Row.from_json({**stored, "of another version": 1}) == ROW


def test_columns_are_those_of_every_table_and_what_was_measured():
    columns = ROW.columns()
    assert list(columns)[: len(COLUMNS)] == list(COLUMNS)
    assert columns["error"] is None
    assert columns["mae_high"] == 2
    assert "tracking.every" not in columns


def test_a_younger_setting_stands_where_axes_do_and_widens_no_schema():
    row = Row.from_json({**ROW.to_json(), "settings": {"update": "masked"}})
    assert row.settings["update"] == "masked"
    assert Row.from_json(row.to_json()) == row
    assert row.columns() == ROW.columns()
    table = frame([row, ROW])
    assert axes_of(table) == ["tracking.every", "update"]
    assert table["update"].isna().tolist() == [True, False]
    assert table["update"].dropna().tolist() == ["masked"]
