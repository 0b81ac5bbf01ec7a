"""The rules of C4, Gopher and FineWeb beside datatrove's, and what they remove.

Both judge the same texts: real ones, the text of real web pages as chapter 1
extracts it, and made pages. datatrove cuts words and sentences with spaCy,
which the book does not need for anything else; here it is handed the book's
own, so that what is compared is the rules.
"""

import json
import lzma
import time
from collections import Counter

import llm_utils as lu
from bench import real_data

PACKAGES = ("datatrove", "lxml", "regex")
DOCUMENTS, PAGES, MADE = 1500, 300, 1500

RULES = {
    "c4": lu.c4_rules,
    "gopher": lu.gopher_rules,
    "repetition": lu.gopher_repetition_rules,
    "fineweb": lu.fineweb_rules,
}
# datatrove's names of the rules, as this book calls them
NAMES = {
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_bracket",
    "too_few_sentences": "few_sentences",
    "gopher_short_doc": "few_words",
    "gopher_long_doc": "many_words",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words",
    "gopher_too_many_hashes": "hashes",
    "gopher_too_many_ellipsis": "ellipses",
    "gopher_too_many_bullets": "bullets",
    "gopher_too_many_end_ellipsis": "open_lines",
    "gopher_below_alpha_threshold": "letters",
    "gopher_enough_stop_words": "stop_words",
    "empty": "empty",
    "dup_para_frac": "repeated_paragraphs",
    "dup_para_char_frac": "repeated_paragraphs_characters",
    "dup_line_frac": "repeated_lines",
    "dup_line_char_frac": "repeated_lines_characters",
    **{f"top_{n}_gram": f"top_{n}_words" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"again_{n}_words" for n in range(5, 11)},
    "line_punct_ratio": "ended_lines",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "repeated_lines",
    "list_ratio": "line_ends",
}


def texts(skip: int = 0, seed: int = 4) -> dict[str, list[str]]:
    """Texts by where they are from; `skip` documents and pages come first."""
    from pocket_world.web import pages

    out: dict[str, list[str]] = {}
    folder = real_data() / "pretrain"
    with lzma.open(folder / "train-01.jsonl.xz", "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows[skip : skip + DOCUMENTS]:
        out.setdefault(row["source"].split(":")[0], []).append(row["text"])
    with lzma.open(folder / "raw_html.jsonl.xz", "rt") as file:
        rows = [json.loads(line) for line in file]
    step = len(rows) // PAGES
    out["pages"] = [
        lu.extract_text(row["html"]) for row in rows[skip % step :: step]
    ]
    for page in pages(MADE, seed=seed):
        kind = page.labels["kind"]
        out.setdefault(f"made_{kind}", []).append(lu.clean_text(page.text))
    return {name: part for name, part in out.items() if len(part) >= 20}


def datatrove_filters() -> dict:
    """datatrove's four filters, with this book's words and sentences."""
    from datatrove.pipeline.filters import (
        c4_filters,
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    for module in (
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    ):
        module.split_into_words = lambda text, language: lu.split_words(text)
    c4_filters.split_into_sentences = lambda text, language: lu.split_sentences(
        text
    )
    return {
        "c4": c4_filters.C4QualityFilter(),
        "gopher": gopher_quality_filter.GopherQualityFilter(),
        "repetition": gopher_repetition_filter.GopherRepetitionFilter(),
        "fineweb": fineweb_quality_filter.FineWebQualityFilter(
            char_duplicates_ratio=0.1  # as in the paper
        ),
    }


def verdict(theirs, text: str) -> str:
    """Why datatrove drops a text, in this book's names; "" if it does not."""
    from datatrove.data import Document
    from datatrove.pipeline.filters.base_filter import get_filter_result

    try:
        kept, why = get_filter_result(theirs.filter(Document(text, "0")))
    except ZeroDivisionError:  # a page without any word
        return "no words"
    return "" if kept else NAMES[why]


def agreement(name: str, theirs, everything: list[str]) -> dict:
    """How often both drop the same texts, and for a reason both see."""
    same = reason = 0
    differ: Counter = Counter()
    for text in everything:
        ours, why = RULES[name](text), verdict(theirs, text)
        same += bool(ours) == bool(why)
        reason += why in ours if why and ours else bool(ours) == bool(why)
        if bool(ours) != bool(why):
            differ[why or f"only ours: {' '.join(ours)}"] += 1
    n = len(everything)
    return {
        "texts": n,
        "same_verdict": same / n,
        "same_reason": reason / n,
        "differ": dict(differ.most_common(5)),
    }


def measure() -> dict:
    by_source = texts()
    everything = [text for part in by_source.values() for text in part]
    out: dict = {
        "texts": {name: len(part) for name, part in by_source.items()},
        "removed": {},
        "by_rule": {},
    }
    began = time.perf_counter()
    for name, rules in RULES.items():
        out["removed"][name], out["by_rule"][name] = {}, {}
        for source, part in by_source.items():
            broken = [rules(text) for text in part]
            out["removed"][name][source] = sum(map(bool, broken)) / len(part)
            counts = Counter(rule for found in broken for rule in found)
            for rule, count in counts.items():
                row = out["by_rule"][name].setdefault(rule, {})
                row[source] = count / len(part)
    taken = time.perf_counter() - began
    out["megabytes_per_second"] = sum(map(len, everything)) / 1e6 / taken
    out["letters_at_spaces"] = {
        source: sum(
            "letters" in lu.gopher_rules(text, split=str.split) for text in part
        )
        / len(part)
        for source, part in by_source.items()
    }
    strict = [bool(lu.fineweb_rules(t, repeats=0.01)) for t in everything]
    loose = [bool(lu.fineweb_rules(t)) for t in everything]
    out["fineweb_strict"] = sum(strict) / len(strict)
    out["fineweb_paper"] = sum(loose) / len(loose)
    out["agreement"] = {
        name: agreement(name, theirs, everything)
        for name, theirs in datatrove_filters().items()
    }
    return out
