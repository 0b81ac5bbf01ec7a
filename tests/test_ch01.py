"""Chapter 1: pages become text, and the scores are what the book says."""

import gzip
import json
import lzma
import math
import os
import random
import re
import time
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_utils as lu
from pocket_world.web import jaccard, pages, shingles

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "pretrain"


@pytest.fixture(scope="module")
def crawl():
    return list(pages(1500, seed=77))


@pytest.fixture(scope="module")
def texts(crawl):
    found = [lu.extract_text(page.html) for page in crawl]
    return lu.drop_shared_paragraphs(found, [p.labels["site"] for p in crawl])


def pairs_of(crawl, threshold=0.8):
    number = {page.url: i for i, page in enumerate(crawl)}
    return {
        (number[url], i)
        for i, page in enumerate(crawl)
        for url, s in page.labels["similar"].items()
        if s >= threshold
    }


# -- the crawl itself --------------------------------------------------------


def test_the_crawl_is_the_same_for_the_same_seed(crawl):
    again = list(pages(200, seed=77))
    assert again == crawl[:200]
    assert [p.html for p in pages(50, seed=78)] != [p.html for p in again[:50]]


def test_the_labels_say_what_is_true(crawl):
    by_url = {page.url: page for page in crawl}
    assert len(by_url) == len(crawl)
    kinds = {page.labels["kind"] for page in crawl}
    assert kinds == {"text", "spam", "junk", "foreign"}
    assert sum(bool(page.labels["pii"]) for page in crawl) > 100
    for page in crawl:
        for item in page.labels["pii"]:
            assert page.text[item["start"] : item["end"]] == item["value"]
        for decoy in page.labels["decoys"]:
            assert decoy in page.text
        for url, s in page.labels["similar"].items():
            a, b = shingles(page.text), shingles(by_url[url].text)
            assert math.isclose(jaccard(a, b), s, abs_tol=1e-6)
            assert math.isclose(
                lu.jaccard_similarity(page.text, by_url[url].text),
                s,
                abs_tol=1e-6,
            )


def test_every_copy_is_a_labelled_one(crawl):
    """All pairs of text pages, none left out: the labels are complete."""
    sparse = pytest.importorskip("scipy.sparse")
    index = [i for i, p in enumerate(crawl) if p.labels["kind"] == "text"]
    hashes, starts = lu.shingle_hashes([crawl[i].text for i in index])
    _, column = np.unique(hashes, return_inverse=True)
    row = np.repeat(np.arange(len(index)), np.diff(starts))
    x = sparse.csr_matrix((np.ones(len(row)), (row, column)))
    x.sum_duplicates()
    x.data[:] = 1
    shared = (x @ x.T).tocoo()
    sizes = np.asarray(x.sum(1)).ravel()
    s = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
    alike = (s >= 0.8) & (shared.row < shared.col)
    exact = {
        (index[i], index[j])
        for i, j in zip(shared.row[alike], shared.col[alike])
    }
    labelled = pairs_of(crawl)
    assert labelled <= exact
    # Strangers may be alike by accident, but hardly ever are.
    assert len(exact - labelled) <= 0.02 * len(exact)


def test_the_crawl_is_written_fast():
    started = time.process_time()
    size = sum(len(page.html) for page in pages(600, seed=3))
    assert size / (time.process_time() - started) > 0.7e6  # bytes a second


# -- letters -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "declared"),
    [
        ("utf-8", "iso-8859-1"),
        ("utf-8", "windows-1252"),
        ("cp1252", "utf-8"),
        ("cp1252", ""),
        ("cp1252", "base64"),
        ("cp1252", "no-such-code"),
        ("utf-8-sig", ""),
        ("utf-16", "utf-8"),
    ],
)
def test_the_encoding_is_found_whatever_the_page_claims(codec, declared):
    words = "“Zoë’s café”, said the Müller – 5 €"
    page = f'<meta charset="{declared}"><p>{words}</p>'.encode(codec)
    assert words in lu.decode_bytes(page)


def test_a_page_cut_inside_a_letter_is_still_utf8():
    data = ("ö" * 40 + "and more").encode()
    assert lu.decode_bytes(data[:41]).startswith("ö" * 20)


