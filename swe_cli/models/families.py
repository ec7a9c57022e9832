"""What the parts of a block are called, and by which keys a config counts them, per family."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Of an MLP, the matrices that read the stream and the one that writes to it, and the key of
    its neurons; of attention, those of queries, keys and values, and the one that writes.

    A fused matrix of gate and up has a neuron's rows twice. Without ``neurons``, or ``queries``, a
    config has no number that would say how many are left: nothing is taken out.
    """

    reads: tuple[str, ...] = ()
    writes: str = ""
    neurons: str = ""
    queries: tuple[str, ...] = ()
    joins: str = "o_proj"

    @property
    def mlp(self) -> tuple[str, ...]:
        """The children by which an MLP is known whose neurons can be taken out."""
        return (*self.reads, self.writes) if self.neurons else ()

    @property
    def attention(self) -> tuple[str, ...]:
        """The children by which an attention is known whose heads can be taken out."""
        return (*self.queries, self.joins) if self.queries else ()


SPLIT = ("q_proj", "k_proj", "v_proj")
LLAMA = Names(("gate_proj", "up_proj"), "down_proj", "intermediate_size", SPLIT)
FAMILIES = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"), LLAMA),
    "phi": Names(("fc1",), "fc2", "intermediate_size", SPLIT, "dense"),
    "phi3": Names(("gate_up_proj",), "down_proj", "intermediate_size"),
    "opt": Names(("fc1",), "fc2", "ffn_dim"),
    "gpt2": Names(("c_fc",), "c_proj", "n_inner"),
    "gpt_neox": Names(("dense_h_to_4h",), "dense_4h_to_h", "intermediate_size"),
    "falcon": Names(("dense_h_to_4h",), "dense_4h_to_h", "ffn_hidden_size"),
}
