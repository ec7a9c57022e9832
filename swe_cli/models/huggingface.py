"""Models of transformers, out of a folder of one's own: nothing in it is executed or unpickled.

Shapes: B windows, T positions, V vocabulary.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import (
    Count,
    DataShape,
    Model,
    Prediction,
    PrunableSet,
    UnitKind,
    Units,
)
from swe_cli.errors import ModelError, UsageError
from swe_cli.files import storage
from swe_cli.models.families import FAMILIES, SIGHTS, Names, image_size
from swe_cli.models.gpt import token_losses
from swe_cli.records import Batch, Tensors

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # of images
ROLES = ("vision", "projector", "language")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
BESIDE = (".json", ".txt", ".model", ".jinja")  # tokenizers and their like
EXPERTS = ("gate_up_proj", "down_proj")  # (experts, out, in)
CONVERT = (
    'If you trust it, type: python -c "from transformers import {1} as A; '
    "A.from_pretrained('{0}').save_pretrained('{0}-safe')\""
)


def library() -> Any:
    """The package transformers, which takes seconds to import. UsageError where it is missing."""
    try:
        transformers: Any = import_module("transformers")
    except ImportError:
        why = "model=huggingface needs the package transformers."
        raise UsageError(why, "Type: pip install 'swe-cli[huggingface]'") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


class HuggingFace(Model):
    """A causal language model of transformers, with the weights of a folder, in float32; or, where
    the data have images, one that looks: the image of a row stands before its text.

    ``path``: a folder as ``save_pretrained`` leaves it. ``context``: text positions of a window.
    Blocks are the members of every list of layers that gradient checkpointing knows, and the
    projector; what can be pruned of them are the matrices of linear layers, GPT-2's ``Conv1D``
    transposed: (out, in), and of experts each.

    Raises ModelError for a folder that holds no such model, or more than data could be of.
    """

    prefix = "network."

    def __init__(self, data: DataShape, *, path: str, context: Count) -> None:
        super().__init__()
        self.folder = Path(path).expanduser()
        self.network = _pretrained(self.folder, data)
        config = self.network.config.get_text_config()
        self.image_tokens, self.towers = 0, dict[str, str]()  # role → how its names begin
        if data.image:
            self._look(data.image)
        if data.vocabulary_size > config.vocab_size:
            raise ModelError(
                f"The tokenizer has {data.vocabulary_size:,} tokens; the model of {path} knows "
                f"{config.vocab_size:,}.",
                "Use its own: tokenizer=pretrained",
            )
        longest = getattr(config, "max_position_embeddings", None) or context + self.image_tokens
        if context > (room := longest - self.image_tokens):
            less = f", {self.image_tokens} of them an image's" if self.image_tokens else ""
            why = f"model.context={context} is longer than the {longest} positions of {path}{less}."
            raise ModelError(why, f"Write model.context={room}")
        self.context = context
        if not self.blocks():
            kind = type(self.network).__name__
            raise ModelError(f"{kind} has no list of blocks that swe knows, so it cannot be cut.")

    def _look(self, image: tuple[int, int, int]) -> None:
        """Find out which modules look, and how many tokens an image becomes."""
        self.sight = SIGHTS[self.network.config.model_type]
        self.mean, self.std = _of_pixels(self.folder)
        names = {module: f"{name}." for name, module in self.named_modules()}
        projector = self.network.base_model.get_submodule(self.sight.projector)
        vision = self.network.get_encoder(modality="image")
        self.towers = {"projector": names[projector], "vision": names[vision]}  # or one in the other
        with torch.no_grad():
            blank = self._laid(torch.zeros(1, *image, dtype=torch.uint8))
            (seen,) = self.network.get_image_features(**blank).pooler_output
        self.image_tokens = len(seen)

    @property
    def roles(self) -> Sequence[str]:  # type: ignore[override]
        """Of a model that is not built they are not known."""
        return ROLES if self.towers else ROLES[-1:]

    def role_of(self, name: str) -> str:
        return next((role for role, at in self.towers.items() if name.startswith(at)), ROLES[-1])

    def save(self, folder: Path, dtype: str | None = None) -> None:
        """Write it, as it is now, as a folder that ``from_pretrained`` opens, with all that the one
        it came from has beside weights. ``dtype``: by default that of the folder it came from.

        It is then of that ``dtype``. Raises ModelError where there is something in ``folder``.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ModelError(f"{folder} is there already.", "Name a new folder.")
        self._count_units()
        said = _config(self.folder)
        dtype = dtype or said.get("dtype") or said.get("torch_dtype") or "float32"
        with storage(folder):
            self.network.to(getattr(torch, dtype)).save_pretrained(folder)
            for file in self.folder.iterdir():
                beside = file.suffix in BESIDE and not file.name.endswith(".index.json")
                if beside and not (folder / file.name).exists():
                    shutil.copyfile(file, folder / file.name)

    def _count_units(self) -> None:
        """Have the config say how many neurons and heads are left. ModelError where it cannot."""
        config, names = self.network.config.get_text_config(), self._names()
        for kind, children in (("neuron", names.mlp), ("head", names.attention)):
            there = zip(self.units(kind), self._with(children).values(), strict=True)
            left = {len(units): module for units, module in there}
            if len(left) > 1:
                why = f"Its layers have {min(left)} to {max(left)} {kind}s; a config has one."
                raise ModelError(why, "Cut as many from each: allocation=uniform")
            for number, module in left.items():
                if kind == "neuron":
                    setattr(config, names.neurons, number)
                else:
                    config.head_dim, config.num_key_value_heads = module.head_dim, number
                    config.num_attention_heads = number * module.num_key_value_groups

    def _names(self) -> Names:
        return FAMILIES.get(self.network.config.get_text_config().model_type, Names())

    def units(self, kind: UnitKind | str) -> list[Units]:
        """Neurons of MLPs; heads as whole groups, those of one key and value. None of families of
        which ``families`` says nothing, and no blocks.
        """
        names, found = self._names(), list[Units]()
        for prefix, mlp in self._with(names.mlp).items() if kind == "neuron" else ():
            owned = _owned(mlp, prefix, names.writes, None, reads=False)
            ((_, columns),) = owned.values()
            for read in names.reads:  # of a fused matrix a neuron has several rows
                owned |= _owned(mlp, prefix, read, len(columns))
            found.append(_silent(prefix, owned, f"{prefix}.{names.writes}.weight"))
        for prefix, attention in self._with(names.attention).items() if kind == "head" else ():
            groups = len(attention.get_submodule(names.queries[1]).weight) // attention.head_dim
            owned = {}
            for of in names.attention:
                child = _owned(attention, prefix, of, None, reads=of != names.joins)
                owned |= {n: (at, index.view(groups, -1)) for n, (at, index) in child.items()}
            found.append(_silent(prefix, owned, f"{prefix}.{names.joins}.weight"))
        return found

    def _with(self, children: Sequence[str]) -> dict[str, Any]:
        """Modules inside blocks that have all of these children, by name."""
        names = {module: name for name, module in self.named_modules()}
        inside = (module for block in self.blocks() for module in block.modules())
        there = (m for m in inside if children and all(hasattr(m, child) for child in children))
        return {names[module]: module for module in there}

    def forward(self, batch: Batch) -> Prediction:
        given = self._shown(batch) if self.towers else {"input_ids": batch["tokens"]}
        logits = self.network(**given, use_cache=False).logits
        return Prediction(token_losses(logits, batch["targets"]), logits)

    def _shown(self, batch: Batch) -> dict[str, Any]:
        """The image of every row, and the tokens that stand for it before its text, (B, N + T)."""
        tokens, image = batch["tokens"], self.network.config.image_token_id
        ids = F.pad(tokens, (self.image_tokens, 0), value=image)
        given = self._laid(batch["images"][batch["image"]])
        if self.sight.typed:
            given["mm_token_type_ids"] = (ids == image).int()
        return {"input_ids": ids, "logits_to_keep": tokens.shape[1], **given}

    def _laid(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (B, K, height, width) resized, normalised and laid out as the network wants."""
        vision = self.network.config.vision_config
        pixels, size = images.float() / 255, image_size((images.shape[2], images.shape[3]), vision)
        if size != pixels.shape[2:]:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (pixels.new_tensor(of)[:, None, None] for of in (self.mean, self.std))
        return self.sight.lay((pixels - mean) / std, vision)  # a gray one gets all three channels

    def blocks(self) -> Sequence[nn.Module]:
        from transformers.modeling_layers import GradientCheckpointingLayer

        lists = (module for module in self.modules() if isinstance(module, nn.ModuleList))
        found = [b for of in lists for b in of if isinstance(b, GradientCheckpointingLayer)]
        if not self.towers:
            return found
        found.append(self.get_submodule(self.towers["projector"].rstrip(".")))
        names = {module: f"{name}." for name, module in self.named_modules()}
        return sorted(found, key=lambda block: ROLES.index(self.role_of(names[block])))

    def linear_layers(self) -> dict[str, nn.Module]:
        from transformers.pytorch_utils import Conv1D

        names = {module: name for name, module in self.named_modules()}
        inside = (module for block in self.blocks() for module in block.modules())
        layers: dict[str, nn.Module] = {}
        for module in inside:
            if isinstance(module, nn.Linear | Conv1D):
                layers[f"{names[module]}.weight"] = module
            elif hasattr(module, "num_experts") and all(hasattr(module, of) for of in EXPERTS):
                layers |= {f"{names[module]}.{of}": module for of in EXPERTS}
        return layers

    def fed(self, name: str, layer: nn.Module, given: tuple[Any, ...]) -> Mapping[str, Tensor]:
        """Each expert by the tokens that chose it, in the arithmetic of the library's own."""
        of: Any = layer
        if not hasattr(layer, "num_experts"):
            return super().fed(name, layer, given)
        x, chosen, apart = given[0].flatten(0, -2), given[1], {}
        for expert in range(of.num_experts):
            rows = x[(chosen.flatten(0, -2) == expert).any(-1)]
            if name.endswith(EXPERTS[1]):
                gate, up = F.linear(rows, of.gate_up_proj[expert]).chunk(2, dim=-1)
                rows = of.act_fn(gate) * up
            apart[f"{name}[{expert}]"] = rows
        return apart

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        layers, chosen = self.linear_layers(), Tensors()
        for name, _ in self.named_parameters():
            if name not in tensors or (which == "linear" and name not in layers):
                continue
            tensor = tensors[name]
            if name not in layers or isinstance(layers[name], nn.Linear):
                chosen[name] = tensor
            elif tensor.dim() == 3:
                chosen |= {f"{name}[{expert}]": of for expert, of in enumerate(tensor)}
            else:
                chosen[f"{name}[T]"] = tensor.T
        return chosen


def _owned(
    module: Any, prefix: str, child: str, units: int | None, *, reads: bool = True
) -> dict[str, tuple[int, Tensor]]:
    """Along which dimension, and where, units lie in a layer: its rows, and its bias, where it
    ``reads`` the stream, else its columns; each a unit, or dealt out to so many ``units``.
    """
    layer = module.get_submodule(child)
    along = int(reads != isinstance(layer, nn.Linear))  # Conv1D holds (in, out)
    number = layer.weight.shape[along]
    index = torch.arange(number).view(-1, units or number).T
    owned = {f"{prefix}.{child}.weight": (along, index)}
    return owned | (
        {f"{prefix}.{child}.bias": (0, index)} if reads and layer.bias is not None else {}
    )


def _silent(layer: str, owned: dict[str, tuple[int, Tensor]], output: str) -> Units:
    """Units of one layer, which are nothing where what they write by is zero."""

    def adds(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        along, index = owned[output]
        out = weights[output].movedim(along, 0)  # (columns, out)
        silent = (out[index] == 0).flatten(1).all(1)
        return silent, out.new_zeros(len(index), out.shape[1])

    return Units(layer, owned, output, adds, None)


def _auto(said: Mapping[str, Any]) -> str:
    return "AutoModelForImageTextToText" if "vision_config" in said else "AutoModelForCausalLM"


def _of_pixels(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that its channels are normalised by."""
    files = (folder / name for name in PROCESSORS)
    said = next((_json(file) for file in files if file.is_file()), {})
    said = said.get("image_processor", said)
    mean, std = (said.get(key) or [0.5, 0.5, 0.5] for key in ("image_mean", "image_std"))
    return mean, std


def _pretrained(folder: Path, data: DataShape) -> Any:
    """The network of a folder, all of its weights read; ModelError where that cannot be."""
    said = _config(folder)
    kind, auto = said.get("model_type"), _auto(said)
    if looks := auto != _auto({}):
        if not data.image:
            why = f"The model of {folder} ({kind}) looks at images, and the data set has none."
            raise ModelError(why, "Choose data=easy_vqa, data=digit_sums or data=image_folder")
        if kind not in SIGHTS:
            why = f"How images are shown to {kind}, the model of {folder}, is not known here."
            raise ModelError(why, f"Known are: {', '.join(SIGHTS)}.")
    if data.image and not looks:
        why = f"The data have images, and the model of {folder} ({kind}) reads only text."
        raise ModelError(why, "Name an image–text model, or choose data=kjv_chars")
    transformers = library()
    try:
        model, found = getattr(transformers, auto).from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # of many kinds, in words of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        why = f"transformers {transformers.__version__} cannot open {folder} ({kind}): {reason}."
        raise ModelError(why, f"It must open there: {auto}.from_pretrained") from error
    lost = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if lost:
        why = f"The weights of {folder} do not fit its {CONFIG}: {lost[0]} is missing there."
        raise ModelError(why, "Put weights and config of one model into it.")
    return model.eval()


def _config(folder: Path) -> dict[str, Any]:
    """What a folder says it holds, checked before seconds are spent on reading it."""
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}.", "Give model.path=FOLDER")
    said = _json(folder / CONFIG)
    if "quantization_config" in said:
        how = said["quantization_config"].get("quant_method", "quantised")
        why = f"The weights of {folder} are quantised ({how}), and their zeros would mean nothing."
        raise ModelError(why, "Name the folder of the model before that.")
    if not [*folder.glob("*.safetensors")]:
        if pickles := sorted(p.name for pattern in PICKLES for p in folder.glob(pattern)):
            why = f"{folder / pickles[0]} is a pickle, which can run any code; swe reads none."
            raise ModelError(why, CONVERT.format(folder, _auto(said)))
        raise ModelError(f"{folder} holds no weights, *.safetensors.", "Fetch them, too.")
    return said


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        why = f"{file.parent} holds no {file.name}, so it is no model of transformers."
        raise ModelError(why, "Name a folder that save_pretrained wrote.") from None
    except ValueError as error:
        raise ModelError(f"{file} is damaged: {error}.", "Fetch it again.") from None
