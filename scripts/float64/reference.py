"""Decoder-only transformers in float64, straight from their published descriptions: an oracle for small checkpoints.

Reads a Hugging Face directory (config.json, model.safetensors) of the Llama, Mistral, Qwen2, Qwen3 or Gemma 2 family and
prints greedy tokens and logits as JSON. The whole sequence is computed anew for every token: there is no cache that could
be wrong. Needs numpy only.

    python3 reference.py DIRECTORY --prompt 1,5,9 --tokens 24
"""

import argparse
import json
import pathlib

import numpy as np


def read_safetensors(path):
    """All tensors of one file as float64."""
    data = path.read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_bytes])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
        raw = data[start:end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        tensors[name] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rope_frequencies(config, head_dim):
    """Radians per position of every pair."""
    theta = config.get("rope_theta", 10000.0)
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    scaling = config.get("rope_scaling")
    if not scaling:
        return frequencies
    factor = scaling["factor"]
    if scaling["rope_type"] == "linear":
        return frequencies / factor
    assert scaling["rope_type"] == "llama3", scaling
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context = scaling["original_max_position_embeddings"]
    scaled = []
    for frequency in frequencies:
        wavelength = 2 * np.pi / frequency
        if wavelength < context / high:
            scaled.append(frequency)
        elif wavelength > context / low:
            scaled.append(frequency / factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            scaled.append((1 - smooth) * frequency / factor + smooth * frequency)
    return np.array(scaled)


def rotate(x, angles):
    """x (positions, heads, head_dim); element i is paired with i + head_dim / 2."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Model:
    def __init__(self, directory):
        directory = pathlib.Path(directory)
        self.config = json.loads((directory / "config.json").read_text())
        self.tensors = read_safetensors(directory / "model.safetensors")
        self.family = self.config["model_type"]
        self.gemma = self.family == "gemma2"
        self.eps = self.config["rms_norm_eps"]

    def norm(self, x, name):
        weight = self.tensors[name]
        return rms_norm(x, 1 + weight if self.gemma else weight, self.eps)

    def project(self, x, name):
        y = x @ self.tensors[name + ".weight"].T
        bias = self.tensors.get(name + ".bias")
        return y if bias is None else y + bias

    def window(self, layer):
        """How many positions a row sees, itself included; None for all."""
        if self.family == "mistral":
            return self.config["sliding_window"]
        if self.gemma and layer % 2 == 0:
            return self.config["sliding_window"]
        return None

    def attention(self, x, layer):
        config = self.config
        prefix = f"model.layers.{layer}.self_attn."
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        length = len(x)
        q = self.project(x, prefix + "q_proj").reshape(length, heads, head_dim)
        k = self.project(x, prefix + "k_proj").reshape(length, kv_heads, head_dim)
        v = self.project(x, prefix + "v_proj").reshape(length, kv_heads, head_dim)
        if self.family == "qwen3":
            q = self.norm(q, prefix + "q_norm.weight")
            k = self.norm(k, prefix + "k_norm.weight")
        positions = np.arange(length)
        angles = positions[:, None] * rope_frequencies(config, head_dim)[None, :]
        q, k = rotate(q, angles), rotate(k, angles)
        k, v = (np.repeat(t, heads // kv_heads, axis=1) for t in (k, v))
        scale = (config["query_pre_attn_scalar"] if self.gemma else head_dim) ** -0.5
        scores = np.einsum("qhd,khd->hqk", q, k) * scale
        if self.gemma and config["attn_logit_softcapping"]:
            cap = config["attn_logit_softcapping"]
            scores = cap * np.tanh(scores / cap)
        distance = positions[:, None] - positions[None, :]
        seen = distance >= 0
        if self.window(layer) is not None:
            seen &= distance < self.window(layer)
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(length, heads * head_dim)
        return self.project(mixed, prefix + "o_proj")

    def feed_forward(self, x, layer):
        prefix = f"model.layers.{layer}.mlp."
        activation = gelu_tanh if self.gemma else silu
        gate = activation(self.project(x, prefix + "gate_proj"))
        return self.project(gate * self.project(x, prefix + "up_proj"), prefix + "down_proj")

    def logits(self, ids):
        """Logits of every position, (positions, vocab)."""
        embedding = self.tensors["model.embed_tokens.weight"]
        x = embedding[np.array(ids)]
        if self.gemma:
            x = x * np.sqrt(self.config["hidden_size"])
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            branch = self.attention(self.norm(x, prefix + "input_layernorm.weight"), layer)
            if self.gemma:
                x = x + self.norm(branch, prefix + "post_attention_layernorm.weight")
                inner = self.norm(x, prefix + "pre_feedforward_layernorm.weight")
                branch = self.feed_forward(inner, layer)
                x = x + self.norm(branch, prefix + "post_feedforward_layernorm.weight")
            else:
                x = x + branch
                x = x + self.feed_forward(self.norm(x, prefix + "post_attention_layernorm.weight"), layer)
        x = self.norm(x, "model.norm.weight")
        tied = self.config.get("tie_word_embeddings", self.gemma)
        scores = x @ (embedding if tied else self.tensors["lm_head.weight"]).T
        cap = self.config.get("final_logit_softcapping") if self.gemma else None
        return cap * np.tanh(scores / cap) if cap else scores

    def greedy(self, prompt, count):
        """(tokens, the logits that each was chosen from)."""
        ids, rows = list(prompt), []
        for _ in range(count):
            rows.append(self.logits(ids)[-1])
            ids.append(int(np.argmax(rows[-1])))
        return ids[len(prompt) :], rows


def main():
    parser = argparse.ArgumentParser(description="greedy tokens and logits of a checkpoint, in float64")
    parser.add_argument("directory")
    parser.add_argument("--prompt", required=True, help="token ids, separated by commas")
    parser.add_argument("--tokens", type=int, default=24)
    options = parser.parse_args()
    prompt = [int(token) for token in options.prompt.split(",")]
    tokens, rows = Model(options.directory).greedy(prompt, options.tokens)
    print(json.dumps({"prompt": prompt, "tokens": tokens, "logits": [[round(v, 7) for v in row] for row in rows]}))


if __name__ == "__main__":
    main()
