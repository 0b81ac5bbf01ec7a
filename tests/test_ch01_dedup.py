"""Deduplication: the pairs, the rule of what stays, and the tools beside it."""

import itertools
import random
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_utils as lu
from benches import data_dedup, data_dedup_million

WORD = st.text(st.characters(codec="utf-8"), max_size=12)


def by_hand(text: str, ngram: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    if len(words) <= ngram:
        return {tuple(words)} if words else set()
    return set(zip(*(words[k:] for k in range(ngram))))


@given(st.lists(WORD, max_size=12), st.integers(1, 6))
@settings(max_examples=200)
def test_shingles_are_those_of_a_regular_expression(texts, ngram):
    words, begins = lu.word_hashes(texts)
    hashes, starts = lu.shingle_hashes(texts, ngram)
    seen = {}
    for i, text in enumerate(texts):
        expected = re.findall(r"\w+", text.lower())
        found = words[begins[i] : begins[i + 1]].tolist()
        assert len(found) == len(expected)
        for word, number in zip(expected, found, strict=True):
            assert seen.setdefault(word, number) == number
        own = set(hashes[starts[i] : starts[i + 1]].tolist())
        assert len(own) == len(by_hand(text, ngram))
    assert len(set(seen.values())) == len(seen)


def test_letters_of_words_do_not_make_shingles_of_others():
    """A word's place in its run and a letter's in its word are told apart."""
    swapped = ["over the hill ab cd", "over the hill db ca"]
    hashes, _ = lu.shingle_hashes(swapped)
    assert hashes[0] != hashes[1]


def greedy(texts, threshold, ngram=5):
    """The rule as it is told: no kept text before is so similar."""
    kept = []
    for i, text in enumerate(texts):
        mine = by_hand(text, ngram)
        if not mine and any(not by_hand(texts[j], ngram) for j in kept):
            continue
        for j in kept:
            theirs = by_hand(texts[j], ngram)
            union = mine | theirs
            if union and len(mine & theirs) / len(union) >= threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_deduplicate_is_the_rule_as_told(seed):
    rng = random.Random(seed)
    texts = []
    for _ in range(60):
        base = rng.choices("abcdefghijklmnopqrstuvwxyz", k=60)
        for _ in range(rng.randrange(1, 5)):
            copy = base.copy()
            for _ in range(rng.choice((0, 0, 1, 3))):
                copy[rng.randrange(60)] = "changed"
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    expected = greedy(texts, 0.7)
    found = lu.deduplicate(texts, 0.7, num_perm=512, seed=seed)
    assert found == expected


def test_a_sequence_on_disk_gives_what_a_list_gives(tmp_path):
    family, common = data_dedup_million.plan(3000, 300, 200)
    texts = data_dedup_million.write(tmp_path / "texts", family, common)
    kept = lu.deduplicate(texts)
    assert kept == lu.deduplicate(list(texts))
    assert kept == lu.deduplicate(iter(list(texts)))
    gone = set(range(3000)) - set(kept)
    planted = data_dedup_million.copies(family, common)
    assert gone <= planted and len(gone) >= 0.98 * len(planted) > 250


def test_a_hundred_thousand_near_copies_are_no_trouble():
    """One page with a counter at its foot: five thousand million pairs."""
    page = " ".join(f"w{i}" for i in range(60))
    texts = [f"{page} visitor {i}" for i in range(100_000)]
    started = time.process_time()
    assert lu.deduplicate(texts) == [0]
    assert time.process_time() - started < 60
    with pytest.raises(ValueError, match="20,000,000 candidate pairs"):
        lu.near_duplicates(texts[:20_000])


def test_exact_copies_cost_one_comparison():
    texts = ["Wren waits at the ferry, and the bell is still."] * 100_000
    assert lu.deduplicate(texts) == [0]


def test_candidates_are_all_pairs_of_a_band_and_no_others():
    rng = np.random.default_rng(0)
    signatures = rng.integers(0, 3, (80, 12), dtype=np.uint32)
    found = set(map(tuple, lu.candidate_pairs(signatures, 4, 3).tolist()))
    parts = signatures.reshape(80, 4, 3)
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(80), 2)
        if (parts[i] == parts[j]).all(1).any()
    }
    assert found == expected and len(expected) > 100
    assert lu.candidate_pairs(signatures[:0], 4, 3).shape == (0, 2)