def test_a_declared_encoding_is_used_where_utf8_fails():
    page = "<meta charset=koi8-r>ледник и река".encode("koi8-r")
    assert "ледник" in lu.decode_bytes(page)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_mojibake_is_undone(rounds):
    text = "Zoë’s “café” – 5 € for crème brûlée…"
    broken = text
    for _ in range(rounds):
        broken = "".join(
            bytes([b]).decode("cp1252", "replace").replace("\ufffd", chr(b))
            for b in broken.encode()
        )
    assert broken != text
    assert lu.repair_mojibake(broken) == text


@pytest.mark.parametrize(
    "text", ["«CAFÉ»", "São Tomé", "Ângela", "naïve façade", "Ærø – Århus"]
)
def test_what_is_whole_stays(text):
    assert lu.repair_mojibake(text) == text


def test_repair_agrees_with_ftfy_on_the_crawl(crawl):
    ftfy = pytest.importorskip("ftfy")
    broken = [p for p in crawl if "mojibake" in p.labels["faults"]][:40]
    assert len(broken) > 10
    same = [
        lu.repair_mojibake(p.html.decode())
        == ftfy.fix_encoding(p.html.decode())
        for p in broken
        if "wrong_charset" not in p.labels["faults"]
    ]
    assert np.mean(same) >= 0.8


@given(st.text(max_size=200))
@settings(max_examples=400, deadline=None)
def test_cleaning_twice_is_cleaning_once(text):
    once = lu.clean_text(text)
    assert lu.clean_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert "\u00ad" not in once and "\r" not in once


@given(st.text(alphabet="Ã©Â\u00ad\u200bâ€™\xa0 \n\"'“o\u0308", max_size=40))
@settings(max_examples=600, deadline=None)
def test_cleaning_is_idempotent_where_its_rules_meet(text):
    once = lu.clean_text(text)
    assert lu.clean_text(once) == once


def test_cleaning_keeps_paragraphs_and_indentation():
    code = "def f():\n    return  1\n\n\n\nThe end.  "
    assert lu.clean_text(code) == "def f():\n    return 1\n\nThe end."


# -- pages -------------------------------------------------------------------

NASTY = """<!doctype html><html><head><title>T</title><style>p{}</style>
</head>
<body onload="x()"><!-- <p>gone</p> -->
<header><h1>The Courier</h1><nav><ul><li><a href=/>Home</a><li><a href=/l>Letters
</a></ul></nav></header>
<div id=consent><p>We value your privacy very much indeed.</p><button>Yes
</button></div>
<script>if (a<b && c) document.write("<p>Script text.</p>")</script>
<main><article><h2>The ferry</h2>
<p>The ferry is tied up &amp; nob&shy;ody minds, said Zo&euml;.
<p>It will go again when the <a href=/river>river</a> goes down&nbsp;&hellip;
<aside class=ad>Buy rope.</aside>
<ul><li>one loaf<li>two pears</ul>
<table><tr><td>Monday<td>6.15<tr><td>Tuesday<td>7.30</table>
<pre>x = 1
  y = 2</pre>
<textarea>typed here</textarea><noscript>turn it on</noscript>
</article></main>
<div style="display: NONE">hidden words</div>
<footer><p>All rights reserved by everyone.</footer>"""


def test_extraction_from_a_nasty_page():
    assert lu.extract_text(NASTY) == (
        "The ferry\n\n"
        "The ferry is tied up & nobody minds, said Zoë.\n\n"
        "It will go again when the river goes down ...\n\n"
        "- one loaf\n- two pears\n\n"
        "Monday 6.15\n\nTuesday 7.30\n\n"
        "x = 1\n  y = 2"
    )


def test_extraction_from_an_old_page():
    page = b"""<TABLE><TR><TD COLSPAN=2><B>parish</B></TD></TR>
    <TR><TD><TABLE><TR><TD><A HREF=1>Home</A></TD></TR><TR><TD><A HREF=2>Bells
    </A></TD></TR></TABLE></TD><TD><FONT FACE=Times>
    The bell ropes are new. Please do not hang washing on them.<BR><BR>
    Ask for Tess before noon.
    <HR><FONT SIZE=1>Best viewed from a chair.</FONT>"""
    assert lu.extract_text(page) == (
        "The bell ropes are new. Please do not hang washing on them.\n\n"
        "Ask for Tess before noon."
    )


