"""Trains the demo model on stories it makes up itself and writes `demo/`: weights, config and tokenizer.

A small Llama: RMSNorm, rotary embeddings (Hugging Face's rotate-half order, theta 10000), SwiGLU, grouped-query attention,
tied embeddings. Weights and optimizer are float32, matrix products bfloat16 unless `--float32` is given, and the result is
stored as bfloat16. Every choice hangs on one seed; the last digits of the weights still depend on processor, libraries and
the number of threads.

    python3 train.py --out ../../demo
"""

import argparse
import json
import math
import os
import struct
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bpe import Tokenizer, train_tokenizer
from corpus import tell_stories

SEED = 20240
STORIES, HELD_OUT = 80000, 400
VOCAB_SIZE, TOKENIZER_STORIES = 1024, 20000

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "initializer_range": 0.07,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "bos_token_id": VOCAB_SIZE - 2,
    "eos_token_id": VOCAB_SIZE - 1,
}

# (steps, sequence length, sequences per step). A sequence of 128 holds one story only, which is where names are learned.
PHASES = ((1800, 128, 16), (2000, 256, 16), (400, 512, 8))
PEAK_LEARNING_RATE, FINAL_SHARE, WARMUP_STEPS = 2e-3, 0.03, 100
WEIGHT_DECAY, CLIP_NORM = 0.1, 1.0
MATRIX_STD, EMBEDDING_STD, COPY_GAIN, ALIKE_GAIN = 0.07, 0.05, 0.3, 0.7


class RMSNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]) * self.weight


def rope_tables(length):
    head_dim = CONFIG["head_dim"]
    frequencies = CONFIG["rope_theta"] ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies[None, :]  # (position, headDim / 2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        hidden, head_dim = CONFIG["hidden_size"], CONFIG["head_dim"]
        self.heads, self.kv_heads, self.head_dim = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"], head_dim
        self.q_proj = nn.Linear(hidden, self.heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * head_dim, hidden, bias=False)

    def forward(self, x, cos, sin, mask):
        batch, length, _ = x.shape
        split = lambda t, heads: t.view(batch, length, heads, self.head_dim).transpose(1, 2)
        q = rotate(split(self.q_proj(x), self.heads), cos, sin)
        k = rotate(split(self.k_proj(x), self.kv_heads), cos, sin)
        v = split(self.v_proj(x), self.kv_heads)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = (q * self.head_dim**-0.5) @ k.transpose(-1, -2) + mask  # (batch, head, query, key)
        return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1))


def start_by_copying(attention, looks_for_alike):
    """Mimetic initialization (Trockman and Kolter, 2023): every head begins by copying what it looks at (output = transposed
    value projection); with `looks_for_alike`, two heads of each group also begin by looking at tokens like the one they
    are about to predict (query near key). A story's names are then carried on after far fewer steps."""
    head_dim, group = attention.head_dim, attention.heads // attention.kv_heads
    orthogonal = lambda weight: torch.linalg.qr(torch.randn(weight.shape[1], weight.shape[0]))[0].T
    with torch.no_grad():
        attention.v_proj.weight.copy_(orthogonal(attention.v_proj.weight))
        if looks_for_alike:
            alike = ALIKE_GAIN * orthogonal(attention.k_proj.weight)
            attention.k_proj.weight.mul_(0.5).add_(alike)
        for head in range(attention.heads):
            rows = slice(head * head_dim, (head + 1) * head_dim)
            kv_rows = slice(head // group * head_dim, (head // group + 1) * head_dim)
            attention.o_proj.weight[:, rows] = COPY_GAIN * attention.v_proj.weight[kv_rows].T
            if looks_for_alike and head % group < 2:
                attention.q_proj.weight[rows] = 0.5 * attention.q_proj.weight[rows] + alike[kv_rows]


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        hidden, ffn = CONFIG["hidden_size"], CONFIG["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, ffn, bias=False)
        self.up_proj = nn.Linear(hidden, ffn, bias=False)
        self.down_proj = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm = RMSNorm(CONFIG["hidden_size"])
        self.self_attn = Attention()
        self.post_attention_layernorm = RMSNorm(CONFIG["hidden_size"])
        self.mlp = Mlp()

    def forward(self, x, cos, sin, mask):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Attribute names are the checkpoint's tensor names, less the prefix `model.`."""

    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(CONFIG["vocab_size"], CONFIG["hidden_size"])
        self.layers = nn.ModuleList(Layer() for _ in range(CONFIG["num_hidden_layers"]))
        self.norm = RMSNorm(CONFIG["hidden_size"])
        self.initialize()

    def initialize(self):
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # what writes to the residual stream starts smaller, so that depth does not add up
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=MATRIX_STD / (math.sqrt(2 * len(self.layers)) if into_residual else 1))
        nn.init.normal_(self.embed_tokens.weight, std=EMBEDDING_STD)
        for index, layer in enumerate(self.layers):
            start_by_copying(layer.self_attn, looks_for_alike=index >= 2)

    def forward(self, tokens):
        length = tokens.shape[1]
        cos, sin = rope_tables(length)
        mask = torch.full((length, length), float("-inf")).triu(1)
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x) @ self.embed_tokens.weight.T


