# ruff: noqa: E501
"""How the pages put things: every fact in several wordings, and sentences with
gaps that are filled as they are written.

A sentence with gaps is a string such as

    "Found by {A} near {P}: {K.a}. {A.He} will keep it."

`{A}` draws a character when the writing reaches that point and writes the name;
`{A.He}` writes "He" or "She" for the same one. What has been drawn is kept in a
dictionary, one per document, so later sentences can speak of it again. That is
the rule of `chance.py`, choose late and write early, as a small language.

Gaps: A B C D M N characters (never the same one twice), P Q villages, S T sites,
G H goods, E F foods, K L belongings, n m k j numbers (`{n:2-9}`), and any name
in LISTS. A pool may follow the first use: `{A:adult}`, `{S:shop}`, `{G:of S}`.
`{@A.home}` writes one of the wordings of that fact; `{@A}` of any fact about A.
`{,A}` puts a fact in a clause after the name: ", who lives at Low Bridge,".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from pocket_world.facts import (
    BELONGINGS,
    CHARACTER,
    CHARACTERS,
    FACT,
    FACTS,
    FOODS,
    GOODS,
    PLACE,
    SHOPS,
    SITES,
    THING,
    VILLAGES,
    Character,
    Fact,
    Thing,
    facts_about,
    hour_words,
    neighbours,
    pence,
    statement,
    workers,
)
from pocket_world.words import (
    MONTHS,
    WEEKDAYS,
    capital,
    clock,
    number_word,
    with_article,
)

# -- every fact in several wordings -------------------------------------------

# {s} subject, {S} with a capital, {o} object, {O} with a capital, {p} he, {P} He,
# {h} his, {m} him; {k} the species, son or daughter; {a} {A} {pl} {PL} for things
_NAMED = {
    "species": "{s} is {k}.|{s} comes of a family of {o}.|You will see at once "
    "that {s} is {k}.",
    "trade": "{s} is the valley's {k}.|{s} is {o} by trade.|The name of the "
    "valley's {k} is {s}.",
    "workplace": "You will find {s} at {o}.|Ask for {s} at {o}.|{s} spends {h} "
    "working days at {o}.|{O} is where {s} works.",
    "home": "{s}'s home is at {o}.|{s} makes {h} home at {o}.|Letters for {s} go "
    "to {o}.|At night {s} goes home to {o}.",
    "born": "{s} comes from {o}.|{o} is where {s} was born.|{s} first saw the "
    "river at {o}.",
    "birthday": "{s} was born on {o}.|On {o} {s} is a year older.|{s} has {h} "
    "birthday on {o}.|{o} is {s}'s birthday.",
    "friend": "{s} and {o} are best friends.|{s} has no better friend than {o}.|"
    "{s} tells {o} everything.|{s} is never long without {o}.",
    "food": "{s} likes {o} best.|{s} would cross the river for {o}.|Nothing "
    "pleases {s} more than {o}.|{s} never says no to {o}.",
    "belonging": "{T} belongs to {s}.|{T} is {s}'s.|{s} has {o} of {h} own.|"
    "If you need {o}, ask {s}.",
    "manner": "Everyone knows {s} for {o}.|Say {s}, and people think of {o}.|"
    "What people remember of {s} is {o}.|Ask about {s}, and you hear of {o}.",
    "mother": "{o} is {s}'s mother.|{s} is {o}'s {k}.|{s} has {h} good sense "
    "from {o}, {h} mother.",
    "father": "{o} is {s}'s father.|{s} is {o}'s {k}.|{s} has {h} walk from {o}, "
    "{h} father.",
    "brother": "{o} is {s}'s brother.|{s} has one brother, {o}.|{s} has a brother "
    "called {o}.",
    "sister": "{o} is {s}'s sister.|{s} has one sister, {o}.|{s} has a sister "
    "called {o}.",
    "husband": "{s} is married to {o}.|{o} is {s}'s husband.|{s} is the wife of "
    "{o}.",
    "wife": "{s} is married to {o}.|{o} is {s}'s wife.|{s} is the husband of {o}.",
    "bank": "You find {s} on {o}.|{s} is on {o} of the river.|The houses of {s} "
    "stand on {o}.",
    "near": "The nearest place to {s} is {o}.|From {s} it is five minutes to {o}.|"
    "The neighbours of {s} are at {o}.",
    "minutes": "{s} is {o} on foot from Wendon.|From {s} you walk to Wendon in "
    "{o}.|On foot, {s} to Wendon is {o}.",
    "village": "You find {s} at {o}.|{S} is at {o}.|To reach {s}, go to {o}.|"
    "{o} has {s}.",
    "keeper": "{o} keeps {s}.|{S} is kept by {o}.|{S} is in the care of {o}.|"
    "{o} looks after {s}.",
    "opens": "The doors of {s} open at {o}.|You can come to {s} from {o}.|Nobody "
    "is let into {s} before {o}.|{S} is open from {o}.",
    "price": "The price of {a} is {o}.|You pay {o} for {a}.|For {o} you get {a}.|"
    "They ask {o} for {a}.",
    "sold_at": "{O} sells {pl}.|{PL} are sold at {o}.|For {a}, go to {o}.|"
    "If you want {a}, try {o}.",
    "made_of": "{PL} are made of {o}.|It takes {o} to make {a}.|Without {o} there "
    "is no {s}.",
    "source": "{S} {come} from {o}.|{O} gives the valley its {s}.|If you want "
    "{s}, go to {o}.",
}
_PRONOUN = {
    "species": "{P} is one of the {o}.|{P} is {k}.",
    "trade": "{P} works as {o}.|{P} is the valley's {k}.|By trade {p} is {o}.",
    "workplace": "{P} works at {o}.|{H} working days are spent at {o}.|By day you "
    "find {m} at {o}.",
    "home": "{P} lives at {o}.|{H} home is at {o}.|At night {p} goes home to {o}.|"
    "{P} has {h} bed at {o}.",
    "born": "{P} was born at {o}.|{P} comes from {o}.|{P} first saw the river at "
    "{o}.",
    "birthday": "{H} birthday is on {o}.|{P} was born on {o}.|On {o} {p} is a year "
    "older.|{P} has {h} birthday on {o}.",
    "friend": "{H} best friend is {o}.|{P} tells {o} everything.|{P} has no better "
    "friend than {o}.|{P} is never long without {o}.",
    "food": "{H} favourite food is {o}.|{P} likes {o} best.|{P} would cross the "
    "river for {o}.|{P} never says no to {o}.",
    "belonging": "{P} owns {o}.|{P} has {o} of {h} own.|{T} is {h} own.|If you need "
    "{o}, ask {m}.",
    "manner": "{P} is known for {o}.|Everyone knows {m} for {o}.|People talk of "
    "{o}.",
    "mother": "{H} mother is {o}.|{P} is {o}'s {k}.|{o} is {h} mother.",
    "father": "{H} father is {o}.|{P} is {o}'s {k}.|{o} is {h} father.",
    "brother": "{H} brother is {o}.|{P} has one brother, {o}.|{o} is {h} brother.",
    "sister": "{H} sister is {o}.|{P} has one sister, {o}.|{o} is {h} sister.",
    "husband": "{H} husband is {o}.|{P} is married to {o}.",
    "wife": "{H} wife is {o}.|{P} is married to {o}.",
    "bank": "It lies on {o}.|It is on {o} of the river.|You find it on {o}.",
    "near": "Next to it lies {o}.|The nearest place is {o}.|From here it is five "
    "minutes to {o}.",
    "minutes": "The walk to Wendon takes {o}.|It is {o} on foot from Wendon.|You "
    "walk to Wendon in {o}.",
    "village": "It stands at {o}.|You find it at {o}.|To reach it, go to {o}.",
    "keeper": "The keeper is {o}.|{o} keeps it.|It is in the care of {o}.",
    "opens": "It opens at {o}.|The doors open at {o}.|Nobody is let in before {o}.|"
    "You can come from {o}.",
    "price": "It costs {o}.|The price is {o}.|You pay {o} for it.|They ask {o} for "
    "one.",
    "sold_at": "You can buy it at {o}.|{O} sells it.|To get one, go to {o}.",
    "made_of": "It is made of {o}.|It takes {o} to make one.",
    "source": "The valley's {s} {come} from {o}.|{O} grows or sells them.",
}
# After a name, between commas: "Hob, who lives at Low Bridge,"
_CLAUSE = {
    "species": "{k}",
    "trade": "the valley's {k}|who works as {o}|who is {o} by trade",
    "workplace": "who works at {o}|who is at {o} most days",
    "home": "who lives at {o}|whose home is at {o}",
    "born": "who was born at {o}|who comes from {o}",
    "birthday": "whose birthday is on {o}|who was born on {o}",
    "friend": "whose best friend is {o}|who tells {o} everything",
    "food": "whose favourite food is {o}|who likes {o} best",
    "belonging": "who owns {o}|who has {o}",
    "manner": "who is known for {o}",
    "mother": "whose mother is {o}|{o}'s {k}",
    "father": "whose father is {o}|{o}'s {k}",
    "brother": "whose brother is {o}",
    "sister": "whose sister is {o}",
    "husband": "whose husband is {o}",
    "wife": "whose wife is {o}",
}


def _words_for(fact: Fact) -> dict[str, str]:
    words = {
        "s": fact.subject,
        "S": capital(fact.subject),
        "o": fact.object,
        "O": capital(fact.object),
    }
    who = CHARACTER.get(fact.subject)
    if who:
        words.update(p=who.he, P=capital(who.he), h=who.his, m=who.him)
        words["H"] = capital(who.his)
        if fact.relation == "species":
            words["k"] = _a(who.species)
        elif fact.relation == "trade":
            words["k"] = who.trade
        else:
            words["k"] = "son" if who.he == "he" else "daughter"
        if fact.relation == "belonging":
            words["T"] = "The " + who.belonging
    thing = THING.get(fact.subject)
    if thing:
        words.update(a=thing.a, A=capital(thing.a), pl=thing.plural)
        words["PL"] = capital(thing.plural)
    if fact.relation == "source":
        words["come"] = statement(fact).split()[3]
        if words["come"] not in ("come", "comes"):
            words["come"] = "comes" if " comes " in statement(fact) else "come"
    return words


def _a(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _fill_all(table: dict[str, str], fact: Fact) -> tuple[str, ...]:
    if fact.relation not in table:
        return ()
    words = _words_for(fact)
    patterns = table[fact.relation].split("|")
    return tuple(capital(p.format(**words)) for p in patterns)


#: fact -> its wordings with the subject's name, statement(fact) first.
NAMED: dict[Fact, tuple[str, ...]] = {
    f: tuple(dict.fromkeys((statement(f), *_fill_all(_NAMED, f))))
    for f in FACTS
}
#: fact -> its wordings when the subject has just been named.
PRONOUN: dict[Fact, tuple[str, ...]] = {
    f: _fill_all(_PRONOUN, f) for f in FACTS
}
#: fact -> clauses to put after the name.
CLAUSE: dict[Fact, tuple[str, ...]] = {
    f: tuple(
        p.format(**_words_for(f))
        for p in _CLAUSE.get(f.relation, "").split("|")
    )
    for f in FACTS
    if f.relation in _CLAUSE
}
_CLAUSE_FACTS = {
    c.name: tuple(f for f in facts_about(c.name) if f in CLAUSE)
    for c in CHARACTERS
}
_CLAUSES = {
    name: (
        tuple((f, clause) for f in facts for clause in CLAUSE[f]),
        tuple(1 / len(CLAUSE[f]) for f in facts for _ in CLAUSE[f]),
    )
    for name, facts in _CLAUSE_FACTS.items()
}
_NAMED_WEIGHTS = {
    n: (0.44, *(0.56 * w / sum(range(1, n)) for w in range(n - 1, 0, -1)))
    for n in range(2, 8)
}


def say_fact(chance, fact: Fact, stated: list[Fact]) -> None:
    """Write a sentence that states the fact, with the subject's name."""
    wordings = NAMED[fact]
    chance.say(*wordings, weights=_NAMED_WEIGHTS[len(wordings)])
    stated.append(fact)


