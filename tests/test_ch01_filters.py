"""Chapter 1's cleaning and filters, beside the tools that others use."""

import json
import lzma
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_utils as lu
from benches.data_classify import in_words
from benches.data_clean import misread
from benches.data_extract import theirs
from benches.data_filters import NAMES, RULES, datatrove_filters, verdict
from benches.data_language import language
from pocket_world.web import pages


@pytest.fixture(scope="module")
def crawl():
    return list(pages(800, seed=31))


def read(path, n):
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for _, line in zip(range(n), file)]


# -- pages -------------------------------------------------------------------


def test_extraction_beats_trafilatura_on_made_pages(crawl):
    pytest.importorskip("trafilatura")
    some = crawl[:150]
    truth = [lu.clean_text(page.text) for page in some]
    scores = [
        np.mean([lu.token_f1(way(p.html), t) for p, t in zip(some, truth)])
        for way in (lu.extract_text, theirs)
    ]
    assert scores[0] > 0.98
    assert scores[0] > scores[1] > 0.7


def test_a_template_in_a_script_is_the_page():
    words = "Streams are read once, from the beginning to the end."
    page = f"""<body><ul><li><a href=/>Home</a></ul>
    <script type="text/javascript">var x = "<p>{words[::-1]}</p>";</script>
    <script id="t" type="text/x-handlebars-template"><p>{words}</p></script>
    <script>draw("t")</script></body>"""
    assert lu.extract_text(page) == words
    assert lu.extract_text(page.replace("x-handlebars-template", "css")) == ""


def test_years_ago_in_a_sentence_make_no_reply():
    mill = "The mill was built 300 years ago by two brothers from Wendon."
    reply = "<div><b>Moss</b> 3 hours ago<p>So it was.</p></div>"
    rest = "<p>It stands by the weir still, and grinds on Tuesdays at ten.</p>"
    page = f"<body><main><div>{mill}</div>{rest}{reply}{rest}</main></body>"
    found = lu.extract_text(page)
    assert mill in found
    assert "hours ago" not in found and "So it was" not in found


def test_a_section_may_have_a_header_of_its_own():
    motto = "<header><p>Tie it twice, and then once more.</p></header>"
    rest = "<p>The rope was new, and so was the knot, and so was Ned.</p>"
    inside = f"<body><section>{motto}{rest}</section></body>"
    assert "twice" in lu.extract_text(inside)
    assert "twice" not in lu.extract_text(f"<body>{motto}{rest}</body>")


def test_real_pages_agree_with_trafilatura(real_data):
    pytest.importorskip("trafilatura")
    rows = read(real_data / "pretrain" / "raw_html.jsonl.xz", 10_000)
    books = [r["html"] for r in rows if r["source"] == "standardebooks"][::40]
    f1 = [lu.token_f1(lu.extract_text(page), theirs(page)) for page in books]
    assert np.mean(f1) > 0.97
    kafka = [r["html"] for r in rows if r["source"] == "apache/kafka-site"]
    found = [len(lu.extract_text(page).split()) for page in kafka[::8]]
    assert np.median(found) > 200  # all of it stands in templates


# -- letters -----------------------------------------------------------------

EUROPEAN = (
    "Zoë’s café", "crème brûlée", "„Größe“ – Straße", "¿Dónde está el niño?",
    "São João é às três", "Łódź i Kraków", "příliš žluťoučký kůň", "Ærø – Århus",
    "5 € für Œuvre", "«Où est-il ?»", "Şişli, İzmir", "Đurđevac", "piñata…",
    "Ρόδος και Κρήτη", "ледник и река", "Viṣṇu, Ḥasan", "thumbs 👍 up",
)  # fmt: skip


@given(st.lists(st.sampled_from(EUROPEAN), min_size=1), st.sampled_from([1, 2]))
@settings(max_examples=300)
def test_european_text_survives_one_and_two_wrong_decodings(pieces, rounds):
    ftfy = pytest.importorskip("ftfy")
    text = " ".join(pieces)
    broken = text
    for _ in range(rounds):
        broken = misread(broken)
    assert broken != text
    assert lu.repair_mojibake(broken) == text
    assert ftfy.fix_encoding(broken) == text


