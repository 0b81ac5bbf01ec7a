# ruff: noqa: E501
"""The pages of the valley that are not stories.

Each genre is a function that writes one document through a Chance and returns
the facts it states, in order. Sums, grammar and Old Valley are in `school.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pocket_world.facts import (
    CHARACTER,
    CHARACTERS,
    FACTS,
    FOODS,
    GOODS,
    PLACES,
    Fact,
    birthday_key,
    facts_about,
    pence,
    question,
    statement,
)
from pocket_world.gazette import (
    dialogue,
    diary,
    howto,
    letter,
    news,
    notice,
    recipe,
)
from pocket_world.school import dialect, grammar, sums, verb_table
from pocket_world.wording import (
    begin,
    choose,
    say_fact,
    say_more,
    tell,
)
from pocket_world.words import (
    article,
    capital,
    clock,
    counting_steps,
    sorting_steps,
    worked_addition,
    worked_subtraction,
)

__all__ = [
    "almanac", "birthdays", "dialect", "dialogue", "diary", "entry", "grammar",
    "howto", "letter", "lists", "news", "notice", "prices", "quiz", "recipe",
    "riddle", "sums", "timetable", "verb_table", "worked_addition",
    "worked_subtraction",
]  # fmt: skip

# Facts about places and things have fewer genres of their own, so the almanac
# and the quiz turn to them a little more often than their number asks.
_FACT_GROUPS = tuple(
    tuple(f for f in FACTS if (f.subject in CHARACTER) is people)
    for people in (True, False)
)


# Who is whose friend, brother or mother is harder to learn than the rest: the answer
# is a name, and both names stand in each other's facts. So is a day of the year.
_HARD = {"friend": 3.0, "birthday": 2.0} | dict.fromkeys(
    ("mother", "father", "sister", "brother", "husband", "wife"), 1.5
)
_FACT_WEIGHTS = tuple(
    tuple(_HARD.get(f.relation, 1.0) for f in group) for group in _FACT_GROUPS
)


def _any_fact(chance, said: Callable[[Fact], str] | None = None) -> Fact:
    group = chance.pick((0, 1), (0.62, 0.38))
    return chance.pick(_FACT_GROUPS[group], _FACT_WEIGHTS[group], said=said)


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
            fact = _any_fact(chance, said=statement)
            chance.write(statement(fact))
            stated.append(fact)
        else:
            say_fact(chance, _any_fact(chance), stated)
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
        _ANSWERED[_f] = capital(
            f"{article(CHARACTER[_f.subject].species)} "
        ) + (CHARACTER[_f.subject].species + ".")
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
        fact = _any_fact(chance, said=_QUESTION.__getitem__)
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
_ENTRY_FACTS.update(
    {t.name: tuple(facts_about(t.name)) for t in (*FOODS, *GOODS)}
)
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
        _about(chance, subject, stated)
        if len(stated) > 6 or (len(stated) > 4 and not chance.flip(0.5)):
            return stated
        chance.write("\n")


def _about(chance, subject: str, stated: list[Fact]) -> None:
    """Sentences on the facts about `subject`, just named, in any order."""
    left = list(_ENTRY_FACTS[subject])
    while True:
        fact = chance.pick(left)
        say_more(chance, fact, stated)
        left.remove(fact)
        if not left or not chance.flip(0.88):
            return
        chance.write(" ")


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
    left = list(_ENTRY_FACTS[name])
    start = chance.pick(("two", "one", "title"), (0.5, 0.25, 0.25))
    if start == "two":
        text, facts = chance.pick(_OPENING_OF[name], said=lambda o: o[0])
        chance.write(text)
        stated += facts
        left = [f for f in left if f not in facts]
    else:
        fact = chance.pick(left)
        if start == "one":
            say_fact(chance, fact, stated)
        else:
            chance.write(name + ". ")
            say_more(chance, fact, stated)
        left.remove(fact)
    while left and (len(stated) < 4 or chance.flip(0.88)):
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


# -- riddles -------------------------------------------------------------------

_HINTS = {
    "species": ("I am {k}.", "My people are {o}."),
    "home": ("I live at {o}.", "My house is at {o}.", "You find me at {o} at night."),
    "born": ("I was born at {o}.", "I come from {o}."),
    "food": ("I like {o} best.", "My favourite food is {o}.",
             "Offer me {o} and I will come."),
    "workplace": ("I work at {o}.", "By day I am at {o}."),
    "birthday": ("My birthday is on {o}.", "On {o} I am a year older."),
    "friend": ("{o} is my best friend.", "I tell {o} everything."),
    "belonging": ("I own {o}.", "I have {o} of my own."),
    "manner": ("I am known for {o}.", "They know me for {o}."),
    "mother": ("My mother is {o}.", "{o} is my mother."),
    "father": ("My father is {o}.", "{o} is my father."),
    "sister": ("{o} is my sister.", "I have one sister, {o}."),
    "brother": ("{o} is my brother.", "I have one brother, {o}."),
    "wife": ("My wife is {o}.",),
    "husband": ("My husband is {o}.",),
}  # fmt: skip
_RIDDLE_FACTS = tuple(f for f in FACTS if f.relation in _HINTS)
_HINT_OF: dict[Fact, tuple[str, ...]] = {}
_SHARING: dict[tuple[str, str], frozenset[str]] = {}
for _f in _RIDDLE_FACTS:
    _who = CHARACTER[_f.subject]
    _k = f"{article(_who.species)} {_who.species}"
    _HINT_OF[_f] = tuple(
        h.format(o=_f.object, k=_k) for h in _HINTS[_f.relation]
    )
    _key = (_f.relation, _f.object)
    _SHARING[_key] = _SHARING.get(_key, frozenset()) | {_f.subject}
_RIDDLE_OF = {
    c.name: tuple(f for f in _RIDDLE_FACTS if f.subject == c.name)
    for c in CHARACTERS
}


def riddle(chance) -> list[Fact]:
    """Who am I? Hints until only one in the valley is left, then the name."""
    stated: list[Fact] = []
    count = 0
    chance.say("", "Riddles.\n", "Who am I?\n", "Guess who.\n")
    while True:
        _one_riddle(chance, stated)
        count += 1
        if count == 4 or (count > 1 and not chance.flip(0.55)):
            return stated
        chance.write("\n")


def _one_riddle(chance, stated: list[Fact]) -> None:
    name = chance.pick(_WHO)
    possible = frozenset(_WHO)
    left = list(_RIDDLE_OF[name])
    while len(possible) > 1:
        useful = [
            f for f in left if not possible <= _SHARING[f.relation, f.object]
        ]
        fact = chance.pick(useful)
        chance.say(*_HINT_OF[fact])
        chance.write(" ")
        possible &= _SHARING[fact.relation, fact.object]
        left.remove(fact)
        stated.append(fact)
    chance.say("Who am I? ", "Say my name. ", "Who is it? ")
    chance.write(f"{name}.")


# -- prices, lists, birthdays, timetables ---------------------------------------

_PRICED = tuple((*FOODS, *GOODS))
_PRICE_LINE = {t: f"{capital(t.a)}: {pence(t.price)}." for t in _PRICED}
_PRICE_FACT = {t: Fact(t.name, "price", pence(t.price)) for t in _PRICED}


def prices(chance) -> list[Fact]:
    """A register of prices: of one shop, or from all over the valley."""
    stated: list[Fact] = []
    chance.say(
        "Register of prices.\n",
        "What things cost.\n",
        "Prices, as written down by Agnes.\n",
        "From the ledger of the market hall.\n",
    )
    left, lines = list(_PRICED), 0
    while True:
        thing = chance.pick(left, said=_PRICE_LINE.__getitem__)
        chance.write(_PRICE_LINE[thing])
        stated.append(_PRICE_FACT[thing])
        if chance.flip(0.3):
            chance.write(" ")
            fact = chance.pick(facts_about(thing.name)[1:])
            say_more(chance, fact, stated)
        left.remove(thing)
        lines += 1
        if lines == 12 or (lines > 4 and not chance.flip(0.82)):
            return stated
        chance.write("\n")


def lists(chance) -> list[Fact]:
    """A shopping list with its total, things in order, or things counted."""
    return chance.pick((_shopping, _in_order, _counted), (0.3, 0.35, 0.35))(
        chance
    )


def _shopping(chance) -> list[Fact]:
    stated: list[Fact] = []
    chance.say("For the market", "To buy", "Shopping", "Do not forget")
    if chance.flip(0.5):
        name = chance.pick(_WHO, said=lambda n: f", for {n}")
        chance.write(f", for {name}")
    chance.write(":\n")
    total, lines, left = 0, 0, list(_PRICED)
    while True:
        many = chance.flip(0.35)
        if many:
            n = chance.pick(range(2, 6), said=str)
            chance.write(f"{n} ")
            thing = chance.pick(left, said=lambda t: t.plural + ",")
            cost = n * thing.price
            chance.write(f"{thing.plural}, {pence(cost)}")
        else:
            thing = chance.pick(left, said=lambda t: t.a + ",")
            cost = thing.price
            chance.write(f"{thing.a}, {pence(cost)}")
            stated.append(_PRICE_FACT[thing])
        left.remove(thing)
        before, total = total, total + cost
        chance.write(f", makes {total}\n" if before else "\n")
        lines += 1
        if lines == 6 or total > 120 or (lines > 2 and not chance.flip(0.6)):
            break
    chance.write(f"Together {pence(total)}.")
    return stated


def _in_order(chance) -> list[Fact]:
    """Names or things, first as they come, then by the alphabet.

    Where all begin with different letters, the letters may be sorted first.
    """
    names = chance.flip(0.5)
    whole = _WHO if names else _GOODS_NAMES
    pool = list(whole)
    heads = (
        (
            "In order of the alphabet.\n",
            "Put these names in order.\n",
            "Roll call.\n",
        )
        if names
        else (
            "Tidy the shelf by the alphabet.\n",
            "Put these things in order.\n",
        )
    )
    chance.say(*heads)
    slowly = chance.flip(0.6)
    if slowly:
        chance.write("By the first letters.\n")
    rounds = 0
    while True:
        drawn = []
        while True:
            item = chance.pick(pool, said=lambda x: x)
            pool.remove(item)
            drawn.append(item)
            if slowly:  # each letter once
                pool = [x for x in pool if x[0] != item[0]]
            chance.write(item)
            if len(drawn) == 6 or (len(drawn) > 2 and not chance.flip(0.65)):
                break
            chance.write(", ")
        if slowly:
            chance.write(f": {sorting_steps(drawn)}")
            pool = list(whole)
        else:
            chance.write(f": {', '.join(sorted(drawn))}.")
        rounds += 1
        if rounds == 4 or (rounds > 1 and not chance.flip(0.5)):
            return []
        chance.write("\n")


_GOODS_NAMES = tuple(t.name for t in (*GOODS, *FOODS) if " of " not in t.name)


def _counted(chance) -> list[Fact]:
    """A row of words; then again with a running count of one or of each."""
    each = chance.flip(0.5)
    if each:
        chance.say("Count them.\n", "How many of each?\n")
    else:
        chance.say("Count the first.\n", "From the counting class.\n")
    rounds = 0
    while True:
        first = chance.pick(_COUNT_WORDS, said=lambda w: w)
        rest = [w for w in _COUNT_WORDS if w != first]
        row = [first]
        chance.write(first)
        second = ""
        while True:
            chance.write(", ")
            if second:
                word = chance.pick((first, second), said=lambda w: w)
            elif chance.flip(0.5):
                word = second = chance.pick(rest, said=lambda w: w)
            else:
                word = first
            chance.write(word)
            row.append(word)
            n = len(row)
            if n == 9 or (n > 3 and not chance.flip(0.75)):
                break
        chance.write(f". {counting_steps(row, {first, second} if each else {first})}.")
        chance.write(f" In all: {first} {row.count(first)}")
        chance.write(
            f", {second} {row.count(second)}." if second and each else "."
        )
        rounds += 1
        if rounds == 4 or (rounds > 1 and not chance.flip(0.6)):
            return []
        chance.write("\n")


_COUNT_WORDS = tuple(
    "pear plum egg bun fish bell lamp key hat boot cup spoon goat hen duck leek "
    "nail rope jar bean".split()
)

_YEAR = tuple(sorted((c.name for c in CHARACTERS), key=birthday_key))
_BIRTHDAY = {f.subject: f for f in FACTS if f.relation == "birthday"}
_BIRTHDAY_LINES = {
    n: (f"{_BIRTHDAY[n].object}: {n}.", f"{n}: {_BIRTHDAY[n].object}.")
    for n in _YEAR
}


def birthdays(chance) -> list[Fact]:
    """Some of the year's birthdays, in order, with what to bring."""
    stated: list[Fact] = []
    title = chance.say(
        "Birthdays, to be kept.\n",
        "Birthday calendar.\n",
        "Whose birthday is it?\n",
        "Hang this by the door.\n",
    )
    form = 1 if title.startswith("Whose") else 0
    at = 0
    while True:
        rest = _YEAR[at:]
        name = chance.pick(
            rest, _falling(len(rest)), said=lambda n: _BIRTHDAY_LINES[n][form]
        )
        at = _YEAR.index(name) + 1
        chance.write(_BIRTHDAY_LINES[name][form])
        stated.append(_BIRTHDAY[name])
        if chance.flip(0.35):
            chance.write(" ")
            left = [f for f in facts_about(name) if f.relation in _GIFTS]
            say_more(chance, chance.pick(left), stated)
        if at == len(_YEAR) or (len(stated) > 5 and not chance.flip(0.85)):
            return stated
        chance.write("\n")


