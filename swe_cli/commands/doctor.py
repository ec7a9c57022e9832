"""swe doctor: what this machine offers and where things live."""

import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from platformdirs import user_cache_dir

from swe_cli.commands.shared import page
from swe_cli.config import shipped_conf
from swe_cli.report.console import print_pairs

PACKAGES = ("swe-cli", "torch", "numpy", "hydra-core", "safetensors", "pandas")
# Package → the extra that brings it, and what needs it.
OPTIONAL = {
    "tokenizers": ("bpe", "tokenizer=bpe"),
    "pillow": ("multimodal", "data=image_folder"),
    "easy-vqa": ("multimodal", "data=easy_vqa"),
    "tensorly": ("trawl", "transform=trawl_cp"),
    "scikit-learn": ("multimodal", "data=digit_sums"),
}


def doctor(words: Sequence[str], config_dir: Path | None) -> None:
    """Print versions, device, threads, folders, and what is optional and missing."""
    this = page("doctor", words)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines = {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{package: _version(package, "missing") for package in PACKAGES},
        "device": f"cuda: {', '.join(gpus)}" if gpus else "cpu (no CUDA device found)",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "configuration": str(shipped_conf()),
        "results": f"{this.results.resolve()} ({_room(this.results)})",
        "data": os.environ.get("SWE_DATA_DIR") or "no SWE_DATA_DIR set (not needed)",
        "cache": os.environ.get("SWE_CACHE_DIR") or user_cache_dir("swe"),
    }
    for name, (extra, use) in OPTIONAL.items():
        lines[name] = _version(name, f"missing; for {use}: pip install 'swe-cli[{extra}]'")
    print_pairs(this.console, list(lines.items()))


def _version(package: str, otherwise: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return otherwise


def _room(results: Path) -> str:
    """Whether a run could be written, and how much room there is."""
    place = next(path for path in (results.resolve(), *results.resolve().parents) if path.exists())
    if not place.is_dir():
        return "not a folder"
    if not os.access(place, os.W_OK):
        return "read-only"
    return f"{shutil.disk_usage(place).free / 2**30:.0f} GiB free"
