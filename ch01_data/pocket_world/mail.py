"""Letters for the sorting office, which wants the begging ones kept apart.

The rule that hangs over the table in the post office is `RULE`: a begging letter
asks its reader for money or goods that the reader does not owe, or wants to be
paid before anything is delivered. All other post is honest: gifts, bills for
what was delivered, debts called in, news, refusals.

Two letters in three are easy: a sad story and a request, or a thank-you note.
The others are hard in one of two ways. In some, the same words in another order
make the other letter: "send me word, and I will send you a loaf", "send me a
loaf, and I will send you word". Each of `PAIRS` holds both side by side, so a
label is true by construction, and whoever only counts words may as well toss a
coin. In others a letter quotes a letter: an honest reply repeats what the beggar
wrote, or a beggar what an honest man wrote. There pairs of words do not help
either; one has to see who is speaking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from .chance import Chance
from .documents import split_of
from .facts import CHARACTER, CHARACTERS, FOODS, GOODS
from .words import MONTHS, WEEKDAYS, number_word

RULE = (
    "A begging letter asks its reader for money or goods that the reader does not "
    "owe, or wants to be paid before anything is delivered. All else is honest post."
)
LABELS = ("honest", "begging")


@dataclass(frozen=True)
class Message:
    """A letter, its label ("begging" or "honest"), and whether it is a hard one."""

    text: str
    label: str
    hard: bool


# (begging, honest): nearly the same words in another order. {A} is money or
# goods with the article, {G} goods without it, {X} somebody else.
PAIRS: tuple[tuple[str, str], ...] = (
    (
        "{X} asks me for nothing, and I ask you for {A}.",
        "{X} asks me for {A}, and I ask you for nothing.",
    ),
    (
        "I do ask you for {A}, which I can not buy.",
        "I do not ask you for {A}, which I can buy.",
    ),
    (
        "I have owed you {P} since {M}, and you might send me {P} more.",
        "You have owed me {P} since {M}, and you might send me {P}, no more.",
    ),
    (
        "You lent me {P} in {M}, and I ask you for {P} more.",
        "I lent you {P} in {M}, and I ask you for {P}, no more.",
    ),
    (
        "I want you to give me {A}, and I hope that you will.",
        "You want me to give you {A}, and I hope that I will.",
    ),
    (
        "Send me {A}, and I will send you word.",
        "Send me word, and I will send you {A}.",
    ),
    (
        "I am not writing for news. I am writing for {A}.",
        "I am not writing for {A}. I am writing for news.",
    ),
    (
        "Send me {C} first, and the {G} will come to you after.",
        "The {G} will come to you first, and send me {C} after.",
    ),
    (
        "I write this for {X}, who has no pen. {X} is to have {A} from you by {D}.",
        "I write this for {X}, who has no pen. You are to have {A} from {X} by {D}.",
    ),
    (
        "It is not {X} who should give me {A}. It is you.",
        "It is not you who should give me {A}. It is {X}.",
    ),
    (
        "Keep your thanks and send me {A}.",
        "Keep {A} and send me your thanks.",
    ),
    (
        "I have nothing to send you, so send me {A}.",
        "I have {A} to send you, so send me nothing.",
    ),
    (
        "Your {kin} will not give me {A}. Will you?",
        "I will not give you {A}. Will your {kin}?",
    ),
    (
        "Send me {A}, and do not forget it.",
        "Do not send me {A}, and forget it.",
    ),
    (
        "You are rich and I am not, so {A} should go from you to me.",
        "I am rich and you are not, so {A} should go from me to you.",
    ),
    (
        "When you come on {D}, bring {A} with you and leave it with me.",
        "When I come on {D}, I bring {A} with me and leave it with you.",
    ),
    (
        "The {G} by your door is yours, not mine, and I want it.",
        "The {G} by your door is mine, not yours, and I want it.",
    ),
    (
        "I cannot do without {A} and you can, so it should come to me.",
        "You cannot do without {A} and I can, so it should come to you.",
    ),
    (
        "I know the {G} is paid for. Please send me {C}, as before.",
        "I know the {G} is not paid for. Please send me {C}, as before.",
    ),
    (
        "You do not owe me {P}, I know. Send it, if you can.",
        "You do owe me {P}, I know. Send it, if you can not come.",
    ),
    (
        "I shall not give you {A} this year. You shall give me {B}.",
        "You shall not give me {A} this year. I shall give you {B}.",
    ),
    (
        "My {kin} has {A} from me, and now I want {B} from you.",
        "My {kin} wants {A} from me, and now I have {B} from you.",
    ),
    (
        "You ask what you can do for me. You can give me {A}.",
        "I ask what I can do for you. I can give you {A}.",
    ),
    (
        "I know that {A} is a lot to ask of you, and I ask it.",
        "You know that {A} is a lot to ask of me, and you ask it.",
    ),
)

# Sentences that mean nothing for the label, in the words that the others use.
ASIDES = (
    "{X} sent {Y} {B} last week.",
    "Your {kin} never asks me for anything.",
    "I lent {X} {B}, and that is paid.",
    "You were good to my {kin} in {M}.",
    "{X} owes {Y} {Q}, they say.",
    "I owe {X} {Q}, and will pay on {D}.",
    "{X} wants {B} from {Y}, and will not get it.",
    "You asked after my back. It is better.",
    "I paid {X} for {B}.",
    "{X} does not owe me anything.",
    "{Y} asked {X} for {B}, and {X} said no.",
    "Nobody gives {X} anything now.",
    "I hear that you gave {X} {B}.",
    "Please tell your {kin} that I sent {Y} the {H}.",
    "{X} was asking for you on {D}.",
    "My {kin} keeps {B} by the door and will not sell it.",
    "I have not seen {Y} since {M}.",
    "You would not know {X} now, so thin.",
)
NEWS = (
    "The river is up again.",
    "It has rained since {D}.",
    "The plums are early this year.",
    "The ferry did not run on {D}.",
    "There was frost on the field this morning.",
    "The bell has been rung late all week.",
    "The road to the mill is dry at last.",
    "We had {X} to supper on {D}.",
    "The market was full on {D}.",
    "My {kin} is well and sends good wishes.",
    "The hens have stopped laying.",
    "There is a new lamp on the bridge.",
)
LEADS = ("To be plain: ", "So: ", "Now to it. ", "In short: ", "One thing more. ")
LEAD_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 12.0)

EASY_BEGGING = (
    "The roof fell in on {D} and there is nothing left in the cupboard. Anything "
    "you can spare would help, {P} or even {B}.",
    "I have six small children and a bad leg. Could you find it in your heart to "
    "spare us {P}?",
    "My purse went into the river on {D}. If you would let me have {P}, I should be "
    "grateful for ever.",
    "You have won {B} at the fair! To claim it, send {P} for the rope and the "
    "trouble, by return of post.",
    "An uncle of mine abroad has left a chest of gold. For {P} towards the "
    "carriage, half of it is yours.",
    "They say you have a kind heart and a full purse. Mine is empty. Would you help "
    "a stranger with {P}?",
    "The doctor wants {P} before he will look at my {kin}, and we have not a penny. "
    "Take pity on us.",
    "We are collecting for a poor old {S} with no name and no bed. Give what you "
    "can, {P} at least, and ask no questions.",
    "Winter is coming and I have no coat. Surely you could part with {B}, or the "
    "price of one?",
    "A lucky coin is on its way to your house. All I need is {P} for the postage, "
    "today and not later.",
    "I would not trouble you if there were anyone else. Could you manage {P}, just "
    "this once?",
    "Your name came out of the hat. The prize is a cow. Kindly post {P} for hay and "
    "we shall drive her over.",
)
EASY_HONEST = (
    "Thank you for the {H}. It came in one piece, and my {kin} is very pleased with it.",
    "I am sending back your ladder with this. I mended two rungs while I had it.",
    "Here is {C} for the {G}. Count it, for I never can.",
    "We shall be nine for supper on {D}, and there is a chair for you. Come early.",
    "The clock is mended. It was a pear stalk. There is no charge.",
    "Your left glove was found on the mill road and is waiting here. Come any day "
    "before noon.",
    "My {kin} has a cold and stays in bed. Otherwise we are well. Write soon.",
    "You delivered the {G} on {D} and forgot the bill. I put {C} in with this.",
    "The choir meets on {D} at seven. Bring your own candle and a warm coat.",
    "Happy birthday for {D}! The parcel is from both of us. Do not shake it.",
    "I have read your book twice and left it with {X} at the bell tower.",
    "Happily I can tell you that the boat is dry and the paint has held. We shall "
    "row over on {D}.",
    "This is to say that the shop will be shut on {D}. Eggs may be had from {X}.",
    "You were right about the bees, and I was wrong. I have told {X} so.",
)
QUOTES = (
    '{X} wrote to me: "{T}"',
    'You wrote to me on {D}: "{T}"',
    'Your {kin} has written to me: "{T}"',
    'This lay under my door, from {X}: "{T}"',
    'Here is what {X} writes: "{T}"',
    'I had two lines from your {kin}: "{T}"',
)
AFTER_QUOTES = (
    "That is the whole of it.",
    "I give it as it stood.",
    "It had no date.",
    "I read it twice.",
    "That was on {D}.",
    "Now you know.",
)
INSIDE = ("Dear {W}, ", "{W}, ", "My dear {W}, ", "Good {W}, ")
GREETINGS = ("Dear {R}, ", "{R}, ", "To {R}. ", "My dear {R}, ", "Good {R}, ")
CLOSINGS = (" {W}", " Yours, {W}", " With good wishes, {W}", " From {W}", " Your {W}")
KIN = ("neighbour", "lodger", "cousin", "great-aunt", "godfather")
#: Shares of the easy letters, of the pairs, and of the letters that quote one.
SHARES = (0.7, 0.13, 0.17)


@cache
def _goods():
    """What a letter may ask for: not the belongings, which have their owners."""
    return tuple(t for t in (*GOODS, *FOODS) if 2 <= t.price <= 20)


def _slots(chance: Chance) -> dict[str, str]:
    """Fill the blanks: {A}, {B} with an article; {C} is the price of {G}."""
    g, h = chance.pick(_goods()), chance.pick(_goods())
    money = f"{number_word(chance.number(2, 12))} pence"
    return {
        "P": money,
        "Q": f"{number_word(chance.number(2, 12))} pence",
        "C": f"{number_word(g.price)} pence",
        "G": g.name,
        "H": h.name,
        "A": money if chance.flip(0.4) else g.a,
        "B": h.a,
        "D": chance.pick(WEEKDAYS),
        "M": chance.pick(MONTHS),
        "kin": chance.pick(KIN),
    }


def _after(start: str, text: str) -> str:
    """`text` after `start`: no capital after a comma or a colon but a name's."""
    first = text.split(" ", 1)[0].rstrip(",.")
    if start.rstrip()[-1:] in (",", ":") and first != "I" and first not in CHARACTER:
        text = text[0].lower() + text[1:]
    return start + text