def say_more(chance, fact: Fact, stated: list[Fact]) -> None:
    """Write a sentence that states the fact of somebody just named."""
    chance.say(*PRONOUN[fact])
    stated.append(fact)


# -- what the gaps draw from -----------------------------------------------------

ADULTS = tuple(c for c in CHARACTERS if not c.child)
CHILDREN = tuple(c for c in CHARACTERS if c.child)
SHOP_TUPLE = tuple(SHOPS)

LISTS: dict[str, tuple[str, ...]] = {
    "day": WEEKDAYS,
    "day2": WEEKDAYS,
    "month": MONTHS,
    "colour": tuple(
        "green red blue brown grey yellow white black striped purple".split()
    ),
    "part": ("morning", "afternoon", "evening", "night"),
    "season": ("spring", "summer", "autumn", "winter"),
    "sky": (
        "Rain till noon",
        "Fog on the river",
        "Clear and cold",
        "A dry wind from the west",
        "Warm, with flies",
        "Frost on the bridge",
        "Sun all day",
        "Thunder, far off",
        "Grey, and no wind",
        "Drizzle",
        "Hail for ten minutes, then sun",
        "Mild and damp",
    ),
    "spot": (
        "under the bench",
        "on the river wall",
        "by the well",
        "in the long grass",
        "behind the stalls",
        "on the ferry",
        "in the lane",
        "by the lime tree",
        "on the school step",
        "in a puddle",
        "beside the cart track",
        "at the foot of the tower",
    ),
    "relative": (
        "aunt",
        "uncle",
        "cousin",
        "grandmother",
        "neighbour",
        "brother",
    ),
}

