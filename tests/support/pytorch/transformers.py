"""
As much of transformers as bench/peer/pytorch.py uses, for a Llama of f32 in one file: the forward pass on lists, in
float64. Takes and gives tensors of torch, or of what stands in for it.
"""

import array
import json
import math
import pathlib

import torch

__version__ = "4.50.0+standin"


class Config:
    def __init__(self, fields):
        self.__dict__.update(fields)


class Tensors:
    """The tensors of a safetensors file, as lists of rows."""

    def __init__(self, path):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        self.header = json.loads(data[8 : 8 + size])
        self.data = data[8 + size :]

    def __call__(self, name):
        entry = self.header[name]
        assert entry["dtype"] == "F32", entry["dtype"]
        begin, end = entry["data_offsets"]
        values = array.array("f", self.data[begin:end]).tolist()
        if len(entry["shape"]) == 1:
            return values
        width = entry["shape"][1]
        return [values[i : i + width] for i in range(0, len(values), width)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def times(matrix, vector):
    return [dot(row, vector) for row in matrix]


def norm(values, weight, eps):
    scale = 1 / math.sqrt(dot(values, values) / len(values) + eps)
    return [value * scale * w for value, w in zip(values, weight)]


def rotate(head, position, theta):
    half = len(head) // 2
    out = list(head)
    for i in range(half):
        angle = position * theta ** (-i / half)
        cos, sin = math.cos(angle), math.sin(angle)
        out[i] = head[i] * cos - head[i + half] * sin
        out[i + half] = head[i + half] * cos + head[i] * sin
    return out


def attend(query, keys, values):
    scores = [dot(query, key) / math.sqrt(len(query)) for key in keys]
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    total = sum(weights)
    return [sum(w * value[i] for w, value in zip(weights, values)) / total for i in range(len(query))]


class Cache:
    """Keys and values, by layer and key/value head."""

    def __init__(self, config):
        self.layers = [
            [([], []) for _ in range(config.num_key_value_heads)] for _ in range(config.num_hidden_layers)
        ]


class StaticCache(Cache):
    def __init__(self, config, max_cache_len, **others):
        super().__init__(config)
        self.config = config

    def reset(self):
        Cache.__init__(self, self.config)


class Output:
    def __init__(self, logits, past_key_values):
        self.logits = torch.tensor([[logits]])
        self.past_key_values = past_key_values


class Model:
    dtype = torch.float32

    def __init__(self, directory):
        self.config = Config(json.loads((directory / "config.json").read_text()))
        self.tensors = Tensors(directory / "model.safetensors")
        self.read = {name: self.tensors(name) for name in self.tensors.header if name != "__metadata__"}

    def to(self, device):
        return self

    def eval(self):
        return self

    def __call__(self, **arguments):
        return self.forward(**arguments)

    def forward(
        self, input_ids, past_key_values, use_cache, logits_to_keep=0, position_ids=None, cache_position=None
    ):
        assert use_cache and logits_to_keep == 1
        cache = past_key_values or Cache(self.config)
        for token in input_ids.tolist()[0]:
            logits = self.token(token, cache)
        if position_ids is not None:
            assert position_ids.tolist()[0][-1] == cache_position.tolist()[-1] == len(cache.layers[0][0][0]) - 1
        return Output(logits, cache)

    def token(self, token, cache):
        config, read = self.config, self.read
        heads, size = config.num_attention_heads, config.head_dim
        group = heads // config.num_key_value_heads
        hidden = list(read["model.embed_tokens.weight"][token])
        for i, layer in enumerate(cache.layers):
            weight = lambda name: read[f"model.layers.{i}.{name}.weight"]
            x = norm(hidden, weight("input_layernorm"), config.rms_norm_eps)
            q, k, v = (times(weight(f"self_attn.{name}_proj"), x) for name in "qkv")
            position = len(layer[0][0])
            for head, (keys, values) in enumerate(layer):
                part = slice(head * size, (head + 1) * size)
                keys.append(rotate(k[part], position, config.rope_theta))
                values.append(v[part])
            mixed = []
            for head in range(heads):
                query = rotate(q[head * size : (head + 1) * size], position, config.rope_theta)
                mixed += attend(query, *layer[head // group])
            hidden = [a + b for a, b in zip(hidden, times(weight("self_attn.o_proj"), mixed))]
            x = norm(hidden, weight("post_attention_layernorm"), config.rms_norm_eps)
            gate, up = times(weight("mlp.gate_proj"), x), times(weight("mlp.up_proj"), x)
            gated = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)]
            hidden = [a + b for a, b in zip(hidden, times(weight("mlp.down_proj"), gated))]
        x = norm(hidden, read["model.norm.weight"], config.rms_norm_eps)
        return times(read.get("lm_head.weight", read["model.embed_tokens.weight"]), x)


class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(path, torch_dtype, use_safetensors, local_files_only):
        assert use_safetensors and local_files_only and torch_dtype == torch.float32
        return Model(pathlib.Path(path))
