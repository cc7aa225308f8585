"""PyTorch behind a line protocol, the same as that of llama-cpp.mjs: README.md beside this file has it.

Runs the directory of a checkpoint through transformers, in two modes that share the weights. With --check it only says
whether what it needs is installed.
"""

import importlib.util
import inspect
import json
import os
import platform
import sys
import time

if "--check" in sys.argv:
    absent = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    sys.exit(f"python3 has no {' and no '.join(absent)}" if absent else None)

# Nothing is downloaded, and whatever libraries print is no answer.
os.environ["HF_HUB_OFFLINE"] = "1"
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch
import transformers


def fillers(count, vocab):
    """Tokens a timed run is fed with: any will do, the work is the same."""
    return [(i * 7919 + 1) % vocab for i in range(count)]


class Eager:
    """As transformers runs by default: a launch for every operator, and a cache that grows."""

    def __init__(self, model):
        self.model = model
        # Logits of the last position alone, as all others compute them; the argument was renamed.
        known = inspect.signature(model.forward).parameters
        self.options = {name: 1 for name in ("logits_to_keep", "num_logits_to_keep") if name in known}

    def begin(self):
        self.cache = None

    def feed(self, ids):
        """The greedy token after ids of shape [1, n], on the device and of shape [1, 1], and its logits."""
        out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, **self.options)
        self.cache = out.past_key_values
        logits = out.logits[0, -1]
        return logits.argmax(-1).view(1, 1), logits


class Compiled(Eager):
    """A cache of a fixed size, and steps of one token compiled; on a GPU they are a CUDA graph. Prompts are not compiled."""

    def __init__(self, model, device, context):
        super().__init__(model)
        wanted = {
            **{"config": model.config, "max_batch_size": 1, "max_cache_len": context},
            **{"device": device, "dtype": model.dtype},
        }
        known = inspect.signature(transformers.StaticCache.__init__).parameters
        self.cache = transformers.StaticCache(**{name: value for name, value in wanted.items() if name in known})
        self.device = device
        self.compiled = torch.compile(self.forward, mode="reduce-overhead")

    def begin(self):
        self.cache.reset()
        self.length = 0

    def forward(self, ids, positions):
        out = self.model(
            input_ids=ids,
            position_ids=positions.view(1, -1),
            cache_position=positions,
            past_key_values=self.cache,
            use_cache=True,
            **self.options,
        )
        logits = out.logits[0, -1]
        return logits.argmax(-1).view(1, 1), logits

    def feed(self, ids):
        count = ids.shape[1]
        positions = torch.arange(self.length, self.length + count, device=self.device)
        self.length += count
        if count > 1:
            return self.forward(ids, positions)
        torch.compiler.cudagraph_mark_step_begin()
        token, logits = self.compiled(ids, positions)
        # The next run of the graph writes to the same memory.
        return token.clone(), logits


class Peer:
    def __init__(self, checkpoint, weights, device, threads, context):
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} finds no CUDA device")
        torch.set_grad_enabled(False)
        torch.set_num_threads(threads)
        dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[weights]
        # Weights from safetensors alone: other files can hold code.
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint, torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
        self.model.to(device).eval()
        self.device = device
        self.context = context
        self.vocab = self.model.config.vocab_size
        self.modes = {"eager": Eager(self.model)}
        self.missing = {}
        try:
            self.modes["compiled"] = self.compile()
        except Exception as error:
            self.missing["compiled"] = one_line(error)

    def compile(self):
        """Runs it before it is offered: what torch.compile lacks, it says when it is used."""
        if not hasattr(torch, "compile"):
            raise RuntimeError(f"PyTorch {torch.__version__} has no torch.compile")
        mode = Compiled(self.model, self.device, self.context)
        mode.begin()
        token, _ = mode.feed(self.tensor([1, 1]))
        for _ in range(min(3, self.context - 2)):
            token, _ = mode.feed(token)
        token.tolist()
        return mode

    def tensor(self, ids):
        return torch.tensor([ids], device=self.device)

    def describe(self):
        on_gpu = self.device == "cuda"
        return {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "vocab": self.vocab,
            "modes": list(self.modes),
            "missing": self.missing,
        }

    def set_threads(self, threads):
        torch.set_num_threads(threads)
        return {}

    def logits(self, mode, prompt):
        """The last token goes by itself, as tokens do when they are timed."""
        run = self.begin(mode, len(prompt))
        if len(prompt) > 1:
            run.feed(self.tensor(prompt[:-1]))
        _, logits = run.feed(self.tensor(prompt[-1:]))
        return {"logits": logits.float().tolist()}

    def greedy(self, mode, prompt, tokens):
        """Does not stop at an end-of-text token."""
        run = self.begin(mode, len(prompt) + tokens)
        token, _ = run.feed(self.tensor(prompt))
        made = [token]
        while len(made) < tokens:
            token, _ = run.feed(token)
            made.append(token)
        return {"tokens": [token.tolist()[0][0] for token in made]}

    def decode(self, mode, prompt, tokens, limitMs=float("inf")):
        """Every token is fed to the next step on the device; the host waits for the last one only."""
        run = self.begin(mode, prompt + tokens)
        token, _ = run.feed(self.tensor(fillers(prompt, self.vocab)))
        self.wait()
        start = time.perf_counter()
        done = 0
        while done < tokens and (time.perf_counter() - start) * 1000 < limitMs:
            token, _ = run.feed(token)
            done += 1
        self.wait()
        return {"milliseconds": (time.perf_counter() - start) * 1000, "tokens": done}

    def prefill(self, mode, tokens):
        run = self.begin(mode, tokens)
        ids = self.tensor(fillers(tokens, self.vocab))
        self.wait()
        start = time.perf_counter()
        run.feed(ids)
        self.wait()
        return {"milliseconds": (time.perf_counter() - start) * 1000, "tokens": tokens}

    def begin(self, mode, tokens):
        if tokens > self.context:
            raise ValueError(f"{tokens} tokens do not fit a context of {self.context}")
        self.modes[mode].begin()
        return self.modes[mode]

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()


def one_line(error):
    """The first line of a message, which can be long where compilers are involved."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


peer = None


def answer(op, **arguments):
    global peer
    if op == "load":
        peer = Peer(**arguments)
        return peer.describe()
    if peer is None:
        raise ValueError("load a model first")
    ops = {
        **{"threads": peer.set_threads, "logits": peer.logits, "greedy": peer.greedy},
        **{"decode": peer.decode, "prefill": peer.prefill},
    }
    if op not in ops:
        raise ValueError(f"unknown op {json.dumps(op)}")
    return ops[op](**arguments)


for line in sys.stdin:
    try:
        reply = {"ok": True, "result": answer(**json.loads(line))}
    except Exception as error:
        reply = {"ok": False, "error": one_line(error)}
    print(json.dumps(reply), file=answers, flush=True)
