"""Tiny random models of many families, as folders that ``save_pretrained`` leaves."""

from functools import cache
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="the extra huggingface is missing")

VOCABULARY, CONTEXT = 300, 32
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
FAST = ("llama_tied", "gpt2")  # in every run of the tests


def network(family: str):
    """A random network; the same one every time."""
    name, options = FAMILIES[family]
    sizes = {**(SIZES if options is not OLD else {}), **options}
    torch.manual_seed(0)
    config = getattr(transformers, name)(**sizes)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@cache
def _tokenizer():
    from tokenizers import ByteLevelBPETokenizer

    backend = ByteLevelBPETokenizer()
    words = ["In the beginning God created the heaven and the earth."] * 4
    backend.train_from_iterator(words, VOCABULARY, min_frequency=1, show_progress=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer)


def save_folder(family: str, folder: Path) -> Path:
    """A folder with a network and a tokenizer that can write anything."""
    network(family).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder
