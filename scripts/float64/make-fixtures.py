"""Writes small random checkpoints of every family, with what the float64 reference makes of them.

    python3 make-fixtures.py ../../tests/fixtures [FAMILY ...]

Each directory gets config.json, model.safetensors and expected.json (prompt, greedy tokens, logits of every choice). Seeds
are tried in order until every choice is clear (the best logit leads by more than MARGIN of the range) and the text is not one token
over and over, so that rounding cannot change a token.
"""

import json
import pathlib
import sys

import numpy as np

from reference import Model

VOCAB = 199
PROMPT_LENGTH = 12
TOKENS = 24
MARGIN = 0.006
DISTINCT = 8

COMMON = {
    "vocab_size": VOCAB,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def shape(layers, hidden, ffn, heads, kv_heads, **fields):
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        **fields,
    }


FAMILIES = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        **COMMON,
        **shape(3, 48, 80, 3, 3),
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
    "llama3": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        **COMMON,
        **shape(4, 64, 96, 4, 2),
        "rope_theta": 500000.0,
        # With so short an original context, all three bands of the scaling are used.
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "tie_word_embeddings": True,
    },
    "mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "torch_dtype": "bfloat16",
        **COMMON,
        **shape(4, 64, 96, 4, 2, head_dim=16, sliding_window=8),
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "torch_dtype": "bfloat16",
        **COMMON,
        **shape(4, 64, 96, 4, 2, use_sliding_window=False, rms_norm_eps=1e-6),
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "torch_dtype": "bfloat16",
        **COMMON,
        **shape(4, 64, 96, 4, 2, head_dim=32, use_sliding_window=False, rms_norm_eps=1e-6),
        "rope_theta": 1000000.0,
    },
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "torch_dtype": "bfloat16",
        **COMMON,
        **shape(4, 64, 96, 4, 2, head_dim=16, sliding_window=6, rms_norm_eps=1e-6),
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        # Not the head size, and caps low enough to bend: what is ignored shows.
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 4.0,
        "tie_word_embeddings": True,
    },
}


def tensor_shapes(config):
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    family = config["model_type"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        norms = ["input_layernorm", "post_attention_layernorm"]
        if family == "gemma2":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for norm in norms:
            shapes[f"{prefix}{norm}.weight"] = (hidden,)
        for name, out in (("q", q), ("k", kv), ("v", kv)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (out, hidden)
            if family == "qwen2":
                shapes[f"{prefix}self_attn.{name}_proj.bias"] = (out,)
            if family == "qwen3" and name != "v":
                shapes[f"{prefix}self_attn.{name}_norm.weight"] = (head_dim,)
        shapes[f"{prefix}self_attn.o_proj.weight"] = (hidden, q)
        shapes[f"{prefix}mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[f"{prefix}mlp.up_proj.weight"] = (ffn, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, ffn)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def random_tensor(name, dims, gemma, rng):
    values = rng.standard_normal(dims)
    if "norm" in name:
        return 0.2 * values + (0 if gemma else 1)
    if len(dims) == 1:
        return 0.3 * values
    if "embed" in name:
        # Gemma multiplies by sqrt(hidden), and its branches are normed: a larger one would repeat itself.
        return (0.06 if gemma else 0.3) * values
    # Attention is made sharp enough to matter, branches large enough to outweigh the embedding.
    return values * (2.0 if "self_attn" in name else 1.6) / np.sqrt(dims[1])


def to_bf16(values):
    """Bit patterns, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, "<f4").view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_checkpoint(directory, config, seed):
    rng = np.random.default_rng(seed)
    bf16 = config["torch_dtype"] == "bfloat16"
    header, chunks, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, dims in tensor_shapes(config).items():
        values = random_tensor(name, dims, config["model_type"] == "gemma2", rng)
        data = (to_bf16(values) if bf16 else values.astype("<f4")).tobytes()
        header[name] = {
            "dtype": "BF16" if bf16 else "F32",
            "shape": list(dims),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(chunks))


def make(directory, config):
    prompt = [1 + (37 * i * i + 11 * i) % (VOCAB - 1) for i in range(PROMPT_LENGTH)]
    for seed in range(1000):
        write_checkpoint(directory, config, seed)
        tokens, rows = Model(directory).greedy(prompt, TOKENS)
        margin = min(np.diff(np.sort(row)[-2:])[0] / np.ptp(row) for row in rows)
        if margin > MARGIN and len(set(tokens)) >= DISTINCT:
            break
    else:
        raise SystemExit(f"{directory}: no seed has a clear text")
    lines = [json.dumps([round(float(value), 7) for value in row], separators=(",", ":")) for row in rows]
    (directory / "expected.json").write_text(
        '{"seed":%d,"prompt":%s,"tokens":%s,"logits":[\n%s\n]}\n'
        % (seed, json.dumps(prompt), json.dumps(tokens), ",\n".join(lines))
    )
    size = (directory / "model.safetensors").stat().st_size
    print(f"{directory}: seed {seed}, {size} bytes, margin {margin:.4f}, tokens {tokens}")


def main():
    root = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or FAMILIES:
        make(root / name, FAMILIES[name])


if __name__ == "__main__":
    main()
