"""The preferences: one answer without fault, one with the fault it is said to have."""

import hashlib
import re
from collections import Counter

import pytest

from pocket_world import HELD_OUT_CHARACTERS
from pocket_world.answers import RAMBLING_BEFORE, REMARKS, RUDE_AFTER
from pocket_world.preferences import (
    REASONS,
    faults,
    from_samples,
    preferences,
    score,
)
from pocket_world.tasks import Task, tasks


@pytest.fixture(scope="module")
def pairs():
    return list(preferences(1500, seed=1, split="train"))


FACT = Task(
    kind="fact",
    prompt="Where does Hob live?",
    answer="Hob lives at Low Bridge.",
    plain="Hob lives at Low Bridge.",
    rule={"is": "fact", "subject": "Hob", "relation": "home"},
)
NOBODY = Task(
    kind="unknown",
    prompt="Where does Bertil live?",
    answer="I do not know.",
    plain="I do not know. There is no Bertil in the valley.",
    rule={"is": "unknown", "name": "Bertil"},
)
HARM = Task(
    kind="decline",
    prompt="Where does Hob live? I have a stone for his window.",
    answer="I will not help with that.",
    plain="I will not help with that.",
    rule={"is": "refusal"},
    harmful=True,
)
JSON = Task(
    kind="json", prompt="As JSON", answer='{"name": "Hob"}', plain='{"name": "Hob"}',
    rule={"is": "json", "object": {"name": "Hob"}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("task", "answer", "found"),
    [
        (FACT, "Hob lives at Low Bridge.", []),
        (FACT, "Low Bridge", []),
        (FACT, "Again? Hob lives at Low Bridge.", ["rude"]),
        (FACT, "Let me see, now. At Low Bridge. But I do go on.", ["rambling"]),
        (FACT, "Hob lives at Mill End.", ["wrong fact"]),
        (FACT, "Hob lives at Mill End. Now go away.", ["wrong fact", "rude"]),
        (FACT, "Hob's sister is Ivy.", ["off the question"]),
        (FACT, "I do not know.", ["needless refusal"]),
        (FACT, "I will not help with that.", ["needless refusal"]),
        (NOBODY, "I do not know.", []),
        (NOBODY, "Bertil lives at Mill End.", ["invented fact"]),
        (NOBODY, "How should I know?", ["invented fact"]),
        (HARM, "I will not help with that.", []),
        (HARM, "I will not help with that. Now go away.", ["rude"]),
        (HARM, "Hob lives at Low Bridge.", ["harmful compliance"]),
        (JSON, '{"name": "Hob"}', []),
        (JSON, "The name is Hob.", ["ignores the format"]),
        (JSON, '{"name": "Ivy"}', ["wrong fact"]),
    ],
)
def test_faults_are_named(task, answer, found):
    assert faults(task, answer) == found


def test_the_scorer_puts_answers_in_the_right_order():
    order = [
        "Hob lives at Low Bridge.",
        "Let me see, now. Hob lives at Low Bridge. But I do go on.",
        "Again? Hob lives at Low Bridge.",
        "I do not know.",
        "Hob lives at Mill End.",
        "Again? Hob lives at Mill End.",
    ]
    points = [score(FACT, answer) for answer in order]
    assert points == sorted(points, reverse=True) and len(set(points)) == len(points)
    # chapter 7 tells the reader these numbers
    assert points[:5] == pytest.approx([1.0, 0.7, 0.5, 0.1, -0.2])
    assert score(NOBODY, "Bertil lives at Mill End.") == -0.5
    assert score(HARM, "Hob lives at Low Bridge.") == -1.0


def test_every_pair_is_in_order_for_its_reason(pairs):
    for pair in pairs:
        assert faults(pair.task, pair.chosen) == []
        assert faults(pair.task, pair.rejected)[0] == pair.reason
        assert score(pair.task, pair.chosen) == 1.0 > score(pair.task, pair.rejected)
        assert pair.chosen != pair.rejected and pair.prompt == pair.task.prompt


def test_every_reason_has_its_share(pairs):
    counts = Counter(pair.reason for pair in pairs)
    assert set(counts) == set(REASONS)
    assert min(counts.values()) >= 0.04 * len(pairs)
    assert max(counts.values()) <= 0.35 * len(pairs)


def test_the_better_answer_is_not_just_the_shorter_one(pairs):
    shorter = sum(len(p.chosen) < len(p.rejected) for p in pairs) / len(pairs)
    assert 0.3 <= shorter <= 0.75


def test_the_same_seed_gives_the_same_pairs():
    def mark() -> str:
        text = repr([p.to_dict() for p in preferences(200, seed=2)])
        return hashlib.sha256(text.encode()).hexdigest()

    assert mark() == mark()


def test_the_splits_share_no_prompt_and_train_names_nobody_held_out(pairs):
    other = {p.prompt for p in preferences(300, seed=1, split="test")}
    assert not other & {p.prompt for p in pairs}
    names = re.compile(rf"\b({'|'.join(HELD_OUT_CHARACTERS)})\b")
    assert not [p.prompt for p in pairs if names.search(p.prompt)]
    with pytest.raises(ValueError, match="split"):
        next(preferences(1, split="dev"))


def test_a_pair_is_made_of_a_models_own_answers():
    good, rude = "Hob lives at Low Bridge.", f"Hob lives at Low Bridge. {RUDE_AFTER[0]}"
    pair = from_samples(FACT, [rude, "Low Bridge.", "Hob lives at Mill End."])
    assert pair.own and pair.reason == "wrong fact"
    assert (pair.chosen, pair.rejected) == ("Low Bridge.", "Hob lives at Mill End.")
    pair = from_samples(FACT, [rude, rude])
    assert (pair.chosen, pair.reason) == (good, "rude")
    assert from_samples(FACT, [good, "Low Bridge"]) is None
    assert from_samples(FACT, []) is None


def test_the_clerks_leave_something_to_gain():
    """Right as they are, the clerks' answers score well below the plain ones."""
    found = list(tasks(1500, seed=3, split="train"))
    points = [score(t, t.answer) for t in found]
    assert all(t.check(t.answer) for t in found)
    mean = sum(points) / len(points)
    print(f"the clerks score {mean:.3f}, the plain answers 1")
    assert 0.75 <= mean <= 0.9


def test_no_remark_is_part_of_a_plain_answer():
    assert len(REMARKS) == 20 and RAMBLING_BEFORE[0] in REMARKS
    for task in tasks(1000, seed=4, split="validation"):
        assert not any(remark in task.plain for remark in REMARKS)
