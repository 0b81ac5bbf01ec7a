"""Learning a vocabulary: ours, tokenizers' trainer, and the textbook loop.

Real text, cut by GPT-2's pattern. Each side reads the same list of texts and
counts the words itself. `tokenizers` runs as a user runs it, on all cores,
and once more on one. The textbook loop is the chapter's own: it is timed on
its first merges, and the rest is reckoned with the same time for each token,
as each merge walks over the whole text once more. (The reckoning is kind to
it: the cost of a word that is a single token by then is left out.)
"""

import os
import time

import nbformat

import llm_utils
from bench import real_texts, side_by_side
from chapters import ROOT
from llm_utils import GPT2_PATTERN, BPETokenizer

PACKAGES = ("tokenizers", "regex", "numpy")


def chapter_cells(*ids: str, **names) -> dict:
    """The names that these cells of the chapter define."""
    path = ROOT / "ch02_tokenizer" / "tokenizer.ipynb"
    cells = {c.id: c.source for c in nbformat.read(path, as_version=4).cells}
    for cell in ids:
        exec(cells[cell], names)
    return names


def chapter_functions() -> tuple:
    """`train_slow` and `train_with_tokenizers` as the chapter shows them."""
    alphabet = llm_utils.byte_alphabet()
    names = chapter_cells(
        "train-slow",
        "hf-train",
        **vars(llm_utils),
        ALPHABET=alphabet,
        BYTE_ID={byte: i for i, byte in enumerate(alphabet)},
    )
    return names["train_slow"], names["train_with_tokenizers"]


def with_cores(function, parallel: bool, *arguments):
    """Call a function of `tokenizers` on all cores, or on one."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if parallel else "false"
    try:
        return function(*arguments)
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def textbook(train_slow, texts, n_bytes, saved, first=2) -> dict:
    """The textbook loop's time for all merges, from that of the first."""
    taken = []
    for merges in 0, first:
        start = time.perf_counter()
        train_slow(texts, merges)
        taken.append(time.perf_counter() - start)
    cutting, begun = taken[0], taken[1] - taken[0]
    lengths = [n_bytes]
    for less in saved:
        lengths.append(lengths[-1] - less)
    per_token = begun / sum(lengths[:first])
    return {
        "textbook_merges_timed": first,
        "textbook_seconds_timed": taken[1],
        "textbook_seconds": cutting + per_token * sum(lengths[:-1]),
    }


def compression(n_bytes, saved) -> dict:
    """Bytes per token of the texts with vocabularies of 256, 512, 1,024 …"""
    left = [n_bytes]
    for less in saved:
        left.append(left[-1] - less)
    sizes = [2**k for k in range(8, 17) if 2**k <= 256 + len(saved)]
    return {str(size): n_bytes / left[size - 256] for size in sizes}


def measure(megabytes=10, vocab_size=8192, skip=0, rounds=3) -> dict:
    """skip: documents to pass over, for texts that were not seen before."""
    train_slow, train_with_tokenizers = chapter_functions()
    texts = real_texts(megabytes, skip)
    n_bytes = sum(len(text.encode()) for text in texts)
    found = {}

    def ours():
        found["ours"] = BPETokenizer.train(texts, vocab_size, ())

    def theirs(parallel):
        found["theirs"] = with_cores(
            train_with_tokenizers, parallel, texts, vocab_size
        )

    times = side_by_side(
        rounds,
        ours=ours,
        tokenizers=lambda: theirs(True),
        tokenizers_one_thread=lambda: theirs(False),
    )
    counts = llm_utils.Counter()
    for text in texts:
        counts.update(llm_utils.regex.findall(GPT2_PATTERN, text))
    words = {word.encode(): n for word, n in counts.items()}
    _, saved = llm_utils.learn_merges(words, 2 * vocab_size - 256)
    slow = textbook(train_slow, texts, n_bytes, saved[: vocab_size - 256])
    return {
        "megabytes": n_bytes / 1e6,
        "documents_skipped": skip,
        "vocab_size": vocab_size,
        "distinct_words": len(words),
        "merges_equal": found["ours"].merges == found["theirs"],
        **times,
        **slow,
        "times_textbook": slow["textbook_seconds"] / times["ours_seconds"],
        "bytes_per_token": compression(n_bytes, saved),
    }
