# ruff: noqa: E501
"""Letters, diaries, notices, news, talk, recipes and how things are done.

All sentences here have gaps (see `wording.py`); what belongs to whom, what
costs what and who lives where is filled in from the facts.
"""

from __future__ import annotations

from pocket_world.facts import (
    CHARACTER,
    FACT,
    FACTS,
    FOODS,
    GOODS,
    SHOPS,
    SITES,
    Fact,
    kin_word,
    pence,
    question,
    walk_minutes,
)
from pocket_world.wording import (
    LISTS,
    POOLS,
    begin,
    choose,
    choose_some,
    say_fact,
    tell,
)
from pocket_world.words import WEEKDAYS

LISTS.update(
    fur=("grey", "black", "white", "ginger", "striped", "brown", "spotted"),
    jam=("plum", "pear", "berry", "rhubarb", "onion", "cherry"),
    deed=(
        "found a boot in the river",
        "painted the gate twice",
        "sang at the inn till the lamps went out",
        "lost a bet about a pear",
        "slept through the bells",
        "baked for nine and ate for two",
        "fell in the pond and came up with a fish",
        "walked to Wendon and back for a button",
        "won a ham",
        "counted the sheep and got a new number each time",
        "mended the wall by the well",
        "bought a map and still got lost",
        "sold a cart with three wheels",
        "carried a stove up the tower",
        "taught the hens to come when called",
        "gave away forty plums",
        "wrote to the paper about the bridge",
        "planted leeks in the rain",
        "lent a ladder and got it back",
        "missed the ferry by one step",
        "rang the wrong bell",
        "cut the hay before breakfast",
        "learned to whistle",
        "broke a plate and said so",
        "found the lost spoon in the flour",
        "read aloud for two hours",
        "paid a debt from last winter",
        "made a stool with four good legs",
        "kept the shop open late for one candle",
        "made soup for eleven",
        "tied the boat with the wrong knot",
        "weighed the cat",
        "put up a shelf, and a second one to hold it",
        "drew the mill on the back of a bill",
        "took the long road and was glad of it",
        "came third in the sack race",
        "dug a ditch that runs the right way",
        "forgot a birthday and remembered it at supper",
        "saw a heron steal a bun",
        "paid for a window nobody had broken",
        "put a bench by the well",
        "beat the mayor of somewhere at cards",
        "walked home in one boot",
        "bought back an old coat",
        "named a goat after an uncle",
        "grew a leek as long as an arm",
        "tried to sell a door without a house",
        "mended a fiddle with fish glue",
        "slept in the hay and missed lunch",
        "found a letter nine years late",
        "hung a lamp at the ford",
        "took in a lost duck",
        "made candles and burned most of them",
        "told the same story at both ends of the bridge",
        "gave up sugar for a day",
        "filled the well bucket with apples",
        "rowed to the far bank for a joke",
        "waited two hours for a cart that had gone",
        "cut a hedge in the shape of a hen",
        "carried a piano stool to the fair",
        "started a choir of four",
        "returned a book from before the flood",
    ),
    cause=(
        "a pear stalk",
        "a bent pin",
        "a dead wasp",
        "rust, and nothing else",
        "a crumb",
        "a shirt button",
        "old paint",
        "a mouse, who has moved out",
        "a loose screw",
        "damp",
    ),
    quote=(
        "I only looked down",
        "It was there all the time",
        "Nobody asked me before",
        "It will do till winter",
        "We have had worse",
        "I would not do it twice",
        "It was mostly luck",
        "I had the wrong glasses on",
        "You should see the other side",
        "I was on my way to supper",
        "It looked smaller from the road",
        "I counted them again this morning",
        "That is what string is for",
        "I am told it was funny",
        "The goat started it",
        "I have nothing against the river",
        "It is quieter now",
        "Ask me again on Sunday",
        "Somebody had to hold the lamp",
        "It was not even my hat",
        "Next year we shall bring a rope",
        "I was as surprised as the duck",
        "We knew it would be a Tuesday",
        "My mother always said so",
        "It floats, mostly",
        "There were more of them last year",
        "I have kept the receipt",
        "One gets used to it",
        "You cannot hurry a mule",
        "I blame the wind",
        "It was dark, and I was hungry",
        "I would rather have had soup",
        "It is only water",
        "Nobody was more careful than I was",
    ),
    matter=(
        "the new bench",
        "the noise of the geese",
        "the width of the bridge",
        "the hour of the last bell",
        "the broken lamp",
        "wet feet at the ford",
        "the price of ferry tickets",
        "the colour of the school door",
        "who sweeps the square",
        "the hole in the mill road",
        "dogs at the market",
        "the summer fair",
    ),
    root=(
        "turnip", "leek", "pumpkin", "onion", "carrot", "cabbage", "beetroot",
        "marrow", "radish", "parsnip",
    ),
    bird=(
        "swans", "herons", "swifts", "wild geese", "ducks", "starlings", "larks",
        "robins",
    ),
    work=(
        "the roof", "the steps", "the chimney", "the well rope", "the gate",
        "the gutter", "the floor", "the back door", "the sign", "the drain",
    ),
    chore=(
        "swept the yard",
        "washed two shirts and a sheet",
        "sorted buttons",
        "cut wood till noon",
        "wrote three letters and sent one",
        "turned out the cupboard",
        "oiled the hinges",
        "put new string on the beans",
        "mended a sock with another sock",
        "did the accounts, which took all day",
        "read by the fire",
        "scrubbed the step",
        "dug over the leek bed",
        "slept late and was ashamed till about ten",
        "boiled the sheets",
        "sharpened every knife in the house",
        "aired the beds",
        "made jam, nine jars",
        "looked for the spoon again",
        "picked stones out of the garden",
    ),
    close=(
        "Early to bed.",
        "Bread for supper.",
        "The lamp needs oil.",
        "No letters.",
        "Feet dry at last.",
        "Slept well.",
        "A good day, on the whole.",
        "Nothing else to report.",
        "Still no sign of the spoon.",
        "I could hear the river all night.",
        "Must buy string.",
        "Tomorrow the same, I expect.",
        "The kettle is making that noise again.",
    ),
)  # fmt: skip