def test_the_measured_share_lies_on_the_s_curve():
    rng = np.random.default_rng(7)
    for shared in (60, 80, 100, 110):
        texts = []
        for _ in range(400):
            a, b = rng.integers(10**9, size=(2, 120))
            b[:shared] = a[:shared]
            texts += [" ".join(map(str, a)), " ".join(map(str, b))]
        similarity = (shared - 4) / (232 - (shared - 4))
        for bands, rows in ((21, 6), (14, 8), (32, 4)):
            pairs = lu.candidate_pairs(
                lu.minhash_signatures(texts), bands, rows
            )
            twins = (pairs[:, 0] % 2 == 0) & (pairs[:, 1] - pairs[:, 0] == 1)
            p = float(lu.candidate_probability(similarity, bands, rows))
            # Four standard deviations of a share of 400 pairs.
            slack = 4 * (p * (1 - p) / 400) ** 0.5 + 0.01
            assert abs(twins.sum() / 400 - p) <= slack


def against_datasketch(texts, named):
    ours = set(lu.near_duplicates(texts, data_dedup.THRESHOLD))
    bands = lu.choose_bands(data_dedup.THRESHOLD)
    theirs = [data_dedup.theirs(texts), data_dedup.theirs(texts, bands)]
    true = data_dedup.truth(texts, named.union(ours, *theirs))
    assert len(true) >= 10
    mine = lu.precision_recall(ours, true)
    for found in theirs:
        other = lu.precision_recall(found, true)
        assert mine[0] >= other[0] - 0.01 and mine[1] >= other[1] - 0.01


def test_pairs_are_as_right_as_those_of_datasketch():
    against_datasketch(*data_dedup.crawl(1500))


def test_pairs_of_news_are_as_right_as_those_of_datasketch(real_data):
    against_datasketch(*data_dedup.labelled("minhash_articles_1000"))


@pytest.mark.full
def test_pairs_of_novels_are_as_right_as_those_of_datasketch(real_data):
    against_datasketch(*data_dedup.labelled("book_editions"))


@pytest.mark.full
def test_two_hundred_thousand_texts():
    figures = data_dedup_million.measure(200_000)
    assert figures["precision"] == 1 and figures["recall"] > 0.995
    grown = figures["peak_bytes_after"] - figures["peak_bytes_before"]
    assert grown < 0.8e9  # a fifth of what a million may take


@pytest.mark.full
def test_datatrove_joins_the_candidates_of_its_own_signatures(tmp_path):
    """Its pipeline keeps one text of each cluster of what shares a band."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datatrove.pipeline.dedup import MinhashDedupSignature

    from llm_utils import _datatrove_config

    texts = data_dedup.crawl(1500)[0]
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for k in range(3):
        rows = [
            {"id": str(i), "text": texts[i]} for i in range(k, len(texts), 3)
        ]
        pq.write_table(pa.Table.from_pylist(rows), source / f"{k}.parquet")
    lu.datatrove_deduplicate(source, target, tasks=3)
    kept = [
        int(i)
        for file in target.iterdir()
        for i in pq.read_table(file)["id"].to_pylist()
    ]
    words, config = _datatrove_config(0.8, 128, 5)
    signer = MinhashDedupSignature(
        str(tmp_path / "unused"), config=config, language=words
    )
    cluster, heads = {}, {}
    for i, text in enumerate(texts):
        shingles = signer.get_shingles(text)
        bands = signer.get_signature(shingles) if shingles.size else [[i]]
        keys = [(k, *map(int, band)) for k, band in enumerate(bands)]
        joined = {cluster[key] for key in keys if key in cluster}
        number = min(joined, default=i)
        members = [key for key, c in cluster.items() if c in joined]
        cluster.update(dict.fromkeys([*members, *keys], number))
    for i, text in enumerate(texts):
        shingles = signer.get_shingles(text)
        bands = signer.get_signature(shingles) if shingles.size else [[i]]
        heads[i] = cluster[(0, *map(int, bands[0]))]
    assert len(kept) == len(set(kept)) == len(set(heads.values()))
    assert {heads[i] for i in kept} == set(heads.values())
    ours = lu.deduplicate(texts)
    assert len(kept) < len(ours) < len(texts)
