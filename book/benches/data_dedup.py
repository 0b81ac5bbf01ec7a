"""Near-duplicates beside datasketch: seconds, recall and precision.

Three sets of texts: a crawl of Pocket World, a thousand news articles with ten
planted pairs, and chapters of novels in two editions each. Both sides get the
same words, the same runs of five of them, 128 permutations and the same
threshold, and each does all of it: shingles, signatures, candidates, check.
datasketch is used as its guide shows, with the bands that it chooses itself
("theirs") and, so that the curves are the same, with ours ("theirs_our_bands");
its check is the estimate from the signatures. The truth is the exact
similarity, of every pair that either side or the labels name.
"""

import json
import lzma
import re

import bench

PACKAGES = ["datasketch", "numpy"]
SEED, THRESHOLD, NUM_PERM, NGRAM = 11, 0.8, 128, 5


def labelled(name: str) -> tuple[list[str], set[tuple[int, int]]]:
    """Texts of a set of real data, and the pairs that its labels name."""
    folder = bench.real_data() / "dedup"
    with lzma.open(folder / f"{name}.jsonl.xz", "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    number = {row["id"]: i for i, row in enumerate(rows)}
    pairs = json.loads((folder / f"{name}_pairs.json").read_text("utf-8"))
    named = {tuple(sorted((number[p[0]], number[p[1]]))) for p in pairs}
    return [row["text"] for row in rows], named


def crawl(n: int = 5000) -> tuple[list[str], set[tuple[int, int]]]:
    """The true texts of a crawl, and the pairs of one family."""
    from pocket_world.web import pages

    found = list(pages(n, seed=SEED))
    number = {page.url: i for i, page in enumerate(found)}
    named = {
        (number[url], i)
        for i, page in enumerate(found)
        for url in page.labels["similar"]
    }
    return [page.text for page in found], named


def shingles(text: str) -> set[bytes]:
    """The runs of NGRAM words of a text."""
    words = re.findall(r"\w+", text.lower())
    last = max(len(words) - NGRAM + 1, min(len(words), 1))
    return {" ".join(words[i : i + NGRAM]).encode() for i in range(last)}


def theirs(texts: list[str], bands=None) -> set[tuple[int, int]]:
    """The pairs that datasketch finds."""
    from datasketch import MinHash, MinHashLSH

    sketches = []
    for text in texts:
        sketches.append(MinHash(num_perm=NUM_PERM))
        sketches[-1].update_batch(shingles(text))
    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM, params=bands)
    for i, sketch in enumerate(sketches):
        index.insert(i, sketch)
    return {
        (j, i)
        for i, sketch in enumerate(sketches)
        for j in index.query(sketch)
        if j < i and sketch.jaccard(sketches[j]) >= THRESHOLD
    }


def truth(texts, suspects) -> set[tuple[int, int]]:
    """Of these pairs, the ones that are as similar as the threshold."""
    sets = {i: shingles(texts[i]) for pair in suspects for i in pair}
    true = set()
    for i, j in suspects:
        shared = len(sets[i] & sets[j])
        union = len(sets[i]) + len(sets[j]) - shared
        if union and shared / union >= THRESHOLD:
            true.add((i, j))
    return true


def compare(texts: list[str], named: set[tuple[int, int]]) -> dict:
    """Figures for one set of texts."""
    from llm_utils import choose_bands, near_duplicates, precision_recall

    ours_bands = choose_bands(THRESHOLD, NUM_PERM)
    found = {}

    def keep(name, work):
        found[name] = set(work())

    ways = {
        "ours": lambda: near_duplicates(texts, THRESHOLD, NUM_PERM, NGRAM),
        "theirs": lambda: theirs(texts),
        "theirs_our_bands": lambda: theirs(texts, ours_bands),
    }
    times = bench.side_by_side(
        **{n: lambda n=n, w=w: keep(n, w) for n, w in ways.items()}
    )
    true = truth(texts, named.union(*found.values()))
    scores = {}
    for name in ways:
        precision, recall = precision_recall(found[name], true)
        scores |= {f"{name}_precision": precision, f"{name}_recall": recall}
        rate = len(texts) / times[f"{name}_seconds"]
        scores[f"{name}_texts_per_second"] = rate
    return {
        "texts": len(texts),
        "megabytes": sum(len(text.encode()) for text in texts) / 1e6,
        "true_pairs": len(true),
        **scores,
        "times_as_fast": 1 / times["over_theirs"],
        "times_as_fast_our_bands": 1 / times["over_theirs_our_bands"],
    }


def measure() -> dict:
    """All three sets."""
    import llm_utils

    llm_utils.near_duplicates(["one text", "another"])  # tables are made once
    return {
        "threshold": THRESHOLD,
        "num_perm": NUM_PERM,
        "ngram": NGRAM,
        "bands_rows": list(llm_utils.choose_bands(THRESHOLD, NUM_PERM)),
        "crawl": compare(*crawl()),
        "articles": compare(*labelled("minhash_articles_1000")),
        "novels": compare(*labelled("book_editions")),
    }