LISTS["deed2"] = LISTS["deed3"] = LISTS["deed"]
LISTS["quote2"] = LISTS["quote3"] = LISTS["quote"]
LISTS["day3"] = LISTS["day"]


def _others(m: dict) -> set[str]:
    return {m[k].name for k in "ABCDMN" if k in m}


POOLS["dear"] = lambda m, x: _DEAR
POOLS["less"] = lambda m, x: range(m[x].price // 4 + 1, m[x].price)
_DEAR = tuple(
    t for t in GOODS if t.price > 7 and not t.name.startswith("basket")
)
POOLS["lover"] = lambda m, x: _LOVERS[m[x].name]
_LOVERS: dict[str, tuple] = {
    f.name: tuple(c for c in CHARACTER.values() if c.food == f.name)
    for f in FOODS
}

# -- letters -------------------------------------------------------------------

_LETTER_OPEN = (
    "Dear {B},",
    "Dear {B}, I hope this finds you dry.",
    "{B}, just a line.",
    "Dear {B}, thank you for yours of {day}.",
    "My dear {B}, I am writing this on my knee on the ferry.",
    "Dear {B}, you were right about the weather.",
    "Dear {B}, I know I owe you a letter.",
    "To {B}, at {B.home}.",
)
_LETTER_BODY = (
    "Come on {day2} if the road is dry, and bring your {B.belonging}.",
    "{C}, {,C}, {deed}.",
    "You asked about {G.pl}. {@G.price}",
    "The old clock is mended. It was {cause}. I have charged {D} {n:2-9} pence.",
    "{@N}",
    "If you are near {S}, look in for me. {@S.opens}",
    "I met {N} at {P}. {N.He} asked after you, and after {D}.",
    "Have you heard? {M} {deed2}.",
    "Somebody left {G.a} {spot}. I thought of {D}, but {D.he} says not.",
    "When is it that {M} has {M.his} birthday? Never mind, I have found it. "
    "{@M.birthday}",
    "I have put {n:3-12} jars of {jam} jam by for you.",
    "There will be {E} on {day2}. {M} is bringing it.",
    "I still have your umbrella. It is the {colour} one, is it not?",
    "Tell {D} that the boots fit, or nearly.",
    "We are {n:3-12} at table on {day2}, so bring a chair.",
    "They want {G.cost} for {G.a} at {G.at} now, and I paid it.",
    "The cat has had {k:2-6} kittens, one of them {fur}.",
    "I walked to {P} on {day2} and my feet know it.",
    "Please tell {C} that {C.his} {C.belonging} is with me and quite safe.",
    "Your {B.belonging} came up in talk. {D} would like to borrow it for an hour.",
    "Would you ask at {T} about {work}? {@T.keeper}",
    "The bridge was shut all {day2}. {N} {deed3} to pass the time.",
    "I am learning the fiddle. The neighbours are learning patience.",
    "It has been {sky.low} here since {day}.",
    "They have painted {S} {colour}. You will hate it.",
    "The geese got into the garden again. {M}, {,M}, says the gate was open.",
    "I counted my money and have {pounds:11-99} pence, which is more than I thought.",
    "{N} has my copy of the almanac. I know, because {N.he} told me this: {@H}",
)
_LETTER_CLOSE = (
    "Write soon.",
    "More on {day}.",
    "Burn this, or at least do not read it out.",
    "Mind the third step.",
    "The post goes in a minute.",
    "Keep dry.",
    "There is no more paper.",
    "",
)
_PLAIN_SIGN = ("{A}", "Yours, {A}", "As ever, {A}", "In haste, {A}")


def letter(chance) -> list[Fact]:
    """A letter between two of the valley, on small matters."""
    m = begin()
    choose(chance, _LETTER_OPEN, m)
    chance.write("\n")
    choose_some(chance, _LETTER_BODY, m, 2, 5)
    close = chance.pick(_LETTER_CLOSE, said=_before_gap)
    if close:
        chance.write(" ")
        tell(chance, close, m)
    chance.write("\n")
    to = m["B"].name
    near = [c for c in POOLS["kin"](m, "B") if c.name not in _others(m)]
    if near and chance.flip(0.35):
        writer = chance.pick(near, said=lambda c: _sign(to, c.name))
        chance.write(_sign(to, writer.name))
    else:
        choose(chance, _PLAIN_SIGN, m)
    return m["facts"]


def _before_gap(template: str) -> str:
    return ""


def _sign(to: str, name: str) -> str:
    return f"Your {kin_word(to, name) or 'friend'}, {name}"


# -- diary ---------------------------------------------------------------------

_DIARY = (
    "{A} {deed}.",
    "I {chore}.",
    "Met {B}, {,B}.",
    "Bought {G.a} at {G.at}: {G.cost}.",
    "Walked to {P} and back.",
    "{C} came by with {F.a} and stayed till dark.",
    "Went to {S}, but it was shut. {@S.opens}",
    "Saw {n:2-30} {bird} over {Q}.",
    "{A} and {B} are not speaking. It is about {matter}.",
    "Lent the {colour} umbrella to {D}. I have written it down this time.",
    "Note to myself. {@D}",
    "They say at {T} that {M} {deed2}.",
    "Had {E} at {E.at}, {E.cost}, and would again.",
    "Took {work} in hand at last. It was {cause}.",
    "A letter from {D}, mostly about {matter}.",
    "Dreamt of {root}s.",
    "Asked {A} about {matter}. {A.He} laughed.",
    "{B} wants {k:2-9} pence for {work}. I said I would think.",
    "Heard the bell at {j:2-6} and got up by mistake.",
    "Helped {N} look for {N.his} {N.belonging}. It was {spot}.",
    "Passed {T} on the way home. {@T.keeper}",
    "Played cards with {A}, {,A}, and lost {i:2-12} pence.",
    "{D} asked me to read out a letter. It was from {A}, and quite kind.",
    "Not a word from {B}.",
)


def diary(chance) -> list[Fact]:
    """Two to five days of somebody's diary, the weather first."""
    facts: list[Fact] = []
    chance.say("", "Diary.\n", "From a diary.\n", weights=(0.6, 0.2, 0.2))
    today = chance.pick(range(7), said=WEEKDAYS.__getitem__)
    days = 0
    while True:
        m = {"facts": facts}
        chance.write(WEEKDAYS[today] + ". ")
        if chance.flip(0.75):
            tell(chance, "{sky}. ", m)
        choose_some(chance, _DIARY, m, 1, 3)
        if chance.flip(0.3):
            tell(chance, " {close}", m)
        days += 1
        if days == 5 or (days > 1 and not chance.flip(0.6)):
            return facts
        chance.write("\n")
        today = (today + 1) % 7


# -- notices --------------------------------------------------------------------

_NOTICES = (
    "Lost, between {P} and {Q}, {day}: {K.a}. It is {K.owner}'s. Bring it to "
    "{K.owner.home}, or shout.",
    "Found {spot}, {day}: one glove, {colour}, left hand. Ask for {A} at "
    "{A.workplace}.",
    "Found at {S}, {day}: {K.a}. {K.owner} may have it back for the asking.",
    "For sale: {G.a:dear}, hardly used, {n:less G} pence. A new one costs {G.cost} at "
    "{G.at}. See {A} at {P}.",
    "{S.cap} opens at {S.opens} and closes at {S.closes}. {S.keeper} asks you to "
    "wipe your feet.",
    "{S.cap} is shut on {day} for {work}. {@S.keeper}",
    "Wanted: somebody to see to {work} at {S}. {n:3-19} pence a day and soup. Ask "
    "for {S.keeper}.",
    "Meeting about {matter}, {day} at {n:5-9}, at {S}. Bring a chair. {A}",
    "Lessons on the fiddle, {n:2-6} pence. Lessons in stopping, the same. {A}, {P}.",
    "To whoever took the {colour} umbrella from {S}: it is {A}'s, and it leaks.",
    "Fresh today at {S:shop}: {G.pl:of S}. {@G.price}",
    "Free to a good home: {n:2-6} kittens, mostly {fur}. Ask {A}, {,A}.",
    "Thanks to {A} of {A.home.name}, who {deed}. {B}",
    "Will the one who borrowed the {K.name} please bring it back to {K.owner}? No "
    "questions. {K.owner.He} needs it by {day}.",
    "Lost: a {colour} scarf, near {P}, in the wind. {A}, {A.home.name}.",
    "The well at {P} is being cleaned on {day}. Fetch your water the night before.",
    "Tea and {E}, {day} at {n:2-5}, at {S}. {E.cost} a plate, as always.",
    "{A} has {n:5-60} {root}s too many. Take some. {A.home.name}, back door.",
    "The {colour} boat at {P} is not for sitting in. {A}",
    "Reward for news of {A}'s {A.belonging}: {n:2-9} pence, or {E.a}, as you like.",
    "Please note. {@A}",
    "Please note. {@G}",
    "New at {G.at}: {G.pl}, {G.cost} each. Ask for {G.at.keeper}.",
)
_NOTICE_HEADS = (
    "",
    "Notices.\n",
    "On the board at the ferry landing:\n",
    "Pinned up at the post office:\n",
    "Small notices, a penny a line.\n",
)


def notice(chance) -> list[Fact]:
    """Small notices: lost, found, for sale, open and shut."""
    facts: list[Fact] = []
    chance.say(*_NOTICE_HEADS)
    left, lines = list(_NOTICES), 0
    while True:
        m = {"facts": facts}
        template = chance.pick(left, said=_first)
        tell(chance, template, m)
        left.remove(template)
        lines += 1
        if lines == 4 or (lines > 1 and not chance.flip(0.5)):
            return facts
        chance.write("\n")


def _first(template: str) -> str:
    return template.partition("{")[0]


# -- news -----------------------------------------------------------------------

_LEADS = (
    "{A}, {,A}, {deed} on {day}.",
    "{K.A} was found {spot} on {day}, and is back with {K.owner}. "
    "{@K.owner.belonging}",
    "The river rose {n:2-19} inches at {Q} on {day}, looked about, and went down "
    "again.",
    "{A} has grown {root.an} of {n:4-30} pounds, which can be seen at {S} until "
    "{day}.",
    "A meeting was held at {S} on {day} about {matter}. {n:5-40} came. {A} spoke "
    "for it and {B} against, and it was left till the autumn.",
    "{A} won the race from {P} to {Q}, {B} came second, and {C} stopped for {E}.",
    "{G.Pl} are not getting dearer, whatever people say. {@G.price} {G.at.keeper} "
    "told us so.",
    "It is {A}'s birthday on {A.birthday}, and there will be {A.food}. {@A.food}",
    "{S.cap} has a new sign, in {colour}. The old one had said nothing for years. "
    "{@S.keeper}",
    "The children of the school counted {n:20-90} {bird} over {Q} this week. {A}, "
    "{,A}, counted {k:91-99}.",
    "Thieves were feared at {S} on {day}. It was {A}, who had gone back for "
    "{A.his} hat.",
    "The road to {Q} is open again. {A}, {,A}, moved the tree with two friends and "
    "a long rope.",
    "A cart turned over near {Q} on {day}. Nobody was hurt. {n:30-90} eggs were. "
    "{A} {deed} all the same.",
    "Visitors to {S} will find {work} mended. {A} did it between showers. {@S.opens}",
    "The bell at {Q} rang at {n:2-5} in the night. {A} is sorry.",
    "{A} and {B} have not agreed about {matter}, and have now asked {C}, {,C}.",
    "Readers ask where to buy {G.a}. {@G.sold_at} {@G.price}",
    "Nobody has seen {A}'s {A.belonging} since {day}. {@A.belonging} {A.He} was last "
    "at {Q}.",
    "{S.keeper}, who keeps {S}, will be away until {day}. {A} will stand in.",
    "There was dancing at {Q} until {n:2-4} in the morning. {A} danced with {B}, and "
    "{C} with a chair.",
    "A {colour} boat came down the river on {day} with nobody in it. {A}, {,A}, tied "
    "it up at {Q}.",
    "The choir sang at {S}. {A} was flat. {B}, {,B}, was not asked.",
    "{F.A} was sold at {S} for {n:20-90} pence, for the school roof. {A} paid, and "
    "shared it with {B}.",
    "{A} is looking for somebody to play chess with, or cards. {@A.home}",
    "Two thirds of {Q} now have a lamp. {A}, {,A}, says the other third sleeps "
    "better.",
)
_NEWS_MORE = (
    '"{quote}," said {A}.',
    "{A.He} had nothing to add.",
    '"{quote2}," {A.he} told this paper.',
    "{D}, {,D}, saw it all from the wall.",
    "{D} disagrees.",
    "For those who do not know {A.him}: {@A}",
    "The cost was {j:2-30} pence.",
    "It is the second time this {season}.",
    "There was {root} soup afterwards.",
    "The rest of {A.home.name} stayed in bed.",
    "{D} brought {F.a}, and {j:2-5} slices were left.",
    '"{quote3}," said {D}, and went in.',
    "{@A.trade}",
    "{@A.home}",
    "{A.His} neighbours have asked for {i:2-9} days of quiet.",
    "A collection raised {h:5-60} pence and a {colour} button.",
    "{D} is making a drawing of it.",
    "Before this, {A.he} {deed2}.",
    "The police, which is {D}, were told.",
    "It took {g:2-50} minutes, with a rest.",
    "{A.His} {A.belonging} was not damaged.",
    "A song is being written. It has {i:3-14} verses so far.",
    "{D}, {,D}, has asked for it to be done again on {day3}.",
    "It rained, but only on {D}.",
    "A full account hangs in {T}.",
)
_NEWS_OTHER = (
    "{D}, {,D}, saw it all from the wall.",
    "{D} disagrees.",
    "The cost was {j:2-30} pence.",
    "It is the second time this {season}.",
    '"{quote}," said {D}.',
    "{D} {deed} the same day.",
    "There was {root} soup afterwards.",
    "{@D}",
    "{C}, who measured it with a broom, says {i:2-19}.",
    "A {colour} hat was seen going by. It was {N}'s.",
    "{N}, {,N}, wrote it all down.",
    "{C} has offered to do better for {h:2-40} pence.",
    "A full account hangs in {T}.",
)
_WEATHER = (
    "Weather: {sky.low}.",
    "{sky}, and the same tomorrow.",
    "Tomorrow: {sky.low}, says {name}, who has been wrong before.",
)


def news(chance) -> list[Fact]:
    """A piece from the newspaper, or two short ones."""
    facts: list[Fact] = []
    pieces = 0
    while True:
        m = {"facts": facts}
        tell(chance, "{P}, {day2}. ", m)
        choose(chance, _LEADS, m)
        chance.write(" ")
        if "A" in m:
            choose_some(chance, _NEWS_MORE, m, 1, 4)
        else:
            choose_some(chance, _NEWS_OTHER, m, 1, 3)
        pieces += 1
        if pieces == 2 or not chance.flip(0.45):
            break
        chance.write("\n\n")
    if chance.flip(0.2):
        chance.write("\n\n")
        m = {"facts": facts, "name": CHARACTER["Zeb"]}
        choose(chance, _WEATHER, m)
    return facts


# -- talk -----------------------------------------------------------------------

_TALK_QUESTIONS = tuple(
    f for f in FACTS if f.relation not in ("minutes", "bank", "near", "source")
)
_TALK_Q = {f: question(f) for f in _TALK_QUESTIONS}


def dialogue(chance) -> list[Fact]:
    """Talk at a counter, on the road, or on a wall: speaker, colon, words."""
    kind = chance.pick(
        (_counter, _the_way, _gossip, _errand), (0.3, 0.2, 0.3, 0.2)
    )
    return kind(chance)


def _counter(chance) -> list[Fact]:
    m = begin()
    facts = m["facts"]
    site = chance.pick(SHOPS, said=lambda s: f"At {s.name}, ")
    m["S"], m["A"] = site, CHARACTER[site.keeper]
    chance.write(f"At {site.name}, ")
    tell(chance, "{day}.\n{B}: ", m)
    if chance.flip(0.7):
        choose(
            chance,
            (
                "Good {part}, {A}. ",
                "Wet out there. ",
                "{sky}, {A}. ",
                "Are you open? ",
            ),
            m,
        )
    thing = chance.pick(
        POOLS["of"](m, "S"), said=lambda t: f"How much is {t.a}?\n"
    )
    m["G"] = thing
    tell(chance, "How much is {G.a}?\n{A}: ", m)
    choose(
        chance, ("{G.cost.cap}.", "{@G.price}", "{G.cost.cap}, as always."), m
    )
    facts.append(FACT[thing.name, "price"])
    tell(chance, "\n{B}: ", m)
    choice = choose(
        chance,
        (
            "Then I will take {n:2-6}.",
            "One, please.",
            "That is too much for me. I will come back on {day2}.",
            "And if I take {n:2-6}?",
            "I was asking for {C}. {C.He} will come for it on {day2}.",
        ),
        m,
    )
    if choice in (0, 1, 3):
        total = thing.price * m.get("n", 1)
        chance.write(f"\n{m['A'].name}: ")
        how = (
            chance.say("That makes ", "Then it is ")
            if choice != 1
            else "Thank you"
        )
        if choice != 1:
            chance.write(f"{pence(total)}.")
        else:
            chance.write(how + ". ")
        paid = next(p for p in (5, 10, 20, 50, 100, 200, 500) if p >= total)
        if choice == 1 or chance.flip(0.6):
            change = paid - total
            if choice != 1:
                chance.write(" ")
            back = f"{pence(change)} back" if change else "nothing back"
            chance.write(f"Out of {paid}, {back}.")
    else:
        chance.write(f"\n{m['A'].name}: ")
        choose(chance, ("It will keep.", "As you like.", "{quote}.", "We shut at "
                        "{S.closes}."), m)  # fmt: skip
    if chance.flip(0.4):
        tell(chance, "\n{B}: ", m)
        choose(
            chance,
            ("Have you heard? {D} {deed}.", "Thank you, {A}.", "{quote}."),
            m,
        )
    return facts


_SITES_IN: dict[str, tuple] = {}
for _site in SITES:
    _SITES_IN[_site.near] = (*_SITES_IN.get(_site.near, ()), _site)
POOLS["in"] = lambda m, x: _SITES_IN[m[x].name]
_RESIDENTS: dict[str, tuple] = {}
for _one in CHARACTER.values():
    _RESIDENTS[_one.home] = (*_RESIDENTS.get(_one.home, ()), _one)
POOLS["home"] = lambda m, x: _RESIDENTS[m[x].name]


def _the_way(chance) -> list[Fact]:
    m = begin()
    tell(chance, "{A}: ", m)
    choose(
        chance,
        (
            "Excuse me, how far is it to {P}?\n",
            "Is this the road to {P}?\n",
            "I want to be at {P} by {n:5-11}. How far is it?\n",
        ),
        m,
    )
    tell(chance, "{B}: ", m)
    choose(
        chance,
        (
            "From {Q}? ",
            "You are at {Q} now. ",
            "Well, this is {Q}. ",
        ),
        m,
    )
    start, goal = m["Q"], m["P"]
    minutes = walk_minutes(start.name, goal.name)
    chance.write(f"It is {minutes} minutes on foot.")
    if start.bank != goal.bank:
        chance.say(
            " You have to cross the river.",
            " It is on the other side of the river.",
        )
    if goal.landmark and chance.flip(0.6):
        chance.say(
            f" You will see {goal.landmark}.", f" Look for {goal.landmark}."
        )
    tell(chance, "\n{A}: ", m)
    asked = choose(
        chance,
        (
            "Thank you. Who lives there?\n",
            "And whom do I ask for there?\n",
            "I am looking for {C}.\n",
        ),
        m,
    )
    tell(chance, "{B}: ", m)
    there = _SITES_IN.get(goal.name)
    taken = (m["A"], m["B"])
    if asked == 0 and any(
        c not in taken for c in _RESIDENTS.get(goal.name, ())
    ):
        tell(chance, "{D:home P}, for one. {@D} Mind the dog.", m)
    elif asked == 2:
        tell(chance, "{@C.home}", m)
    elif there and chance.flip(0.7):
        tell(chance, "Ask at {S:in P}. {@S.keeper}", m)
    else:
        choose(chance, ("I could not say.", "{quote}.", "Nobody, on {day}."), m)
    return m["facts"]


_YOU_KNOW = (
    "Oh, you know {C.him}. {@C}",
    "{C}, {,C}.",
    "You must know {C.him}. {@C} {@C}",
    "The one from {C.home}. {@C}",
    "The {C.species}. {@C}",
)


def _gossip(chance) -> list[Fact]:
    m = begin()
    facts = m["facts"]
    tell(chance, "{A}: ", m)
    choose(
        chance,
        (
            "Have you heard? {C} {deed}.\n",
            "They say {C} {deed}.\n",
            "I saw {C} at {P} on {day}.\n",
            "{C} was asking for you.\n",
        ),
        m,
    )
    tell(chance, "{B}: ", m)
    choose(
        chance,
        ("Which {C} is that?", "{C}? Again?", "I hardly know {C.him}."),
        m,
    )
    chance.write("\n")
    tell(chance, "{A}: ", m)
    choose(chance, _YOU_KNOW, m)
    turns = 0
    while turns < 2 and chance.flip(0.6):
        fact = chance.pick(_TALK_QUESTIONS, said=lambda f: f"\n{m['B'].name}: And "
                           + _TALK_Q[f][0].lower() + _TALK_Q[f][1:])  # fmt: skip
        q = _TALK_Q[fact]
        chance.write(f"\n{m['B'].name}: And {q[0].lower()}{q[1:]}\n")
        chance.write(f"{m['A'].name}: ")
        say_fact(chance, fact, facts)
        turns += 1
    tell(chance, "\n{B}: ", m)
    choose(
        chance,
        ("Well, well.", "{quote}.", "I never knew that.", "So they say."),
        m,
    )
    return facts


def _errand(chance) -> list[Fact]:
    m = begin()
    tell(chance, "{A}: ", m)
    choose(
        chance,
        (
            "Can I borrow {K.a}?\n",
            "You have not seen {K.a} anywhere?\n",
            "I need {K.a}, only till {day}.\n",
        ),
        m,
    )
    owner = m["K"].owner
    m["C"] = CHARACTER[owner]
    if m["A"].name == owner:
        tell(chance, "{B}: But {K.the} is yours.\n{A}: So it is. ", m)
    else:
        tell(chance, "{B}: ", m)
        if m["B"].name == owner:
            choose(
                chance, ("Mine? By all means. ", "Yes, but I want it back. "), m
            )
            chance.write("Bring it on ")
            tell(chance, "{day2}.\n{A}: ", m)
        else:
            tell(chance, "Not mine. {@C.belonging} {@C.home}\n{A}: ", m)
    choose(chance, ("Thank you, {B}.", "{quote}.", "I will go on {day2}."), m)
    return m["facts"]


# -- recipes -------------------------------------------------------------------

_RECIPE_HEADS = (
    "{E.cap}, for {n:3-9}.\n",
    "How {A:adult} makes {E}.\n",
    "{E.A}, as they do it at {E.at}.\n",
    "{A}'s {E}, copied out by {B}.\n",
)
_PANTRY = (
    "{flour:2-6} cups of flour",
    "{eggs:2-5} eggs",
    "butter, as much as you dare",
    "butter the size of a fist",
    "a pinch of salt",
    "salt from the salt house",
    "half a cup of milk",
    "flour from the water mill",
    "a spoon of honey",
    "{cold:2-5} spoons of cold water",
    "a pinch of pepper, for luck",
    "one leaf of mint",
    "a bit of nutmeg",
)
_STAPLES = (
    "flour", "eggs", "butter", "salt", "milk", "honey", "water", "pepper", "mint",
    "nutmeg",
)  # fmt: skip
_BEGIN = (
    "Wash the {x} and cut away what you would not eat.",
    "Begin with the {x}.",
    "Put the {x} by the window and light the fire.",
    "Chop the {x}, not too small.",
)
_SET_OUT = (
    "Set out the {x} and light the fire.",
    "Begin with the {x}.",
    "Weigh the {x}, and do not taste any yet.",
    "Beat the {x} with a wooden spoon.",
)
_NOT_WASHED = ("honey", "cheese", "eggs", "seeds", "oats", "nuts")
_MEASURES = {
    "eggs": ("",),
    "pumpkins": ("small ", ""),
    "cabbage": ("heads of ", "pounds of "),
    "honey": ("spoons of ", "cups of "),
    "cheese": ("pounds of ", "thick slices of "),
    "fish": ("pounds of ", "fillets of "),
    "rhubarb": ("sticks of ", "pounds of "),
}
_BY_HAND = ("handfuls of ", "pounds of ", "cups of ")
_MIX = (
    "Rub butter and flour together until it looks like sand.",
    "Work it with cold hands.",
    "Mix the rest in a big bowl, with the hand, not the spoon.",
    "Stir everything else together, and do not answer the door.",
)
_WAIT = (
    "Let it rest for {rest:10-60/5} minutes, and you too.",
    "Leave it alone while you sweep the floor.",
    "Cover it with a {colour} cloth and wait {rest:10-60/5} minutes.",
    "Now go and see what {D} wants.",
)
_FILL = (
    "Lay the {x} in, and more than seems right.",
    "Put in the {x} and close the lid.",
    "In with the {x}, evenly, to the edge.",
)
_BAKE = (
    "Bake for {bake:25-70/5} minutes.",
    "Bake for {bake:25-70/5} minutes, turning it once.",
    "It wants {bake:25-70/5} minutes in a quiet oven.",
    "Give it {bake:25-70/5} minutes and do not open the door.",
)
_GUT = (
    "Clean the trout and rub it with salt.",
    "Take a trout by the tail, and thank it.",
    "Salt the trout, and hang it by a {colour} string.",
)
_SMOKE = (
    "Hang it in the smoke for {bake:3-9} hours.",
    "Smoke it over alder wood for {bake:3-9} hours, and keep the door shut.",
)
_SERVE = (
    "Eat it warm, or cold, or standing up.",
    "It is better on the second day, if there is one.",
    "Cut it in {slices:4-12} and count the guests.",
    "Serve it on {colour} plates, if you have them.",
    "Keep a slice for {C}.",
    "{C} puts cream on it. Nobody else does.",
    "Say nothing until they ask.",
)
_NOTES = (
    " {@E.price}",
    " {@E.sold_at}",
    " If you burn it, do not despair. {@E.sold_at} {@E.price}",
    " Send some to {likes:lover E}. {@likes.food}",
)


def _staple(template: str) -> str:
    """What an entry of the pantry is of, so that none is taken twice."""
    return next(x for x in _STAPLES if x in template)


class _Stuff:
    """An ingredient, named in a gap."""

    def __init__(self, name: str):
        self.name = name


def recipe(chance) -> list[Fact]:
    """A recipe: what it takes, where that comes from, and what to do."""
    m = begin()
    choose(chance, _RECIPE_HEADS, m)
    food = m["E"]
    stuff = food.made_of
    m["x"] = _Stuff(stuff)
    source = FACT[stuff, "source"]
    tell(chance, "Take {much:2-6} ", m)
    if stuff == "trout":
        chance.write("large ")
    else:
        chance.say(*_MEASURES.get(stuff, _BY_HAND))
    chance.write(stuff)
    if chance.flip(0.5):
        chance.write(f" from {source.object}")
        m["facts"].append(source)
    if stuff != "trout":
        chance.write(", ")
        left = [x for x in _PANTRY if not x.endswith(stuff)]
        for rest in (2, 1, 0):
            template = chance.pick(left, said=_first)
            tell(chance, template, m)
            left = [x for x in left if _staple(x) != _staple(template)]
            chance.write(", " if rest > 1 else " and " if rest else "")
    chance.write(".\n")
    steps = (
        (_GUT, _WAIT, _SMOKE) if stuff == "trout"
        else (_SET_OUT if stuff in _NOT_WASHED else _BEGIN, _MIX, _WAIT, _FILL, _BAKE)
    )  # fmt: skip
    numbered = chance.flip(0.4)
    for number, wordings in enumerate(steps, 1):
        if numbered:
            chance.write(f"{number}. ")
        choose(chance, wordings, m)
        chance.write("\n" if numbered else " ")
    choose(chance, _SERVE, m)
    if chance.flip(0.65):
        choose(chance, _NOTES, m)
    if chance.flip(0.4):
        chance.write(" ")
        say_fact(chance, source, m["facts"])
    return m["facts"]


# -- how to ---------------------------------------------------------------------

_HOW = {
    "sharpen a knife": (
        "Wet the stone.|Find the stone, wet it, and sit down.",
        "Hold the knife flat, and then a little less flat.|Lift the back of the "
        "blade by the width of a penny.",
        "Draw it towards you {n:8-30} times.|Stroke it {n:8-30} times, slowly.",
        "Turn it over and do the same.|Now the other side.",
        "Try it on {root.an}.|Try it on a sheet of paper, not on a thumb.",
    ),
    "get a boat off the mud": (
        "Do not stand up.|Sit down, all of you.",
        "Put the heavy things at the back.|Move {K.the} to the back.",
        "Push with an oar where the ground is hard.|Feel for stones with the oar.",
        "Rock it from side to side and count to {n:3-20}.|Wait {n:3-20} minutes "
        "for the river to rise.",
        "If it has not moved, call {A}.|If nothing helps, shout for {A}.",
    ),
    "light a wet fire": (
        "Look for wood that was under other wood.|Split a log: it is dry inside.",
        "Make a small tower of sticks.|Lay {n:3-9} thin sticks across.",
        "Put paper under it, this one if need be.|Use the wax end of a candle.",
        "Blow low and slowly.|Blow, but not as if you were angry.",
        "When it burns, say nothing for {k:2-9} minutes.|Then feed it, a bit at a "
        "time.",
    ),
    "send a parcel": (
        "Wrap it in brown paper, twice.|Put it in a box with straw.",
        "Tie it with string and a knot {A} could undo.|Tie it both ways.",
        "Write the name large: {B}, {B.home.name}.|Address it to {B} at {B.home}.",
        "Take it to the post office before {n:9-15}.|Carry it to the post office.",
        "Pay {k:3-20} pence and keep the receipt.|They weigh it. It is {k:3-20} "
        "pence.",
    ),
    "cross the river in high water": (
        "Do not.|Wait a day.",
        "If you must, ask {A} about the ford.|Ask {A} first.",
        "Take off your boots and hang them round your neck.|Take a stick, longer "
        "than you are.",
        "Step on {n:3-9} stones and feel for the next.|Go sideways, face to the "
        "stream.",
        "On the other side, dry your feet.|Then sit on the bank and be glad.",
    ),
    "wash a wool blanket": (
        "Fill a tub with rain water.|Carry {n:4-12} buckets from the well.",
        "Shave a bar of soap into it.|Add soap, less than you think.",
        "Tread it with bare feet for {k:5-30} minutes.|Let {A} tread it: it is "
        "good for the knees.",
        "Rinse it till the water is clear.|Rinse it {j:2-5} times.",
        "Dry it flat on the grass, away from geese.|Hang it over a wall.",
    ),
    "keep mice out of flour": (
        "Put the flour in a jar with a lid.|Hang the sack from a beam.",
        "Put a stone of {n:2-9} pounds on the lid.|Tie down the lid with string.",
        "Sweep the floor every {day}.|Leave nothing on the floor.",
        "Ask {A} for a cat.|Borrow the cat of {A}.",
        "Or leave out a little {E}, and be friends.|Or share.",
    ),
    "hang a door": (
        "Take two hinges and {n:6-12} screws.|Measure the frame, then measure it "
        "again.",
        "Stand the door on a book.|Ask {A} to hold the door.",
        "Mark the place with chalk.|Mark the place with a {colour} pencil.",
        "Screw in the top hinge first.|Begin at the top.",
        "If it sticks, plane it on a dry {day}.|If it swings open by itself, blame "
        "the house.",
    ),
    "find a lost key": (
        "Look where you always put it.|Look in the coat you wore on {day}.",
        "Look there again, more slowly.|Turn out your pockets, all {n:2-9}.",
        "Walk back the way you came, as far as {P}.|Look {spot}.",
        "Ask {A}, who finds things.|Ask {A}, but kindly.",
        "When you find it, hang it on a nail.|Tie a {colour} ribbon to it.",
    ),
    "make tea for a crowd": (
        "Count heads. There will be {n:8-40}.|Borrow cups from {A}.",
        "Boil the water in the largest pot you have.|Start the water early.",
        "Put in {k:4-20} spoons of tea.|Allow a spoon for each two, and {k:2-6} "
        "over.",
        "Wait {j:4-9} minutes.|Let it stand while someone makes a speech.",
        "Serve the oldest first.|Give {B} the cup without a handle.",
    ),
    "row across with a goat": (
        "Feed the goat first.|Give the goat something to think about.",
        "Put it in the middle, facing {A}.|Tie it short, {n:2-4} feet at most.",
        "Row as if nothing were the matter.|Row slowly.",
        "Sing, if you can.|Do not look it in the eye.",
        "Let the goat get out first.|At the landing, hold {K.the} well away from "
        "it.",
    ),
    "plant leeks": (
        "Wait for a grey day in {month}.|Dig the bed in {month}.",
        "Make holes with a stick, {n:4-9} inches deep.|Make holes a hand apart.",
        "Drop a leek into each.|One leek, one hole.",
        "Do not fill the hole. Water does that.|Water them, {k:2-9} cans a row.",
        "Thank {A}, who gave you the plants.|Then leave them in peace until "
        "{season}.",
    ),
    "patch a boot": (
        "Dry the boot, but not by the fire.|Fill the boot with oats and wait a "
        "night.",
        "Cut a patch from an old {colour} glove.|Cut a patch {n:2-6} inches long.",
        "Rub both with glue.|Roughen both with a stone.",
        "Press it under {K.the} till {day}.|Put it under a heavy book until "
        "{day}.",
        "Grease the seam.|If it still leaks, {A} is not far.",
    ),
    "write to the newspaper": (
        "Write it while you are angry.|Say what is wrong with {matter}.",
        "Wait until {day}.|Sleep on it.",
        "Cross out {n:3-40} words.|Take out everything about {A}.",
        "Sign it.|Sign it with your own name.",
        "Send it to the print shop, or do not.|Read it to {B}. Then decide.",
    ),
}  # fmt: skip
_HOW_STEPS = {
    title: tuple(tuple(step.split("|")) for step in steps)
    for title, steps in _HOW.items()
}
_HOW_NAMES = tuple(_HOW)
_TIPS = (
    "Nobody tells you this.",
    "{C} does it the other way round, and regrets it.",
    "A friend helps here.",
    "This is the hard part.",
    "Take your time.",
    "It will look wrong. It is not.",
    "Keep {G.a} at hand. {@G.sold_at}",
    "For this {C}, {,C}, uses {H.a}.",
    "Some say to do it by moonlight. They are from {Q}.",
    "Have a cup of tea.",
    "{C} learned it from {D}.",
)


def howto(chance) -> list[Fact]:
    """How something is done, in five steps."""
    m = begin()
    title = chance.pick(_HOW_NAMES, said=lambda t: f"How to {t}.")
    chance.write(f"How to {title}.")
    if chance.flip(0.3):
        tell(chance, " As told by {C}, {,C}.", m)
    numbered = chance.flip(0.6)
    for number, wordings in enumerate(_HOW_STEPS[title], 1):
        chance.write(
            f"\n{number}. " if numbered else "\n" if number == 1 else " "
        )
        choose(chance, wordings, m)
        if chance.flip(0.25):
            chance.write(" ")
            choose(chance, _TIPS, m)
    return m["facts"]