class Documents:
    """All stories as one stream, each between BOS and EOS; a crop begins at the start of a story and runs into the next ones."""

    def __init__(self, stories, tokenizer):
        encoded = [tokenizer.encode(story) + [tokenizer.eos] for story in stories]
        self.stream = np.concatenate([np.array(tokens, dtype=np.int64) for tokens in encoded])
        self.starts = np.cumsum([0] + [len(tokens) for tokens in encoded[:-1]])

    def crops(self, starts, length):
        rows = np.stack([self.stream[start : start + length + 1] for start in starts])
        return torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])

    def usable_starts(self, length):
        return self.starts[self.starts + length + 1 <= len(self.stream)]


def shuffled_starts(documents, length, generator):
    """Every story once in random order, then again."""
    while True:
        starts = documents.usable_starts(length)
        yield from starts[generator.permutation(len(starts))]


def loss_of(model, inputs, targets, mixed):
    # entered once per call: autocast keeps its bfloat16 copies of the weights until it is left
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        logits = model(inputs)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def held_out_loss(model, documents, length, mixed, batch=20):
    starts = documents.usable_starts(length)[:200]
    with torch.no_grad():
        losses = [loss_of(model, *documents.crops(starts[i : i + batch], length), mixed).item() for i in range(0, len(starts), batch)]
    return sum(losses) / len(losses)


def learning_rate(step, steps):
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return PEAK_LEARNING_RATE * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def write_safetensors(path, tensors):
    """name -> float tensor, stored as bfloat16 (rounded to nearest even); the header is padded so that the data is 64-byte aligned."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        blob = tensor.detach().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def export_tokenizer(out, spec):
    bos, eos = (token["content"] for token in spec["added_tokens"])
    write_json(os.path.join(out, "tokenizer.json"), spec)
    write_json(
        os.path.join(out, "tokenizer_config.json"),
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": CONFIG["max_position_embeddings"],
        },
    )


def export_model(out, model):
    write_json(os.path.join(out, "config.json"), CONFIG)
    ids = {key: CONFIG[key] for key in ("bos_token_id", "eos_token_id")}
    write_json(os.path.join(out, "generation_config.json"), {**ids, "do_sample": True, "temperature": 0.8, "max_length": 512})
    write_safetensors(os.path.join(out, "model.safetensors"), {f"model.{name}": p for name, p in model.named_parameters()})


def make_optimizer(model):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95))


def train(model, documents, held_out, mixed, on_report):
    optimizer = make_optimizer(model)
    generator = np.random.default_rng(SEED)
    steps = sum(count for count, _, _ in PHASES)
    started, step = time.time(), 0
    for count, length, batch in PHASES:
        starts = shuffled_starts(documents, length, generator)
        for _ in range(count):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps)
            loss = loss_of(model, *documents.crops([next(starts) for _ in range(batch)], length), mixed)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                print(f"step {step}/{steps} length {length} loss {loss.item():.4f} seconds {time.time() - started:.0f}", flush=True)
            if step % 400 == 0 or step == steps:
                print(f"step {step}/{steps} held-out loss {held_out_loss(model, held_out, length, mixed):.4f}", flush=True)
                on_report(model)


def main():
    parser = argparse.ArgumentParser(description="Train the demo model and write it as a Hugging Face directory.")
    parser.add_argument("--out", required=True, help="directory to write")
    parser.add_argument("--threads", type=int, default=1, help="two are faster where nothing else runs")
    parser.add_argument("--float32", action="store_true", help="float32 matrix products, for processors without bfloat16")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    os.makedirs(options.out, exist_ok=True)

    stories = tell_stories(STORIES + HELD_OUT, SEED)
    spec = train_tokenizer(stories[:TOKENIZER_STORIES], VOCAB_SIZE)
    export_tokenizer(options.out, spec)
    tokenizer = Tokenizer(spec)
    documents, held_out = Documents(stories[:STORIES], tokenizer), Documents(stories[STORIES:], tokenizer)

    model = Llama()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters, {len(documents.stream)} tokens in {STORIES} stories", flush=True)
    train(model, documents, held_out, not options.float32, lambda current: export_model(options.out, current))


if __name__ == "__main__":
    main()
