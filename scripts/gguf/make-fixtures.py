"""Writes GGUF fixtures without any code of kloop's: container and blocks from their published descriptions, in numpy.

    python3 make-fixtures.py fixtures ../../tests/fixtures/gguf     blocks.json, mixed.gguf and what float64 makes of it
    python3 make-fixtures.py model OUT.gguf --mix Q4_K_M [--layers 16 --hidden 2048 ...]   random weights, for benchmarks

Sources: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (container), ggml-common.h (fields of blocks). Blocks are
decoded field by field in float64, into one array per block.
"""

import argparse
import base64
import json
import pathlib
import struct
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "float64"))
import reference  # noqa: E402

F32, F16, BF16 = 0, 1, 30
# Number of the type, weights and bytes of a block.
BLOCKS = {
    "q4_0": (2, 32, 18),
    "q4_1": (3, 32, 20),
    "q5_0": (6, 32, 22),
    "q5_1": (7, 32, 24),
    "q8_0": (8, 32, 34),
    "q4_k": (12, 256, 144),
    "q5_k": (13, 256, 176),
    "q6_k": (14, 256, 210),
}


def halves(values):
    return values.astype("<f2").view(np.uint8).reshape(len(values), 2)


def random_blocks(kind, count, rng, spread):
    """Blocks (count, bytes) of weights around zero, any bits in their integers."""
    bits = int(kind[1])
    _, size, length = BLOCKS[kind]
    raw = rng.integers(0, 256, (count, length), dtype=np.uint8)
    # The standard deviation of equally likely integers is range / sqrt(12).
    step = spread * np.sqrt(12) / 2**bits * rng.uniform(0.7, 1.3, count)
    middle = (2**bits - 1) / 2
    if kind in ("q4_k", "q5_k"):
        scales = rng.integers(16, 64, (count, 8))
        raw[:, 0:2], raw[:, 2:4] = halves(step / 40), halves(step / 40 * middle)
        raw[:, 4:16] = six_bits(scales, np.clip(scales + rng.integers(-2, 3, scales.shape), 0, 63))
    elif kind == "q6_k":
        raw[:, 192:208] = rng.integers(-90, 90, (count, 16)).astype(np.int8).view(np.uint8)
        raw[:, 208:210] = halves(step / 50)
    else:
        raw[:, 0:2] = halves(step * rng.choice([-1.0, 1.0], count) if kind.endswith("_0") else step)
        if kind.endswith("_1"):
            raw[:, 2:4] = halves(-middle * step)
    return raw


def six_bits(scales, minima):
    """Eight scales and eight minima of six bits in twelve bytes."""
    packed = np.zeros((len(scales), 12), dtype=np.uint8)
    for j in range(4):
        packed[:, j] = scales[:, j] | (scales[:, j + 4] >> 4) << 6
        packed[:, j + 4] = minima[:, j] | (minima[:, j + 4] >> 4) << 6
        packed[:, j + 8] = (scales[:, j + 4] & 15) | (minima[:, j + 4] & 15) << 4
    return packed


