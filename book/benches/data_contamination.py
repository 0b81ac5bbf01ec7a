"""Shares of 13-word runs seen in training, beside those others counted.

The held-out documents of dedup/val_near_duplicates.jsonl.xz carry `overlap`,
the share of their runs of 13 words that stand in the train shards, of which
every third was looked up. Ours are counted over all runs and all shards.
"""

import json
import lzma
import time

import numpy as np

from bench import real_data

PACKAGES = ("numpy",)


def train_texts(skip: int, count: dict):
    """The texts of the train shards after `skip`, counted as they go by."""
    for shard in sorted((real_data() / "pretrain").glob("train-*.xz"))[skip:]:
        with lzma.open(shard, "rt", encoding="utf-8") as file:
            for line in file:
                text = json.loads(line)["text"]
                count["texts"] += 1
                count["bytes"] += len(text.encode())
                yield text


def measure(skip_shards: int = 0) -> dict:
    """`skip_shards`: the first shards to leave out."""
    from llm_utils import contamination

    path = real_data() / "dedup" / "val_near_duplicates.jsonl.xz"
    with lzma.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    told = np.array([row["overlap"] for row in rows])
    count, began = {"texts": 0, "bytes": 0}, time.perf_counter()
    ours = contamination(
        train_texts(skip_shards, count), [row["text"] for row in rows]
    )
    seconds = time.perf_counter() - began
    return {
        "eval_texts": len(rows),
        "train_texts": count["texts"],
        "train_megabytes": count["bytes"] / 1e6,
        "mean_told": float(told.mean()),
        "mean_ours": float(ours.mean()),
        "mean_absolute_difference": float(np.abs(ours - told).mean()),
        "largest_difference": float(np.abs(ours - told).max()),
        "correlation": float(np.corrcoef(ours, told)[0, 1]),
        "seconds": seconds,
        "megabytes_per_second": count["bytes"] / 1e6 / seconds,
    }