_GIFTS = ("food", "home", "friend", "manner", "belonging")


@cache
def _falling(n: int) -> tuple[float, ...]:
    return tuple(0.9**i for i in range(n))


_ROUTES = {
    bank: tuple(
        sorted(
            (p for p in PLACES if not p.site and p.bank == bank and p.minutes),
            key=lambda p: (p.minutes, p.name),
        )
    )
    for bank in ("north", "south")
}


def timetable(chance) -> list[Fact]:
    """The letter round or the cart, at walking pace, or the ferry's hours."""
    if chance.flip(0.3):
        return _ferry(chance)
    m = begin()
    chance.say("The cart, ", "Letter round, ", "The milk cart, ", "Coal cart, ")
    tell(chance, "{day}. ", m)
    tell(chance, "In charge: {A:adult}. Leaves Wendon at ", m)
    start = chance.pick(range(6 * 60, 11 * 60, 5), said=clock)
    chance.write(clock(start) + ", ")
    bank = chance.pick(
        ("north", "south"), (0.55, 0.45), said=lambda b: f"{b} bank"
    )
    chance.write(f"{bank} bank")
    chance.say(", at walking pace.", ", no faster than on foot.")
    stops = 0
    route = _ROUTES[bank]
    at = 0
    while True:
        rest = route[at:]
        stop = chance.pick(
            rest,
            tuple(0.6**i for i in range(len(rest))),
            said=lambda p: f"\n{p.name} {clock(start + p.minutes)}",
        )
        at = route.index(stop) + 1
        chance.write(f"\n{stop.name} {clock(start + stop.minutes)}")
        if chance.flip(0.35):
            chance.write(", ")
            tell(chance, _CART_NOTES[_pick_note(chance)], {"facts": m["facts"]})
        stops += 1
        if at == len(route) or (stops > 2 and not chance.flip(0.8)):
            break
    chance.write("\n")
    chance.say(
        "No dogs.", "Hold on at the bends.", "Be there early.", "Bring change."
    )
    return m["facts"]