def decode(kind, raw):
    """Weights (count, block) in float64 of blocks (count, bytes)."""
    half = lambda at: np.ascontiguousarray(raw[:, at : at + 2]).view("<f2").astype(np.float64)
    signed = lambda part: np.ascontiguousarray(part).view(np.int8).astype(np.float64)
    nibbles = lambda part: np.concatenate([part & 15, part >> 4], axis=1).astype(np.int64)
    bits = lambda part: np.unpackbits(part, axis=1, bitorder="little").astype(np.int64)
    if kind == "q8_0":
        return half(0) * signed(raw[:, 2:34])
    if kind == "q4_0":
        return half(0) * (nibbles(raw[:, 2:18]) - 8)
    if kind == "q4_1":
        return half(0) * nibbles(raw[:, 4:20]) + half(2)
    if kind == "q5_0":
        return half(0) * (nibbles(raw[:, 6:22]) + 16 * bits(raw[:, 2:6]) - 16)
    if kind == "q5_1":
        return half(0) * (nibbles(raw[:, 8:24]) + 16 * bits(raw[:, 4:8])) + half(2)
    if kind in ("q4_k", "q5_k"):
        small = raw[:, 4:16].astype(np.int64)
        scales, minima = np.empty((len(raw), 8)), np.empty((len(raw), 8))
        for j in range(4):
            scales[:, j], minima[:, j] = small[:, j] % 64, small[:, j + 4] % 64
            scales[:, j + 4] = small[:, j + 8] % 16 + small[:, j] // 64 * 16
            minima[:, j + 4] = small[:, j + 8] // 16 + small[:, j + 4] // 64 * 16
        quants = raw[:, 16:] if kind == "q4_k" else raw[:, 48:]
        # Four times 32 bytes: lower halves are one group, upper halves the next.
        q = np.concatenate([nibbles(quants[:, 32 * i : 32 * i + 32]) for i in range(4)], axis=1).reshape(-1, 8, 32)
        if kind == "q5_k":
            fifth = raw[:, 16:48].astype(np.int64)
            q = q + 16 * np.stack([fifth >> group & 1 for group in range(8)], axis=1)
        values = half(0)[:, :, None] * scales[:, :, None] * q - half(2)[:, :, None] * minima[:, :, None]
        return values.reshape(-1, 256)
    assert kind == "q6_k", kind
    values = np.empty((len(raw), 256))
    for base in (0, 1):
        low = raw[:, 64 * base : 64 * base + 64].astype(np.int64)
        high = raw[:, 128 + 32 * base : 160 + 32 * base].astype(np.int64)
        for run, part in enumerate([low[:, :32] % 16, low[:, 32:] % 16, low[:, :32] // 16, low[:, 32:] // 16]):
            q = part + 16 * (high // 4**run % 4) - 32
            start = 128 * base + 32 * run
            scales = signed(raw[:, 192 + start // 16 : 194 + start // 16])
            values[:, start : start + 32] = half(208) * np.repeat(scales, 16, axis=1) * q
    return values


class Writer:
    """Metadata and tensors, in the order they come."""

    def __init__(self):
        self.keys, self.tensors = [], []

    @staticmethod
    def text(value):
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def key(self, name, kind, value):
        kinds = {"u32": (4, "<I"), "f32": (6, "<f"), "bool": (7, "<?")}
        if kind == "text":
            data = struct.pack("<I", 8) + self.text(value)
        elif kind == "texts":
            data = struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(self.text, value))
        elif kind == "i32s":
            data = struct.pack("<IIQ", 9, 5, len(value)) + np.array(value, "<i4").tobytes()
        else:
            number, layout = kinds[kind]
            data = struct.pack("<I", number) + struct.pack(layout, value)
        self.keys.append(self.text(name) + data)

    def tensor(self, name, shape, number, data):
        self.tensors.append((name, shape, number, data))

    def write(self, path):
        header = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.keys)) + b"".join(self.keys)
        offset = 0
        for name, shape, number, data in self.tensors:
            sizes = list(reversed(shape))
            header += self.text(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
            header += struct.pack("<IQ", number, offset)
            offset += -(-len(data) // 32) * 32
        with open(path, "wb") as file:
            file.write(header + bytes(-len(header) % 32))
            for *_, data in self.tensors:
                file.write(data)
                file.write(bytes(-len(data) % 32))


class RandomModel:
    """A Llama model of random weights; keeps their values in float64 where `keep`."""

    def __init__(self, config, kind_of, seed, keep):
        self.config, self.kind_of, self.keep = config, kind_of, keep
        self.rng = np.random.default_rng(seed)
        self.writer, self.values = Writer(), {}
        self.metadata()
        hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
        heads, kv_heads, head_dim = (config[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim"))
        if config["divisors"]:
            divisors = np.linspace(1, 8, head_dim // 2).astype("<f4")
            self.writer.tensor("rope_freqs.weight", [head_dim // 2], F32, divisors.tobytes())
        self.matrix("token_embd.weight", "model.embed_tokens.weight", [vocab, hidden], 1.0)
        self.norm("output_norm.weight", "model.norm.weight", hidden)
        self.matrix("output.weight", "lm_head.weight", [vocab, hidden])
        for layer in range(config["num_hidden_layers"]):
            ours, theirs = f"blk.{layer}.", f"model.layers.{layer}."
            self.norm(ours + "attn_norm.weight", theirs + "input_layernorm.weight", hidden)
            self.norm(ours + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", hidden)
            for part, name, shape in [
                ("attn_q", "self_attn.q_proj", [heads * head_dim, hidden]),
                ("attn_k", "self_attn.k_proj", [kv_heads * head_dim, hidden]),
                ("attn_v", "self_attn.v_proj", [kv_heads * head_dim, hidden]),
                ("attn_output", "self_attn.o_proj", [hidden, heads * head_dim]),
                ("ffn_gate", "mlp.gate_proj", [ffn, hidden]),
                ("ffn_up", "mlp.up_proj", [ffn, hidden]),
                ("ffn_down", "mlp.down_proj", [hidden, ffn]),
            ]:
                self.matrix(f"{ours}{part}.weight", f"{theirs}{name}.weight", shape)

    def metadata(self):
        config, key = self.config, self.writer.key
        key("general.architecture", "text", "llama")
        key("general.name", "text", "random")
        for name, field in [
            ("block_count", "num_hidden_layers"),
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
            ("attention.key_length", "head_dim"),
            ("attention.value_length", "head_dim"),
            ("rope.dimension_count", "head_dim"),
        ]:
            key("llama." + name, "u32", config[field])
        key("llama.attention.layer_norm_rms_epsilon", "f32", config["rms_norm_eps"])
        key("llama.rope.freq_base", "f32", config["rope_theta"])
        vocab = config["vocab_size"]
        key("tokenizer.ggml.model", "text", "gpt2")
        key("tokenizer.ggml.pre", "text", "gpt-2")
        key("tokenizer.ggml.tokens", "texts", [f"<token_{i}>" for i in range(vocab)])
        key("tokenizer.ggml.token_type", "i32s", [1] * vocab)
        key("tokenizer.ggml.merges", "texts", [])
        key("tokenizer.ggml.eos_token_id", "u32", 2)

    def norm(self, name, source, width):
        values = self.rng.uniform(0.9, 1.1, width).astype("<f4")
        self.writer.tensor(name, [width], F32, values.tobytes())
        self.values[source] = values.astype(np.float64)

    def matrix(self, name, source, shape, spread=None):
        rows, width = shape
        kind = self.kind_of(name)
        spread = spread or width**-0.5
        if kind in BLOCKS:
            number, size, _ = BLOCKS[kind]
            raw = random_blocks(kind, rows * width // size, self.rng, spread)
            data, values = raw.tobytes(), decode(kind, raw).reshape(shape) if self.keep else None
        else:
            values = self.rng.normal(0, spread, shape).astype(np.float32)
            if kind == "bf16":
                number, data = BF16, (values.view(np.uint32) >> 16).astype("<u2").tobytes()
                values = (values.view(np.uint32) >> 16 << 16).view(np.float32)
            else:
                number, data = F16, values.astype("<f2").tobytes()
                values = values.astype("<f2")
            values = values.astype(np.float64)
        self.writer.tensor(name, shape, number, data)
        if self.keep:
            self.values[source] = values


def adjacent(x, angles):
    """Elements 2i and 2i + 1 are a pair, as llama.cpp has them for this architecture."""
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1).reshape(x.shape)


def divided(frequencies):
    return lambda config, head_dim: frequencies(config, head_dim) / np.linspace(1, 8, head_dim // 2).astype(np.float32)


SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 331,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "divisors": True,
}
# Every format that is read. Rows of attn_output are 64 wide: too short for blocks of 256.
SMALL_KINDS = {
    "token_embd.weight": "q6_k",
    "output.weight": "q5_k",
    "blk.0": dict(attn_q="q4_k", attn_k="q5_k", attn_v="q6_k", attn_output="q5_0", ffn_gate="q4_k", ffn_up="q5_1", ffn_down="q6_k"),
    "blk.1": dict(attn_q="q8_0", attn_k="q4_1", attn_v="bf16", attn_output="q5_1", ffn_gate="q4_0", ffn_up="f16", ffn_down="q4_k"),
}


def small_kind(name):
    if name in SMALL_KINDS:
        return SMALL_KINDS[name]
    block, layer, part, _ = name.split(".")
    return SMALL_KINDS[f"{block}.{layer}"][part]


def q4_k_m(layers):
    """What llama.cpp's quantizer chooses for the mix of that name."""

    def more_bits(layer):
        return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2

    def kind(name):
        if name == "output.weight":
            return "q6_k"
        parts = name.split(".")
        better = len(parts) == 4 and parts[2] in ("attn_v", "ffn_down") and more_bits(int(parts[1]))
        return "q6_k" if better else "q4_k"

    return kind


def base64_of(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def fixtures(out):
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    blocks = {}
    for kind, (_, _, length) in BLOCKS.items():
        raw = random_blocks(kind, 6, rng, 0.5)
        # Two more of any bits, but finite.
        wild = rng.integers(0, 256, (2, length), dtype=np.uint8)
        for at in [208] if kind == "q6_k" else [0] if kind.endswith("0") else [0, 2]:
            wild[:, at + 1] &= 0xBB
        raw = np.concatenate([raw, wild])
        blocks[kind] = {"blocks": base64_of(raw), "values": base64_of(decode(kind, raw).astype("<f4"))}
    (out / "blocks.json").write_text(json.dumps(blocks) + "\n")

    random = RandomModel(SMALL, small_kind, 3, True)
    random.writer.write(out / "mixed.gguf")
    model = reference.Model.__new__(reference.Model)
    model.config, model.tensors, model.eps = SMALL, random.values, SMALL["rms_norm_eps"]
    model.family, model.gemma = "llama", False
    reference.rotate = adjacent
    reference.rope_frequencies = divided(reference.rope_frequencies)
    prompt = [1, 49, 171, 169, 43, 189, 13, 330]
    tokens, rows = model.greedy(prompt, 6)
    expected = {"prompt": prompt, "tokens": tokens, "logits": [[round(v, 6) for v in row] for row in rows]}
    (out / "mixed.json").write_text(json.dumps(expected) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fixtures").add_argument("out", type=pathlib.Path)
    model = commands.add_parser("model")
    model.add_argument("out", type=pathlib.Path)
    model.add_argument("--mix", default="Q4_K_M", help="Q4_K_M, or one format for all: q8_0, q5_k, ...")
    for name, default in dict(layers=16, hidden=2048, ffn=8192, heads=32, kv_heads=8, vocab=128256).items():
        model.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    options = parser.parse_args()
    if options.command == "fixtures":
        fixtures(options.out)
        return
    config = {
        **SMALL,
        "num_hidden_layers": options.layers,
        "hidden_size": options.hidden,
        "intermediate_size": options.ffn,
        "num_attention_heads": options.heads,
        "num_key_value_heads": options.kv_heads,
        "head_dim": options.hidden // options.heads,
        "vocab_size": options.vocab,
        "max_position_embeddings": 8192,
        "divisors": False,
    }
    kind = q4_k_m(options.layers) if options.mix == "Q4_K_M" else lambda name: options.mix
    RandomModel(config, kind, 5, False).writer.write(options.out)


if __name__ == "__main__":
    main()
