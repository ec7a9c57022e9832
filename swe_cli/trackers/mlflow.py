"""MLflow: a server, or its own store of files."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_cli.config.root import dotted
from swe_cli.contracts import Tracker
from swe_cli.errors import optional

MOST = 1000  # metrics that MLflow takes at once


class MLflow(Tracker):
    """A run of the same name in an experiment, at ``tracking_uri`` or where MLflow is set to."""

    def __init__(self, *, experiment: str, tracking_uri: str | None) -> None:
        self.experiment, self.uri = experiment, tracking_uri

    def start(self, name: str, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self.mlflow = optional("mlflow", "tracker=mlflow", "mlflow")
        self.client = self.mlflow.MlflowClient(self.uri)
        known = self.client.get_experiment_by_name(self.experiment)
        where = known.experiment_id if known else self.client.create_experiment(self.experiment)
        found = self.client.search_runs([where], f"attributes.run_name = '{name}'", max_results=1)
        run = found[0] if found else self.client.create_run(where, run_name=name)
        self.run = run.info.run_id
        for key, value in dotted(config) if not found else ():
            if not isinstance(value, Mapping):
                self.client.log_param(self.run, key, str(value)[:MOST])

    def log(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        now, metric = int(time.time() * 1000), self.mlflow.entities.Metric
        one_by_one = [metric(*of, now, step) for step, found in points for of in found.items()]
        for start in range(0, len(one_by_one), MOST):
            self.client.log_batch(self.run, one_by_one[start : start + MOST])

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        self.client.log_dict(self.run, columns, "table.json")

    def finish(self) -> None:
        self.client.set_terminated(self.run)
