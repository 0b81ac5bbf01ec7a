"""The text of web pages: chapter 1 beside trafilatura, on made and real pages.

On made pages the truth is known, so both get an F1 of their words; on real
ones there is only how far the two agree. What trafilatura gives is cleaned by
`clean_text` as ours is, so that quotes and spaces do not count. The reference
pages of one source open with a header of their archive's own, which is no
part of a page and is cut off for both.
"""

import json
import lzma
import random
import re
import statistics

import llm_utils as lu
from bench import real_data, side_by_side

PACKAGES = ("lxml", "trafilatura")
MADE, REAL = 1000, 80  # pages; real ones of each source
ARCHIVE_HEADER = re.compile(r"\A---\n.*?\n---\n", re.S)


def theirs(page: bytes | str) -> str:
    """The text that trafilatura finds, without readers' comments."""
    import trafilatura

    found = trafilatura.extract(page, include_comments=False)
    return lu.clean_text(found or "")


def scores(found: list[str], truth: list[str]) -> dict:
    f1 = [lu.token_f1(a, b) for a, b in zip(found, truth, strict=True)]
    return {
        "f1": statistics.mean(f1),
        "below_0.9": sum(x < 0.9 for x in f1) / len(f1),
        "letter_for_letter": sum(map(str.__eq__, found, truth)) / len(f1),
    }


def real_pages(skip: int = 0, seed: int = 0) -> dict[str, list[str]]:
    """Real pages by source, in random order, without the first `skip`."""
    rows: dict[str, list[str]] = {}
    file = real_data() / "pretrain" / "raw_html.jsonl.xz"
    with lzma.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            html = ARCHIVE_HEADER.sub("", row["html"])
            rows.setdefault(row["source"], []).append(html)
    rng = random.Random(seed)
    return {
        source: rng.sample(part, len(part))[skip : skip + REAL]
        for source, part in rows.items()
    }


def measure(seed: int = 9, skip: int = 0) -> dict:
    import logging

    from pocket_world.web import pages

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    made = list(pages(MADE, seed=seed))
    truth = [lu.clean_text(page.text) for page in made]
    alone = [lu.extract_text(page.html) for page in made]
    sites = [page.labels["site"] for page in made]
    out: dict = {
        "made": {
            "pages": MADE,
            "ours": scores(alone, truth),
            "ours_with_site": scores(
                lu.drop_shared_paragraphs(alone, sites), truth
            ),
            "trafilatura": scores([theirs(p.html) for p in made], truth),
        },
        "real": {},
    }
    by_source = real_pages(skip)
    for source, part in by_source.items():
        a, b = [lu.extract_text(p) for p in part], [theirs(p) for p in part]
        f1 = [lu.token_f1(x, y) for x, y in zip(a, b, strict=True)]
        out["real"][source] = {
            "pages": len(part),
            "agreement": statistics.mean(f1),
            "median": statistics.median(f1),
            "below_0.9": sum(x < 0.9 for x in f1) / len(f1),
            "ours_words": statistics.mean(len(x.split()) for x in a),
            "theirs_words": statistics.mean(len(x.split()) for x in b),
            "ours_empty": sum(len(x.split()) < 20 for x in a),
            "theirs_empty": sum(len(x.split()) < 20 for x in b),
        }
    few = [page.html for page in made[:300]]
    few += [page for part in by_source.values() for page in part[:20]]
    timing = side_by_side(
        trafilatura=lambda: [theirs(page) for page in few],
        ours=lambda: [lu.extract_text(page) for page in few],
    )
    return out | {
        "ours_pages_per_second": len(few) / timing["ours_seconds"],
        "theirs_pages_per_second": len(few) / timing["trafilatura_seconds"],
        "times_as_fast": timing["over_ours"],
    }
