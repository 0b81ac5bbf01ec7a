"""A vocabulary of GPT-2's size from 100 MB of real text: time and memory.

`memory_bytes` is the most that this process had held when our training was
over, the texts among it; after that `tokenizers` learns from the same texts,
on all cores, and the two lists of merges are compared.
"""

from bench import peak_bytes, real_texts, seconds
from benches.data_bpe import chapter_functions, with_cores
from llm_utils import BPETokenizer

PACKAGES = ("tokenizers", "regex", "numpy")


def measure(megabytes=100, vocab_size=50_257, skip=0) -> dict:
    """skip: documents to pass over, for texts that were not seen before."""
    texts, found = real_texts(megabytes, skip), {}
    before = peak_bytes()

    def ours():
        found["ours"] = BPETokenizer.train(
            texts, vocab_size, ("<|endoftext|>",)
        )

    ours_seconds = seconds(ours)
    memory = peak_bytes()

    def theirs():
        _, train_with_tokenizers = chapter_functions()
        found["theirs"] = with_cores(
            train_with_tokenizers, True, texts, vocab_size - 1
        )

    theirs_seconds = seconds(theirs)
    return {
        "megabytes": sum(len(text.encode()) for text in texts) / 1e6,
        "documents_skipped": skip,
        "vocab_size": found["ours"].vocab_size,
        "merges_equal": found["ours"].merges == found["theirs"],
        "ours_seconds": ours_seconds,
        "tokenizers_seconds": theirs_seconds,
        "over_tokenizers": ours_seconds / theirs_seconds,
        "memory_bytes": memory,
        "memory_for_texts_bytes": before,
    }
