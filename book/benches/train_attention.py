"""The peak memory of attention by the length of the text, to 16,384 tokens.

Chapter 3's tiles, forward and backward, beside PyTorch's kernel and the equation
(which stops at 4,096 tokens: its squares would fill the machine). Each length
runs in a process of its own, which looks 500 times a second at its own memory;
what counts is the growth over what it held when queries, keys and values were
there. A slope of 1 is linear, one of 2 the square.
"""

import json
import math
import subprocess
import sys
import time

from chapters import ROOT

PACKAGES = ("torch",)
LENGTHS = (1024, 2048, 4096, 8192, 16384)
HEADS, WIDTH, BLOCK = 4, 64, 256
BAR_SLOPE = 1.15


def watch(stop, out: list) -> None:
    """Follow this process's own memory until told to stop."""
    import psutil

    process = psutil.Process()
    while not stop.wait(0.002):
        memory = process.memory_info()
        out[0] = max(out[0], memory.rss - getattr(memory, "shared", 0))


def once(way: str, length: int) -> None:
    """One forward and backward; prints the growth of the peak in bytes."""
    import threading

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
    held, stop = [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(stop, held))
    watcher.start()
    time.sleep(0.1)  # what is there before
    before = held[0]
    ways[way](*inputs).sum().backward()
    stop.set()
    watcher.join()
    print(json.dumps(held[0] - before))


def slope(lengths, sizes) -> float:
    """The power of the length with which the sizes grow, by least squares."""
    x, y = [math.log(t) for t in lengths], [math.log(s) for s in sizes]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return over / sum((a - mx) ** 2 for a in x)


def measure(lengths=LENGTHS) -> dict:
    """lengths: of the texts, in tokens."""
    out = {}
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