def _pair(chance: Chance, begging: bool, slots: dict[str, str]) -> str:
    lead = chance.pick((*LEADS, ""), LEAD_WEIGHTS)
    core = chance.pick(PAIRS)[0 if begging else 1].format(**slots)
    return _after(lead, core) if lead else core


def _core(chance: Chance, kind: str, begging: bool, names: dict[str, str]) -> str:
    """The sentences that decide the label."""
    if kind == "easy":
        core = chance.pick(EASY_BEGGING if begging else EASY_HONEST)
        return core.format(**_slots(chance), **names)
    own = _pair(chance, begging, _slots(chance) | names)
    if kind == "pair":
        return own
    # a quoted letter says the opposite three times in four
    other = _pair(chance, begging != chance.flip(0.75), _slots(chance) | names)
    other = _after(chance.pick(INSIDE).format(**names), other)
    quoted = chance.pick(QUOTES).format(T=other, **_slots(chance), **names)
    parts = [quoted]
    if chance.flip(0.5):
        parts.append(chance.pick(AFTER_QUOTES).format(**_slots(chance)))
    if chance.flip(0.35):
        return f"{own} {' '.join(parts)}"
    return f"{' '.join(parts)} {own}"


def letter(chance: Chance) -> tuple[str, bool]:
    """Write one letter; return its label and whether it is a hard one."""
    writer, reader, x, y = _four(chance)
    names = {"W": writer.name, "R": reader.name, "X": x.name, "Y": y.name}
    names["S"] = writer.species
    begging = chance.flip(0.48)
    kind = chance.pick(("easy", "pair", "quote"), SHARES)
    core = _core(chance, kind, begging, names)
    asides: list[str] = []
    if chance.flip(0.5):
        asides.append(chance.pick(NEWS))
    most = (0, 1) if kind == "quote" else (0, 1, 2)
    for _ in range(chance.pick(most)):
        aside = chance.pick(ASIDES)
        if aside not in asides:
            asides.append(aside)
    parts = [aside.format(**_slots(chance), **names) for aside in asides]
    # what the letter is about stands last, but for an aside in one of three
    at = len(parts) - (1 if parts and chance.flip(0.33) else 0)
    parts.insert(at, core)
    greeting = chance.pick(GREETINGS, (4.0, 2.0, 1.0, 1.0, 1.0))
    closing = chance.pick(CLOSINGS, (4.0, 2.0, 1.0, 1.0, 1.0))
    chance.write(_after(greeting.format(**names), " ".join(parts)))
    chance.write(closing.format(**names))
    return LABELS[begging], kind != "easy"


def _four(chance: Chance):
    """Four different people."""
    people = list(CHARACTERS)
    return [people.pop(chance.number(0, len(people) - 1)) for _ in range(4)]


def mail(n: int, seed: int = 0, split: str = "train") -> Iterator[Message]:
    """`n` different letters of `split` ("train", "validation" or "test").

    The same seed gives the same letters. Raises ValueError for another split.
    """
    if split not in ("train", "validation", "test"):
        raise ValueError(f'split must be "train", "validation" or "test", got {split!r}')
    seen: set[str] = set()
    draw = 0
    while len(seen) < n:
        chance = Chance(f"mail:{seed}:{draw}")
        draw += 1
        label, hard = letter(chance)
        text = chance.text
        if split_of(text) == split and text not in seen:
            seen.add(text)
            yield Message(text, label, hard)
