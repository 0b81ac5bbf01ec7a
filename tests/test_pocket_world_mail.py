"""The post: labels that are true, hard letters that hide from word counts."""

import hashlib
import re

import pytest

from pocket_world.mail import LABELS, PAIRS, mail

PINNED = "a06f54154e8e556b2ce8912cdae50dfc82609babc3033c6ba33f73e9d7195c45"


@pytest.fixture(scope="module")
def letters():
    return {
        split: list(mail(n, seed=1, split=split))
        for split, n in (("train", 2000), ("validation", 300), ("test", 500))
    }


def test_the_same_seed_gives_the_same_letters():
    text = "\0".join(f"{m.label} {m.text}" for m in mail(400, seed=3))
    assert hashlib.sha256(text.encode()).hexdigest() == PINNED
    assert [m.text for m in mail(50, seed=3)] != [m.text for m in mail(50, seed=4)]


def test_a_letter_is_in_one_split_only(letters):
    texts = {split: {m.text for m in found} for split, found in letters.items()}
    assert len(texts["train"]) == len(letters["train"])
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split"):
        next(mail(1, split="dev"))


def test_labels_are_balanced_in_easy_and_in_hard_letters(letters):
    for hard in (False, True):
        labels = [m.label for m in letters["train"] if m.hard == hard]
        assert set(labels) == set(LABELS)
        assert 0.4 <= labels.count("begging") / len(labels) <= 0.6


def test_letters_are_short_and_every_blank_is_filled(letters):
    for message in letters["train"]:
        assert 20 <= len(message.text) <= 420
        assert not set("{}") & set(message.text)


def test_the_two_letters_of_a_pair_use_almost_the_same_words():
    for begging, honest in PAIRS:
        one, two = (set(re.findall(r"[\w{}]+", s.lower())) for s in (begging, honest))
        assert len(one & two) / len(one | two) >= 0.55, (begging, honest)


def test_word_counts_sort_the_easy_letters_and_not_the_hard_ones(letters):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectors = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
    x = vectors.fit_transform(m.text for m in letters["train"])
    bag = LogisticRegression(C=10, max_iter=1000)
    bag.fit(x, [m.label for m in letters["train"]])
    said = bag.predict(vectors.transform(m.text for m in letters["test"]))
    right = [label == m.label for label, m in zip(said, letters["test"])]
    hard = [ok for ok, m in zip(right, letters["test"]) if m.hard]
    accuracy = sum(right) / len(right)
    print(f"bag of words {accuracy:.1%}, on hard letters {sum(hard) / len(hard):.1%}")
    assert 0.75 <= accuracy <= 0.95
    assert sum(hard) / len(hard) <= 0.7