def test_a_careless_name_does_not_lose_the_page():
    page = (
        "<div class=sidebar><p>The whole page stands in a box called sidebar, "
        "since nobody ever renamed it.</p></div><p>Yes.</p>"
    )
    assert "whole page" in lu.extract_text(page)


@pytest.mark.parametrize(
    "page", [b"", "", "   ", b"\0\0", "<>", "<html></html>", "<!--", "\ufeff"]
)
def test_nothing_gives_nothing(page):
    assert lu.extract_text(page).strip() in ("", "<>")


def test_plain_words_survive():
    assert lu.extract_text("Just words.") == "Just words."


def test_a_very_deep_page_is_read():
    page = "<div>" * 5000 + "<p>The bottom of the well.</p>" + "</div>" * 5000
    assert isinstance(lu.extract_text(page), str)


@given(st.binary(max_size=400))
@settings(max_examples=400, deadline=None)
def test_extraction_never_raises_on_bytes(data):
    assert isinstance(lu.extract_text(data), str)


_TAGS = st.sampled_from(
    "<p> </p> <div> <table> <tr> <td> </table> <a href=x> </a> <br> <script> "
    "</script> <!-- --> <pre> <li> <ul> <nav> <svg> <![CDATA[ <?xml ?> &amp; "
    "&#0; &#xD800; &bogus; <button> <h2> text \ud800 <div class=nav>".split()
)


@given(st.lists(_TAGS, max_size=40))
@settings(max_examples=400, deadline=None)
def test_extraction_never_raises_on_soup(pieces):
    assert isinstance(lu.extract_text(" ".join(pieces)), str)


def test_extraction_scores_on_a_fresh_crawl(crawl, texts):
    alone = [
        lu.token_f1(lu.extract_text(p.html), p.text)
        for p in crawl
        if p.labels["kind"] == "text"
    ]
    together = [
        lu.token_f1(t, p.text)
        for p, t in zip(crawl, texts)
        if p.labels["kind"] == "text"
    ]
    assert np.mean(alone) >= 0.97
    assert np.mean(together) >= 0.99


@pytest.mark.skipif(
    not (REAL / "raw_html.jsonl.xz").exists(), reason="no real pages here"
)
def test_extraction_is_sensible_on_real_pages():
    """E-books and a project's web site: the words a reader would point at."""
    with lzma.open(REAL / "raw_html.jsonl.xz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    books = [r for r in rows if r["source"] == "standardebooks"][:40]
    for row in books:
        whole = row["html"].split("<body", 1)[-1]
        visible = lu.extract_text("<body" + whole)
        naive = re.sub(r"<[^>]*>", " ", whole)
        assert len(visible.split()) > 0.5 * len(naive.split()), row["path"]
    web = [r for r in rows if r["source"] == "apache/flink-web"][:40]
    menus = [
        "Community & Project Info" in lu.extract_text(row["html"])
        for row in web
    ]
    assert np.mean(menus) < 0.1


# -- quality -----------------------------------------------------------------


def test_signals_are_finite_for_any_text():
    for text in ("", " ", "!!!", "a", "ö" * 1000, "1 2 3", "\n\n"):
        values = lu.quality_signals(text)
        assert all(math.isfinite(v) for v in values.values()), text


def test_the_classifier_learns_and_is_repeatable(crawl, texts):
    kinds = [page.labels["kind"] for page in crawl]
    judges = [
        lu.QualityClassifier(seed=1, epochs=4).fit(texts[:700], kinds[:700])
        for _ in range(2)
    ]
    p, q = (judge.predict_proba(texts[700:]) for judge in judges)
    assert np.array_equal(p, q)
    assert p.shape == (len(texts) - 700, 4)
    assert np.allclose(p.sum(1), 1)
    guess = [judges[0].classes_[i] for i in p.argmax(1)]
    assert np.mean([g == k for g, k in zip(guess, kinds[700:])]) > 0.95


def test_word_order_counts():
    a = ["the hare waits for bread"] * 30 + ["bread for waits hare the"] * 30
    judge = lu.QualityClassifier(epochs=20).fit(a, [1] * 30 + [0] * 30)
    p = judge.predict_proba([a[0], a[-1], ""])
    assert judge.classes_ == [0, 1]
    assert p[0, 1] > 0.9 and p[1, 0] > 0.9


def test_the_classifier_says_what_it_needs():
    with pytest.raises(ValueError, match="2 texts, 1 labels"):
        lu.QualityClassifier().fit(["a", "b"], [1])
    with pytest.raises(ValueError, match="two labels"):
        lu.QualityClassifier().fit(["a", "b"], [1, 1])


# -- private things ----------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "hob.k7@lowbridge.example",
        "first.last+tag@mail.co.uk",
        "wren (at) weirside.example",
        "wren [at] weirside.example",
        "01632 960 412",
        "(01632) 960412",
        "+44 1632 960 412",
        "01632-960-412",
        "+1 212 555 0142",
        "(555) 123-4567",
        "555-123-4567",
        "555.123.4567",
        "1-800-555-0199",
        "1 (800) 555-0199",
        "93.184.216.34",
    ],
)
def test_private_values_go(value):
    text = f"Write or ring: {value}, before noon."
    after = lu.redact_pii(text)
    assert after in (
        "Write or ring: [email], before noon.",
        "Write or ring: [phone], before noon.",
        "Write or ring: [ip], before noon.",
    )
    assert lu.redact_pii(after) == after


