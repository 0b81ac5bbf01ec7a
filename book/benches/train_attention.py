"""The peak memory of attention by the length of the text, to 16,384 tokens.

Chapter 3's tiles, forward and backward, beside PyTorch's kernel and the equation
(which stops at 4,096 tokens: its squares would fill the machine). Each length
runs in a process of its own; what counts is the growth of the most that it has
held, as the system tells it, once queries, keys and values are there. A slope
of 1 is linear, one of 2 the square.
"""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

from bench import peak_bytes
from chapters import ROOT

PACKAGES = ("torch",)
LENGTHS = (1024, 2048, 4096, 8192, 16384)
HEADS, WIDTH, BLOCK = 4, 64, 256
BAR_SLOPE = 1.15


def peak() -> int:
    """The most memory that this program has held, in bytes.

    Not `ru_maxrss`, where Linux tells more: it begins with what the process
    that started this one held.
    """
    status = Path("/proc/self/status")
    told = status.read_text() if status.exists() else ""
    most = re.search(r"VmHWM:\s+(\d+) kB", told)
    return int(most[1]) * 1024 if most else peak_bytes()


def once(way: str, length: int) -> None:
    """One forward and backward; prints the growth of the peak in bytes."""
    import torch
    import torch.nn.functional as F

    from llm_utils import (
        causal_mask,
        flash_attention,
        scaled_dot_product_attention,
    )

    ways = {
        "tiles": lambda *z: flash_attention(*z, block=BLOCK),
        "kernel": lambda *z: F.scaled_dot_product_attention(*z, is_causal=True),
        "equation": lambda *z: scaled_dot_product_attention(
            *z, causal_mask(z[0].shape[2])
        ),
    }
    g = torch.Generator().manual_seed(0)

    def qkv(t):
        return [
            torch.randn(1, HEADS, t, WIDTH, generator=g).requires_grad_()
            for _ in range(3)
        ]

    ways[way](*qkv(64)).sum().backward()  # what is loaded once
    inputs = qkv(length)
    before = peak()
    ways[way](*inputs).sum().backward()
    print(json.dumps(peak() - before))


def slope(lengths, sizes) -> float:
    """The power of the length with which the sizes grow, by least squares."""
    x, y = [math.log(t) for t in lengths], [math.log(s) for s in sizes]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return over / sum((a - mx) ** 2 for a in x)


def measure(lengths=LENGTHS) -> dict:
    """lengths: of the texts, in tokens."""
    out = {}
    plain = {  # memory is not to be kept for later, as a training run wants it
        k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")
    }
    for way in ("tiles", "kernel", "equation"):
        mine = [t for t in lengths if way != "equation" or t <= 4096]
        sizes = [
            int(
                subprocess.run(
                    [sys.executable, "-m", __name__, way, str(t)],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    cwd=ROOT / "book",
                    env=plain,
                ).stdout.splitlines()[-1]
            )
            for t in mine
        ]
        out[way] = {
            "peak_bytes": dict(zip(map(str, mine), sizes, strict=True)),
            "slope": slope(mine[1:], sizes[1:]),
        }
    tiles = out["tiles"]["slope"]
    return {
        "heads": HEADS,
        "width": WIDTH,
        "block": BLOCK,
        "growth": out,
        "bar_slope": BAR_SLOPE,
        "within": tiles <= BAR_SLOPE,
    }


if __name__ == "__main__":
    once(sys.argv[1], int(sys.argv[2]))
