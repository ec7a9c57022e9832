"""Models of transformers, out of a folder of one's own: nothing in it is executed or unpickled.

Shapes: B windows, T positions, V vocabulary.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import Count, DataShape, Model, Prediction, PrunableSet, UnitKind, Units
from swe_cli.errors import ModelError, optional
from swe_cli.files import read_json, storage
from swe_cli.models.families import FAMILIES, SIGHTS, Names, image_size
from swe_cli.models.gpt import token_losses
from swe_cli.records import Batch, Tensors

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # of images
AUTO = {False: "AutoModelForCausalLM", True: "AutoModelForImageTextToText"}  # whether it looks
SAFELY = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
BESIDE = (".json", ".txt", ".model", ".jinja")  # tokenizers and their like
EXPERTS = ("gate_up_proj", "down_proj")  # (experts, out, in)
CONVERT = (
    'If you trust it, type: python -c "from transformers import {1} as A; '
    "A.from_pretrained('{0}').save_pretrained('{0}-safe')\""
)


def library() -> Any:
    """The package transformers, which takes seconds to import. UsageError where it is missing."""
    transformers = optional("transformers", "model=huggingface", "huggingface")
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
        self.roles = self.roles_in(path)
        if data.image:
            self._look(data.image)
        if (size := data.vocabulary_size) > (known := config.vocab_size):
            why = f"The tokenizer has {size:,} tokens; the model of {path} knows {known:,}."
            raise ModelError(why, "Use its own: tokenizer=pretrained")
        longest = getattr(config, "max_position_embeddings", None) or 1 << 31
        self.longest = room = longest - self.image_tokens
        if context > room:
            why = f"model.context={context} is longer than the {room} positions of {path} for text."
            raise ModelError(why, f"Write model.context={room}")
        self.context = context
        if not self.blocks():
            kind = type(self.network).__name__
            raise ModelError(f"{kind} has no list of blocks that swe knows, so it cannot be cut.")

    def _look(self, image: tuple[int, int, int]) -> None:
        """Find out which modules look, and how many tokens an image becomes."""
        projector, self.lay = SIGHTS[self.network.config.model_type]
        files = (self.folder / name for name in PROCESSORS)
        said = next((read_json(file) for file in files if file.is_file()), None)
        if said is None:
            why = f"{self.folder} holds no {PROCESSORS[0]}, which says how images are normalised."
            raise ModelError(why, "Put that of the model beside it.")
        said = said.get("image_processor", said)
        if not said.get("do_normalize", True):
            said = {}
        self.scale = said.get("image_mean", [0.0] * 3), said.get("image_std", [1.0] * 3)
        names = {module: f"{name}." for name, module in self.named_modules()}
        inside = self.network.base_model.get_submodule(projector)  # of the tower, of some
        tower = self.network.get_encoder(modality="image")
        self.towers = {"projector": names[inside], "vision": names[tower]}
        with torch.no_grad():
            blank = self._laid(torch.zeros(1, *image, dtype=torch.uint8))
            (seen,) = self.network.get_image_features(**blank).pooler_output
        self.image_tokens = len(seen)

    @staticmethod
    def roles_in(path: str, **_: Any) -> Sequence[str]:
        """The roles of a folder's model, before it is opened."""
        looks = "vision_config" in _config(Path(path).expanduser())
        return ("vision", "projector", "language") if looks else ("language",)

    def role_of(self, name: str) -> str:
        return next((role for role, at in self.towers.items() if name.startswith(at)), "language")

    def save(self, folder: Path, dtype: str | None = None) -> str:
        """Write it, as it is now, as a folder that ``from_pretrained`` opens, with all that the one
        it came from has beside weights; the class that opens it. It is then of ``dtype``, by
        default that of the folder it came from.
        """
        self._count_units()
        said = _config(self.folder)
        dtype = dtype or said.get("dtype") or said.get("torch_dtype") or "float32"
        with storage(folder):
            self.network.to(getattr(torch, dtype)).save_pretrained(folder)
            for file in self.folder.iterdir():
                beside = file.suffix in BESIDE and not file.name.endswith(".index.json")
                if beside and not (folder / file.name).exists():
                    shutil.copyfile(file, folder / file.name)
        return AUTO[bool(self.towers)]

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
        """Neurons of MLPs; heads, those of one key and value together; of known ``families``."""
        names, found = self._names(), list[Units]()
        for prefix, mlp in self._with(names.mlp).items() if kind == "neuron" else ():
            *reads, writes = names.mlp
            owned = _owned(mlp, prefix, writes, None, reads=False)
            ((_, columns),) = owned.values()
            for read in reads:  # of a fused matrix a neuron has several rows
                owned |= _owned(mlp, prefix, read, len(columns))
            found.append(_silent(prefix, owned, writes))
        for prefix, attention in self._with(names.attention).items() if kind == "head" else ():
            _, keys, _, writes = names.attention
            groups = len(attention.get_submodule(keys).weight) // attention.head_dim
            owned = {}
            for of in names.attention:
                child = _owned(attention, prefix, of, None, reads=of != writes)
                owned |= {n: (at, index.view(groups, -1)) for n, (at, index) in child.items()}
            found.append(_silent(prefix, owned, writes))
        return found

    def _with(self, children: Sequence[str]) -> dict[str, Any]:
        """Modules of the language model that have all of these children, by name."""
        there = ((n, m) for n, m in self.named_modules() if self.role_of(n) == "language")
        return {n: m for n, m in there if children and all(hasattr(m, of) for of in children)}

    def forward(self, batch: Batch) -> Prediction:
        given = self._shown(batch) if self.towers else {"input_ids": batch["tokens"]}
        logits = self.network(**given, use_cache=False).logits
        return Prediction(token_losses(logits, batch["targets"]), logits)

    def _shown(self, batch: Batch) -> dict[str, Any]:
        """The image of every row, and the tokens that stand for it before its text, (B, N + T)."""
        tokens, image = batch["tokens"], self.network.config.image_token_id
        ids = F.pad(tokens, (self.image_tokens, 0), value=image)
        given = self._laid(batch["images"][batch["image"]])
        kinds = {"mm_token_type_ids": (ids == image).int()} if "image_grid_thw" in given else {}
        return {"input_ids": ids, "logits_to_keep": tokens.shape[1], **given, **kinds}

    def _laid(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 (B, K, height, width) resized, normalised and laid out as the network wants."""
        vision = self.network.config.vision_config
        pixels, size = images.float() / 255, image_size(images.shape[2:], vision)
        if size != pixels.shape[2:]:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (pixels.new_tensor(of)[:, None, None] for of in self.scale)
        return self.lay((pixels - mean) / std, vision)  # a gray one gets all three channels

    def blocks(self) -> Sequence[nn.Module]:
        from transformers.modeling_layers import GradientCheckpointingLayer

        lists = (module for module in self.modules() if isinstance(module, nn.ModuleList))
        blocks = [b for of in lists for b in of if isinstance(b, GradientCheckpointingLayer)]
        also = [self.get_submodule(at[:-1]) for role, at in self.towers.items() if role != "vision"]
        names = {module: f"{name}." for name, module in self.named_modules()}
        return sorted([*blocks, *also], key=lambda b: self.roles.index(self.role_of(names[b])))

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

    def fed(self, name: str, layer: Any, given: tuple[Any, ...]) -> Mapping[str, Tensor]:
        """Each expert by the tokens that chose it, in the arithmetic of the library's own."""
        if not hasattr(layer, "num_experts"):
            return super().fed(name, layer, given)
        x, chosen, apart = given[0].flatten(0, -2), given[1], {}
        for expert in range(layer.num_experts):
            rows = x[(chosen.flatten(0, -2) == expert).any(-1)]
            if name.endswith(EXPERTS[1]):
                gate, up = F.linear(rows, layer.gate_up_proj[expert]).chunk(2, dim=-1)
                rows = layer.act_fn(gate) * up
            apart[f"{name}[{expert}]"] = rows
        return apart

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        layers, chosen = self.linear_layers(), Tensors()
        for name, tensor in super().prunable(tensors, which).items():
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
    parts = {"weight": along} | ({"bias": 0} if reads and layer.bias is not None else {})
    return {f"{prefix}.{child}.{of}": (at, index) for of, at in parts.items()}


def _silent(layer: str, owned: dict[str, tuple[int, Tensor]], writes: str) -> Units:
    """Units of one layer, which are nothing where what they write by is zero."""
    output = f"{layer}.{writes}.weight"

    def adds(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        along, index = owned[output]
        out = weights[output].movedim(along, 0)  # (columns, out)
        silent = (out[index] == 0).flatten(1).all(1)
        return silent, out.new_zeros(len(index), out.shape[1])

    return Units(layer, owned, output, adds, None)


def _pretrained(folder: Path, data: DataShape) -> Any:
    """The network of a folder, all of its weights read; ModelError where that cannot be."""
    said = _config(folder)
    kind, looks = said.get("model_type"), "vision_config" in said
    if looks and not data.image:
        why = f"The model of {folder} ({kind}) looks at images, and the data set has none."
        raise ModelError(why, "Choose data=easy_vqa, data=digit_sums or data=image_folder")
    if data.image and not looks:
        why = f"The data set has images, and the model of {folder} ({kind}) reads only text."
        raise ModelError(why, "Name a folder of an image–text model, or choose data=kjv_chars")
    if looks and kind not in SIGHTS:
        why = f"How {kind}, the model of {folder}, is shown images is not known here."
        raise ModelError(why, f"Those that are: {', '.join(SIGHTS)}.")
    transformers = library()
    try:
        load = getattr(transformers, AUTO[looks]).from_pretrained
        model, found = load(folder, dtype=torch.float32, output_loading_info=True, **SAFELY)
    except Exception as error:  # of many kinds, in words of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        why = f"transformers {transformers.__version__} cannot open {folder} ({kind}): {reason}."
        raise ModelError(why, f"It must open there: {AUTO[looks]}.from_pretrained") from error
    lost = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if lost or found["unexpected_keys"]:
        odd = f"{lost[0]} is missing" if lost else f"{min(found['unexpected_keys'])} is too much"
        why = f"The weights of {folder} do not fit its {CONFIG}: {odd} there."
        raise ModelError(why, "Put weights and config of one model into it.")
    return model.eval()


def _config(folder: Path) -> dict[str, Any]:
    """What a folder says it holds, checked before seconds are spent on reading it."""
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}.", "Give model.path=FOLDER")
    if not (folder / CONFIG).is_file():
        why = f"{folder} holds no {CONFIG}, so it is no model of transformers."
        raise ModelError(why, "Name a folder that save_pretrained wrote.")
    said: dict[str, Any] = read_json(folder / CONFIG, "model_type")
    if "quantization_config" in said:
        how = said["quantization_config"].get("quant_method", "quantised")
        why = f"The weights of {folder} are quantised ({how}), and their zeros would mean nothing."
        raise ModelError(why, "Name the folder of the model before that.")
    if not [*folder.glob("*.safetensors")]:
        if pickles := sorted(p.name for pattern in PICKLES for p in folder.glob(pattern)):
            why = f"{folder / pickles[0]} is a pickle, which can run any code; swe reads none."
            raise ModelError(why, CONVERT.format(folder, AUTO["vision_config" in said]))
        raise ModelError(f"{folder} holds no weights, *.safetensors.", "Fetch them, too.")
    return said
