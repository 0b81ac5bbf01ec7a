"""Greedy decoding of one text: ours and transformers' cached `generate`.

The same weights on both sides, by way of the folder that chapter 4 writes, and
the same prompt. The pocket model is the one that the book trained, or one of
its shape with random weights; GPT-2 is as it was in 2019, random. Ours are the
plain model, the one arranged for writing, and the one that multiplies in 8
bits. Two threads; every way writes the same number of tokens, in turn, round
after round. The time to the first token includes reading the prompt.

Beside them the limit: each weight that multiplies is read once a token, so that
no more tokens come in a second than the memory can send copies of them.
"""

import statistics
import tempfile

import torch

from bench import seconds
from chapters import ROOT
from llm_utils import (
    GPT,
    FastGPT,
    Int8Linear,
    ModelConfig,
    generate,
    load_model,
    to_transformers,
)

PACKAGES = ("torch", "transformers")
THREADS, PROMPT = 2, 16
SIZES = {  # tokens, rounds, the least that is asked of (float32, int8)
    "pocket": (200, 9, (3.0, None)),
    "gpt2-124m-classic": (48, 7, (1.1, 2.0)),
}


def our_model(size: str) -> tuple[GPT, bool]:
    """A GPT of this size, and whether it was trained."""
    trained = ROOT / "artifacts" / size / "base"
    if trained.exists():
        return load_model(trained)[0].eval(), True
    return GPT(ModelConfig.preset(size)).eval(), False


def their_generate(model: GPT):
    """transformers' greedy `generate` of the same weights, as a function."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        to_transformers(model, None, folder)
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    theirs.generation_config.eos_token_id = None  # all write equally many

    def write(ids, n):
        return theirs.generate(
            ids[None],
            attention_mask=torch.ones_like(ids[None]),
            max_new_tokens=n,
            do_sample=False,
            pad_token_id=0,
        )[0]

    return write


def ways_to_write(model: GPT) -> dict:
    """Functions (ids, n) that return ids and n more."""
    fast, whole = FastGPT(model), FastGPT(model, Int8Linear)
    return {
        "transformers": their_generate(model),
        "plain": lambda ids, n: generate(model, ids, n),
        "fast": lambda ids, n: generate(fast, ids, n),
        "int8": lambda ids, n: generate(whole, ids, n),
    }


def memory_speed(numbers: int = 2**28) -> float:
    """Bytes a second at which float32 numbers are read from memory."""
    table = torch.ones(numbers)
    return 4 * numbers / min(seconds(table.sum) for _ in range(5))


def bytes_read(model: GPT) -> int:
    """Bytes of all that a token is multiplied with: the blocks, the head."""
    parts = (model.blocks, model.head)
    return 4 * sum(p.numel() for part in parts for p in part.parameters())


def compare(model: GPT, n: int, rounds: int) -> dict:
    """Tokens a second of every way, and how many times transformers'."""
    ids = torch.randint(
        model.config.vocab_size,
        (PROMPT,),
        generator=torch.Generator().manual_seed(0),
    )
    ways = ways_to_write(model)
    texts = {name: way(ids, n) for name, way in ways.items()}  # warms up
    copies = memory_speed() / bytes_read(model)
    taken, first = [], []
    for _ in range(rounds):
        taken.append(
            {k: seconds(lambda w=w: w(ids, n)) for k, w in ways.items()}
        )
        first.append(
            {k: seconds(lambda w=w: w(ids, 1)) for k, w in ways.items()}
        )
    median = statistics.median
    return {
        "tokens_per_second": {k: n / median(t[k] for t in taken) for k in ways},
        "first_token_ms": {k: 1e3 * median(t[k] for t in first) for k in ways},
        "times_transformers": {
            k: median(t["transformers"] / t[k] for t in taken)
            for k in ways
            if k != "transformers"
        },
        "limit_tokens_per_second": {"float32": copies, "int8": 4 * copies},
        "same_tokens": {
            k: torch.equal(texts[k], texts["transformers"])
            for k in ("plain", "fast")
        },
    }


def measure(sizes=SIZES) -> dict:
    """sizes: {name: (tokens, rounds, bars)}, as SIZES."""
    torch.set_num_threads(THREADS)
    out = {"threads": THREADS, "prompt_tokens": PROMPT}
    for size, (n, rounds, bars) in sizes.items():
        model, trained = our_model(size)
        found = compare(model, n, rounds)
        gains = found["times_transformers"]
        asked = dict(zip(("fast", "int8"), bars, strict=True))
        asked = {k: bar for k, bar in asked.items() if bar is not None}
        out[size] = found | {
            "trained": trained,
            "new_tokens": n,
            "rounds": rounds,
            "bars": asked,
            "reached": all(gains[k] >= bar for k, bar in asked.items()),
        }
    return out
