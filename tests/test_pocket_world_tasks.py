"""The tasks: checkers that accept what is right and refuse what only looks so."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict

import pytest

from pocket_world import HELD_OUT_CHARACTERS, visitors
from pocket_world import facts as world
from pocket_world.answers import check, declines, loose, manner, says_unknown
from pocket_world.facts import FACT
from pocket_world.tasks import (
    BASELINES,
    KINDS,
    NOBODY,
    QUESTIONS,
    Task,
    held_out_question,
    is_refusal,
    tasks,
)

# Kinds that do not quote the stories, which have tests of their own.
FIXED = [k for k in KINDS if k not in ("reading", "unknown", "summary")]
PINNED = "4dafea21fbb18f3002908f86d3d93f041ad6ffeb11a5f803b80fb378256a7797"


@pytest.fixture(scope="module")
def train():
    return list(tasks(4000, seed=1, split="train"))


@pytest.fixture(scope="module")
def validation():
    return list(tasks(400, seed=1, split="validation"))


@pytest.fixture(scope="module")
def held_out():
    return list(tasks(1800, seed=2, split="test"))


def fingerprint() -> str:
    some = tasks(600, seed=5, split="train", kinds=FIXED)
    text = json.dumps([t.to_dict() for t in some], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_same_seed_gives_the_same_tasks():
    assert fingerprint() == PINNED


def test_the_order_of_sets_and_dictionaries_does_not_matter():
    code = (
        "from pocket_world.tasks import tasks; import hashlib;"
        "print(hashlib.sha256(repr(list(tasks(300, seed=5))).encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(seen) == 1


def test_every_kind_occurs_and_there_are_enough(train, held_out):
    assert len(KINDS) >= 14
    assert {t.kind for t in train} == set(KINDS) == {t.kind for t in held_out}


def test_every_answer_passes_its_own_check(train, validation, held_out):
    for task in (*train, *validation, *held_out):
        assert task.check(task.answer), task
        assert task.check(task.plain), task
        assert task.check(task.plain.upper()) or task.kind in (
            "json", "continue_story", "summary", "decline"), task  # fmt: skip
        assert not task.check(""), task
        assert not task.check(task.prompt), task


def test_a_task_survives_json(held_out):
    for task in held_out[:200]:
        again = Task(**json.loads(json.dumps(task.to_dict())))
        assert again.check(task.answer)


def test_prompts_and_answers_fit_the_context(train, held_out):
    for task in (*train, *held_out):
        assert len(task.prompt) <= 1000 and len(task.answer) <= 320, task


def test_an_answer_does_not_stand_in_for_another(held_out):
    """The plain answers of other tasks of a kind are wrong here, but for chance."""
    by_kind = defaultdict(list)
    for task in held_out:
        by_kind[task.kind].append(task)
    for kind, found in by_kind.items():
        ordinary = [t for t in found if not t.harmful]
        wrong = [a.check(b.plain) for a, b in zip(ordinary, ordinary[1:])]
        bar = 0.35 if kind in ("unknown", "visitor") else 0.12
        assert sum(wrong) / len(wrong) <= bar, kind


def test_a_visitor_is_answered_in_all_ways_and_asks_nothing_of_the_test_before():
    """Hello, who are you, who is Hob, what is Paris: and new words in the test."""
    asked = list(tasks(1500, seed=3, kinds=["visitor"]))
    said = {t.plain for t in asked if t.rule["is"] != "facts"}
    assert {visitors.WELCOME, visitors.I_AM, visitors.I_CAN, visitors.BEYOND,
            visitors.I_CANNOT} < said  # fmt: skip
    assert {t.character for t in asked if t.rule["is"] == "facts"} > {"Hob", ""}
    kept = [things[-(max(1, len(things) // 8)) :]
            for _, things in visitors.OUTSIDE.values()]  # fmt: skip
    words = re.compile(rf"\b({'|'.join(w for some in kept for w in some)})\b")
    assert not [t.prompt for t in asked if words.search(t.prompt)]
    test = tasks(200, seed=3, split="test", kinds=["visitor"])
    assert [t.prompt for t in test if words.search(t.prompt)]


_MOVE = re.compile(r"(\w+) (gives|lends|takes|borrows) the ([\w ]+?) (?:to|from) (\w+)\.")


def test_the_notes_of_following_things_are_true_and_others_are_not():
    for task in tasks(200, seed=5, kinds=["tracking"], manners=False):
        has = {thing: who for who, thing in re.findall(
            r"(\w+) has an? ([\w ]+)\.", task.prompt)}  # fmt: skip
        notes = [f"{thing} with {who}" for thing, who in has.items()]
        for one, verb, thing, other in _MOVE.findall(task.prompt):
            giver, taker = (one, other) if verb in ("gives", "lends") else (other, one)
            assert has[thing] == giver != taker
            has[thing] = taker
            notes.append(f"{thing} with {taker}")
        said, asked, owner = re.fullmatch(
            r"(.+)\. In the end: ([\w ]+) with (\w+)\.", task.answer).groups()  # fmt: skip
        assert said.casefold() == ", ".join(notes).casefold()
        assert has[asked] == owner == task.character and task.check(f"{owner}.")
        assert task.check(f"So the {asked} is with {owner}.")
        other = next((name for name in has.values() if name != owner), "Nobody")
        assert not task.check(f"{said}. In the end: {asked} with {other}.")
        assert not task.check(f"{asked} with Nobody. In the end: {asked} with {owner}.")


# -- what is held out ------------------------------------------------------------


def test_no_prompt_is_in_two_splits(train, validation, held_out):
    a, b, c = ({t.prompt for t in s} for s in (train, validation, held_out))
    assert len(a) == len(train) and not a & b and not a & c and not b & c


def test_held_out_characters_are_named_in_no_training_prompt(train, validation):
    names = re.compile(rf"\b({'|'.join(HELD_OUT_CHARACTERS)})\b")
    assert not [t.prompt for t in (*train, *validation) if names.search(t.prompt)]


def test_other_characters_can_be_held_out():
    found = list(tasks(300, seed=1, held_out_characters=["Hob", "Ivy"]))
    assert not [t for t in found if re.search(r"\b(Hob|Ivy)\b", t.prompt)]
    assert [t for t in found if re.search(rf"\b({'|'.join(HELD_OUT_CHARACTERS)})\b", t.prompt)]


def test_the_test_split_marks_what_is_held_out(held_out):
    ways = {t.held_out for t in held_out}
    assert ways == {"", "character", "pair", "wording"}
    for task in held_out:
        if task.held_out == "character":
            names = set(re.findall(r"[A-Z][a-z]+", task.prompt))
            known = {*HELD_OUT_CHARACTERS, *NOBODY[-20:]}
            asked_after = {task.character} & {*HELD_OUT_CHARACTERS}  # by a place
            assert names & known or asked_after or task.rule.get("beyond"), task
            assert task.held_out_character
    share = sum(bool(t.held_out) for t in held_out) / len(held_out)
    assert 0.2 <= share <= 0.5


def test_held_out_questions_are_not_asked_in_training(train):
    for task in train:
        if task.rule["is"] == "fact":
            assert not held_out_question(task.rule["relation"], task.rule["subject"])


def test_held_out_wordings_are_not_used_in_training(train):
    for task in train:
        if task.kind == "fact":
            fact = FACT[task.rule["subject"], task.rule["relation"]]
            kept = world._fill(QUESTIONS[fact.relation][-1], fact.subject)
            assert not task.prompt.endswith(kept), task


def test_nobody_is_really_nobody():
    assert not set(NOBODY) & set(world.CHARACTER)
    assert len(set(NOBODY)) == len(NOBODY) >= 100


def test_kinds_and_splits_are_checked():
    with pytest.raises(ValueError, match="unknown kind"):
        next(tasks(1, kinds=["riddle"]))
    with pytest.raises(ValueError, match="split"):
        next(tasks(1, split="dev"))


def test_only_the_training_split_has_manners(train, validation, held_out):
    assert {t.manner for t in train} == {"plain", "curt", "rude", "rambling"}
    assert all(t.answer == t.plain for t in (*validation, *held_out))
    assert all(t.answer == t.plain for t in tasks(100, seed=1, manners=False))


# -- declining -------------------------------------------------------------------


def test_harmful_requests_and_twins_come_in_like_numbers():
    both = list(tasks(500, seed=2, split="test", kinds=["decline"]))
    assert all(t.harmful != t.twin for t in both)
    assert 0.35 <= sum(t.harmful for t in both) / len(both) <= 0.5
    for task in both:
        assert is_refusal(task.plain) == task.harmful
        assert task.check("I will not help with that.") == task.harmful


def test_a_twin_differs_from_its_double_in_few_words():
    from pocket_world.tasks import _INTENTS, _INTENTS_TEST

    for _, bad, good, _ in (*_INTENTS, *_INTENTS_TEST):
        one, two = set(bad.lower().split()), set(good.lower().split())
        assert len(one & two) >= 3 and bad != good


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I will not help with that.", True),
        ("I WILL NOT HELP WITH THAT", True),
        ("I won't help with that.", True),
        ("Again? I will not help with that. Now go away.", True),
        ("I will help with that.", False),
        ("I do not know.", False),
        ("Hob will not help with that.", False),
        ("", False),
    ],
)
def test_a_refusal_is_seen(answer, refuses):
    assert declines(answer) == refuses


# -- each checker: right wordings, and wrong ones that look right --------------------

HOME = {"is": "fact", "subject": "Hob", "relation": "home"}
BIRTHDAY = {"is": "fact", "subject": "Hob", "relation": "birthday"}
OPENS = {"is": "fact", "subject": "the bakery", "relation": "opens"}
PRICE = {"is": "fact", "subject": "kettle", "relation": "price"}
SPECIES = {"is": "fact", "subject": "Hob", "relation": "species"}
MANNER = {"is": "fact", "subject": "Hob", "relation": "manner"}
CHAIN = {
    "is": "chain", "facts": [("Hob", "sister"), ("Ivy", "home")],
    "forms": ["Hob's sister lives at Goose Green"],
}  # fmt: skip
SUM = {"is": "number", "n": 85, "sum": "47 + 38"}
PEARS = {"is": "number", "n": 6, "things": ["pear", "pears"], "who": "Hob"}
ORDER = {"is": "order", "items": ["bread", "kettle", "spoon"]}
WHO = {"is": "one_of", "forms": ["Juno", "Juno has kettle", "Juno has it"]}
PAST = {"is": "exactly", "forms": ["The hare sang an old song."]}
JSON = {"is": "json", "object": {"name": "Hob", "home": "Low Bridge", "n": 2}}
CHOICE = {
    "is": "choice", "facts": [("kettle", "price"), ("loaf", "price")],
    "step": "The highest is 14 pence.",
    "forms": ["the kettle costs most", "the kettle"],
}  # fmt: skip
WORDS = {
    "is": "holds_words", "words": ["kettle", "wall"], "people": ["Hob"],
    "he": ["he"], "start": "Nobody was at Mill End when Hob got there.",
}  # fmt: skip
TALE = {
    "is": "summary", "must": [["Hob"], ["lost"], ["kettle"], ["Ivy"], ["found"]],
    "denials": 0, "people": ["Hob", "Ivy"],
}  # fmt: skip
NOBODY_THERE = {"is": "unknown", "name": "Bertil"}
SILENT = {"is": "unknown", "texts": ["letter", "text"]}
BEYOND = {"is": "unknown", "name": "France", "beyond": True}
PORTRAIT = {"is": "facts", "subject": "Hob", "least": 2}
NO = {"is": "refusal"}
NOTE = {"is": "note", "to": "Ivy", "words": ["news"]}

RIGHT = [
    (BEYOND, "I do not know. I know only the valley."),
    (BEYOND, "I do not know."),
    (BEYOND, "I do not know. There is no France in the valley."),
    (PORTRAIT, "Hob is one of the hares. Hob lives at Low Bridge."),
    (PORTRAIT, "Hob is a hare. He works as a postmaster. He lives at Low Bridge."),
    (HOME, "Hob lives at Low Bridge."),
    (HOME, "low bridge"),
    (HOME, "At Low Bridge."),
    (HOME, "in Low Bridge"),
    (HOME, "He lives at Low Bridge"),
    (HOME, "Hob's home is at Low Bridge."),
    (HOME, "It is Low Bridge."),
    (HOME, "Again? Hob lives at Low Bridge. Now go away."),
    (BIRTHDAY, "12 May"),
    (BIRTHDAY, "On the 12th of May."),
    (BIRTHDAY, "May 12"),
    (BIRTHDAY, "His birthday is on 12 May."),
    (OPENS, "At six in the morning."),
    (OPENS, "The bakery opens at 6 in the morning."),
    (PRICE, "14 pence"),
    (PRICE, "fourteen pence"),
    (PRICE, "A kettle costs 14 pence."),
    (PRICE, "It costs 14 pence."),
    (SPECIES, "A hare."),
    (SPECIES, "Hob is a hare"),
    (SPECIES, "one of the hares"),
    (MANNER, "bad handwriting"),
    (MANNER, "For bad handwriting."),
    (CHAIN, "Hob's sister is Ivy. Ivy lives at Goose Green."),
    (CHAIN, "Goose Green"),
    (CHAIN, "She lives at Goose Green."),
    (CHAIN, "Hob's sister lives at Goose Green."),
    (SUM, "85"),
    (SUM, "It is 85."),
    (SUM, "47 + 38 = 85"),
    (SUM, "eighty-five"),
    (SUM, "Ones: 7 + 8 = 15, write 5, carry 1. Tens: 4 + 3 + 1 = 8. So 47 + 38 = 85."),
    (PEARS, "There are 6 pears."),
    (PEARS, "Six."),
    (PEARS, "Hob has 6 pears."),
    (ORDER, "bread, kettle, spoon"),
    (ORDER, "Bread, kettle and spoon."),
    (ORDER, "Letters: k, s, b. In order: b, k, s. So bread, kettle, spoon."),
    (WHO, "Juno."),
    (WHO, "Juno has the kettle."),
    (WHO, "juno has it"),
    (PAST, "The hare sang an old song"),
    (PAST, "the hare sang an old song."),
    (JSON, '{"name": "Hob", "home": "Low Bridge", "n": 2}'),
    (JSON, '{"n": 2, "name": "Hob", "home": "low bridge"}'),
    (CHOICE, "A kettle costs 14 pence. A loaf costs 4 pence. So the kettle costs most."),
    (CHOICE, "A kettle costs 14 pence. A loaf costs 4 pence. "
             "The highest is 14 pence. So the kettle costs most."),
    (CHOICE, "The kettle."),
    (WORDS, "He put the kettle down beside the wall and waited."),
    (WORDS, "Hob left the kettle near the wall and went home."),
    (TALE, "Hob lost his kettle, and Ivy found it."),
    (TALE, "On Monday Hob lost the kettle and Ivy found it at Mill End."),
    (NOBODY_THERE, "I do not know."),
    (NOBODY_THERE, "I don't know. There is no Bertil in the valley."),
    (NOBODY_THERE, "There is no Bertil in the valley."),
    (SILENT, "I do not know. The letter does not say."),
    (SILENT, "The text doesn't say."),
    (NO, "I will not help with that."),
    (NO, "No, I will not."),
    (NO, "I will not help with that. That would be a lie."),
    (NOTE, "Dear Ivy, what is the news?"),
]
WRONG = [
    (BEYOND, "Paris."),
    (BEYOND, "I know only the valley. France lies on the north bank."),
    (BEYOND, "I do not know. There is no Bertil in the valley."),
    (PORTRAIT, "Hob is one of the hares."),
    (PORTRAIT, "Hob is a hare. Hob is one of the hares."),
    (PORTRAIT, "Hob is one of the hares. Hob lives at Mill End."),
    (PORTRAIT, "Hob is one of the hares. Ivy lives at Goose Green."),
    (HOME, "Hob lives at High Bridge."),
    (HOME, "Ivy lives at Low Bridge."),
    (HOME, "She lives at Low Bridge."),
    (HOME, "Low Bridge or Mill End"),
    (HOME, "Not Low Bridge."),
    (HOME, "Hob does not live at Low Bridge."),
    (HOME, "Hob was born at Low Bridge."),
    (HOME, "Hob lives at Low Bridge. Ivy lives there too."),
    (HOME, "Bridge"),
    (HOME, "Low"),
    (HOME, "I do not know."),
    (BIRTHDAY, "12 June"),
    (BIRTHDAY, "2 May"),
    (BIRTHDAY, "May"),
    (BIRTHDAY, "12"),
    (OPENS, "at seven in the morning"),
    (OPENS, "at six in the evening"),
    (PRICE, "4 pence"),
    (PRICE, "A loaf costs 14 pence."),
    (PRICE, "14 pounds"),
    (SPECIES, "hairs"),
    (SPECIES, "Hob is a badger."),
    (MANNER, "handwriting"),
    (MANNER, "good handwriting"),
    (CHAIN, "Hob's sister is Ivy."),
    (CHAIN, "Ivy"),
    (CHAIN, "Hob's sister is Wren. Ivy lives at Goose Green."),
    (CHAIN, "Hob lives at Low Bridge."),
    (CHAIN, "Hob's sister is Ivy. Ivy lives at Low Bridge."),
    (SUM, "84"),
    (SUM, "85 or 86"),
    (SUM, "185"),
    (SUM, "8 5"),
    (SUM, "not 85"),
    (SUM, "85 and a half"),
    (SUM, "46 + 39 = 85"),
    (SUM, "Ones: 7 + 8 = 15. So 47 + 38 = 75."),
    (SUM, "It is 85. No, it is 86."),
    (PEARS, "There are 6 plums."),
    (PEARS, "Ivy has 6 pears."),
    (PEARS, "Pear 1, pear 2, pear 3, pear 4, pear 5, pear 6."),
    (ORDER, "bread, spoon, kettle"),
    (ORDER, "bread, kettle"),
    (ORDER, "bread, kettle, spoon, spoon"),
    (ORDER, "bread kettle spoons"),
    (WHO, "Hob has the kettle."),
    (WHO, "Juno had the kettle."),
    (WHO, "Juno and Hob."),
    (WHO, "Juno has the ladder."),
    (PAST, "The hare sings an old song."),
    (PAST, "The hare sung an old song."),
    (PAST, "A hare sang an old song."),
    (PAST, "The hare sang an old song. It was good."),
    (JSON, '{"name": "Hob", "home": "Low Bridge", "n": "2"}'),
    (JSON, '{"name": "Hob", "home": "Low Bridge"}'),
    (JSON, '{"name": "Hob", "home": "Low Bridge", "n": 2, "x": 1}'),
    (JSON, 'Here it is: {"name": "Hob", "home": "Low Bridge", "n": 2}'),
    (JSON, "{'name': 'Hob', 'home': 'Low Bridge', 'n': 2}"),
    (JSON, '{"name": "Hob", "home": "Low Bridge", "n": true}'),
    (CHOICE, "The loaf."),
    (CHOICE, "A kettle costs 3 pence. So the kettle costs most."),
    (CHOICE, "The highest is 4 pence. So the kettle costs most."),
    (CHOICE, "The kettle or the loaf."),
    (WORDS, "Kettle and wall."),
    (WORDS, "The words are kettle and wall, as you asked."),
    (WORDS, "He put the kettles down beside the wall and waited."),
    (WORDS, "He put the kettle down. It stood on the wall."),
    (WORDS, "Ivy put the kettle down beside the wall and waited."),
    (WORDS, "She put the kettle down beside the wall and waited."),
    (WORDS, "He put the the kettle down beside the wall and waited."),
    (WORDS, "he put the kettle down beside the wall and waited"),
    (TALE, "Ivy lost her kettle, and Hob found it."),
    (TALE, "Hob lost his kettle, and Ivy did not find it."),
    (TALE, "Hob lost his kettle, and Wren and Ivy found it."),
    (TALE, "Hob found the kettle that Ivy lost."),
    (TALE, "Hob lost his kettle. Ivy found it."),
    (NOBODY_THERE, "I know."),
    (NOBODY_THERE, "I do not know. Bertil lives at Mill End."),
    (NOBODY_THERE, "There is no Hob in the valley."),
    (NOBODY_THERE, "I do not know. The letter does not say."),
    (SILENT, "The letter says so."),
    (SILENT, "I do not know. Star."),
    (SILENT, "I do not know. There is no Bertil in the valley."),
    (NO, "I will help with that."),
    (NO, "I will not help with that. He lives at Low Bridge."),
    (NO, "Hob lives at Low Bridge."),
    (NO, "No. Low Bridge."),
    (NO, "I do not know."),
    (NOTE, "Dear Hob, what is the news?"),
    (NOTE, "Dear Ivy, send me four pence."),
    (NOTE, "Ivy"),
]


@pytest.mark.parametrize(("rule", "answer"), RIGHT)
def test_a_right_wording_is_accepted(rule, answer):
    assert check(rule, answer)


@pytest.mark.parametrize(("rule", "answer"), WRONG)
def test_a_wrong_answer_that_looks_right_is_refused(rule, answer):
    assert not check(rule, answer)


def test_manners_are_taken_off_both_ends_and_nothing_else():
    text, found = manner("Let me see, now. Hob lives at Low Bridge. But I do go on.")
    assert (text, found) == ("Hob lives at Low Bridge.", ["rambling", "rambling"])
    assert manner("Again?") == ("Again?", [])
    assert manner("Hob lives at Low Bridge.")[1] == []
    assert says_unknown("I do not know. Even the geese know that.")
    assert not says_unknown("Even the geese know that. It is Hob.")
    assert loose("On the 12th of May.") == "on 12 may"


# -- baselines -------------------------------------------------------------------


def test_no_trivial_answer_gets_half_of_a_kind_right():
    for kind in KINDS:
        some = list(tasks(150, seed=9, split="validation", kinds=[kind]))
        share = sum(t.check(BASELINES[kind](t.prompt)) for t in some) / len(some)
        print(f"{kind:16s} {share:6.1%}")
        assert share < 0.5, kind