@pytest.mark.parametrize(
    "text",
    [
        "See entry 2024-05-12 in the river book.",
        "Open 9.30 to 11.45, and again from 2 to 5.",
        "The parcel is marked 4471-208.",
        "Flour @ two pence the pound.",
        "The level stood at 1.204 at six and 1.310 at noon.",
        "ISBN 978-0-306-40615-7, 1,000,000 copies, 0.000001 mm",
        "He has 12 345 678 pears.",
        "Sheet 012 3456 is torn.",
        "The reservoir holds 0412771203,5 buckets.",
        "Meet at mill.example today? No: at the mill.",
        "x = 0123456789",
        "He counted 555 123 4567 and 12 more.",
        "Lot 1555-123-45678 and lot 155-123-4567",
        "Version 2.4.1.3 of 10.0.19041.1, section 3.2.1",
        "300.184.216.34",
    ],
)
def test_what_only_looks_private_stays(text):
    assert lu.redact_pii(text) == text


def test_redaction_scores_on_a_fresh_crawl(crawl):
    hit = total = alarms = 0
    for page in crawl:
        if page.labels["kind"] != "text":
            continue
        after = lu.redact_pii(page.text)
        values = [x["value"] for x in page.labels["pii"]]
        hid = sum(value not in after for value in values)
        hit, total = hit + hid, total + len(values)
        alarms += after.count("[email]") + after.count("[phone]") - hid
    assert hit / total > 0.95
    assert hit / (hit + alarms) > 0.9


# -- copies ------------------------------------------------------------------


def random_pair(rng, shared, n=150):
    a = [f"w{rng.randrange(10**9)}" for _ in range(n)]
    b = a[:shared] + [f"w{rng.randrange(10**9)}" for _ in range(n - shared)]
    return " ".join(a), " ".join(b)


def test_a_signature_estimates_the_exact_similarity():
    rng = random.Random(1)
    for shared in (0, 40, 100, 140, 150):
        pairs = [random_pair(rng, shared) for _ in range(40)]
        exact = lu.jaccard_similarity(*pairs[0])
        flat = [text for pair in pairs for text in pair]
        s = lu.minhash_signatures(flat, num_perm=256, seed=shared)
        guess = (s[::2] == s[1::2]).mean(1)
        # The mean of 40 × 256 yes-or-no answers, at four standard deviations.
        spread = math.sqrt(exact * (1 - exact) / (40 * 256))
        assert abs(guess.mean() - exact) <= 4 * spread + 1e-4
        if 0 < exact < 1:
            one = math.sqrt(exact * (1 - exact) / 256)
            assert 0.7 * one < guess.std() < 1.4 * one


