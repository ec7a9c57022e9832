"""Tiny random models of many families, as folders that ``save_pretrained`` leaves."""

from functools import cache
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="the extra huggingface is missing")

VOCABULARY, CONTEXT = 300, 32
IMAGE, IMAGE_TOKEN = (3, 28, 28), 299  # what those that look are shown; no text has that token
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 2, "intermediate_size": 48}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
# Of every family: the name of its configuration, and what that does not have by default.
FAMILIES = {
    "llama": ("LlamaConfig", GROUPED),
    "llama_tied": ("LlamaConfig", {**GROUPED, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", GROUPED),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**GROUPED, "head_dim": 8}),
    "gemma3": ("Gemma3TextConfig", {**GROUPED, "head_dim": 8}),
    "phi3": ("Phi3Config", GROUPED),
    "phi": ("PhiConfig", {"intermediate_size": 48}),
    "gpt2": ("GPT2Config", OLD),
    "opt": ("OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "neox": ("GPTNeoXConfig", {"intermediate_size": 48}),
    "bloom": ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    "falcon": ("FalconConfig", {"new_decoder_architecture": False}),
    "mixtral": ("MixtralConfig", {**GROUPED, "num_local_experts": 4}),
    "qwen3_moe": ("Qwen3MoeConfig", {**GROUPED, **EXPERTS, "head_dim": 8}),
}
TEXT = {"model_type": "llama", **SIZES, **GROUPED}
EYE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 7}
EYE |= {"image_size": 28}
CLIP = {**EYE, "intermediate_size": 40}
QWEN = {**SIZES, **GROUPED, "rope_parameters": {"type": "mrope", "mrope_section": [1, 1, 2]}}
LOOKS = {
    "llava": (
        "LlavaConfig",
        {
            "vision_config": {"model_type": "dinov2", "mlp_ratio": 2, **EYE},
            "text_config": {**TEXT, "tie_word_embeddings": True},
            "image_token_index": IMAGE_TOKEN,
            "vision_feature_layer": -1,
        },
    ),
    "llava_clip": (
        "LlavaConfig",
        {
            "vision_config": {"model_type": "clip_vision_model", **CLIP},
            "text_config": TEXT,
            "image_token_index": IMAGE_TOKEN,
        },
    ),
    "smolvlm": (
        "SmolVLMConfig",
        {
            "vision_config": CLIP,
            "text_config": TEXT,
            "image_token_id": IMAGE_TOKEN,
            "pad_token_id": 0,
        },
    ),
    "qwen2_vl": (
        "Qwen2VLConfig",
        {
            "vision_config": {
                "depth": 2,
                "embed_dim": 32,
                "num_heads": 4,
                "mlp_ratio": 2,
                "hidden_size": 32,
                "patch_size": 7,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
            "text_config": QWEN,
            "image_token_id": IMAGE_TOKEN,
        },
    ),
}
FAMILIES |= LOOKS
FAST = ("llama_tied", "gpt2", "llava")  # in every run of the tests


def network(family: str):
    """A random network; the same one every time."""
    name, options = FAMILIES[family]
    sizes = {**(SIZES if options is not OLD and family not in LOOKS else {}), **options}
    torch.manual_seed(0)
    config = getattr(transformers, name)(**sizes)
    return auto(family).from_config(config).eval()


def auto(family: str):
    """By which class of the library it is opened."""
    kind = "ImageTextToText" if family in LOOKS else "CausalLM"
    return getattr(transformers, f"AutoModelFor{kind}")


def processor(family: str):
    """What the library itself shows images with; images of the right size are only normalised."""
    if family == "qwen2_vl":
        return transformers.Qwen2VLImageProcessorPil(min_pixels=28 * 28, patch_size=7)
    if family == "smolvlm":
        sizes = {"size": {"longest_edge": 28}, "max_image_size": {"longest_edge": 28}}
        return transformers.SmolVLMImageProcessorPil(do_image_splitting=False, **sizes)
    whole = {"do_resize": False, "do_center_crop": False}
    return transformers.LlavaImageProcessorPil(**whole)


@cache
def _tokenizer():
    from tokenizers import ByteLevelBPETokenizer

    backend = ByteLevelBPETokenizer()
    words = ["In the beginning God created the heaven and the earth."] * 4
    learned = {"min_frequency": 1, "show_progress": False, "special_tokens": ["</s>"]}
    backend.train_from_iterator(words, IMAGE_TOKEN, **learned)
    made = transformers.PreTrainedTokenizerFast
    return made(tokenizer_object=backend._tokenizer, eos_token="</s>")


def save_folder(family: str, folder: Path) -> Path:
    """A folder with a network and a tokenizer that can write anything."""
    network(family).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    if family in LOOKS:
        processor(family).save_pretrained(folder)
    return folder
