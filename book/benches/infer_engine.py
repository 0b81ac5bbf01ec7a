"""The engine at 1, 4 and 16 requests at a time, in tokens a second.

The same 16 conversations, of different lengths, go through engines with room
for 1, 4 and 16 rows, in turn, round after round. Once with the plain model and
once with the one arranged for writing. Greedy, and no answer ends before its
last token.
"""

import statistics

import torch

from bench import seconds
from benches.infer_greedy import THREADS, our_model
from chapters import ROOT
from llm_utils import (
    SPECIAL_TOKENS,
    BPETokenizer,
    Engine,
    FastGPT,
    SamplingParams,
)

PACKAGES = ("torch",)
ROWS, REQUESTS, TOKENS, ROUNDS = (1, 4, 16), 16, 48, 7
BAR = 4.0


class Endless(Engine):
    """An Engine whose answers end with their last token, and not before."""

    ends = ()


def conversations(n: int) -> list:
    """n questions, no two alike."""
    return [
        [
            {
                "role": "user",
                "content": f"{i}: " + "Where is the ferry? " * (1 + i % 3),
            }
        ]
        for i in range(n)
    ]


def measure(requests=REQUESTS, tokens=TOKENS, rounds=ROUNDS) -> dict:
    torch.set_num_threads(THREADS)
    model, trained = our_model("pocket")
    folder = ROOT / "artifacts" / "pocket" / "base"
    tokenizer = (
        BPETokenizer.load(folder)
        if trained
        else BPETokenizer([], SPECIAL_TOKENS)
    )
    wish = SamplingParams(max_new_tokens=tokens)
    talks = conversations(requests)
    out = {
        "threads": THREADS,
        "requests": requests,
        "new_tokens": tokens,
        "rounds": rounds,
        "trained": trained,
    }
    for name, m in {"plain": model, "fast": FastGPT(model)}.items():
        engines = {rows: Endless(m, tokenizer, rows) for rows in ROWS}
        for engine in engines.values():
            engine.answer(talks[:2], wish)  # warms up
        taken = [
            {
                r: seconds(lambda e=e: e.answer(talks, wish))
                for r, e in engines.items()
            }
            for _ in range(rounds)
        ]
        count = requests * tokens
        out[name] = {
            "tokens_per_second": {
                str(r): count / statistics.median(t[r] for t in taken)
                for r in ROWS
            },
            "times_one_by_one": {
                str(r): statistics.median(t[1] / t[r] for t in taken)
                for r in ROWS
            },
        }
    best = out["fast"]["times_one_by_one"]["16"]
    return out | {"bar": BAR, "reached": best >= BAR}
