"""swe doctor: what this machine offers and where things live."""

import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from platformdirs import user_cache_dir
from rich.table import Table
from rich.text import Text

from swe_cli.commands.shared import output, read_words
from swe_cli.compose import compose, shipped_conf
from swe_cli.sweeps.build import results_root

PACKAGES = ("swe-cli", "torch", "numpy", "hydra-core", "safetensors", "pandas")
_MULTIMODAL = "pip install 'swe-cli[multimodal]'"
OPTIONAL = {
    "tokenizers": "tokenizer=bpe: pip install 'swe-cli[bpe]'",
    "pillow": f"data=image_folder: {_MULTIMODAL}",
    "easy-vqa": f"data=easy_vqa: {_MULTIMODAL}",
    "tensorly": "transform=trawl_cp: pip install 'swe-cli[trawl]'",
    "scikit-learn": f"data=digit_sums: {_MULTIMODAL}",
}


def doctor(words: Sequence[str], config_dir: Path | None) -> None:
    """Print versions, device, threads, folders, and what is optional and missing."""
    tokens = read_words("doctor", words, runs=0)
    results = results_root(compose("doctor", tokens.overrides).values["results_dir"])
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    lines = {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{package: _version(package) or "missing" for package in PACKAGES},
        "device": _device(),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "configuration": str(shipped_conf()),
        "results": f"{results.resolve()} ({_writable(results)})",
        "data": os.environ.get("SWE_DATA_DIR") or "no SWE_DATA_DIR set (not needed)",
        "cache": os.environ.get("SWE_CACHE_DIR") or user_cache_dir("swe"),
        **{name: _version(name) or f"missing; for {use}" for name, use in OPTIONAL.items()},
    }
    for label, value in lines.items():
        grid.add_row(Text(label, "dim"), Text(value))
    output().print(grid)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"cuda: {', '.join(names)}"
    return "cpu (no CUDA device found)"


def _writable(results: Path) -> str:
    """Whether a run could be written, and how much room there is."""
    place = results.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        return "not a folder"
    if not os.access(place, os.W_OK):
        return "read-only"
    return f"{shutil.disk_usage(place).free / 2**30:.0f} GiB free"
