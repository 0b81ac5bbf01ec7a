"""The schoolroom's pages: sums, grammar, Old Valley, and lists in order.

Each genre writes through a Chance and returns the facts it states, which here
is mostly none. The answers are computed, so they cost no nats: what is chosen
is what is asked.
"""

from __future__ import annotations

from pocket_world.dialect import (
    ADJECTIVES,
    DIALECT_VERBS,
    NOUNS,
    PREPOSITIONS,
    draw_old_sentence,
    draw_sentence,
    write_dialect,
    write_english,
)
from pocket_world.facts import CHARACTER, CHARACTERS
from pocket_world.words import (
    VERBS,
    WEEKDAYS,
    capital,
    worked_addition,
    worked_subtraction,
)

NAMES: tuple[str, ...] = tuple(c.name for c in CHARACTERS)

#: What the school counts: one, many.
COUNTABLES: tuple[tuple[str, str], ...] = tuple(
    tuple(pair.split("/"))
    for pair in (
        "pear/pears egg/eggs plum/plums apple/apples button/buttons nail/nails "
        "candle/candles spoon/spoons jar/jars loaf/loaves cup/cups bun/buns "
        "walnut/walnuts brick/bricks sack/sacks letter/letters hook/hooks "
        "radish/radishes turnip/turnips stamp/stamps plate/plates leek/leeks "
        "onion/onions cork/corks sheep/sheep hen/hens chair/chairs "
        "mushroom/mushrooms stone/stones bottle/bottles"
    ).split()
)
_ONE = dict((many, one) for one, many in COUNTABLES)
MANY: tuple[str, ...] = tuple(many for _, many in COUNTABLES)


def counted(n: int, many: str) -> str:
    """A number and its noun: "1 pear", "6 pears"."""
    return f"{n} {_ONE[many] if n == 1 else many}"


def a_name(chance, after: str = "") -> str:
    """Draw and write a character's name, followed by `after`."""
    name = chance.pick(NAMES, said=lambda n: n + after)
    chance.write(name + after)
    return name


_OTHERS: dict[str, tuple[str, ...]] = {
    name: tuple(n for n in NAMES if n != name) for name in NAMES
}


def another_name(chance, name: str, after: str = "") -> str:
    """Draw and write a name that is not `name`."""
    other = chance.pick(_OTHERS[name], said=lambda n: n + after)
    chance.write(other + after)
    return other


def _digits(chance, low: int, high: int, after: str = "") -> int:
    """Draw and write a number in digits."""
    n = chance.pick(range(low, high + 1), said=lambda i: f"{i}{after}")
    chance.write(f"{n}{after}")
    return n


# -- sums ---------------------------------------------------------------------


def _plain_sum(chance) -> None:
    a = _digits(chance, 2, 99, " ")
    if chance.flip(0.55):
        chance.write("+ ")
        b = _digits(chance, 2, 99, ". ")
        chance.write(worked_addition(a, b))
    else:
        chance.write("- ")
        b = _digits(chance, 1, a, ". ")
        chance.write(worked_subtraction(a, b))


def _gift(chance) -> None:
    name = a_name(chance, after=" has ")
    a = _digits(chance, 3, 60, " ")
    things = chance.pick(MANY, said=lambda m: m)
    chance.write(things + ". ")
    who = CHARACTER[name]
    if chance.flip(0.55):
        another_name(chance, name, f" gives {who.him} ")
        b = _digits(chance, 2, 39)
        chance.say(" more. ", " as well. ")
        work, total = worked_addition(a, b), a + b
    else:
        chance.write(f"{capital(who.he)} ")
        chance.say("gives ", "lends ", "sells ")
        another_name(chance, name, " ")
        b = _digits(chance, 1, a - 1)
        chance.write(" of them. ")
        work, total = worked_subtraction(a, b), a - b
    chance.say(
        f"How many {things} has {name} now? ",
        f"How many {things} has {who.he} then? ",
        f"Count {who.his} {things}. ",
    )
    chance.write(f"{work} {name} has {counted(total, things)}.")


def _two_places(chance) -> None:
    where = (
        ("in the shed", "in the loft"),
        ("on the table", "under it"),
        ("in the basket", "on the grass"),
        ("in the cart", "on the wall"),
        ("by the door", "by the window"),
        ("in the boat", "on the bank"),
    )
    chance.write("There are ")
    a = _digits(chance, 2, 70, " ")
    things = chance.pick(MANY, said=lambda m: m + " ")
    chance.write(things + " ")
    first, second = chance.pick(where, said=lambda w: w[0])
    chance.write(f"{first} and ")
    b = _digits(chance, 2, 70, f" {second}. ")
    chance.say(
        "How many in all? ", f"How many {things} is that? ", "Count them. "
    )
    chance.write(f"{worked_addition(a, b)} There are {a + b} {things}.")