_DEFAULT_POOLS: dict[str, Sequence[Any]] = {
    **dict.fromkeys("ABCDMN", tuple(CHARACTERS)),
    **dict.fromkeys("PQ", tuple(VILLAGES)),
    **dict.fromkeys("ST", tuple(SITES)),
    **dict.fromkeys("GH", tuple(GOODS)),
    **dict.fromkeys("EF", tuple(FOODS)),
    **dict.fromkeys("KL", tuple(BELONGINGS)),
}
_GROUPS = tuple("ABCDMN PQ ST GH EF KL".split())


@cache
def _of(site: str) -> tuple[Thing, ...]:
    return tuple(THING[name] for name in PLACE[site].sells)


@cache
def _kin(name: str) -> tuple[Character, ...]:
    c = CHARACTER[name]
    near = (c.mother, c.father, c.spouse, *c.siblings, *c.children, c.friend)
    return tuple(CHARACTER[n] for n in near if n)


@cache
def _at(site: str) -> tuple[Character, ...]:
    return tuple(CHARACTER[n] for n in workers(site))


@cache
def _neighbours(name: str) -> tuple[Character, ...]:
    return tuple(CHARACTER[n] for n in neighbours(name)) or ADULTS


#: pool name -> function of what has been drawn and of a gap's name.
POOLS: dict[str, Callable[..., Sequence[Any]]] = {
    "adult": lambda m, x: ADULTS,
    "child": lambda m, x: CHILDREN,
    "shop": lambda m, x: SHOP_TUPLE,
    "of": lambda m, x: _of(m[x].name),
    "at": lambda m, x: _at(m[x].name),
    "kin": lambda m, x: _kin(m[x].name),
    "near": lambda m, x: _neighbours(m[x].name),
    "ware": lambda m, x: _WARES,
}
_WARES = tuple(GOODS) + tuple(FOODS)


