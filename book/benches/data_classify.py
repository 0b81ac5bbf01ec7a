"""The classifier of chapter 1 beside the real fastText, on the same data.

Same words, pairs of words, table, vector length and epochs. fastText's rate
of learning is the best of three for it. Its tables are filled a tenth a
thread, so with fewer than eleven threads a part of them would be memory as
it was found; hence eleven, on however many cores there are.
"""

import json
import lzma
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

import llm_utils as lu
from bench import real_data

PACKAGES = ("fasttext-numpy2", "numpy", "torch")
EPOCHS, DIM, BUCKETS, SEEDS = 8, 16, 2**15, 3
RATES = (0.1, 0.5, 1.0)
Labelled = tuple[list[str], list[str]]


def crawl(n: int, seed: int) -> Labelled:
    """Texts of made pages, and what kind of page each is."""
    from pocket_world.web import pages

    made = list(pages(n, seed=seed))
    texts = lu.drop_shared_paragraphs(
        [lu.extract_text(page.html) for page in made],
        [page.labels["site"] for page in made],
    )
    return texts, [page.labels["kind"] for page in made]


def real_sets(seed: int) -> dict[str, tuple[Labelled, Labelled]]:
    """Real labelled texts, a fifth of them held out."""
    folder = real_data() / "classification"
    with open(folder / "sms_spam.tsv", encoding="utf-8") as file:
        sms = {tuple(line.rstrip("\n").split("\t", 1)) for line in file}
    with lzma.open(folder / "movie_reviews.jsonl.xz", "rt") as file:
        rows = [json.loads(line) for line in file]
    films = [(row["label"], row["text"]) for row in rows]
    out = {}
    for name, pairs in (("sms", sorted(sms)), ("reviews", films)):
        random.Random(seed).shuffle(pairs)
        labels, texts = map(list, zip(*pairs))
        cut = len(pairs) * 4 // 5
        out[name] = (texts[:cut], labels[:cut]), (texts[cut:], labels[cut:])
    return out


def in_words(text: str) -> str:
    """A text as `hashed_ngrams` cuts it; fastText splits at spaces."""
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))


def theirs(train: Labelled, asked: list[str], rate: float, seed: int):
    """fastText's answers, and the seconds it learned and answered."""
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        file.write_text(
            "".join(
                f"__label__{label} {in_words(text)}\n"
                for text, label in zip(*train, strict=True)
            ),
            encoding="utf-8",
        )
        began = time.perf_counter()
        model = fasttext.train_supervised(
            str(file),
            lr=rate,
            epoch=EPOCHS,
            dim=DIM,
            wordNgrams=2,
            bucket=BUCKETS,
            minCount=1,
            thread=11,
            seed=seed,
            verbose=0,
        )
        learned = time.perf_counter() - began
    began = time.perf_counter()
    found = model.predict([in_words(text) for text in asked])[0]
    answers = [labels[0].removeprefix("__label__") for labels in found]
    return answers, learned, time.perf_counter() - began


def ours(train: Labelled, asked: list[str], seed: int, **options):
    """Our answers, and the seconds; with the model, for more questions."""
    judge = lu.QualityClassifier(BUCKETS, DIM, EPOCHS, seed, **options)
    began = time.perf_counter()
    judge.fit(*train)
    learned = time.perf_counter() - began
    began = time.perf_counter()
    best = judge.predict_proba(asked).argmax(1)
    answers = [judge.classes_[i] for i in best]
    return answers, learned, time.perf_counter() - began, judge


def macro_f1(found: list[str], truth: list[str]) -> float:
    """The mean over the labels of each one's F1."""
    out = []
    for label in sorted(set(truth)):
        p, r = lu.precision_recall(
            (i for i, x in enumerate(found) if x == label),
            (i for i, x in enumerate(truth) if x == label),
        )
        out.append(2 * p * r / (p + r) if p + r else 0.0)
    return statistics.mean(out)


def summary(runs: list[tuple], truth: list[str], n_train: int) -> dict:
    """Mean scores of some runs, (answers, learned, answered) each."""
    right = [sum(map(str.__eq__, run[0], truth)) for run in runs]
    return {
        "accuracy": statistics.mean(right) / len(truth),
        "macro_f1": statistics.mean(macro_f1(run[0], truth) for run in runs),
        "texts_learned_per_second": n_train
        * EPOCHS
        / statistics.median(run[1] for run in runs),
        "texts_judged_per_second": len(truth)
        / statistics.median(run[2] for run in runs),
    }


def with_doubt(train: Labelled, asked: list[str], seed: int):
    """Our answers, junk where less than half of the words are known."""
    answers, learned, answered, judge = ours(train, asked, seed)
    known = judge.known_share(asked)
    doubted = [a if k > 0.5 else "junk" for a, k in zip(answers, known)]
    return doubted, learned, answered


def measure(seed: int = 0) -> dict:
    """seed: of the division of the real sets, and of the made pages."""
    sets = {"crawl": (crawl(1500, 2 + seed), crawl(1500, 103 + seed))}
    sets |= real_sets(seed)
    out: dict = {"epochs": EPOCHS, "dim": DIM, "buckets": BUCKETS}
    for name, (train, (asked, truth)) in sets.items():
        n = len(train[0])
        ways = {
            "ours": [ours(train, asked, s) for s in range(SEEDS)],
            "ours, larger eps": [
                ours(train, asked, s, eps=1e-3) for s in range(SEEDS)
            ],
        }
        if name == "crawl":
            ways["ours, if it knows the words"] = [
                with_doubt(train, asked, s) for s in range(SEEDS)
            ]
        tried = {
            rate: [theirs(train, asked, rate, s) for s in range(SEEDS)]
            for rate in RATES
        }
        found = {way: summary(runs, truth, n) for way, runs in ways.items()}
        by_rate = {r: summary(runs, truth, n) for r, runs in tried.items()}
        best = max(by_rate, key=lambda rate: by_rate[rate]["accuracy"])
        found["fastText"] = by_rate[best] | {"rate": best}
        out[name] = {"learned": n, "judged": len(truth)} | found
    return out
