"""Byte-level BPE: trains merges on the stories and writes a Hugging Face `tokenizer.json`.

The algorithm is GPT-2's: text is split into words (a word keeps the space before it), bytes become printable symbols, and
the most frequent neighbouring pair becomes a new token until the vocabulary is full. All 256 bytes are tokens, so every
text can be encoded. Ties are broken by the symbols themselves, so the result depends on the text alone.
"""

import collections
import json
import re

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"

# GPT-2's pattern with \p{L} and \p{N} spelled for Python's re.
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def byte_symbols():
    """GPT-2's table: byte -> printable character."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


BYTE_SYMBOLS = byte_symbols()


def symbols_of(text):
    return tuple(BYTE_SYMBOLS[b] for b in text.encode())


def merge_pair(symbols, pair):
    merged, i = [], 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            merged.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return tuple(merged)


def train_merges(texts, count):
    """The `count` merges, in order, as pairs of symbols."""
    words = collections.Counter(word for text in texts for word in WORDS.findall(text))
    spelled = [(symbols_of(word), n) for word, n in words.items()]
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for symbols, n in spelled:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelled = [(merge_pair(symbols, best), n) for symbols, n in spelled]
    return merges


class Tokenizer:
    """Encodes and decodes what `tokenizer.json` says; `encode` puts the BOS in front, as the post-processor does."""

    def __init__(self, spec):
        self.vocab = dict(spec["model"]["vocab"])
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(spec["model"]["merges"])}
        for token in spec["added_tokens"]:
            self.vocab[token["content"]] = token["id"]
        self.bos, self.eos = self.vocab[BOS], self.vocab[EOS]
        self.pieces = {index: piece for piece, index in self.vocab.items()}
        self.cache = {}

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def encode_word(self, word):
        if word not in self.cache:
            symbols = symbols_of(word)
            while len(symbols) > 1:
                pair = min(zip(symbols, symbols[1:]), key=lambda p: self.ranks.get(p, len(self.ranks)))
                if pair not in self.ranks:
                    break
                symbols = merge_pair(symbols, pair)
            self.cache[word] = [self.vocab[symbol] for symbol in symbols]
        return self.cache[word]

    def encode(self, text):
        return [self.bos] + [token for word in WORDS.findall(text) for token in self.encode_word(word)]

    def decode(self, tokens):
        byte_of = {symbol: byte for byte, symbol in BYTE_SYMBOLS.items()}
        pieces = (self.pieces[token] for token in tokens if token not in (self.bos, self.eos))
        return bytes(byte_of[symbol] for piece in pieces for symbol in piece).decode(errors="replace")


def tokenizer_spec(merges):
    """The contents of tokenizer.json: bytes first, then merges in order, then BOS and EOS."""
    pieces = [BYTE_SYMBOLS[b] for b in range(256)] + [left + right for left, right in merges]
    specials = [
        {"id": len(pieces) + i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, content in enumerate((BOS, EOS))
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": specials,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, bos, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: {"id": BOS, "ids": [specials[0]["id"]], "tokens": [BOS]}},
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": [f"{left} {right}" for left, right in merges],
        },
    }


def train_tokenizer(texts, vocab_size):
    return tokenizer_spec(train_merges(texts, vocab_size - 256 - 2))