def test_estimates_are_as_good_as_datasketch():
    datasketch = pytest.importorskip("datasketch")
    rng = random.Random(2)
    ours, theirs = [], []
    for shared in range(30, 150, 4):
        a, b = random_pair(rng, shared)
        exact = lu.jaccard_similarity(a, b)
        s = lu.minhash_signatures([a, b], num_perm=128)
        ours.append((s[0] == s[1]).mean() - exact)
        m = [datasketch.MinHash(num_perm=128, seed=1) for _ in "ab"]
        for sketch, text in zip(m, (a, b)):
            sketch.update_batch(
                [" ".join(x).encode() for x in shingles(text, 5)]
            )
        theirs.append(m[0].jaccard(m[1]) - exact)
    rms = [math.sqrt(np.mean(np.square(x))) for x in (ours, theirs)]
    assert rms[0] < 1.35 * rms[1] + 0.005
    assert abs(np.mean(ours)) < 0.03


def test_signatures_have_a_shape_and_a_seed():
    texts = ["one two three four five six", "", "short"]
    s = lu.minhash_signatures(texts, num_perm=16, seed=3)
    assert s.shape == (3, 16) and s.dtype == np.uint32
    assert np.array_equal(s, lu.minhash_signatures(texts, 16, seed=3))
    assert not np.array_equal(s, lu.minhash_signatures(texts, 16, seed=4))
    assert (s[1] == 2**32 - 1).all()
    assert lu.minhash_signatures([], num_perm=8).shape == (0, 8)
    assert np.array_equal(  # a text's row does not depend on its company
        lu.minhash_signatures(texts * 400, 16, seed=3)[-1], s[2]
    )


def test_signatures_are_fast():
    rng = random.Random(0)
    words = [f"w{i}" for i in range(3000)]
    texts = [" ".join(rng.choices(words, k=100)) for _ in range(3000)]
    lu.minhash_signatures(texts[:10])
    started = time.process_time()
    lu.minhash_signatures(texts)
    assert 3000 / (time.process_time() - started) >= 2000


@pytest.mark.parametrize("seed", [101, 102])
def test_duplicates_on_fresh_crawls(seed):
    crawl = list(pages(1500, seed=seed))
    truth = pairs_of(crawl)
    text = [p.labels["kind"] == "text" for p in crawl]
    found = {
        (i, j)
        for i, j in lu.near_duplicates([p.text for p in crawl], seed=seed)
        if text[i] and text[j]
    }
    precision, recall = lu.precision_recall(found, truth)
    assert precision >= 0.95 and recall >= 0.95


def test_duplicates_through_the_whole_pipeline(crawl, texts):
    text = [p.labels["kind"] == "text" for p in crawl]
    found = {
        (i, j) for i, j in lu.near_duplicates(texts) if text[i] and text[j]
    }
    precision, recall = lu.precision_recall(found, pairs_of(crawl))
    assert precision >= 0.95 and recall >= 0.93


def test_the_threshold_is_exact():
    words = [f"w{i}" for i in range(104)]
    a = " ".join(words)
    b = " ".join(words[:90])  # 86 of 100 shingles
    assert lu.jaccard_similarity(a, b) == 0.86
    assert lu.near_duplicates([a, b], threshold=0.86) == [(0, 1)]
    assert lu.near_duplicates([a, b], threshold=0.861) == []
    for threshold in (0, -1, 1.5):
        with pytest.raises(ValueError, match="threshold"):
            lu.near_duplicates([a, b], threshold)


def test_few_and_empty_texts_are_no_trouble():
    assert lu.near_duplicates([]) == []
    assert lu.near_duplicates(["one"]) == []
    assert lu.near_duplicates(["", "", "!"]) == []
    assert lu.deduplicate(["", "", "a b", "A, b!"]) == [0, 2]
    assert lu.deduplicate([]) == []


def test_a_text_is_cut_alone():
    """Its shingles do not reach into the text that comes next."""
    alone, _ = lu.shingle_hashes(["Wren waits"])
    hashes, starts = lu.shingle_hashes(["Wren waits", "for a long time now"])
    assert starts.tolist() == [0, 1, 2]
    assert hashes[0] == alone[0]


def test_nothing_goes_because_of_something_that_went():
    words = [f"w{i}" for i in range(100)]
    chain = [" ".join(words[k : k + 90]) for k in (0, 5, 10)]
    assert lu.near_duplicates(chain) == [(0, 1), (1, 2)]
    assert lu.deduplicate(chain) == [0, 2]