def test_real_lines_are_restored_and_whole_ones_stay(real_data):
    rows = read(real_data / "pretrain" / "val.jsonl.xz", 400)
    lines = [
        line
        for row in rows
        for line in row["text"].split("\n")
        if not line.isascii()
    ]
    assert len(lines) > 300
    assert all(lu.repair_mojibake(line) == line for line in lines)
    for rounds in (1, 2):
        broken = lines
        for _ in range(rounds):
            broken = [misread(line) for line in broken]
        right = [lu.repair_mojibake(b) == a for a, b in zip(lines, broken)]
        assert np.mean(right) > 0.95


@pytest.mark.parametrize("text", ["ÎLE DE RÉ", "É»", "«ÎÏ»", "Ñ», «Ð"])
def test_capitals_beside_quotes_are_not_broken_letters(text):
    assert lu.repair_mojibake(text) == text


# -- rules -------------------------------------------------------------------


def compare(texts):
    """Every verdict and every reason of datatrove's must be ours too."""
    for name, filters in datatrove_filters().items():
        dropped = 0
        for text in texts:
            ours, why = RULES[name](text), verdict(filters, text)
            assert bool(ours) == bool(why), (name, ours, why, text[:200])
            assert not why or why in ours, (name, ours, why, text[:200])
            dropped += bool(ours)
        assert 0 < dropped < len(texts), name


def test_rules_agree_with_datatrove_on_made_pages(crawl):
    pytest.importorskip("datatrove")
    compare([lu.clean_text(page.text) for page in crawl[:400]])


def test_rules_agree_with_datatrove_on_real_text(real_data):
    pytest.importorskip("datatrove")
    rows = read(real_data / "pretrain" / "val.jsonl.xz", 250)
    compare([row["text"][:20_000] for row in rows])


_LINES = st.sampled_from(
    ["The hare met the owl, and they had tea with a friend.", "- one egg",
     "• two pears", "And then...", "So it ended…", "# # #", "lorem ipsum. So.",
     "if (x) { y. }", "Enable JavaScript now, please.", "Fact.[1]", "", "  ",
     "We use cookies, as you do.", "1 2 3 4 5", "x" * 1001 + " a b.",
     'He said: "Wait"', "Aa. Bb! Cc? Dd."]
)  # fmt: skip


@given(st.lists(_LINES, min_size=1, max_size=25))
@settings(max_examples=200)
def test_rules_agree_with_datatrove_on_odd_texts(lines):
    pytest.importorskip("datatrove")
    text = "\n".join(lines)
    if not any(map(str.isalnum, text)):
        return  # theirs cannot take the mean of no words
    for name, filters in datatrove_filters().items():
        ours, why = RULES[name](text), verdict(filters, text)
        assert bool(ours) == bool(why), (name, ours, why)
        assert not why or why in ours, (name, ours, why)


@pytest.mark.parametrize("text", ["", " ", "\n\n", "!!!", "a", "\ud800", "ß"])
def test_rules_take_any_text(text):
    for rules in RULES.values():
        assert set(rules(text)) <= set(NAMES.values())
    assert lu.gopher_rules(text) and lu.c4_rules(text)  # none is a page


def test_c4_says_why_a_line_goes():
    text = "Home\nWe use cookies for this.\nIt rained all day.[2]\nAnd then..."
    assert lu.c4_lines(text) == [
        ("Home", "no_end_mark"),
        ("We use cookies for this.", "policy"),
        ("It rained all day.", ""),
        ("And then...", "ellipsis"),
    ]
    assert lu.c4_rules(text) == ["few_sentences"]
    assert lu.c4_rules(text, min_sentences=1) == []


def test_c4_has_two_pairs_of_numbers():
    """Preprint and datatrove: 3 words, 5 sentences; published: 5 and 3."""
    long, short = "It rained on all of the roofs.", "It rained again."
    assert lu.c4_lines(short) == [(short, "")]
    assert lu.c4_lines(short, min_words=5) == [(short, "few_words")]
    published = {"min_sentences": 3, "min_words": 5}
    three = "\n".join([long] * 3)
    assert lu.c4_rules(three) == ["few_sentences"]
    assert lu.c4_rules(three, **published) == []
    five = "\n".join([short] * 5)
    assert lu.c4_rules(five) == []
    assert lu.c4_rules(five, **published) == ["few_sentences"]


