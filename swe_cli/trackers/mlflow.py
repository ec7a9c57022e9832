"""MLflow: a server, or a store of its own."""

import time
from pathlib import Path

import pandas as pd

from swe_cli.contracts import Plain, Points, Tracker
from swe_cli.errors import optional

MOST = 1000  # metrics that MLflow takes at once


class MLflow(Tracker):
    """A run of the same name in an experiment, at ``tracking_uri`` or where MLflow is set to."""

    def __init__(self, *, experiment: str, tracking_uri: str | None) -> None:
        self.experiment, self.uri = experiment, tracking_uri

    def start(self, name: str, folder: Path, config: Plain, step: int) -> None:
        self.mlflow = mlflow = optional("mlflow", "tracker=mlflow", "mlflow")
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment(self.experiment)
        named = {"filter_string": f"attributes.run_name = '{name}'", "max_results": 1}
        found = [run.info.run_id for run in mlflow.search_runs(output_format="list", **named)]
        self.run = mlflow.start_run(*found, run_name=name).info.run_id
        if not found:
            mlflow.log_params(pd.json_normalize(dict(config)).astype(str).iloc[0].to_dict())

    def log(self, points: Points) -> None:
        now, metric = int(time.time() * 1000), self.mlflow.entities.Metric
        one_by_one = [metric(*of, now, step) for step, found in points for of in found.items()]
        for start in range(0, len(one_by_one), MOST):
            self.mlflow.MlflowClient().log_batch(self.run, one_by_one[start : start + MOST])

    def table(self, path: Path) -> None:
        self.mlflow.log_artifact(path)

    def finish(self) -> None:
        self.mlflow.end_run()