def test_deduplication_keeps_one_of_each_family(crawl):
    text = [p for p in crawl if p.labels["kind"] == "text"]
    kept = lu.deduplicate([p.text for p in text])
    assert kept == sorted(set(kept))
    assert not lu.near_duplicates([text[i].text for i in kept])
    originals = {i for i, p in enumerate(text) if not p.labels["copy_of"]}
    assert len(originals - set(kept)) <= 0.01 * len(originals)


def test_the_s_curve_bounds_what_is_missed():
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.99):
        bands, rows = lu.choose_bands(threshold)
        assert bands * rows <= 128
        assert lu.candidate_probability(threshold, bands, rows) >= 0.995


def test_the_split_knows_no_order_and_no_punctuation():
    assert lu.corpus_split("One key.") == lu.corpus_split("one  KEY!")
    sides = [lu.corpus_split(f"text {i}", held_out=0.1) for i in range(5000)]
    for side in ("validation", "test"):
        assert 400 < sides.count(side) < 600


# -- files -------------------------------------------------------------------


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert lu.write_lines(path, [{"a": 1}, {"b": "é"}]) == 2
    assert list(lu.read_lines(path)) == [{"a": 1}, {"b": "é"}]
    path.write_bytes(path.read_bytes() + b'{"c": "\xff"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 3"):
        list(lu.read_lines(path))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not JSON"):
        lu.read_json(tmp_path / "bad.json")
    with pytest.raises(ValueError):
        lu.write_json(tmp_path / "nan.json", {"x": math.nan})
    assert not (tmp_path / "nan.json").exists()


def test_nothing_half_written_is_left(tmp_path):
    path = tmp_path / "rows.jsonl"
    lu.write_lines(path, [{"old": 1}])

    def rows():
        yield {"new": 1}
        raise RuntimeError("the lamp went out")

    with pytest.raises(RuntimeError):
        lu.write_lines(path, rows())
    assert list(lu.read_lines(path)) == [{"old": 1}]
    folder = tmp_path / "model"
    with lu.atomic_folder(folder) as part:
        (part / "weights").write_text("old")
    with pytest.raises(RuntimeError), lu.atomic_folder(folder) as part:
        (part / "weights").write_text("new")
        raise RuntimeError("the lamp went out")
    assert (folder / "weights").read_text() == "old"
    with lu.atomic_folder(folder) as part:
        (part / "other").write_text("newer")
    assert [p.name for p in folder.iterdir()] == ["other"]
    assert sorted(os.listdir(tmp_path)) == ["model", "rows.jsonl"]


def test_a_missing_artifact_names_its_command(monkeypatch):
    monkeypatch.setenv("LLM_PRESET", "smoke")
    with pytest.raises(FileNotFoundError, match="run `make ch05` first"):
        lu.artifact("no-such-thing", made_by="ch05")
    monkeypatch.setenv("LLM_PRESET", "huge")
    with pytest.raises(ValueError, match="smoke, pocket or gpt2-124m"):
        lu.preset()


def test_seeding_makes_runs_equal():
    import torch

    def draw():
        lu.seed_everything(5)
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    assert draw() == draw()


# -- any corpus --------------------------------------------------------------

TEXTS = ["The ferry is late.", "Zoë waits – with two pears.", "It rained."]


def write_corpus(folder, kind):
    rows = "".join(json.dumps({"text": t, "id": 7}) + "\n" for t in TEXTS)
    if kind == "txt":
        for i, text in enumerate(TEXTS):
            (folder / f"{i}.txt").write_text(text, "utf-8")
    elif kind == "md":
        for i, text in enumerate(TEXTS):
            (folder / f"{i}.md").write_text(text, "utf-8")
    elif kind == "html":
        for i, text in enumerate(TEXTS):
            (folder / f"{i}.html").write_text(f"<p>{text}</p>", "utf-8")
    elif kind == "jsonl":
        (folder / "rows.jsonl").write_text(rows, "utf-8")
    elif kind == "jsonl.gz":
        (folder / "rows.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    elif kind == "jsonl.xz":
        (folder / "rows.jsonl.xz").write_bytes(lzma.compress(rows.encode()))
    elif kind == "jsonl.zst":
        zstandard = pytest.importorskip("zstandard")
        data = zstandard.ZstdCompressor().compress(rows.encode())
        (folder / "rows.jsonl.zst").write_bytes(data)
    elif kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as parquet

        parquet.write_table(
            pa.table({"text": TEXTS, "id": [1, 2, 3]}), folder / "rows.parquet"
        )


KINDS = "txt md html jsonl jsonl.gz jsonl.xz jsonl.zst parquet".split()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_read(tmp_path, kind, streaming):
    write_corpus(tmp_path, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data = lu.load_corpus(tmp_path, streaming=streaming)
    assert [row["text"] for row in data] == TEXTS
    file = sorted(tmp_path.iterdir())[0]
    assert next(iter(lu.load_corpus(file)))["text"] == TEXTS[0]
    assert len(lu.load_corpus(str(tmp_path / "*"))) == 3


def test_unreadable_records_are_counted_and_named(tmp_path):
    lines = [b'{"text": "one"}', b'{"text": "\xff\xfe"}', b"not json",
             b'{"title": "no text"}', b"[1]", b'{"text": 5}', b"",
             b'{"text": "two"}']  # fmt: skip
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "old.txt").write_bytes("café".encode("latin-1"))
    with pytest.warns(UserWarning) as told:
        data = lu.load_corpus(tmp_path)
    assert data["text"][:] == ["one", "two"]
    said = " ".join({str(w.message) for w in told})
    assert "rows.jsonl: 5 unreadable" in said and "line 2" in said
    assert "old.txt: 1 unreadable" in said


def test_a_truncated_file_gives_what_it_holds(tmp_path):
    lines = [json.dumps({"text": f"line {i}"}) for i in range(5000)]
    rows = "\n".join(lines)
    whole = gzip.compress(rows.encode())
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="unreadable"):
        data = lu.load_corpus(tmp_path)
    assert 100 < len(data) < 5000
    assert data[0]["text"] == "line 0"


def test_a_broken_parquet_file_is_named(tmp_path):
    write_corpus(tmp_path, "txt")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.warns(UserWarning, match=r"bad\.parquet"):
        assert len(lu.load_corpus(tmp_path)) == 3


def test_an_empty_corpus_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no text"):
        lu.load_corpus(tmp_path)
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(ValueError, match="no text"):
        lu.load_corpus(tmp_path, streaming=True)
    with pytest.raises(FileNotFoundError, match="missing.jsonl"):
        lu.load_corpus(tmp_path / "missing.jsonl")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        lu.load_corpus(str(tmp_path / "*.parquet"))


def test_columns_can_be_named(tmp_path):
    rows = [{"story": "one", "body": "other"}]
    lu.write_lines(tmp_path / "rows.jsonl", rows)
    data = lu.load_corpus(tmp_path, column="story")
    assert data["text"][:] == ["one"]
    with (
        pytest.warns(UserWarning, match="no text in nothing"),
        pytest.raises(ValueError),
    ):
        lu.load_corpus(tmp_path, column="nothing")


def test_splits_by_file_and_by_hash(tmp_path):
    for split in ("train", "validation"):
        lu.write_lines(tmp_path / f"{split}.jsonl", [{"text": split}])
    for split in ("train", "validation"):
        assert lu.load_corpus(tmp_path, split)["text"][:] == [split]
    other = tmp_path / "other"
    other.mkdir()
    lu.write_lines(
        other / "all.jsonl", [{"text": f"notice {i}"} for i in range(300)]
    )
    with pytest.raises(ValueError, match="held_out"):
        lu.load_corpus(other, "validation")
    parts = [
        set(lu.load_corpus(other, split, held_out=0.1)["text"])
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, parts)) == 300 == len(set.union(*parts))
    assert all(len(part) > 10 for part in parts)


def test_pocket_world_is_a_corpus():
    a = lu.load_corpus("pocket_world", "train", n=20)
    b = lu.load_corpus("pocket_world", "test", n=20, streaming=True)
    assert {"text", "nats", "genre"} <= set(a.column_names)
    assert not set(a["text"]) & {row["text"] for row in b}
