"""The pages of the valley that are not stories.

Each genre is a function that writes one document through a Chance and returns
the facts it states, in order. Sums, grammar and Old Valley are in `school.py`.
"""

from __future__ import annotations

from functools import lru_cache

from pocket_world.facts import (
    CHARACTER,
    CHARACTERS,
    FACTS,
    FOODS,
    GOODS,
    PLACES,
    THING,
    Fact,
    birthday_key,
    facts_about,
    pence,
    question,
    statement,
)
from pocket_world.school import dialect, grammar, sums, verb_table
from pocket_world.wording import (
    PRONOUN,
    begin,
    choose,
    choose_some,
    say_fact,
    say_more,
    tell,
)
from pocket_world.words import (
    MONTHS,
    article,
    capital,
    clock,
    join_list,
    worked_addition,
    worked_subtraction,
)

__all__ = [
    "almanac", "birthdays", "dialect", "dialogue", "diary", "entry", "grammar",
    "howto", "letter", "lists", "news", "notice", "prices", "quiz", "recipe",
    "riddle", "sums", "timetable", "verb_table", "worked_addition",
    "worked_subtraction",
]  # fmt: skip

_FACT_TUPLE = tuple(FACTS)


# -- facts, plainly ----------------------------------------------------------


def almanac(chance) -> list[Fact]:
    """Plain statements of facts from all over the valley, a line each."""
    title = chance.say(
        "From the valley almanac.\n",
        "Things to know, before you ask.\n",
        "Facts of the valley.\n",
        "Heard at the tea room.\n",
        "All of this is true.\n",
        "What every child here knows.\n",
        "Written on the back of a calendar.\n",
    )
    plain = title in _PLAIN_TITLES
    stated: list[Fact] = []
    while True:
        if plain:
            fact = chance.pick(_FACT_TUPLE, said=statement)
            chance.write(statement(fact))
            stated.append(fact)
        else:
            say_fact(chance, chance.pick(_FACT_TUPLE), stated)
        n = len(stated)
        if n == 14 or (n > 4 and not chance.flip(0.82)):
            return stated
        chance.write("\n")


_PLAIN_TITLES = (
    "From the valley almanac.\n",
    "Facts of the valley.\n",
    "All of this is true.\n",
)


_ANSWERED = {f: capital(f.object) + "." for f in FACTS}
_AT = ("workplace", "home", "born", "village", "sold_at")
for _f in FACTS:
    if _f.relation in _AT:
        _ANSWERED[_f] = f"At {_f.object}."
    elif _f.relation == "birthday":
        _ANSWERED[_f] = f"On {_f.object}."
    elif _f.relation == "source":
        _ANSWERED[_f] = f"From {_f.object}."
    elif _f.relation == "opens":
        _ANSWERED[_f] = f"At {_f.object}."
    elif _f.relation == "bank":
        _ANSWERED[_f] = f"On {_f.object}."
    elif _f.relation == "species":
        _ANSWERED[_f] = capital(f"{article(CHARACTER[_f.subject].species)} ") + (
            CHARACTER[_f.subject].species + "."
        )
_QUESTION = {f: question(f) for f in FACTS}


def quiz(chance) -> list[Fact]:
    """Questions and answers on the facts, short or in whole sentences."""
    chance.say(
        "Quiz night at the inn.\n",
        "Questions for a long evening.\n",
        "Who knows the valley?\n",
        "Question and answer.\n",
        "",
    )
    whole = chance.flip(0.45)
    letters = chance.flip(0.4)
    before, between = ("Q. ", "\nA. ") if letters else ("", " ")
    stated: list[Fact] = []
    while True:
        chance.write(before)
        fact = chance.pick(_FACT_TUPLE, said=_QUESTION.__getitem__)
        chance.write(_QUESTION[fact] + between)
        chance.write(statement(fact) if whole else _ANSWERED[fact])
        stated.append(fact)
        n = len(stated)
        if n == 9 or (n > 3 and not chance.flip(0.78)):
            return stated
        chance.write("\n")


_ENTRY_FACTS = {
    x: tuple(facts_about(x))
    for x in (*(c.name for c in CHARACTERS), *(p.name for p in PLACES))
}
_ENTRY_FACTS.update({t.name: tuple(facts_about(t.name)) for t in (*FOODS, *GOODS)})
_WHO = tuple(c.name for c in CHARACTERS)
_WHERE = tuple(p.name for p in PLACES)
_WARES = tuple(t.name for t in (*FOODS, *GOODS))
_TITLE = {x: capital(x) for x in _ENTRY_FACTS}


