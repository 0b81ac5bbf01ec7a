"""Writing shards of real text: with tiktoken's encoder, with ours, with two.

GPT-2's vocabulary, and the whole of `write_shards`: encoding, checksums and
files. Megabytes are millions of bytes of UTF-8. `two_workers` is tiktoken in
two processes. The three indexes, with the SHA-256 of every file, are equal.
"""

import tempfile

from bench import real_data, real_texts, side_by_side
from llm_utils import BPETokenizer, write_shards

PACKAGES = ("tiktoken", "regex", "numpy")


def measure(megabytes=30, skip=0, rounds=3) -> dict:
    """skip: documents to pass over, for texts that were not seen before."""
    texts, indexes = real_texts(megabytes, skip), []
    n_bytes = sum(len(text.encode()) for text in texts)
    tokenizer = BPETokenizer.from_gpt2(real_data() / "gpt2_bpe")
    quick = tokenizer.to_tiktoken().encode_ordinary

    def write(**settings):
        with tempfile.TemporaryDirectory() as place:
            index = write_shards(
                texts,
                tokenizer,
                place,
                shard_tokens=1_000_000,
                **settings,
            )
        indexes.append(index)

    def ours():
        tokenizer._cache.clear()
        write()

    times = side_by_side(
        rounds,
        tiktoken=lambda: write(encode=quick),
        ours=ours,
        two_workers=lambda: write(encode=quick, workers=2),
    )
    return {
        "megabytes": n_bytes / 1e6,
        "documents_skipped": skip,
        "tokens": indexes[0]["tokens"],
        "files_equal": all(index == indexes[0] for index in indexes),
        "tiktoken_mb_per_second": n_bytes / 1e6 / times["tiktoken_seconds"],
        **times,
    }