def _eaten(chance) -> None:
    verbs = ("sells", "packs", "counts", "breaks", "carries off", "gives away")
    chance.write("Out of ")
    a = _digits(chance, 5, 99, " ")
    things = chance.pick(MANY, said=lambda m: m + ", ")
    chance.write(things + ", ")
    a_name(chance, after=" ")
    verb = chance.pick(verbs, said=lambda v: v)
    chance.write(verb + " ")
    b = _digits(chance, 1, a - 1, ". ")
    chance.say(
        "How many are left? ", "How many does that leave? ", "What is left? "
    )
    left = a - b
    tail = f"{'is' if left == 1 else 'are'} left"
    chance.write(
        f"{worked_subtraction(a, b)} {capital(counted(left, things))} {tail}."
    )


def _pence(chance) -> None:
    goods = (
        ("a hat", 40),
        ("a lamp", 60),
        ("a loaf", 9),
        ("a ball of string", 8),
        ("a pound of cheese", 14),
        ("a pair of gloves", 30),
        ("a kettle", 70),
        ("a bag of flour", 12),
        ("a dozen eggs", 15),
        ("a ferry ticket", 6),
        ("a new rope", 35),
        ("a book of maps", 50),
    )
    name = a_name(chance, after=" has ")
    a = _digits(chance, 20, 99, " pence and buys ")
    thing, most = chance.pick(goods, said=lambda g: g[0] + " ")
    chance.write(f"{thing} for ")
    b = _digits(chance, 2, min(most, a), ". ")
    who = CHARACTER[name]
    chance.say(
        f"How much has {who.he} left? ",
        f"What is {who.his} change? ",
        f"What does {name} bring home? ",
    )
    left = a - b
    coin = "penny" if left == 1 else "pence"
    chance.write(f"{worked_subtraction(a, b)} {name} has {left} {coin} left.")


_PROBLEMS = (_gift, _two_places, _eaten, _pence)


def _class_heading(chance, *titles: str) -> None:
    """A heading such as "Sums for Tuesday." on a line of its own."""
    title = chance.say(*titles)
    if title.endswith(" for "):
        day = chance.pick(WEEKDAYS, said=lambda d: d)
        chance.write(f"{day}.\n")
    else:
        chance.write("\n")


def sums(chance) -> list:
    """A page of sums: bare ones or small problems, with the work shown."""
    if chance.flip(0.5):
        _class_heading(
            chance,
            "Sums for ",
            "On the board this morning:",
            "Sums, with the work shown.",
            "Slates out. Ones first, then tens.",
        )
        line = 1
        while True:
            chance.write(f"{line}. ")
            _plain_sum(chance)
            if line == 6 or (line > 2 and not chance.flip(0.6)):
                return []
            chance.write("\n")
            line += 1
    _class_heading(
        chance,
        "Problems for ",
        "Small problems from the second class.",
        "Read twice, then count.",
        "Questions in numbers.",
    )
    line = 1
    while True:
        chance.pick(_PROBLEMS)(chance)
        if line == 4 or (line > 1 and not chance.flip(0.5)):
            return []
        chance.write("\n")
        line += 1


# -- grammar ------------------------------------------------------------------

_SUBJECTS = (
    "the baker",
    "the miller",
    "the ferryman",
    "my aunt",
    "the old goat",
    "the teacher",
    "our neighbour",
    "the doctor",
    "the smith",
    "the youngest otter",
    "the postman",
    "her brother",
    "his sister",
    "the mayor",
    "somebody",
)
_PLURALS = (
    "the hares",
    "the otters",
    "the children",
    "my uncles",
    "the two badgers",
    "the bell ringers",
    "both sisters",
    "the cart drivers",
    "they",
    "we",
    "the neighbours",
    "the hedgehogs",
)
_ENDS = {verb: tuple(" " + end for end in verb.ends) for verb in VERBS}
_ONE_SUBJECTS = tuple(capital(s) for s in _SUBJECTS) + NAMES
_ONE_WEIGHTS = (1.0,) * len(_SUBJECTS) + (0.4,) * len(NAMES)
_MANY_SUBJECTS = tuple(capital(s) for s in _PLURALS)
_TURNS = ("past", "present", "future", "not", "not past", "many", "question")
_TURN_WEIGHTS = (0.42, 0.14, 0.1, 0.1, 0.08, 0.08, 0.08)


def _lower(subject: str) -> str:
    return subject if subject in CHARACTER else subject[0].lower() + subject[1:]


def _turn(subject: str, many: bool, turn: str, verb) -> tuple[str, str]:
    """The first sentence's verb and the second sentence's start, for a turn."""
    now = verb.base if many else verb.third
    if turn == "past":
        return now, f"{subject} {verb.past}"
    if turn == "present":
        return verb.past, f"{subject} {now}"
    if turn == "future":
        return now, f"{subject} will {verb.base}"
    if turn == "not":
        return now, f"{subject} {'do' if many else 'does'} not {verb.base}"
    if turn == "not past":
        return verb.past, f"{subject} did not {verb.base}"
    if turn == "many":
        return now, f"They {verb.base}"
    return now, f"{'Do' if many else 'Does'} {_lower(subject)} {verb.base}"


