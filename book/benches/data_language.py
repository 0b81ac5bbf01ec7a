"""Languages told apart by runs of letters: real English, and shortened texts.

The identifier of chapter 1, taught on made pages alone, is asked about real
documents, which are English but for a handful of passages.
"""

import json
import lzma

import llm_utils as lu
from bench import real_data, seconds

PACKAGES = ("numpy",)
DOCUMENTS = 2000


def language(page) -> str | None:
    """The language of a made page; None for junk."""
    kind = page.labels["kind"]
    if kind != "foreign":
        return None if kind == "junk" else "English"
    words = set(page.text.lower().split())
    german = words & {"der", "die"} or set(page.text.lower()) & set("äüß")
    return "German" if german else "Ostrish"


def measure(skip: int = 0, seed: int = 2) -> dict:
    """skip: documents to pass over; seed: of the pages it is taught on."""
    from pocket_world.web import pages

    taught = [page for page in pages(1500, seed=seed) if language(page)]
    identifier = lu.LanguageIdentifier().fit(
        [page.text for page in taught], [language(page) for page in taught]
    )
    by_source: dict[str, list[str]] = {}
    shard = real_data() / "pretrain" / "train-02.jsonl.xz"
    with lzma.open(shard, "rt", encoding="utf-8") as file:
        for line in list(file)[skip : skip + DOCUMENTS]:
            row = json.loads(line)
            source = row["source"].split(":")[0]
            by_source.setdefault(source, []).append(row["text"])
    real = {}
    for source, texts in sorted(by_source.items()):
        said = identifier.predict(texts)
        n = len(texts)
        english, none = said.count("English"), said.count(None)
        real[source] = {
            "texts": n,
            "English": english / n,
            "none": none / n,
            "others": (n - english - none) / n,
        }
    test = [page for page in pages(2000, seed=seed + 50) if language(page)]
    shortened = {}
    for length in (20, 50, 100, 200, 400):
        said = identifier.predict([page.text[:length] for page in test])
        right = sum(a == language(page) for a, page in zip(said, test))
        shortened[str(length)] = right / len(test)
    everything = [text for texts in by_source.values() for text in texts]
    took = seconds(lambda: identifier.predict(everything))
    return {
        "limit": identifier.limit,
        "real": real,
        "made_by_characters": shortened,
        "texts_per_second": len(everything) / took,
    }