def entry(chance) -> list[Fact]:
    """An entry of the valley's encyclopedia: a character, place or thing."""
    kind = chance.pick((_WHO, _WHERE, _WARES), (0.7, 0.17, 0.13))
    stated: list[Fact] = []
    if kind is _WHO:
        _character_entry(chance, stated)
        return stated
    while True:
        subject = chance.pick(kind, said=_TITLE.__getitem__)
        chance.write(_TITLE[subject] + ". ")
        _about(chance, subject, stated, 9)
        if len(stated) > 6 or (len(stated) > 4 and not chance.flip(0.5)):
            return stated
        chance.write("\n")


def _about(chance, subject: str, stated: list[Fact], most: int) -> None:
    """Sentences on the facts about `subject`, the first with its name."""
    left = list(_ENTRY_FACTS[subject])
    fact = chance.pick(left)
    say_fact(chance, fact, stated)
    left.remove(fact)
    while left and most > 1 and chance.flip(0.88):
        chance.write(" ")
        fact = chance.pick(left)
        say_more(chance, fact, stated)
        left.remove(fact)
        most -= 1


# Two relations in one sentence: "Hob, a hare, lives at Low Bridge."
_OPENINGS = (
    ("{s} is {species}, and works as {trade}.", ("species", "trade")),
    ("{s}, {species}, is the valley's {Trade}.", ("species", "trade")),
    ("{s} is {species} and lives at {home}.", ("species", "home")),
    ("{s} of {home} is {species}, known for {manner}.", ("home", "species", "manner")),
    ("{s}, {species}, lives at {home} and works at {workplace}.",
     ("species", "home", "workplace")),
    ("{s}, {trade}, was born at {born} and lives at {home}.",
     ("trade", "born", "home")),
    ("{s} ({species}) was born at {born} on {birthday}.",
     ("species", "born", "birthday")),
    ("{s}, known for {manner}, works at {workplace}.", ("manner", "workplace")),
)  # fmt: skip
_PAIRS = (
    ("{He} lives at {home} and works at {workplace}.", ("home", "workplace")),
    ("{He} was born at {born}, and lives at {home}.", ("born", "home")),
    ("{He} works at {workplace} as {trade}.", ("workplace", "trade")),
    ("{He} owns {belonging} and is known for {manner}.", ("belonging", "manner")),
    ("{His} best friend is {friend}, and {his} favourite food is {food}.",
     ("friend", "food")),
    ("{He} likes {food} best and tells {friend} everything.", ("food", "friend")),
    ("{He} was born at {born} on {birthday}.", ("born", "birthday")),
    ("{His} mother is {mother} and {his} father is {father}.",
     ("mother", "father")),
    ("{He} is known for {manner} and for owning {belonging}.",
     ("manner", "belonging")),
)  # fmt: skip


def _filled(table) -> dict[str, tuple[tuple[str, tuple[Fact, ...]], ...]]:
    filled = {}
    for c in CHARACTERS:
        known = {f.relation: f for f in facts_about(c.name)}
        words = {r: f.object for r, f in known.items()}
        words.update(s=c.name, He=capital(c.he), His=capital(c.his), his=c.his)
        words.update(species=f"{article(c.species)} {c.species}", Trade=c.trade)
        filled[c.name] = tuple(
            (pattern.format(**words), tuple(known[r] for r in relations))
            for pattern, relations in table
            if all(r in known for r in relations)
        )
    return filled


_OPENING_OF, _PAIR_OF = _filled(_OPENINGS), _filled(_PAIRS)


def _character_entry(chance, stated: list[Fact]) -> None:
    name = chance.pick(_WHO)
    if chance.flip(0.4):
        chance.write(name + ". ")
    left = list(_ENTRY_FACTS[name])
    if chance.flip(0.55):
        text, facts = chance.pick(_OPENING_OF[name], said=lambda o: o[0])
        chance.write(text)
        stated += facts
        left = [f for f in left if f not in facts]
    else:
        fact = chance.pick(left)
        say_fact(chance, fact, stated)
        left.remove(fact)
    most = 11
    while left and most and chance.flip(0.9):
        chance.write(" ")
        pairs = [p for p in _PAIR_OF[name] if all(f in left for f in p[1])]
        if pairs and chance.flip(0.25):
            text, facts = chance.pick(pairs, said=lambda p: p[0])
            chance.write(text)
            stated += facts
            left = [f for f in left if f not in facts]
        else:
            fact = chance.pick(left)
            say_more(chance, fact, stated)
            left.remove(fact)
        most -= 1