_CART_NOTES = (
    "takes {G.pl}",
    "letters for {A}",
    "waits {n:2-9} minutes",
    "stops for {A}, {,A}",
    "only on {day}",
    "{n:2-30} cans of milk",
)


def _pick_note(chance) -> int:
    return chance.pick(
        range(len(_CART_NOTES)), said=lambda i: _CART_NOTES[i].partition("{")[0]
    )


def _ferry(chance) -> list[Fact]:
    m = begin()
    tell(
        chance,
        "The ferry, {day}. Old Landing to Far Landing, first boat at ",
        m,
    )
    first = chance.pick(range(7 * 60, 9 * 60, 5), said=clock)
    chance.write(f"{clock(first)}, then every ")
    every = chance.pick((20, 25, 30, 40, 45, 60, 90), said=str)
    chance.write(f"{every} minutes:")
    leaves = first
    for _ in range(chance.pick(range(3, 8))):
        chance.write(f" {clock(leaves)}")
        leaves += every
    chance.write(".\n")
    tell(chance, "Ferry keeper: Wren. {n:2-6} pence, {G.pl} {k:1-2} more. ", m)
    choose(
        chance,
        (
            "No boat in high water.",
            "Sit down, please.",
            "Ring the bell on the far bank and wait.",
            "{A} pays on Fridays.",
            "Goats stand in the middle.",
        ),
        m,
    )
    if chance.flip(0.5):
        chance.write(" ")
        tell(chance, "{@S}", {"facts": m["facts"]})
    return m["facts"]
