"""A wheel works outside the checkout: the configuration ships inside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = [
    "model.layers=1",
    "model.heads=2",
    "model.width=16",
    "model.context=16",
    "training.steps=2",
    "training.batch_size=2",
    "data.train_characters=2000",
    "data.validation_characters=200",
    "data.test_characters=300",
]


def test_an_installed_wheel_trains(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    code = (
        "import swe_cli.app, swe_cli.config as c, pathlib, sys;"
        f"assert c.shipped_conf() == pathlib.Path({str(installed)!r}) / 'swe_cli/conf';"
        "swe_cli.app.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "SWE_RESULTS_DIR": "runs here"}
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *TINY],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs here/runs").is_dir()
    assert done.stdout.startswith("train-gpt_nano-")
