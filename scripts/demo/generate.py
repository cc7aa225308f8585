"""Writes stories with the exported demo model: a check of the export, and an implementation to compare engines with.

It shares no code with training except the tokenizer: safetensors and config are read as any reader would, and the Llama
forward pass is written again, one token at a time with a key-value cache, in float32 on the stored bfloat16 weights.

    python3 generate.py --demo ../../demo --prompt "Once upon a time" --tokens 200 --temperature 0.8
    python3 generate.py --demo ../../demo --fixture ../../tests/fixtures/demo-greedy.json
"""

import argparse
import json
import os
import struct

import torch

from bpe import Tokenizer


def read_safetensors(path):
    with open(path, "rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(header_bytes)), file.read()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            stored = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.bfloat16)
            tensors[name] = stored.reshape(entry["shape"]).float()
    return tensors


class Engine:
    """Llama decoding for one sequence; `step` takes a token and returns the logits of the next."""

    def __init__(self, directory):
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        self.weights = read_safetensors(os.path.join(directory, "model.safetensors"))
        self.heads, self.kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        self.head_dim = self.config["head_dim"]
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        self.frequencies = self.config["rope_theta"] ** -exponents
        self.reset()

    def reset(self):
        self.keys = [[] for _ in range(self.config["num_hidden_layers"])]
        self.values = [[] for _ in range(self.config["num_hidden_layers"])]
        self.position = 0

    def norm(self, x, name):
        return x / torch.sqrt((x * x).mean() + self.config["rms_norm_eps"]) * self.weights[name]

    def rope(self, x):
        """x: (head, headDim); the pair of dimension i is i + headDim / 2."""
        angles = self.position * self.frequencies
        left, right = x[:, : self.head_dim // 2], x[:, self.head_dim // 2 :]
        return torch.cat([left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()], dim=1)

    def attend(self, layer, x):
        weight = lambda name: self.weights[f"model.layers.{layer}.self_attn.{name}_proj.weight"]
        q = self.rope((weight("q") @ x).view(self.heads, self.head_dim))
        self.keys[layer].append(self.rope((weight("k") @ x).view(self.kv_heads, self.head_dim)))
        self.values[layer].append((weight("v") @ x).view(self.kv_heads, self.head_dim))
        keys, values = torch.stack(self.keys[layer]), torch.stack(self.values[layer])  # (position, kvHead, headDim)
        out = []
        for head in range(self.heads):
            kv_head = head // (self.heads // self.kv_heads)
            scores = keys[:, kv_head] @ q[head] / self.head_dim**0.5
            out.append(scores.softmax(0) @ values[:, kv_head])
        return weight("o") @ torch.cat(out)

    def feed_forward(self, layer, x):
        weight = lambda name: self.weights[f"model.layers.{layer}.mlp.{name}_proj.weight"]
        return weight("down") @ (torch.nn.functional.silu(weight("gate") @ x) * (weight("up") @ x))

    def step(self, token):
        x = self.weights["model.embed_tokens.weight"][token]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self.attend(layer, self.norm(x, prefix + "input_layernorm.weight"))
            x = x + self.feed_forward(layer, self.norm(x, prefix + "post_attention_layernorm.weight"))
        self.position += 1
        return self.weights["model.embed_tokens.weight"] @ self.norm(x, "model.norm.weight")


def choose(logits, temperature, generator):
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(0), 1, generator=generator))


def generate(engine, prompt_tokens, count, temperature=0.0, seed=0, stop=None):
    """`count` new tokens, fewer if `stop` comes. Returns them with the smallest gap between the two best logits."""
    generator = torch.Generator().manual_seed(seed)
    engine.reset()
    with torch.no_grad():
        for token in prompt_tokens:
            logits = engine.step(token)
        tokens, smallest_gap = [], float("inf")
        while len(tokens) < count:
            first, second = logits.topk(2).values.tolist()
            smallest_gap = min(smallest_gap, first - second)
            tokens.append(choose(logits, temperature, generator))
            if tokens[-1] == stop:
                break
            logits = engine.step(tokens[-1])
    return tokens, smallest_gap


def write_fixture(path, engine, tokenizer, prompt="Once upon a time", count=200):
    """Greedy continuation that goes on past EOS."""
    prompt_tokens = tokenizer.encode(prompt)
    tokens, gap = generate(engine, prompt_tokens, count)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"prompt": prompt, "prompt_tokens": prompt_tokens, "tokens": tokens}, file)
        file.write("\n")
    print(f"smallest gap between the two best logits: {gap:.4f}")
    print(prompt + tokenizer.decode(tokens))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Write stories with the exported demo model.")
    parser.add_argument("--demo", default=os.path.join(here, "..", "..", "demo"), help="directory of the exported model")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--stories", type=int, default=1)
    parser.add_argument("--fixture", help="write 200 greedy tokens to this JSON file instead")
    options = parser.parse_args()

    torch.set_num_threads(1)
    engine, tokenizer = Engine(options.demo), Tokenizer.load(os.path.join(options.demo, "tokenizer.json"))
    if options.fixture:
        write_fixture(options.fixture, engine, tokenizer)
        return
    for seed in range(options.stories):
        tokens, _ = generate(engine, tokenizer.encode(options.prompt), options.tokens, options.temperature, seed, tokenizer.eos)
        ended = "" if tokens[-1] == tokenizer.eos else " [no end]"
        print(f"{options.prompt}{tokenizer.decode(tokens)}{ended}\n")


if __name__ == "__main__":
    main()