def _person(name: str) -> Character:
    return CHARACTER[name]


_SHOW: dict[str, Callable[[Any], Any]] = {
    "He": lambda c: capital(c.he),
    "His": lambda c: capital(c.his),
    "Him": lambda c: capital(c.him),
    "friend": lambda c: CHARACTER[c.friend],
    "keeper": lambda p: CHARACTER[p.keeper],
    "owner": lambda t: CHARACTER[t.owner],
    "home": lambda c: PLACE[c.home],
    "born": lambda c: PLACE[c.born],
    "work": lambda c: PLACE[c.workplace],
    "at": lambda t: PLACE[t.sold_at],
    "thing": lambda c: THING[c.belonging],
    "likes": lambda c: THING[c.food],
    "opens": lambda p: hour_words(p.opens),
    "closes": lambda p: hour_words(p.closes),
    "oclock": lambda p: clock(60 * p.opens),
    "cost": lambda t: pence(t.price),
    "A": lambda t: capital(t.a),
    "pl": lambda t: t.plural,
    "Pl": lambda t: capital(t.plural),
    "the": lambda t: f"the {t.name}",
    "w": lambda n: number_word(n),
    "W": lambda n: capital(number_word(n)),
    "an": with_article,
    "low": lambda s: s[0].lower() + s[1:],
    "cap": lambda s: capital(str(getattr(s, "name", s))),
}