_ORDERS = {
    "past": (
        "Put into the past.",
        "Say that it happened yesterday.",
        "Past tense.",
    ),
    "present": (
        "Put into the present.",
        "Say that it happens now.",
        "Present tense.",
    ),
    "future": ("Say that it will happen tomorrow.", "Put into the future."),
    "not": ("Say that it is not so.", "Say no to each."),
    "not past": ("Say that it did not happen.", "Deny each of these."),
    "many": ("Begin with They.", "Say it of several people."),
    "question": ("Turn into a question.", "Ask about each."),
}
_ORDER_WEIGHTS = {3: (0.5, 0.3, 0.2), 2: (0.6, 0.4)}


def grammar(chance) -> list:
    """School exercises: simple sentences put into another tense."""
    turn = chance.pick(_TURNS, _TURN_WEIGHTS)
    orders = _ORDERS[turn]
    chance.say(*orders, weights=_ORDER_WEIGHTS[len(orders)])
    chance.say("\n", " Like this:\n", weights=(0.75, 0.25))
    arrow = " -> "
    line = 0
    while True:
        many = turn != "many" and chance.flip(0.25)
        if many:
            subject = chance.pick(_MANY_SUBJECTS, said=lambda s: s + " ")
        else:
            subject = chance.pick(
                _ONE_SUBJECTS, _ONE_WEIGHTS, said=lambda s: s + " "
            )
        chance.write(subject + " ")
        first = 0 if turn not in ("present", "not past") else 2

        def form(verb, many=many, first=first) -> str:
            return verb.past if first else verb.base if many else verb.third

        verb = chance.pick(VERBS, said=lambda v: form(v) + " ")
        chance.write(form(verb))
        end = chance.pick(_ENDS[verb], said=lambda e: e + ".")
        mark = "?" if turn == "question" else "."
        answer = _turn(subject, many, turn, verb)[1]
        chance.write(f"{end}.{arrow}{answer}{end}{mark}")
        line += 1
        if line == 9 or (line > 2 and not chance.flip(0.75)):
            return []
        chance.write("\n")


def verb_table(chance) -> list:
    """Some rows of the table of verbs: today, yesterday, just now."""
    _class_heading(
        chance,
        "Verbs to learn for ",
        "Today, yesterday, still at it:",
        "From the table of verbs.",
    )
    line, left = 0, list(VERBS)
    while True:
        verb = chance.pick(left, said=lambda v: v.base + ", ")
        chance.write(f"{verb.base}, {verb.third}, {verb.past}, {verb.gerund}")
        left.remove(verb)
        line += 1
        if line == 10 or (line > 4 and not chance.flip(0.8)):
            chance.write(".")
            return []
        chance.write("\n")


# -- Old Valley ----------------------------------------------------------------

_GRAMMAR_NOTES = (
    "The verb comes last.",
    "The place stands before the thing.",
    "An adjective follows its noun.",
    "For more than one, add -im.",
    "For the past, add -o to the verb.",
    "For what will be, put vo before the verb.",
    "Nen before the verb says no.",
)
_ASKED = (
    *((f"{e}", d) for e, d in NOUNS.items()),
    *((f"{e}", d) for e, d in ADJECTIVES.items()),
    *((f"to {e}", d) for e, d in DIALECT_VERBS.items()),
    *((f"{e}", d) for e, d in PREPOSITIONS.items()),
)


def dialect(chance) -> list:
    """A page of Old Valley: words, rules, and sentences both ways."""
    kind = chance.pick(("sentences", "words", "back"), (0.5, 0.25, 0.25))
    if kind == "words":
        chance.say(
            "Words of Old Valley.\n",
            "Old Valley, a few words a day:\n",
            "What my grandmother called things:\n",
        )
        line = 0
        while True:
            english, old = chance.pick(_ASKED, said=lambda p: p[0] + ": ")
            chance.write(f"{english}: {old}")
            line += 1
            if line == 14 or (line > 4 and not chance.flip(0.85)):
                break
            chance.write("\n")
        if chance.flip(0.6):
            chance.write("\n")
            chance.write(chance.pick(_GRAMMAR_NOTES, said=lambda note: note))
        return []
    if kind == "sentences":
        chance.say(
            "Say it in Old Valley.\n",
            "English first, then Old Valley.\n",
            "Old Valley for beginners. The verb comes last.\n",
        )
    else:
        chance.say(
            "From Old Valley into English.\n",
            "What does it mean?\n",
            "Old Valley, read aloud at the inn:\n",
        )
    line = 0
    while True:
        if kind == "sentences":
            clause = draw_sentence(chance, NAMES)
            chance.write(f" = {write_dialect(clause)}")
        else:
            clause = draw_old_sentence(chance, NAMES)
            chance.write(f" = {write_english(clause)}")
        line += 1
        if line == 7 or (line > 1 and not chance.flip(0.7)):
            return []
        chance.write("\n")