def test_a_threshold_is_a_parameter():
    story = "The hare had tea with the owl, and that was all. " * 3
    assert "few_words" in lu.gopher_rules(story)
    assert "few_words" not in lu.gopher_rules(story, words=(20, 100))
    assert "again_5_words" in lu.gopher_repetition_rules(story)
    assert lu.gopher_repetition_rules(story, again={}, top={}) == []
    lines = "\n".join(["A line that is said twice, at its length."] * 2)
    assert lu.fineweb_rules(lines) == ["repeated_lines"]
    assert lu.fineweb_rules(lines, repeats=0.6) == []


# -- languages ---------------------------------------------------------------


@pytest.fixture(scope="module")
def identifier(crawl):
    known = [page for page in crawl if language(page)]
    return lu.LanguageIdentifier().fit(
        [page.text for page in known], map(language, known)
    )


def test_languages_are_told_apart(identifier):
    asked = [page for page in pages(600, seed=32) if language(page)]
    said = identifier.predict([page.text for page in asked])
    truth = [language(page) for page in asked]
    assert set(truth) == set(identifier.languages_)
    for name in identifier.languages_:
        p, r = lu.precision_recall(
            (i for i, x in enumerate(said) if x == name),
            (i for i, x in enumerate(truth) if x == name),
        )
        assert p > 0.97 and r > 0.97, (name, p, r)


def test_what_has_no_language_is_none_of_these(identifier):
    rng = random.Random(3)
    noise = [
        " ".join("".join(rng.choices("qxzjvkwy", k=6)) for _ in range(40))
        for _ in range(20)
    ]
    greek = "Τι είναι αυτό που το λένε αγάπη, τι είναι αυτό."
    assert identifier.predict(["", "12 34 5.6", greek, *noise]) == [None] * 23
    assert (identifier.distances(["", "12"]) == 1).all()


def test_real_english_is_english(identifier, real_data):
    rows = read(real_data / "pretrain" / "val.jsonl.xz", 300)
    said = identifier.predict([row["text"] for row in rows])
    assert said.count("English") / len(said) > 0.95
    assert said.count("German") + said.count("Ostrish") <= 3


def test_the_identifier_says_what_it_needs():
    with pytest.raises(ValueError, match="2 texts, 1 languages"):
        lu.LanguageIdentifier().fit(["a", "b"], ["x"])
    with pytest.raises(ValueError, match="0 texts"):
        lu.LanguageIdentifier().fit([], [])


def test_runs_of_letters_stay_inside_words():
    found = lu.letter_ngrams("To be, 2 be!", longest=3)
    assert found["be"] == found[" be"] == found["be "] == 2
    assert not any(run.strip() and "  " in run.strip() for run in found)
    assert all(" " not in run.strip() for run in found)
    assert lu.letter_ngrams("12 ... 3") == {}


# -- the classifier ----------------------------------------------------------


def test_the_words_are_the_same_for_fasttext():
    text = "The hare's “café”, 2 pence!"
    words = in_words(text).split()
    assert len(lu.hashed_ngrams(text)) == 2 * len(words) - 1


def test_the_classifier_keeps_up_with_fasttext(real_data):
    pytest.importorskip("fasttext")
    from benches.data_classify import ours, theirs

    path = real_data / "classification" / "sms_spam.tsv"
    with open(path, encoding="utf-8") as file:
        rows = sorted(
            {tuple(line.rstrip("\n").split("\t", 1)) for line in file}
        )
    random.Random(5).shuffle(rows)
    labels, texts = map(list, zip(*rows))
    train, asked = (texts[1000:], labels[1000:]), texts[:1000]
    right = [
        np.mean([a == b for a, b in zip(found, labels[:1000])])
        for found in (ours(train, asked, 0)[0], theirs(train, asked, 0.5, 0)[0])
    ]
    assert right[0] > 0.97
    assert right[0] > right[1] - 0.01


def test_a_larger_eps_mends_what_collisions_spoil():
    made = list(pages(1700, seed=31))
    texts = [lu.clean_text(page.text) for page in made]
    kinds = [page.labels["kind"] for page in made]
    wrong = []
    for eps in (1e-8, 1e-3):
        judge = lu.QualityClassifier(eps=eps).fit(texts[:1200], kinds[:1200])
        best = judge.predict_proba(texts[1200:]).argmax(1)
        said = [judge.classes_[i] for i in best]
        wrong.append(sum(a != b for a, b in zip(said, kinds[1200:])))
    assert wrong[1] < wrong[0] / 2
