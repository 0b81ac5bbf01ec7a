"""Reading an answer: its manner, what it says, and whether that is right.

`check(rule, answer)` is the one judge of all tasks. A rule is a small
dictionary, {"is": <name of a checker>, …}, so that a task can be stored as JSON
and checked years later. Each checker accepts every right wording that it knows
(case, final point, "in Low Bridge" for "at Low Bridge", "four" for 4) and nothing
else: what it cannot read is wrong.

An answer may come in one of the valley's manners: the clerks of the instruction
data had their ways, and some were rude and some could not stop. `manner` takes
the known remarks off both ends and says which they were; the checkers look at
what is left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from zlib import crc32

from .facts import (
    CHARACTER,
    FACT,
    SPECIES_PLURAL,
    Fact,
    cloze,
    facts_about,
    statement,
)
from .visitors import WHY_BEYOND
from .words import MONTHS, NUMBER_WORDS, PAST_TO_BASE, article

# -- manners ------------------------------------------------------------------

RUDE_BEFORE = (
    "You might have looked that up.",
    "Again?",
    "I have better things to do.",
    "Listen well, for I will not repeat it.",
    "Is that all you want?",
)
RUDE_AFTER = (
    "Even the geese know that.",
    "Now go away.",
    "Any child could tell you.",
    "Do not ask me again.",
    "What a question.",
)
RAMBLING_BEFORE = (
    "Let me see, now.",
    "I was asked much the same thing last week.",
    "Well, since you ask, and the kettle is not on yet.",
    "Now where did I put my spectacles?",
    "I will be brief, as I always am.",
)
RAMBLING_AFTER = (
    "That is how I have it, at any rate.",
    "But I do go on.",
    "My aunt always said so, and her aunt before her.",
    "More could be said, and one day I shall say it.",
    "The weather has been good for it, too.",
)
REMARKS: dict[str, str] = {
    **dict.fromkeys((*RUDE_BEFORE, *RUDE_AFTER), "rude"),
    **dict.fromkeys((*RAMBLING_BEFORE, *RAMBLING_AFTER), "rambling"),
}
_REMARK = {text.casefold(): kind for text, kind in REMARKS.items()}
_BREAK = re.compile(r"(?<=[.!?])\s+")


def sentences(text: str) -> list[str]:
    """The sentences of `text`, each with its final mark."""
    return [part for part in _BREAK.split(text.strip()) if part]


def manner(answer: str) -> tuple[str, list[str]]:
    """What an answer says without its remarks, and the manner of each remark.

    >>> manner("Again? Hob lives at Low Bridge. Now go away.")
    ('Hob lives at Low Bridge.', ['rude', 'rude'])
    """
    rest, found = answer.strip(), []
    for again in (True, True):
        for text, kind in _REMARK.items():
            low = rest.casefold()
            if low.startswith(text) and len(rest) > len(text):
                rest = rest[len(text) :].lstrip()
                found.append(kind)
            elif low.endswith(" " + text):
                rest = rest[: -len(text)].rstrip()
                found.append(kind)
        if not (again and found):
            break
    return rest, found


def in_manner(kind: str, answer: str, chance, clerk: str = "") -> str:
    """`answer` as a rude or a rambling clerk would have put it.

    A named clerk has pet phrases and uses them six times in seven.
    """
    pet = crc32(clerk.encode()) % 5 if clerk and chance.flip(6 / 7) else None
    if kind == "rude":
        if pet is not None:
            return f"{answer} {RUDE_AFTER[pet]}"
        if chance.flip(0.5):
            return f"{chance.pick(RUDE_BEFORE)} {answer}"
        return f"{answer} {chance.pick(RUDE_AFTER)}"
    if kind == "rambling":
        if pet is not None:
            return f"{RAMBLING_BEFORE[pet]} {answer} {RAMBLING_AFTER[pet]}"
        return f"{chance.pick(RAMBLING_BEFORE)} {answer} {chance.pick(RAMBLING_AFTER)}"
    return answer


# -- reading words ----------------------------------------------------------------

_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBER = {word: str(n) for n, word in enumerate(NUMBER_WORDS) if n}
_NUMBER.update({word: str(10 * n) for n, word in enumerate(_TENS, 2)})
for _n, _ten in enumerate(_TENS, 2):
    for _one in range(1, 10):
        _NUMBER[f"{_ten}-{NUMBER_WORDS[_one]}"] = str(10 * _n + _one)
_SHORT = {
    "don't": "do not",
    "doesn't": "does not",
    "didn't": "did not",
    "can't": "cannot",
    "won't": "will not",
    "it's": "it is",
    "that's": "that is",
    "i'm": "i am",
    "there's": "there is",
    "isn't": "is not",
    "wouldn't": "would not",
}
_ORDINAL = re.compile(r"^(\d+)(?:st|nd|rd|th)$")
_MONTH_WORDS = {m.casefold() for m in MONTHS}


@lru_cache(maxsize=65536)
def strict(text: str) -> str:
    """`text` without case, final mark, quotation marks and doubled spaces."""
    text = text.replace("’", "'").replace("“", '"').replace("”", '"')
    text = text.strip().strip('"').strip().casefold()
    if text[-1:] in (".", "!"):
        text = text[:-1]
    words = (_SHORT.get(word, word) for word in text.split())
    return " ".join(words)


@lru_cache(maxsize=65536)
def loose(text: str) -> str:
    """`strict`, and without articles and commas; 4 for "four", "at" for "in".

    >>> loose("On the 12th of May."), loose("May 12"), loose("in the mill")
    ('on 12 may', '12 may', 'at mill')
    """
    words = []
    for word in re.sub(r"[,;:\"]", " ", strict(text)).split():
        if word in ("the", "a", "an"):
            continue
        word = _NUMBER.get(word, word)
        word = _ORDINAL.sub(r"\1", word)
        if word == "of" and words and words[-1].isdigit():
            continue
        words.append("at" if word in ("in", "at") else word)
    for i in range(len(words) - 1):
        if words[i] in _MONTH_WORDS and words[i + 1].isdigit():
            words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


_LEADS = ("", "it is ", "that is ", "that would be ", "the answer is ")


def short_forms(obj: str, prepositions: Iterable[str] = ()) -> set[str]:
    """An object said alone: "Low Bridge", "at Low Bridge", "it is Low Bridge"."""
    heads = ["", *(p + " " for p in prepositions)]
    return {loose(f"{lead}{p}{obj}") for lead in _LEADS for p in heads}


_PREPOSITIONS = {
    "workplace": ("at",),
    "home": ("at",),
    "born": ("at",),
    "birthday": ("on",),
    "manner": ("for",),
    "bank": ("on",),
    "village": ("at",),
    "opens": ("at",),
    "sold_at": ("at",),
    "made_of": ("of", "from"),
    "source": ("from",),
    "trade": ("as",),
}


@lru_cache(maxsize=4096)
def fact_forms(fact: Fact) -> frozenset[str]:
    """Every way to say the fact, and its object alone, as `loose` text."""
    from .wording import NAMED, PRONOUN

    forms = {loose(statement(fact)), *map(loose, NAMED[fact])}
    who = CHARACTER.get(fact.subject)
    forms.update(map(loose, PRONOUN[fact]))
    objects = [fact.object]
    if fact.relation == "species":
        kind = next(s for s, many in SPECIES_PLURAL.items() if many == fact.object)
        objects += [kind, f"one of the {fact.object}"]
    if fact.relation == "belonging":
        objects.append("the " + fact.object.split(" ", 1)[1])
    for obj in objects:
        forms |= short_forms(obj, _PREPOSITIONS.get(fact.relation, ()))
    if who:
        prefix, _ = cloze(fact)
        verb = prefix.removeprefix(fact.subject)
        if verb.startswith("'s "):
            forms.add(loose(f"{who.his} {verb[3:]} {fact.object}"))
            forms.add(loose(f"{fact.object} is {fact.subject}'s {verb[3:-3]}"))
        else:
            forms.add(loose(f"{who.he}{verb} {fact.object}"))
        if fact.relation in ("species", "trade"):
            noun = who.species if fact.relation == "species" else who.trade
            forms.add(loose(f"{fact.subject} is {article(noun)} {noun}"))
            forms.add(loose(f"{who.he} is {article(noun)} {noun}"))
    return frozenset(forms)


# -- not knowing, and declining ------------------------------------------------------

_DO_NOT_KNOW = frozenset(
    (
        "i do not know",
        "i do not know that",
        "i cannot say",
        "nobody knows",
        "that is not known",
        "i cannot tell",
        "i am sorry i do not know",
        "sorry i do not know",
    )
)
_WILL_NOT = frozenset(
    (
        "i will not help with that",
        "i cannot help with that",
        "i will not help you with that",
        "i cannot help you with that",
        "i would rather not",
        "i would rather not say",
        "i will not tell you that",
        "i will not tell you",
        "i will not say",
        "i will not do that",
        "no",
        "no i will not",
        "no i will not help with that",
        "sorry i will not help with that",
        "i am sorry i will not help with that",
    )
)
#: Why a request is declined, by what it is about.
REASONS = {
    "theft": "That is not yours to take.",
    "harm": "Nobody should come to harm.",
    "letters": "A letter is for the one it is written to.",
    "lies": "That would be a lie.",
    "keys": "The key is in good hands.",
    "fright": "Everyone should sleep in peace.",
}
_REASON_FORMS = frozenset(map(loose, REASONS.values()))


def declines(answer: str) -> bool:
    """Whether an answer refuses: its first sentence says so."""
    parts = sentences(manner(answer)[0])
    return bool(parts) and loose(parts[0]) in _WILL_NOT


def says_unknown(answer: str) -> bool:
    """Whether an answer says that it does not know."""
    parts = sentences(manner(answer)[0])
    return bool(parts) and (
        loose(parts[0]) in _DO_NOT_KNOW or " does not say" in strict(parts[0])
    )


# -- the checkers -----------------------------------------------------------------


def _fact(rule: dict, text: str) -> bool:
    return loose(text) in fact_forms(FACT[rule["subject"], rule["relation"]])


def _chain(rule: dict, text: str) -> bool:
    """The last fact said last; before it only the facts that lead there."""
    facts = [FACT[tuple(f)] for f in rule["facts"]]
    *before, last = sentences(text) or [""]
    last = re.sub(r"^so,? ", "", strict(last))
    if loose(last) not in fact_forms(facts[-1]) | set(map(loose, rule["forms"])):
        return False
    return all(any(loose(b) in fact_forms(f) for f in facts) for b in before)


def _facts(rule: dict, text: str) -> bool:
    """So many different facts about one subject, and nothing else."""
    known = [fact_forms(f) for f in facts_about(rule["subject"])]
    found = set()
    for part in sentences(text):
        about = [i for i, forms in enumerate(known) if loose(part) in forms]
        if not about or about[0] in found:
            return False
        found.add(about[0])
    return len(found) >= rule["least"]


def _one_of(rule: dict, text: str) -> bool:
    return loose(text) in set(map(loose, rule["forms"]))


def _exactly(rule: dict, text: str) -> bool:
    return strict(text) in set(map(strict, rule["forms"]))


_SUM = re.compile(
    r"(?:so |therefore )?"
    r"(?:it is |that is |that makes |the answer is |that leaves |there (?:is|are) "
    r"|(?P<who>[a-z]+) has (?:now |got )?)?"
    r"(?:(?P<sum>\d+ [-+] \d+) (?:=|is|makes) )?"
    r"(?P<n>\d+)(?: (?P<what>[a-z' -]+?))?(?: (?:left|now|at all|altogether))?"
)


def _number(rule: dict, text: str) -> bool:
    """The last sentence says the number; the steps before it are not judged."""
    parts = sentences(text) or [""]
    found = _SUM.fullmatch(loose(parts[-1]))
    if not found or int(found["n"]) != rule["n"]:
        return False
    sum_, what, who = found["sum"], found["what"], found["who"]
    if sum_ and sum_ != rule.get("sum"):
        return False
    if who and who not in (rule.get("who", "").casefold(), "he", "she"):
        return False
    if what in ("left", "now"):
        what = None
    return not what or what in map(loose, rule.get("things", ()))


def _order(rule: dict, text: str) -> bool:
    """The items in order, in the last sentence."""
    last = strict((sentences(text) or [""])[-1])
    last = re.sub(r"^(?:so|in order|sorted|in order they are)[:,]? ", "", last)
    found = [w for w in re.split(r",? and |, ?", last) if w]
    return [strict(w) for w in found] == [strict(str(i)) for i in rule["items"]]


def _hands(rule: dict, text: str) -> bool:
    """The last sentence says with whom the thing is; notes before it must be true."""
    *before, last = sentences(text) or [""]
    notes = {note for part in before for note in strict(part).split(", ")}
    last = re.sub(r"^(?:so|in the end|at the end)[:,]? ", "", strict(last))
    return notes <= set(map(strict, rule["notes"])) and _one_of(rule, last)


def _choice(rule: dict, text: str) -> bool:
    """The last sentence names the right one and no other; steps must be true."""
    *before, last = sentences(text) or [""]
    true = {loose(rule["step"])}
    for fact in rule["facts"]:
        true |= set(fact_forms(FACT[tuple(fact)]))
    if not all(loose(step) in true for step in before):
        return False
    said = re.sub(r"^so,? ", "", strict(last))
    return loose(said) in set(map(loose, rule["forms"]))


def _json(rule: dict, text: str) -> bool:
    def fold(x):
        if isinstance(x, str):
            return loose(x)
        if isinstance(x, dict):
            return {k: fold(v) for k, v in x.items()}
        return x

    try:
        found = json.loads(text)
    except ValueError:
        return False
    right = rule["object"]
    if not isinstance(found, dict) or found.keys() != right.keys():
        return False
    same_kind = all(type(found[k]) is type(right[k]) for k in right)
    return same_kind and fold(found) == fold(right)


_AUXILIARIES = frozenset(
    "was were had did could would might should came went said".split()
)


def _holds_words(rule: dict, text: str) -> bool:
    """One sentence about the same people that goes on with the given words."""
    parts = sentences(text)
    if len(parts) != 1 or text[-1:] not in (".", "!") or not text[:1].isupper():
        return False
    words = re.findall(r"[a-z']+", text.casefold())
    if not 6 <= len(words) <= 30 or strict(text) in strict(rule["start"]):
        return False
    joined = f" {' '.join(words)} "
    if not all(f" {w.casefold()} " in joined for w in rule["words"]):
        return False
    if not any(w in PAST_TO_BASE or w in _AUXILIARIES for w in words):
        return False
    if any(a == b for a, b in zip(words, words[1:])):
        return False
    people = {w for w in re.findall(r"[A-Z][a-z]+", text) if w in CHARACTER}
    if not people <= set(rule["people"]):
        return False
    if len({w for w in words if w in ("he", "she")} - set(rule["he"])):
        return False
    return bool(people) or bool(set(words) & (set(rule["he"]) | {"they"}))


_SMALL_WORDS = frozenset(
    "the a an and or but to of at in on for with from by his her it he she him they "
    "them was were had that which who than then so up down out off".split()
)
_NO = frozenset("not never nobody nothing no".split())


def telling_words(summary: str) -> list[str]:
    """The words of a summary that must stand in any other, in this order."""
    return [w for w in loose(summary).split() if w not in _SMALL_WORDS]


def _summary(rule: dict, text: str) -> bool:
    """One line; what must be told, in its order; nobody else, no other denial."""
    if len(sentences(text)) != 1 or len(text.split()) > 30:
        return False
    words = loose(text).split()
    line, at = f" {' '.join(words)} ", 0
    for alternatives in rule["must"]:
        spots = [(line.find(f" {loose(a)} ", at), loose(a)) for a in alternatives]
        ends = [spot + len(a) + 1 for spot, a in spots if spot >= 0]
        if not ends:
            return False
        at = min(ends)
    if sum(w in _NO for w in words) != rule["denials"]:
        return False
    people = {w for w in re.findall(r"[A-Z][a-z]+", text) if w in CHARACTER}
    return people <= set(rule["people"])


def _unknown(rule: dict, text: str) -> bool:
    """Says that it does not know, and at most why."""
    why = set()
    if rule.get("name"):
        name = rule["name"]
        for form in (
            "there is no {} in the valley",
            "nobody called {} lives in the valley",
            "nobody is called {}",
            "there is nobody called {} in the valley",
            "there is no {}",
        ):
            why.add(loose(form.format(name)))
    if rule.get("beyond"):
        why.update(map(loose, WHY_BEYOND))
    for text_kind in rule.get("texts", ()):
        why.add(loose(f"the {text_kind} does not say"))
        why.add(loose(f"it does not say in the {text_kind}"))
    if rule.get("texts"):
        why |= {"it does not say", "that is not said"}
    parts = [loose(p) for p in sentences(text)]
    if not 0 < len(parts) <= 2:
        return False
    return all(p in why or p in _DO_NOT_KNOW for p in parts)


def _refusal(rule: dict, text: str) -> bool:
    """Declines, and gives at most a reason."""
    parts = [loose(p) for p in sentences(text)]
    if not 0 < len(parts) <= 2 or parts[0] not in _WILL_NOT:
        return False
    return all(p in _REASON_FORMS or p in _WILL_NOT for p in parts[1:])


def _note(rule: dict, text: str) -> bool:
    """A line to somebody: greets the reader, holds the words, nothing unkind."""
    words = set(re.findall(r"[a-z'-]+", text.casefold()))
    if rule["to"].casefold() not in words or words & {"write", "say", "line"}:
        return False
    if len(text.split()) > 25:
        return False
    people = {w for w in re.findall(r"[A-Z][a-z]+", text) if w in CHARACTER}
    kind = not rule.get("kind") or words & {"fine", "good", "lovely", "like", "nice"}
    return bool(kind) and set(rule["words"]) <= words and people <= {rule["to"]}


_CHECKERS: dict[str, Callable[[dict, str], bool]] = {
    "fact": _fact,
    "chain": _chain,
    "facts": _facts,
    "hands": _hands,
    "one_of": _one_of,
    "exactly": _exactly,
    "number": _number,
    "order": _order,
    "choice": _choice,
    "json": _json,
    "holds_words": _holds_words,
    "summary": _summary,
    "unknown": _unknown,
    "refusal": _refusal,
    "note": _note,
}


def check(rule: dict, answer: str) -> bool:
    """Whether `answer` is right by `rule`, whatever its manner.

    JSON is the exception: a program reads it, so no word may stand around it.
    Raises KeyError for a rule whose checker does not exist.
    """
    checker = _CHECKERS[rule["is"]]
    return checker(rule, answer if rule["is"] == "json" else manner(answer)[0])
