"""Tasks of EleutherAI's lm-evaluation-harness, on the live network of a model of transformers."""

import logging
from contextlib import chdir
from pathlib import Path
from typing import Any

from swe_cli.errors import DataError, optional
from swe_cli.files import sha256
from swe_cli.models.huggingface import library


def run_task(model: Any, file: Path, size: int) -> dict[str, Any]:
    """What EleutherAI's lm-evaluation-harness finds by a YAML: "rows" of task, metric, mean,
    standard error, items; and the hashes of the "files" beside it that it names, and its own.
    """
    parts = ("models.huggingface", "evaluator", "tasks")
    models, evaluator, tasks = (optional(f"lm_eval.{p}", "--tasks", "lm-eval") for p in parts)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tokenizer = library().AutoTokenizer.from_pretrained(model.folder, local_files_only=True)
    try:
        path = file.expanduser().resolve()
        said = path.name + path.read_text(encoding="utf-8")
        with chdir(path.parent):
            files = {f.name: sha256(f) for f in Path().glob("*.*") if f.name in said}
            harness = models.HFLM(model.network, tokenizer=tokenizer, batch_size=size)
            local = tasks.TaskManager(include_defaults=False)
            found = evaluator.simple_evaluate(harness, tasks=[str(path)], task_manager=local)
    except Exception as error:  # of many kinds, in words of their own
        raise DataError(f"lm-eval cannot run {file}: {' '.join(str(error).split())}") from error
    items = {task: counted["effective"] for task, counted in found["n-samples"].items()}
    rows = [
        [t, k.removesuffix(",none"), of[k], of.get(k.replace(",", "_stderr,")), items.get(t)]
        for t, said in found["results"].items()
        for of in [{key: value for key, value in said.items() if isinstance(value, float)}]
        for k in of
        if "," in k and "_stderr," not in k
    ]
    return {"rows": rows, "files": files, "lm_eval": found["lm_eval_version"]}
