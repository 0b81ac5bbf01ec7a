"""Broken letters mended: `repair_mojibake` beside ftfy, on real text.

Lines of real text that hold a letter outside ASCII are broken by reading
their UTF-8 as Windows-1252, once and twice; a line counts as restored if it
is the same to the letter. The same lines unbroken must stay as they are. Both
are only asked to undo a wrong decoding (`ftfy.fix_encoding`).
"""

import random
from collections import Counter

import ftfy

import llm_utils as lu
from bench import real_texts, side_by_side

PACKAGES = ("ftfy", "regex")
MEGABYTES, LINES = 12, 2000


def misread(text: str) -> str:
    """UTF-8 read as Windows-1252, its five unused bytes as Latin-1."""
    return "".join(
        bytes([byte]).decode("cp1252", "ignore") or chr(byte)
        for byte in text.encode()
    )


def first_difference(a: str, b: str) -> str:
    """What stands in a where b begins to differ, and its Unicode number."""
    at = next((x for x, y in zip(a, b) if x != y), "")
    return f"U+{ord(at):04X}" if at else "length"


def block(code: str) -> str:
    """A coarse name for where a letter is from."""
    if not code.startswith("U+"):
        return "other"
    number = int(code[2:], 16)
    for end, name in (
        (0x80, "ASCII"),
        (0x250, "Latin"),
        (0x370, "phonetic letters, accents"),
        (0x400, "Greek"),
        (0x530, "Cyrillic"),
        (0x1E00, "other scripts"),
        (0x1F00, "Latin with dots below"),
        (0x2000, "old Greek"),
        (0x3000, "symbols"),
        (0xD800, "other scripts"),
    ):
        if number < end:
            return name
    return "pictures and others"


def measure(skip: int = 0, seed: int = 0) -> dict:
    """skip: real documents to pass over; seed: of the lines taken."""
    texts = real_texts(MEGABYTES, skip)
    lines = {
        line
        for text in texts
        for line in text.split("\n")
        if not line.isascii()
    }
    lines = random.Random(seed).sample(sorted(lines), min(LINES, len(lines)))
    ways = {"ours": lu.repair_mojibake, "ftfy": ftfy.fix_encoding}
    out: dict = {"lines": len(lines), "restored": {}, "not_restored": {}}
    out["changed_though_whole"] = {
        name: sum(way(line) != line for line in lines)
        for name, way in ways.items()
    }
    for name, way in ways.items():
        out["restored"][name] = {}
        for rounds in (1, 2):
            lost: Counter = Counter()
            for line in lines:
                broken = line
                for _ in range(rounds):
                    broken = misread(broken)
                if (mended := way(broken)) != line:
                    lost[block(first_difference(line, mended))] += 1
            share = 1 - lost.total() / len(lines)
            out["restored"][name][f"misread_{rounds}"] = share
            if rounds == 1:
                out["not_restored"][name] = dict(lost.most_common(6))
    sample = texts[:200] + [misread(line) for line in lines[:500]]
    characters = sum(map(len, sample))
    timing = side_by_side(
        ftfy=lambda: [ftfy.fix_encoding(text) for text in sample],
        ours=lambda: [lu.repair_mojibake(text) for text in sample],
        clean=lambda: [lu.clean_text(text) for text in sample],
    )
    return out | {
        "million_characters_per_second": {
            name: characters / 1e6 / timing[f"{name}_seconds"]
            for name in ("ours", "ftfy", "clean")
        },
        "times_as_fast": timing["over_ours"],
    }