def show(value: Any, path: tuple[str, ...]) -> str:
    """What a gap writes for `value`, following the path: ("friend", "his")."""
    for step in path:
        value = _SHOW[step](value) if step in _SHOW else getattr(value, step)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else value.name


_GAP = re.compile(r"\{([@,]?)(\w+)((?:\.\w+)*)(?::([^}]*))?\}")


@cache
def _compile(template: str) -> tuple[tuple, ...]:
    """A template as steps (literal, mark, key, path, pool)."""
    steps, at = [], 0
    for gap in _GAP.finditer(template):
        if gap.start() > at:
            steps.append((template[at : gap.start()], "", "", (), None))
        mark, key, path, pool = gap.groups()
        path = tuple(path.split(".")[1:])
        steps.append(("", mark, key, path, _pool(key, pool)))
        at = gap.end()
    if at < len(template):
        steps.append((template[at:], "", "", (), None))
    return tuple(steps)


def _others_of(key: str) -> tuple[str, ...]:
    return tuple(o for g in _GROUPS if key in g for o in g if o != key)


def _pool(key: str, pool: str | None) -> Callable[[dict], Sequence[Any]]:
    if pool and "-" in pool:
        low, high, *step = (int(x) for x in re.split("[-/]", pool))
        numbers = range(low, high + 1, *step)
        return lambda m: numbers
    if pool:
        name, _, argument = pool.partition(" ")
        function = POOLS[name]
        base = lambda m: function(m, argument)  # noqa: E731
    elif key in LISTS:
        options = LISTS[key]
        return lambda m: options
    elif key in _DEFAULT_POOLS:
        options = _DEFAULT_POOLS[key]
        base = lambda m: options  # noqa: E731
    else:
        return lambda m: ()
    others = _others_of(key)

    def distinct(m: dict) -> Sequence[Any]:
        taken = [m[o] for o in others if o in m]
        options = base(m)
        return [x for x in options if x not in taken] if taken else options

    return distinct


def tell(chance, template: str, m: dict) -> None:
    """Write the template, drawing each gap as it is reached."""
    for literal, mark, key, path, pool in _compile(template):
        if literal:
            chance.write(literal)
            continue
        value = m.get(key)
        if value is None:
            hint = None if mark else lambda v, path=path: show(v, path)
            value = m[key] = chance.pick(pool(m), said=hint)
        if not mark:
            chance.write(show(value, path))
        elif mark == ",":
            pairs, weights = _CLAUSES[value.name]
            fact, clause = chance.pick(pairs, weights, said=lambda p: p[1])
            chance.write(clause)
            m["facts"].append(fact)
        elif path:
            for step in path[:-1]:
                value = (
                    _SHOW[step](value)
                    if step in _SHOW
                    else getattr(value, step)
                )
            say_fact(chance, FACT[value.name, path[-1]], m["facts"])
        else:
            fact = chance.pick(facts_about(value.name))
            say_fact(chance, fact, m["facts"])


def begin() -> dict:
    """The memory of a new document: nothing drawn, no fact stated."""
    return {"facts": []}


@cache
def _zipf(n: int, bend: float = 0.7) -> tuple[float, ...]:
    return tuple(1.0 / (rank + 1) ** bend for rank in range(n))


@cache
def _first_literal(template: str) -> str:
    steps = _compile(template)
    return steps[0][0] if steps else ""


def choose(chance, templates: tuple[str, ...], m: dict) -> int:
    """Tell one of the templates, the first likeliest; return which."""
    n = len(templates)
    index = chance.pick(
        range(n), _zipf(n), said=lambda i: _first_literal(templates[i])
    )
    tell(chance, templates[index], m)
    return index


def choose_some(
    chance, templates: tuple[str, ...], m: dict, low: int, high: int
):
    """Tell between `low` and `high` different templates, in the order drawn.

    A space goes between them.
    """
    left = list(templates)
    told = 0
    while True:
        template = chance.pick(left, said=_first_literal)
        tell(chance, template, m)
        left.remove(template)
        told += 1
        if told == high or not left or (told >= low and not chance.flip(0.6)):
            return
        chance.write(" ")
