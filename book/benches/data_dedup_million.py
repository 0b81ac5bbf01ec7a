"""A million documents through `deduplicate`, with planted copies, in how much memory.

The documents lie in a file, as a corpus would. Each has 80 words drawn by a
seeded hash from 20,000. Most are strangers to all others; a hundred thousand
families have three members that begin alike, for so long that their similarity
is a number we choose, from 0.5 to 1; and one page was copied fifty thousand
times with its last word changed. All are shuffled. Two members of a family are
as similar as the threshold if and only if both keep enough of the common
beginning, so the truth is known: of those members only the first may stay.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

import bench

PACKAGES = ["numpy"]
SEED, THRESHOLD = 5, 0.8
N_TEXTS, N_WORDS, NGRAM = 1_000_000, 80, 5
FAMILIES, MEMBERS, CROWD = 100_000, 3, 50_000


class Documents:
    """Texts in a file, one after the other; only their places are held."""

    def __init__(self, path: Path, ends: np.ndarray):
        self.file, self.ends = os.open(path, os.O_RDONLY), ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        if i >= len(self.ends):
            raise IndexError(i)
        start = int(self.ends[i - 1]) if i else 0
        return os.pread(self.file, int(self.ends[i]) - start, start).decode()


def chance(x: np.ndarray) -> np.ndarray:
    """Integers of 64 bits, scrambled (SplitMix64)."""
    x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def plan(n: int, families: int, crowd: int):
    """Each text's family, and how many words it has of it; in random order.

    A text on its own is a family of one.
    """
    rng = np.random.default_rng(SEED)
    similarity = rng.uniform(0.5, 1, families * MEMBERS)
    # With s of the n - 4 shingles in common, J = s / (2 (n - 4) - s).
    all_of_it = N_WORDS - NGRAM + 1
    shared = np.rint(2 * all_of_it * similarity / (1 + similarity))
    alone = n - families * MEMBERS - crowd
    family = np.concatenate(
        [
            np.repeat(np.arange(families), MEMBERS),
            np.full(crowd, families),
            families + 1 + np.arange(alone),
        ]
    )
    common = np.concatenate(
        [
            shared.astype(int) + NGRAM - 1,
            np.full(crowd, N_WORDS - 1),
            np.full(alone, N_WORDS),
        ]
    )
    order = rng.permutation(n)
    return family[order], common[order]


def write(path: Path, family: np.ndarray, common: np.ndarray) -> Documents:
    """Write the texts of a plan; what reads them."""
    vowels, rest = "aeiou", "bcdfghjklmnprstvwz"
    pairs = [c + v for c in rest for v in vowels]
    words = [a + b + c for a in pairs for b in pairs for c in "nrst"][:20_000]
    place, ends = np.arange(N_WORDS, dtype=np.uint64), []
    with open(path, "wb") as file:
        for low in range(0, len(family), 10_000):
            rows = np.arange(low, min(low + 10_000, len(family)))
            own = (rows + len(family))[:, None]
            part = np.where(place < common[rows, None], family[rows, None], own)
            drawn = chance(part.astype(np.uint64) * np.uint64(256) + place)
            for row in (drawn % np.uint64(len(words))).tolist():
                text = " ".join([words[i] for i in row]) + "\n"
                file.write(text.encode())
                ends.append(len(text))
    return Documents(path, np.cumsum(ends))


def copies(family: np.ndarray, common: np.ndarray) -> set[int]:
    """The texts that must go."""
    shared = common - NGRAM + 1
    close = shared / (2 * (N_WORDS - NGRAM + 1) - shared) >= THRESHOLD
    at = np.flatnonzero(close)
    first = at[np.unique(family[at], return_index=True)[1]]
    return set(at.tolist()) - set(first.tolist())


def measure(n: int = N_TEXTS) -> dict:
    """Deduplicate `n` texts, of which as many are copies as of a million."""
    from llm_utils import deduplicate, precision_recall

    share = n / N_TEXTS
    family, common = plan(n, int(FAMILIES * share), int(CROWD * share))
    with tempfile.TemporaryDirectory() as folder:
        texts = write(Path(folder) / "texts.txt", family, common)
        before = bench.peak_bytes()
        began = time.perf_counter()
        kept = deduplicate(texts, THRESHOLD)
        seconds = time.perf_counter() - began
        os.close(texts.file)
    gone = set(range(n)) - set(kept)
    precision, recall = precision_recall(gone, copies(family, common))
    return {
        "texts": n,
        "megabytes": int(texts.ends[-1]) / 1e6,
        "copies_planted": len(copies(family, common)),
        "copies_removed": len(gone),
        "precision": precision,
        "recall": recall,
        "dedup_seconds": seconds,
        "texts_per_second": n / seconds,
        "peak_bytes_before": before,
        "peak_bytes_after": bench.peak_bytes(),
    }
