# ruff: noqa: E501
"""Stories of the valley: a day is run, and the words follow what happened.

A `Tale` holds the state (what day it is, who is where, who holds what, what the
weather and the river are doing, who was told what) and writes. Each plot moves
the state and tells it; nothing is drawn before the sentence that shows it, so
the account in `chance` is exact (see `chance.explain`).

`story(chance, cast_filter=None, held_out=False, plot=None)` writes one story
and returns a `Story`:

- `questions`: what can be asked of this text, as `Question(question, answer,
  aliases)`. `answer` is a full short answer without a final point ("Hob", "the
  bakery", "14 pence", "at Low Bridge"); `aliases` are other right wordings.
- `unanswered`: questions that fit the story but that it does not answer.
- `summary`: one true sentence.
- `characters`, `things`: all who are named; what is carried, bought or eaten.
- `holds`, `where`: the state at the end, as far as the text tells it.
- `facts`: the facts stated in their plain words.

`story_questions(info)` gives all of these in one list of (question, answer,
aliases), where the answer to an unanswered question is "I do not know", and adds
questions that need the story and one fact of the valley ("Where does the one who
has the kettle at the end live?").

A pair in `facts.HELD_OUT_PAIRS` never meets in a story, unless `held_out=True`,
which forces one. `cast_filter(name) -> bool` limits who may play a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pocket_world.chance import Chance
from pocket_world.facts import (
    BELONGINGS,
    CHARACTER,
    CHARACTERS,
    FACT,
    FOODS,
    GOODS,
    HELD_OUT_PAIRS,
    INGREDIENT_SOURCE,
    PLACE,
    SITES,
    THING,
    TOWN,
    VILLAGES,
    Character,
    Fact,
    Thing,
    facts_about,
    hour_words,
    kin_word,
    pence,
    statement,
    walk_minutes,
)
from pocket_world.words import WEEKDAYS as DAYS


@dataclass(frozen=True)
class Question:
    question: str
    answer: str
    aliases: tuple[str, ...] = ()


@dataclass
class Story:
    """What is known of a finished story (see the module's docstring)."""

    plot: str
    summary: str = ""
    questions: list[Question] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    characters: list[str] = field(default_factory=list)
    things: list[str] = field(default_factory=list)
    holds: dict[str, str] = field(default_factory=dict)  # thing -> who
    where: dict[str, str] = field(default_factory=dict)  # who or thing -> place
    facts: list[Fact] = field(default_factory=list)


# -- what belongs to a trade or a thing -----------------------------------

# Two things each one may be found doing at work.
_DOING_TABLE = """
lock keeper: oiling the sluice / counting boats
lace maker: winding thread / pinning lace to a cushion
postmaster: sorting letters / looking for a stamp
dairy keeper: rinsing pails / leading a cow in
cheese maker: turning cheeses / stirring a vat
goose herd: whistling to the ducks / mending a stick
egg collector: looking under a hedge / counting eggs
smith: heating a bar / filing a hook
market cook: peeling potatoes / tasting soup
nail maker: counting nails / pointing nails
letter carrier: strapping up a bundle / reading an address
carter: greasing a wheel / talking to the horse
boat builder: bending a plank / boiling pitch
ferry keeper: bailing the boat / splicing a rope
fish smoker: splitting trout / raking the ashes
rope maker: twisting hemp / walking backwards with a rope
message runner: lacing a boot / learning a message by heart
bee keeper: lifting a comb / scraping wax
hay keeper: stacking bales / looking for a fork
teacher: marking sums / cleaning the board
clock mender: oiling a spring / looking into a clock
thatcher: cutting reeds / combing straw
candle maker: dipping candles / trimming wicks
button seller: threading buttons / matching a button
baker: shaping loaves / scraping the trough
bell ringer: greasing a bell / sweeping the tower steps
tea maker: warming a pot / polishing spoons
flour sifter: sifting flour / shaking a sieve
table layer: folding napkins / setting out cups
woodcutter: sharpening an axe / stacking logs
fruit grower: tying up a branch / sorting apples
carpenter: planing a door / looking for a pencil
fruit picker: carrying baskets / moving a ladder
market warden: checking weights / walking between the stalls
hatter: steaming a brim / brushing felt
weigher: weighing cabbages / writing down weights
tailor: sewing a pocket / threading a needle
seed seller: filling paper bags / sorting beans
shoemaker: stitching a heel / waxing thread
bookbinder: pressing pages / gluing a spine
glove maker: stitching a cuff / looking for a glove
lamp lighter: trimming a lamp / carrying a small ladder
innkeeper: wiping the bar / setting up the chess men
onion farmer: plaiting onions / hoeing a row
inn cook: chopping leeks / grinding pepper
grocer: writing in the ledger / cutting string
egg seller: wiping eggs / stacking egg trays
nurse: rolling a bandage / warming soup
wheat farmer: looking at the sky / leaning on a gate
weaver: winding blue wool / mending a loom
wheat cutter: eating a sandwich / sharpening a scythe
wool sorter: carding wool / sorting fleeces
paper maker: hanging up wet sheets / stirring pulp
mushroom seller: brushing mushrooms / tying a basket
miller: tying up sacks / dressing the stone
potter: trimming a jug / wedging clay
bridge keeper: counting the tolls / painting the rail
brick carrier: loading bricks / pushing a barrow
chemist: grinding roots / pouring a tonic
librarian: stamping a book / reading on the steps
reporter: asking questions / sharpening a pencil
printer: setting type / reading a proof
brick maker: stacking bricks / watching the kiln
grinder: watching the sails / tapping the glass
salt boiler: raking salt / skimming a pan
well digger: measuring a rope / coiling a chain
"""
DOING: dict[str, tuple[str, ...]] = {}
for _line in _DOING_TABLE.strip().splitlines():
    _trade, _acts = _line.split(": ")
    DOING[_trade] = tuple(_acts.split(" / "))

# What one borrows a thing for.
_USE_TABLE = """
pewter mug: measure the cream
silver thimble: sew on forty buttons
letter scale: weigh a parcel
cheese wire: cut a block of clay
tin whistle: call the ducks
red kite: test the wind
soup ladle: empty a rain barrel
leather apron: burn old leaves
canvas satchel: carry seed up the hill
long whip: measure a hedge
bow saw: cut down a dead branch
brass bell: call the cows in
oyster knife: open a tin of paint
net needle: mend a hammock
blue marble: find out if a floor was level
bee veil: clear out a wasp nest
hay fork: turn the compost
globe: settle an argument
eyeglass: read some small print
folding ladder: reach a gutter
copper funnel: fill twenty bottles
button box: match one button
bread peel: get a ball down from a roof
ring of keys: try an old door
wooden sledge: pull firewood up the hill
paint box: letter a sign
felling axe: split a stump
fruit knife: cut some string
spirit level: hang a shelf
picking bag: collect windfalls
silver watch: time an egg
hat block: stretch a cap
steel ruler: measure a window
pair of scissors: cut out a curtain
shoe last: prop up a table
bone folder: fold two hundred notices
glove form: dry one mitten
tin lantern: find the cellar steps
chess board: learn the game
garden hoe: clear a ditch
iron skillet: fry eggs for eleven guests
ledger: check an old sum
egg tray: sort screws
nurse's bag: visit a sick cow
sowing basket: gather firewood
short scythe: cut the bank
wool comb: comb a wet dog
flat basket: dry some herbs
toll box: keep sugar dry
small scale: weigh a ring
reading lamp: look up a chimney
black notebook: write down a recipe
brick mould: shape a cheese
weather glass: plan a picnic
long rake: pull a hat out of the river
coil of chain: pull out a root
"""
USE: dict[str, str] = dict(r.split(": ") for r in _USE_TABLE.strip().splitlines())
LENDABLE = [t for t in BELONGINGS if t.name in USE]
SMALL_GOODS = [t for t in GOODS if not t.heavy]
_VILLAGE_NAMES = [v.name for v in VILLAGES]
_SITE_NAMES = [s.name for s in SITES]
ADULTS = [c for c in CHARACTERS if not c.child]
CHILDREN = [c for c in CHARACTERS if c.child]
KEEPERS = [CHARACTER[s.keeper] for s in SITES]
SITE_OF = {s.keeper: s for s in SITES}

_NUMBER = (
    "no one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty"
).split()

_MINUTE = {
    0: "{h}",
    5: "five past {h}",
    10: "ten past {h}",
    15: "a quarter past {h}",
    20: "twenty past {h}",
    25: "twenty-five past {h}",
    30: "half past {h}",
    35: "twenty-five to {n}",
    40: "twenty to {n}",
    45: "a quarter to {n}",
    50: "ten to {n}",
    55: "five to {n}",
}
_HOUR = "twelve one two three four five six seven eight nine ten eleven".split()
CLOCK = {h * 60 + m: _MINUTE[m].format(h=_HOUR[h % 12], n=_HOUR[(h + 1) % 12]) for h in range(24) for m in range(0, 60, 5)}


def span(minutes: int) -> str:
    """A stretch of time in words: 95 -> "1 hour and 35 minutes"."""
    hours, rest = divmod(minutes, 60)
    parts = []
    if hours:
        parts.append("1 hour" if hours == 1 else f"{hours} hours")
    if rest:
        parts.append(f"{rest} minutes")
    return " and ".join(parts)


# -- weather ---------------------------------------------------------------

# {V} a village, {D} a day of the week, {n} a small number.
WEATHER: dict[str, tuple[str, ...]] = {
    "fine": (
        "The morning was bright and still",
        "The sun was up before anybody at {V}",
        "It had not rained for {n} days",
        "The smoke at {V} went straight up",
        "It was a mild day, and doors stood open at {V}",
        "All of {V} was hanging out washing",
    ),
    "rain": (
        "It had rained since {D}",
        "It rained, and then it rained harder",
        "Rain ran down the lane at {V}",
        "A thin rain fell on {V} and on everything else",
        "It had been raining for {n} hours",
        "The gutters at {V} were full",
    ),
    "wind": (
        "The wind had been up all night",
        "A wind came down the valley from {V}",
        "The wind took {n} tiles off a roof at {V}",
        "It was so windy at {V} that the dogs walked sideways",
        "The wind had turned round and was coming from {V}",
    ),
    "fog": (
        "The fog was down as far as {V}",
        "There was fog on the river and fog at {V}",
        "At {V} nobody could see across the road",
        "The fog had not lifted since {D}",
        "The fog was so thick that {n} hens at {V} stayed in bed",
    ),
    "frost": (
        "There was ice on the pump at {V}",
        "It froze hard in the night",
        "The puddles at {V} had been frozen since {D}",
        "The grass at {V} was white and stiff",
        "It had been below freezing for {n} days",
    ),
    "heat": (
        "It was the hottest day for {n} years",
        "The road to {V} was white with dust",
        "It was too hot to argue",
        "The dogs at {V} had been lying down since {D}",
        "The tar was soft on the boats at {V}",
    ),
}
_KINDS = tuple(WEATHER)
_KIND_WEIGHTS = (0.24, 0.22, 0.16, 0.14, 0.12, 0.12)
_MINDS = {
    "fine": (", and nobody was in a hurry", ", which made people kind", ", and the river was low"),
    "rain": (", and the road was soft", ", and the ducks were pleased", ", so there was time to talk"),
    "wind": (", and hats were being held", ", and every gate was banging", ", so people shouted good morning"),
    "fog": (
        ", and people said who they were when they met",
        ", and sounds came from the wrong side",
        ", so everyone walked slowly",
    ),
    "frost": (", and the road rang like iron", ", and people walked with short steps", ", so stoves were lit early"),
    "heat": (", and shops kept their blinds down", ", and the milk had to be drunk early", ", so work began at five"),
}

_DEEDS = (
    "lost ", "found ", "sold ", "dropped ", "broke ", "won ", "gave away ", "hid ",
    "sat on ", "asked for ",
)  # fmt: skip
_SOME = tuple(_NUMBER[3:13])

# Something seen in passing; the three parts go together in any way.
_SEEN = (
    "A brown dog",
    "A hen",
    "Two ducks",
    "A cart horse",
    "A wet dog",
    "An old cow",
    "Three hens",
    "A pigeon",
    "Somebody's donkey",
    "A lame duck",
    "Two small dogs",
    "A black sheep",
    "A calf",
    "A fat pony",
    "Four sheep",
    "A cat with one ear",
    "A very small dog",
    "Two cows",
)
_DID = (
    "stood",
    "waited",
    "had stopped",
    "had sat down",
    "walked up and down",
    "made a noise",
    "was asleep",
    "was looking for something",
    "turned round twice",
    "ate something",
    "was in the way",
    "was walking backwards",
    "watched",
    "lay",
    "scratched",
    "would not move",
)
_DID_MANY = tuple(d.replace("was ", "were ") for d in _DID)
_BY = (
    "by the pump",
    "in the road",
    "at the gate",
    "by the wall",
    "under a cart",
    "on the step",
    "near the well",
    "beside the trough",
    "in the long grass",
    "behind a barrel",
    "in the doorway",
    "under the lime tree",
    "on the bench",
    "between two carts",
    "in a flower bed",
    "at the corner",
    "on a heap of sand",
    "next to the milk cans",
)
_ADVERBS = (
    " at last",
    " kindly",
    ", without looking up",
    " after a while",
    ", not very loudly",
    " at once",
    ", and sat down",
    " through the door",
    " in a low voice",
    ", and meant it",
    ", looking at the river",
    " with great care",
)
_BEATS = (
    "thought about this",
    "looked at the sky",
    "put down the cup",
    "waited a moment",
    "nodded",
    "looked at the door",
    "laughed",
    "sat down on the wall",
    "looked at the floor",
    "scratched one ear",
    "counted on the table",
    "opened a window",
)
_COLOURS = ("green", "red", "blue", "yellow", "white", "black", "grey", "brown")
_SPOTS = (
    "under the mat",
    "behind the clock",
    "in the flour bin",
    "on top of the cupboard",
    "in the left boot by the door",
    "under the stairs",
    "in the wood box",
    "behind the stove",
    "in the blue jug",
    "under a loose board",
    "in the bread crock",
    "among the coats",
    "in the rain barrel",
    "under the third chair",
)
_NOTHING = (
    "a button",
    "a dead wasp",
    "two walnuts",
    "a spoon",
    "an old bill",
    "a broken comb",
    "a bit of green ribbon",
    "half a biscuit",
    "a left glove",
    "three nails",
    "a cork",
    "a blunt pencil",
    "a ball of dust",
    "somebody's hat",
    "a bent fork",
    "an empty bottle",
    "a piece of string",
    "a dry bun",
    "a feather",
    "a letter from last year",
)
_SMELLS = (
    "bread",
    "tar",
    "wet wool",
    "onions",
    "soap",
    "apples",
    "smoke",
    "hay",
    "coffee",
    "new paint",
    "old paper",
    "mint",
    "candle wax",
    "fish",
    "warm dust",
    "leather",
    "rain",
)
_AFFAIRS = ("roof", "cough", "new hat", "garden", "plans", "chimney", "hens", "last letter", "knee", "old boat")
_INGREDIENTS = tuple(INGREDIENT_SOURCE)

_LIFE = (
    "home",
    "workplace",
    "trade",
    "manner",
    "born",
    "belonging",
    "species",
    "friend",
    "mother",
    "father",
    "brother",
    "sister",
    "wife",
    "husband",
    "birthday",
    "food",
)
_WHO = (
    # relation, words between the name and the object, what follows; {o} object
    ("home", ", who lives at "),
    ("trade", ", who works as "),
    ("workplace", ", who works at "),
    ("manner", ", who is known for "),
    ("born", ", who was born at "),
    ("belonging", ", who owns "),
)

_BAN_THINGS: dict[str, frozenset[str]] = {}
_BAN_NAMES: dict[str, frozenset[str]] = {}
for _who, _what in HELD_OUT_PAIRS:
    _BAN_THINGS[_who] = _BAN_THINGS.get(_who, frozenset()) | {_what}
    _BAN_NAMES[_what] = _BAN_NAMES.get(_what, frozenset()) | {_who}

_BARE = {c.name: [f for f in facts_about(c.name)] for c in CHARACTERS}
_OBJECT_THING = {t.a: t.name for t in BELONGINGS}


def _name_of(c: Character) -> str:
    return c.name


def _several(k: int) -> Callable[[Thing], str]:
    return lambda t: f"{_NUMBER[k]} {t.plural}"


def _owner_of(t: Thing) -> str:
    return t.owner


def _a_of(t: Thing) -> str:
    return t.a


def _workplace_of(c: Character) -> str:
    return c.workplace


def _home_of(c: Character) -> str:
    return c.home


def _first_of(pair: tuple) -> str:
    return pair[0]


_CLOSE = {c.name: frozenset(d.name for d in CHARACTERS if d.name == c.friend or kin_word(c.name, d.name)) for c in CHARACTERS}


def _itself(s: str) -> str:
    return s


def pronoun(c: Character, other: Character) -> str:
    """ "he" or "she" where that is clear beside `other`, else the name."""
    return c.he if c.he != other.he else c.name


def Pronoun(c: Character, other: Character) -> str:  # noqa: N802
    return c.he.capitalize() if c.he != other.he else c.name


_HE = {"he": "He", "she": "She"}
_HIS = {"his": "His", "her": "Her"}


class Tale:
    """The state of the valley during one story, and the pen that tells it."""

    def __init__(
        self, chance: Chance, cast_filter: Callable[[str], bool] | None = None, force: tuple[Character, Thing] | None = None
    ):
        self.chance = chance
        self.w = chance.write
        self.pick = chance.pick
        self.flip = chance.flip
        self.number = chance.number
        self.cast_filter = cast_filter
        self.force = force
        self.info = Story("")
        self.cast: list[Character] = []
        self.named: set[str] = set()
        self.ban_names: set[str] = set()
        self.ban_things: set[str] = set()
        self.told: set[tuple[str, str]] = set()
        self.holds: dict[str, str] = self.info.holds
        self.where: dict[str, str] = self.info.where
        self.day: int | None = None
        self.weather: str | None = None
        self.river = "low"
        self.night = False  # the plot plays at night
        self.parts = False  # parts of the day may be named
        self.used: set[str] = set()  # kinds of detail told
        self.hours = (8, 16)  # what the clock may say
        self.fresh = True  # at the start of a paragraph
        self.mark = 0  # where the last sentence begins

    # -- sentences ---------------------------------------------------------

    def say(self, *phrases: str, weights: tuple[float, ...] | None = None) -> str:
        """One of the wordings; the first is the likeliest, but not by much."""
        if weights is None:
            weights = _HALF[len(phrases)]
        return self.chance.say(*phrases, weights=weights)

    def sep(self) -> None:
        if self.fresh:
            self.fresh = False
        else:
            self.w(" ")
        self.mark = len(self.chance._pieces)

    def S(self, *phrases: str, weights: tuple[float, ...] | None = None) -> str:  # noqa: N802
        """A new sentence, or its beginning, in one of several wordings.

        Where it would begin with the subject of the sentence before, it may
        say "he" or "she".
        """
        if weights is None:
            weights = _HALF[len(phrases)]
        subject = None if self.fresh else self._subject()
        self.sep()
        if subject is not None:
            start = subject.name + " "
            if any(p.startswith(start) for p in phrases):
                he, cut = _HE[subject.he], len(subject.name)
                more, shares = [], []
                for phrase, weight in zip(phrases, weights):
                    if phrase.startswith(start) and phrase[cut : cut + 5] != " and ":
                        more.append(he + phrase[cut:])
                        shares.append(0.6 * weight)
                        weight *= 0.4
                    more.append(phrase)
                    shares.append(weight)
                return self.chance.say(*more, weights=tuple(shares))
        return self.chance.say(*phrases, weights=weights)

    def _subject(self) -> Character | None:
        """Whom "he" or "she" would mean now, if that is beyond doubt."""
        last = "".join(self.chance._pieces[self.mark :])
        if '"' in last:
            return None
        found = None
        for word in last.replace(",", " ").replace(".", " ").replace("'", " ").split():
            c = CHARACTER.get(word)
            if c is not None and c is not found:
                if found is None:
                    if not last.startswith(word) and not last.startswith("Then " + word):
                        return None
                    found = c
                elif c.he == found.he:
                    return None
        return found

    def par(self, p: float = 0.0, *kinds: str) -> None:
        """A new paragraph, which may begin with something by the way."""
        self.w("\n\n")
        self.fresh = True
        if p:
            self.detail(p, *kinds)

    # -- casting -----------------------------------------------------------

    def _meet(self, c: Character) -> None:
        if c.name not in self.named:
            self.named.add(c.name)
            self.info.characters.append(c.name)
            self.ban_things |= _BAN_THINGS.get(c.name, frozenset())

    def enter(self, c: Character) -> Character:
        """`c` takes part."""
        self._meet(c)
        self.cast.append(c)
        return c

    def allowed(self, c: Character) -> bool:
        return c.name not in self.named and c.name not in self.ban_names and (self.cast_filter is None or self.cast_filter(c.name))

    def person(self, pool: list[Character] = CHARACTERS, near: Character | None = None) -> Character:
        """Somebody new, whose name is the next thing written.

        With `near`, kin and the best friend are likelier.
        """
        if self.force is not None and self.force[0].name not in self.named:
            return self.enter(self.force[0])
        named, banned, keep = self.named, self.ban_names, self.cast_filter
        free = [c for c in pool if c.name not in named and c.name not in banned]
        if keep is not None:
            free = [c for c in free if keep(c.name)] or free
        weights = None
        if near is not None:
            close = _CLOSE[near.name]
            weights = tuple([8.0 if c.name in close else 1.0 for c in free])
        if not free:
            free = [c for c in CHARACTERS if c.name not in named and c.name not in banned]
            weights = None
        return self.enter(self.pick(free, weights, said=_name_of))

    def use(self, thing: Thing) -> Thing:
        if thing.name not in self.info.things:
            self.info.things.append(thing.name)
            self.ban_names |= _BAN_NAMES.get(thing.name, frozenset())
        return thing

    def thing(self, pool: list[Thing], said=_a_of) -> Thing:
        """A thing, which is the next thing written (with its article)."""
        banned, used = self.ban_things, self.info.things
        free = [t for t in pool if t.name not in banned and t.name not in used]
        return self.use(self.pick(free, said=said))

    def owned(self, pool: list[Thing] = LENDABLE, said=_owner_of) -> tuple[Character, Thing]:
        """An owner and the belonging; the owner's name is the next thing written."""
        if self.force is not None:
            thing = self.force[1]
            owner = CHARACTER[thing.owner]
            self.ban_things -= {thing.name}
        else:
            banned, names, keep = self.ban_things, self.named, self.cast_filter
            free = [t for t in pool if t.name not in banned and t.owner not in names]
            if keep is not None:
                free = [t for t in free if keep(t.owner)] or free
            thing = self.pick(free, said=said)
            owner = CHARACTER[thing.owner]
        self.enter(owner)
        self.use(thing)
        self.holds[thing.name] = owner.name
        return owner, thing

    def village(self, *but: str) -> str:
        """A village, whose name is the next thing written."""
        return self.pick([v for v in _VILLAGE_NAMES if v not in but], said=_itself)

    # -- facts -------------------------------------------------------------

    def _may(self, fact: Fact) -> bool:
        if (fact.subject, fact.relation) in self.told:
            return False
        thing = _OBJECT_THING.get(fact.object)
        if thing is not None and (thing in self.ban_things or any(n in self.named for n in _BAN_NAMES.get(thing, ()))):
            return False
        return fact.object not in self.ban_names

    def _state(self, fact: Fact) -> None:
        self.told.add((fact.subject, fact.relation))
        self.info.facts.append(fact)
        if fact.object in CHARACTER:
            self._meet(CHARACTER[fact.object])
        elif fact.object in _OBJECT_THING:
            name = _OBJECT_THING[fact.object]
            self.ban_names |= _BAN_NAMES.get(name, frozenset())

    def tell(self, subject: str, relation: str) -> bool:
        """State a fact as a sentence of its own, if there is one to state."""
        fact = FACT.get((subject, relation))
        if fact is None or not self._may(fact):
            return False
        self.sep()
        self.w(statement(fact))
        self._state(fact)
        return True

    def aside(self, subject: str, relations: tuple[str, ...] = _LIFE) -> None:
        """One plain sentence about somebody or something, if any is left."""
        free = [f for f in facts_about(subject) if f.relation in relations and self._may(f)]
        if free:
            self.sep()
            fact = self.pick(free, said=statement)
            self.w(statement(fact))
            self._state(fact)

    def first(self, c: Character, comma: bool = True, kin: Character | None = None, plain: float = 0.3) -> None:
        """Name somebody for the first time, with or without a word about them.

        `comma=False`: no comma closes a relative clause (a full stop follows).
        `kin`: say what `c` is to them, when they are of one family.
        """
        self.w(c.name)
        word = kin_word(kin.name, c.name) if kin is not None else ""
        if word and self.flip(0.75):
            self.w(f", {kin.his} {word},"[: None if comma else -1])
            return
        if self.flip(plain):
            return
        if self.flip(0.35):
            if (c.name, "species") not in self.told:
                self.told.add((c.name, "species"))
                self.info.facts.append(FACT[c.name, "species"])
            self.w(f" the {c.species}")
            return
        free = []
        for relation, words in _WHO:
            fact = FACT[c.name, relation]
            if self._may(fact):
                free.append((words + fact.object, fact))
        words, fact = self.pick(free, said=_first_of)
        self.w(words)
        if comma:
            self.w(",")
        self._state(fact)

    # -- ways to begin, to pass time, to speak ------------------------------

    def lead(self, kinds: tuple[str, ...] = _KINDS, sky: float = 0.4, parts: bool = False) -> None:
        """Weather, or the day, or the hour, or nothing; a name follows.

        `parts`: the day may be a morning or an evening, for a plot in which
        no shop need be open.
        """
        self.parts = parts and not self.night
        if self.flip(sky):
            self.sky(kinds)
            self.w(" ")
        form = self.pick((0, 1, 2), (0.62, 0.38, 0) if "clock" in self.used else (0.62, 0.26, 0.12))
        if form == 0:
            self.a_day()
        elif form == 2:
            self.w("At ")
            low, high = self.hours
            self.w(CLOCK[60 * self.number(low, high) + 5 * self.number(0, 11)])
            self.w(" ")
            self.used.add("clock")
        self.fresh = False

    def a_day(self) -> None:
        """ "On Monday morning " """
        if self.night:
            start = self.say(*_NIGHTS)
        elif self.parts:
            start = self.say(*_STARTS, weights=(0.5, 0.16, 0.1, 0.08, 0.08, 0.05, 0.03))
        else:
            start = self.say("On ", "One ", "Last ", "On the first ", weights=(0.6, 0.22, 0.1, 0.08))
        self.day = self.number(0, 6)
        self.w(DAYS[self.day])
        if start == "On the first ":
            month = self.pick(_MONTHS.get(self.weather, _MONTHS["fine"]))
            self.w(f" in {month}")
        elif self.parts and start in ("On ", "One ", "Last "):
            part = self.say(
                "", " morning", " afternoon", " evening",
                weights=(0.4, 0.35, 0.15, 0.1),
            )  # fmt: skip
            if part:
                self.hours = _PART[part]
        elif self.parts and start in _PART:
            self.hours = _PART[start]
        if self.hours[1] > 16:
            self.used.update(("work", "eats"))
        self.w(" ")

    def sky(self, kinds: tuple[str, ...] = _KINDS) -> None:
        """A sentence of weather, with its point."""
        if kinds is _KINDS:
            kind = self.pick(_KINDS, _KIND_WEIGHTS)
        else:
            kind = self.pick(kinds)
        self.weather = kind
        self.sep()
        pattern = rest = self.pick(WEATHER[kind], _WEIGHTS[len(WEATHER[kind])])
        while rest:
            before, mark, rest = _CUT[rest]
            self.w(before)
            if mark == "V":
                self.w(self.pick(_VILLAGE_NAMES, said=_itself))
            elif mark == "D":
                self.w(self.pick(DAYS, said=_itself))
            elif mark == "n":
                self.w(self.pick(_SOME, said=_itself))
        if not (kind == "heat" and pattern.startswith("It was too")) and self.flip(0.4):
            self.say(*_MINDS[kind])
        self.w(".")

    def seen(self) -> None:
        """Something seen in passing."""
        self.sep()
        subject = self.say(*_SEEN, weights=_HALF[len(_SEEN)])
        many = subject.startswith(("Two", "Three", "Four"))
        self.w(" ")
        self.say(*(_DID_MANY if many else _DID), weights=_HALF[len(_DID)])
        self.w(" ")
        self.say(*_BY, weights=_HALF[len(_BY)])
        self.w(".")

    def detail(self, p: float, *kinds: str) -> None:
        """Something by the way, of one of these kinds; each kind once a story."""
        while True:
            free = [k for k in (kinds or OUT) if k not in self.used]
            if not free or not self.flip(p):
                return
            kind = self.pick(free)
            self.used.add(kind)
            getattr(self, kind)()
            p *= 0.35

    def remember(self) -> None:
        """Somebody is reminded of something else."""
        a = self.cast[0].name
        form = self.S(
            '"You remember when ', f"{a} told how ", '"It is like the time when ', f"{a} had heard that ",
            '"They say that ', f"{a} asked if it was true that ",
        )  # fmt: skip
        c = self.person()
        self.w(c.name + " ")
        self.say(*_DEEDS, weights=_EVEN[len(_DEEDS)])
        self.w(self.thing(_CARRIED).a)
        self.say(" at ", " on the road to ", " in front of everybody at ", " behind the barn at ")
        self.w(self.village())
        if form[0] == '"':
            self.w("?" if form[1] == "Y" else ",")
            self.say(f'" {"asked" if form[1] == "Y" else "said"} {a}.', f'" {a} {"asked" if form[1] == "Y" else "said"}.')
        else:
            self.w(".")

    def work(self) -> None:
        """What somebody is doing elsewhere."""
        self.S("Over at ", "At ", "From the road one could see that at ", "In the meantime, at ")
        free = [c for c in CHARACTERS if c.name not in self.named and c.name not in self.ban_names]
        c = self.pick(free, said=_workplace_of)
        self._meet(c)
        self.w(c.workplace)
        self.say(f", {c.name} was ", f" {c.name} was ")
        self.small_talk(c)
        self.w(".")

    def eats(self) -> None:
        """What somebody has for lunch: the favourite dish, at home."""
        self.S("At ", "Over at ")
        free = [
            c for c in CHARACTERS if c.name not in self.named and c.name not in self.ban_names and c.food not in self.ban_things
        ]
        c = self.pick(free, said=_home_of)
        self._meet(c)
        self.w(c.home)
        self.say(f", {c.name} was ", f" {c.name} was ")
        self.say("eating ", "cutting up ", "thinking of ", "looking forward to ")
        self.use(THING[c.food])
        self.w(c.food + ".")

    def notice(self) -> None:
        """A notice on a wall."""
        self.S(
            "A notice on the pump said: ",
            "On the gate hung a notice: ",
            "Somebody had chalked on the wall: ",
            "There was a card in a window: ",
        )
        self.say("lost, ", "for sale, ", "found, ", "wanted, ", weights=_EVEN[4])
        self.w(self.thing(_CARRIED).a)
        if self.flip(0.5):
            self.w(" at ")
            self.w(self.village())
        self.w(", ask ")
        c = self.person()
        self.w(c.name + ".")

    def stock(self) -> None:
        """What stands about."""
        self.S("On the shelf stood ", "On the floor were ", "There were ", "In the corner somebody had piled up ")
        n = self.pick((2, 3), (0.6, 0.4))
        for i in range(n):
            k = self.number(2, 6)
            word = _NUMBER[k]
            th = self.thing(_CARRIED, said=_several(k))
            self.w(f"{word} {th.plural}")
            self.w("." if i == n - 1 else " and " if i == n - 2 else ", ")

    def visitor(self) -> None:
        """Somebody looks in, wanting something else."""
        self.S("Meanwhile ", "At that moment ", "Before anything more was said, ", "Just then ")
        c = self.person()
        self.w(c.name)
        self.say(" looked in", " came in", " put a head round the door", " came by")
        self.say(" to borrow ", " to ask for ", " to bring back ", " and tried to sell ", " and admired ")
        self.w(self.thing(_CARRIED).a)
        self.say(".", " and went away again.", ", but it was the wrong day.", " and was asked to wait.", " and stayed.")

    def walk(self) -> None:
        """What is on the way."""
        self.S("The way led through ", "The road goes by ", "It is best to go by ")
        one = self.village()
        self.w(f"{one} and ")
        self.w(self.village(one))
        self.w(", where ")
        c = self.person()
        self.w(c.name)
        self.say(" was ", " stood ", " sat on a wall, ")
        verb = self.say("selling ", "unloading ", "counting ", "looking for ")
        if verb == "looking for ":
            self.w(self.thing(_CARRIED).a + ".")
        else:
            k = self.number(2, 9)
            word = _NUMBER[k]
            th = self.thing(_CARRIED, said=_several(k))
            self.w(f"{word} {th.plural}.")

    def went(self) -> None:
        """Somebody goes by with something."""
        form = self.S(
            "Down the road came ", "Past the door went ", "Just then ", "At the corner stood ",
            "Round the corner came ", "On a cart sat ", weights=_EVEN[6],
        )  # fmt: skip
        c = self.person()
        self.w(c.name)
        if form == "Just then ":
            self.w(" went by")
        self.w(" with ")
        th = self.thing(_CARRIED)
        self.w(th.a)
        self.holds[th.name] = c.name
        if form in _PASSING:
            self.say(
                ".",
                ", and asked what was going on.",
                " and did not stop.",
                ", nodded, and was gone.",
                " under one arm." if th.kind == "goods" else ", still warm.",
                ", and was told the whole story.",
                " and a long face.",
            )
        else:
            self.say(
                ".",
                ", and said that this was nothing new.",
                ", waiting for somebody.",
                " and a long face.",
                ", and gave advice.",
                ", and was told the whole story.",
            )
        self.ask(f"Who had {th.a}?", c.name)

    def talk(self) -> None:
        """What the two of them talked about."""
        form = self.S("They talked about ", "There was talk of ", "They spoke of ", "First they had to talk about ")
        self.topic()
        if self.say(" and ", ", and then about " if form.endswith("about ") else ", and then of ", ".") != ".":
            self.topic()
            self.w(".")

    def topic(self) -> None:
        kind = self.pick((0, 1, 2, 3), (0.3, 0.3, 0.2, 0.2))
        if kind < 2:
            named, bad, keep = self.named, self.ban_names, self.ban_things
            free = [c for c in CHARACTERS if c.name not in named and c.name not in bad and (kind == 1 or c.belonging not in keep)]
            c = self.pick(free, said=_name_of)
            self._meet(c)
            self.w(c.name)
            if kind == 0:
                self.w(f"'s {c.belonging}")
                self.use(THING[c.belonging])
            else:
                self.w("'s ")
                self.w(self.pick(_AFFAIRS, said=_itself))
        elif kind == 2:
            self.w("the price of ")
            self.w(self.pick(_INGREDIENTS, said=_itself))
        else:
            self.w("the road to ")
            self.w(self.village())

    def smell(self) -> None:
        self.S("It smelled of ", "There was a smell of ", "The air smelled of ")
        one = self.pick(_SMELLS, said=_itself)
        self.w(one)
        self.say(" and ", ", and a little of ")
        self.w(self.pick([x for x in _SMELLS if x != one], said=_itself))
        self.w(".")

    def clock(self) -> None:
        """The time, in keeping with the part of the day."""
        self.S("It was ", "The clock said ", "By the tower clock it was ")
        low, high = self.hours
        self.w(CLOCK[60 * self.number(low, high) + 5 * self.number(0, 11)])
        self.say(".", ", or a little later.", ", and the day was not over." if high < 18 else ", and nobody was asleep.")

    def table(self) -> None:
        self.S("On the table were ", "In the window lay ", "On the step somebody had left ", "On the wall lay ")
        one = self.pick(_NOTHING, said=_itself)
        self.w(one)
        self.w(" and ")
        self.w(self.pick([x for x in _NOTHING if x != one], said=_itself))
        self.w(".")

    def days_later(self, most: int = 3) -> int:
        """ "On Thursday" or "Two days later"; moves the day. A comma follows."""
        n = self.number(1, most)
        self.sep()
        if self.day is not None:
            self.day = (self.day + n) % 7
            if self.flip(0.6):
                self.w(f"On {DAYS[self.day]}")
                return n
        self.w("The next day" if n == 1 else f"{_NUMBER[n].capitalize()} days later")
        return n

    def speak(self, c: Character, *lines: str, other: Character | None = None) -> str:
        """Direct speech; lines carry no final point, but may carry "?"."""
        he = c.he if other is None or other.he != c.he else c.name
        self.sep()
        form = self.pick((0, 1, 2), (0.62, 0.24, 0.14))
        if form == 0:
            self.w('"')
            line = self.say(*lines)
            asks = line[-1] == "?"
            self.w('" ' if asks else '," ')
            verb = "asked" if asks else "said"
            self.say(f"{verb} {c.name}", f"{he} {verb}", weights=(0.6, 0.4))
            if self.flip(0.25):
                self.say(*_ADVERBS)
            self.w(".")
            return line
        if form == 1:
            self.w(f"{c.name} ")
            self.say(*_BEATS)
            self.w('. "')
        else:
            self.w(f'{c.name} said, "')
        line = self.say(*lines)
        self.w('"' if line[-1] == "?" else '."')
        return line

    def small_talk(self, c: Character) -> None:
        """Where somebody is found, and doing what."""
        self.say(*DOING[c.trade])

    # -- the record ----------------------------------------------------------

    def ask(self, question: str, answer: str, *aliases: str) -> None:
        self.info.questions.append(Question(question, answer, aliases))

    def unasked(self, question: str) -> None:
        self.info.unanswered.append(question)

    def give(self, thing: Thing, to: Character) -> None:
        self.holds[thing.name] = to.name


def _zipf_weights(n: int) -> tuple[float, ...]:
    return tuple(1.0 / (i + 1) for i in range(n))


_MONTHS = {
    "frost": ("January", "December", "February"),
    "heat": ("June", "July", "August"),
    "fine": ("March", "May", "September", "October"),
}
_STARTS = ("On ", "One ", "Early on ", "Late on ", "Last ", "At noon on ", "On the first ")
_NIGHTS = (
    "In the night to ", "Very late on ", "Late on ", "On the night of ",
    "After midnight, on ", "In the middle of the night to ", "Before it was light, on ",
)  # fmt: skip
_PART = {
    " morning": (8, 11),
    " afternoon": (13, 16),
    " evening": (18, 20),
    "Early on ": (6, 8),
    "Late on ": (17, 19),
    "At noon on ": (12, 12),
}
_PASSING = ("Down the road came ", "Past the door went ", "Just then ", "Round the corner came ")
# Kinds of detail for the open air, the road, a room, and two who talk.
OUT = ("seen", "went", "clock", "work", "notice", "eats")
WAY = ("walk", "seen", "went", "notice", "work")
ROOM = ("smell", "table", "stock", "visitor", "clock")
TALK = ("talk", "remember", "visitor")
_CARRIED = SMALL_GOODS + FOODS
_HALF = {n: tuple((1 + i) ** -0.5 for i in range(n)) for n in range(1, 40)}
_EVEN = {n: (1.0,) * n for n in range(1, 40)}
_WEIGHTS = {n: _zipf_weights(n) for n in range(1, 40)}


def _cut(pattern: str) -> tuple[str, str, str]:
    """Split at the first mark: text before, the mark's letter, text after."""
    if "{" not in pattern:
        return pattern, "", ""
    at = pattern.index("{")
    return pattern[:at], pattern[at + 1], pattern[at + 3 :]


_CUT: dict[str, tuple[str, str, str]] = {}
for _patterns in WEATHER.values():
    for _pattern in _patterns:
        while _pattern not in _CUT:
            _CUT[_pattern] = _cut(_pattern)
            _pattern = _CUT[_pattern][2]


# -- plots -------------------------------------------------------------------
# Each tells one story through `t`; names of people are in capitals (A, B, C).


def _ending(t: Tale, a: Character, b: Character) -> None:
    """One more sentence, now and then, when the matter is settled."""
    if not t.flip(0.45):
        return
    A, B = a.name, b.name
    which = t.pick((0, 1, 2, 3, 4, 5), (0.25, 0.16, 0.2, 0.14, 0.12, 0.13))
    if which == 0:
        t.S(f"Then {A} went home to {a.home}.", f"{A} went home to {a.home} the long way.",
            f"It was dark when {A} got home to {a.home}.", f"At {a.home} they wanted to hear it twice.",
            f"All the way home to {a.home}, {A} sang.", weights=_EVEN[5])  # fmt: skip
    elif which == 1:
        t.S("There was ")
        food = t.thing(FOODS, said=_name_of)
        t.w(food.name)
        t.say(" for supper.", f" for supper at {a.home}.", ", and not much was left of it.")
    elif which == 2:
        t.S(f"{B} put the kettle on.", f"{B} shut the door, and opened it again for the dog.",
            f"{B} never spoke of it again.", f"{B} still tells it.", f"{B} went back to {DOING[b.trade][0]}.",
            f"{B} went on {DOING[b.trade][1]}.", f"{B} laughed about it on Sunday.", f"{B} wrote it on the calendar.",
            f"{B} had a second cup.", f"{B} slept well.", weights=_EVEN[10])  # fmt: skip
    elif which == 3:
        t.S("They ", f"{A} and {B} ")
        t.say("sat on the wall until the lamps were lit.", "shook hands on it.", "talked of other things.",
              "walked as far as the pump together.", "had tea.")  # fmt: skip
    elif which == 4:
        t.S("Nobody at ")
        t.w(t.village())
        t.say(" has heard about it yet.", " was surprised.", " knew what to say.", " had seen a thing.")
    else:
        t.S("By then it was ")
        t.say("dark.", "time to feed the hens.", "raining a little." if t.weather in (None, "wind") else "getting late.",
              "too late for the post.", "nearly supper time.")  # fmt: skip


def lent(t: Tale) -> None:
    """A thing is lent, and lent on, and asked for."""
    form = t.pick((0, 1, 2), (0.55, 0.25, 0.2))
    if form < 2:
        t.lead(parts=True)
        a, th = t.owned()
    else:
        plea = t.S('"Could you lend me ', '"I need ', '"I have to borrow ')
        a, th = t.owned(said=_a_of)
        t.w(f'{th.a}?" asked ' if plea == '"Could you lend me ' else f'{th.a}," said ')
    A, x = a.name, th.name
    intro = form == 0
    if intro:
        t.first(a)
        t.say(" lent ", " had lent ", " agreed to lend ")
    elif form == 1:
        t.w(f"{A} owns {th.a}")
        t._state(FACT[A, "belonging"])
        t.say(", but had lent ", ", and thought nothing of it when lending ", ", and does not like to lend it, but did lend ")
    if form < 2:
        t.w(f"{a.his} {x} to " if intro else "it to ")
        b = t.person(near=a)
        B = b.name
        t.first(b, kin=a)
        t.say(f" so that {b.he} could {USE[x]}.", f" for a day, to {USE[x]}.", f" because {b.he} had to {USE[x]}.")
    else:
        b = t.person(near=a)
        B = b.name
        t.first(b, comma=False, kin=a)
        t.w(".")
        t.S(f"It was to {USE[x]}.", f"{_HE[b.he]} wanted to {USE[x]}.")
        t.tell(A, "belonging")
        t.S(f"{A} took it down from the wall.", f"{A} handed it over.", f'"That depends," said {A}, and gave it to {b.him}.')
    t.give(th, b)
    back = t.pick((0, 1, 2), (0.5, 0.3, 0.2))
    day = ""
    if back == 0:
        t.S('"I want it back by ', '"Bring it back on ', '"You may keep it until ')
        day = t.pick([d for d in DAYS if t.day is None or d != DAYS[t.day]], said=_itself)
        t.w(f'{day}," said {A}.')
        t.S('"Before that,"', '"You shall have it sooner,"', '"Of course,"', f'"{day}, then,"')
        t.say(f" said {B}.", f" {b.he if b.he != a.he else B} replied.")
    elif back == 1:
        t.speak(b, "You will have it back before you miss it", "I shall be careful with it", "It is only for today", other=a)
    else:
        t.S(f"{A} did not say for how long, and {B} did not ask.", "Nothing was said about when.")
    t.ask(f"Who borrowed the {x} from {A}?", B)
    t.ask(f"Why did {B} want the {x}?", f"To {USE[x]}", USE[x])
    t.ask(f"Whose {x} was it?", f"{A}'s", A)
    if day:
        t.ask(f"When did {A} want the {x} back?", f"On {day}", day, f"by {day}")
    else:
        t.unasked(f"On which day did {A} want the {x} back?")
    t.detail(0.95, *TALK, "seen")
    on = t.flip(0.62)
    last = b
    if on:
        t.S("But ", f"{B} had hardly begun when ", "That would have been all, but ", "Then ")
        c = t.person(near=b)
        t.first(c, kin=b)
        t.say(
            " came by and asked for it.",
            " saw it and needed it more.",
            " wanted it too, and looked so tired.",
            " took it away to look at it.",
        )
        t.S(f"{B} ", f"Since {A} was not there to ask, {B} ")
        t.say(
            f"handed over the {x}.",
            f"let {c.him} have the {x}." if b.he != c.he else f"let {c.name} have the {x}.",
            f"gave the {x} to {c.name}.",
        )
        t.give(th, c)
        last = c
        if t.flip(0.22):
            t.S("By evening ", "An hour later ")
            d = t.person(near=c)
            t.w(d.name)
            t.say(" had it.", " was holding it.")
            t.S(f"{c.name} could not say how.", f"It had been {c.name}'s idea.")
            t.give(th, d)
            last = d
    t.par()
    t.hours = (9, 16)
    t.days_later()
    t.w(f", {A} went to ")
    t.w(f"{b.home} and knocked." if t.flip(0.6) else f"see {B} at {b.home}.")
    t.where[A] = b.home
    t.detail(0.8, *ROOM)
    t.speak(a, f"I have come for my {x}", f"Where is my {x}?", f"Are you done with my {x}?", other=b)
    L = last.name
    if last is b:
        end = t.pick((0, 1, 2), (0.5, 0.3, 0.2))
        if end == 0:
            t.S(
                f"{B} had it ready, wiped clean.",
                f"{B} fetched it at once, with a jar of jam on top.",
                f"It was on the table, wrapped in a cloth. {B} had not used it yet.",
            )
            t.give(th, a)
            t.S(f"{A} took the {x} home.", f"{A} carried the {x} home under one arm.")
        elif end == 1:
            t.speak(b, "One more day", "I have not begun", "It is going so well", other=a)
            t.S(
                f"{A} sighed and left it there.",
                f"So {A} went home without it.",
                f"{A} stayed and helped, and left the {x} where it was.",
            )
        else:
            t.S(f"{B} had grown fond of it, and it showed.", f"{B} looked so sorry that {A} had to laugh.")
            t.speak(a, "Keep it till the spring", "Keep it, then, and lend it to me", "I can always come here to use it", other=b)
    else:
        t.S('"', f'{B} went red. "')
        t.say(f"{L} has it", f"I think {L} has it", f"You had better ask {L}")
        t.w(f'," said {B}.')
        if t.tell(L, "home"):
            t.S(f"{A} walked there", f"So {A} went on")
            t.say(".", ", and it was not a short walk.", ", talking the whole way.")
            t.where[A] = last.home
        end = t.pick((0, 1, 2), (0.5, 0.3, 0.2))
        if end == 0:
            t.S(
                f"{L} gave it back without a word",
                f"{L} was just washing it, and gave it back",
                f"{L} had thought it was {B}'s, and gave it back",
            )
            t.say(".", f", and {A} was home before dark.", " with a bag of plums.")
            t.give(th, a)
        elif end == 1:
            t.S(f"{L} was up to the elbows in work and had nearly finished.", f"{L} was using it, and using it well.")
            t.S(
                f"{A} watched for a while, learned something, and left it there.",
                f"{A} held the other end, and said that {last.he} might keep it for the week.",
                f"{A} said tomorrow would do.",
            )
        else:
            t.S(f"{L} was out.", f"Nobody was at home at {last.home}.")
            t.S(
                f"The {x} lay in the window, where {A} could see it and not reach it.",
                f"Through the window {A} could see the {x} on the table.",
            )
    t.ask(f"Who has the {x} at the end?", t.holds[x])
    t.ask(f"Where did {A} go to ask for the {x}?", f"To {b.home}", b.home, f"at {b.home}")
    if last is not b:
        t.ask(f"Who said where the {x} was?", B)
    t.unasked(f"How much had {A} paid for the {x}?")
    t.info.summary = f"{A} lent {a.his} {x} to {B}, and at the end {t.holds[x]} had it."
    _ending(t, a, b)


def lost_key(t: Tale) -> None:
    """A keeper cannot open; the key turns up where nobody looked."""
    t.used.add("clock")
    t.lead()
    a = t.person(KEEPERS)
    A = a.name
    site = SITE_OF[A]
    t.told.add((A, "workplace"))
    t.first(a)
    t.say(f" could not open {site.name}.", f" stood in front of {site.name} without a key.",
          f" had lost the key of {site.name}.", f" came to open {site.name} and found no key.")  # fmt: skip
    t.where[A] = site.name
    t.used.add("clock")
    if t.flip(0.6):
        t.tell(site.name, "opens")
        t.S("It was ", "By the tower clock it was ")
        clock = CLOCK[site.opens * 60 + 5 * t.number(1, 10)]
        t.w(clock + ".")
        t.ask(f"What time was it when {A} had no key?", clock)
    else:
        t.unasked(f"At what time did {A} find that the key was gone?")
    many = t.number(0, 2)
    names = []
    for i in range(many):
        t.sep()
        b = t.person()
        names.append(b.name)
        t.first(b)
        if i == 0:
            t.say(" was already waiting", " was first in line", " had come early and was sorry now", " was sitting on the step")
        else:
            t.say(" came next", " stood behind", " arrived with a basket", " said that this was always so")
        if t.flip(0.35):
            t.say(", with ", ", holding ")
            th = t.thing(_CARRIED)
            t.holds[th.name] = b.name
            t.w(th.a)
            t.ask(f"Who had {th.a}?", b.name)
        t.w(".")
    t.S(f"{A} looked ", f"{A} had looked ", "They looked ")
    spots: list[str] = []
    n = t.pick((1, 2, 3), (0.25, 0.45, 0.3))
    for i in range(n):
        spots.append(t.pick([p for p in _SPOTS if p not in spots], said=_itself))
        t.w(spots[-1])
        t.w("." if i == n - 1 else ", " if i < n - 2 else " and ")
    if t.flip(0.5):
        t.S("There was only ", f"All {A} found was ", f"This is what {A} found: ")
        one = t.pick(_NOTHING, said=_itself)
        t.w(one)
        if t.flip(0.5):
            t.w(" and ")
            t.w(t.pick([x for x in _NOTHING if x != one], said=_itself))
        t.w(".")
    t.par(0.7, "seen", "went", "work")
    end = t.pick((0, 1, 2, 3), (0.35, 0.27, 0.2, 0.18))
    if end == 0:
        t.S("Then ", "After a while ", f"It was nearly {hour_words(site.opens + 1)} when ")
        c = t.person(near=a)
        C = c.name
        t.first(c, kin=a)
        t.say(" came up the road with the key on a string.", " held up a key.", " came out of the next house with the key.")
        t.speak(
            c,
            "You left it at my house last night",
            "You gave it to me so that you would not lose it",
            "It was in my coat, which is to say your coat",
            other=a,
        )
        t.S(f"{A} remembered.", f"{A} said that this was quite right.", f"{A} put on the coat and did not say much.")
        t.ask("Who had the key?", C)
        t.info.summary = f"{A} could not open {site.name} because {C} had the key."
        finder = c
    elif end == 1:
        t.S("The key was in the door.", "The key was in the lock, where keys go.")
        t.S(
            f"It had been there all night, and {site.name} had been open the whole time.",
            "Nobody had tried the handle.",
            f"Anyone could have walked in, and it turned out that {names[0] if names else 'the dog'} had.",
        )
        t.ask("Where was the key?", "In the door", "in the lock")
        t.info.summary = f"{A} looked for the key of {site.name}, and it was in the door."
        finder = a
    elif end == 2:
        t.S("So ", "In the end ")
        c = t.person(CHILDREN)
        C = c.name
        t.first(c)
        t.say(" was lifted through the window", " went in by the coal hole", " climbed in over the roof")
        t.say(
            " and opened from inside.",
            " and came out again with a bun and the news that there was a second key.",
            ", and was in there rather long.",
        )
        t.ask(f"Who got into {site.name} without the key?", C)
        t.unasked("Who found the key in the end?")
        t.info.summary = f"{A} had no key, and {C} got into {site.name} another way."
        finder = c
    else:
        t.S(
            "They took the door off.",
            "In the end the door came off its hinges.",
            "So the door was lifted out, which took four of them.",
        )
        t.S("Then it was found that ", "With the door down, it was clear that ")
        t.say(
            f"the key was in {A}'s hat.",
            "the key had been hanging on the inside.",
            "this was the key of the hen house, and the hen house had never been locked.",
        )
        t.unasked("Who had hidden the key?")
        t.info.summary = f"{A} could not find the key of {site.name}."
        finder = a
    if names:
        t.ask("Who was waiting first?", names[0])
    t.ask("Where did " + A + " look first?", spots[0].capitalize(), spots[0])
    t.ask(f"What could {A} not open?", site.name.capitalize(), site.name)
    _ending(t, a, finder)


_FLOOD = (
    "The river had come up in the night",
    "It had rained in the hills, and now the river was brown and fast",
    "The Wend was over its banks",
    "The water was up to the third step at the landing",
    "After a week of rain the river was twice as wide",
)


def ferry(t: Tale) -> None:
    """The river is up, the ferry does not run, and somebody has to get across."""
    wren = CHARACTER["Wren"]
    t.river = "flood"
    t.S(*_FLOOD)
    t.say(", and the ferry did not run.", ", and the ferry was tied to the alder with nobody in it.",
          ". The ferry lay upside down on the grass.", ", and no ferry could cross it.")  # fmt: skip
    t.enter(wren)
    t.detail(0.6, "seen", "clock", "smell")
    t.sep()
    north = [c for c in ADULTS if PLACE[c.home].bank == "north" and c is not wren]
    south = [c for c in CHARACTERS if PLACE[c.home].bank == "south"]
    a = t.person(north)
    A = a.name
    t.first(a)
    t.say(" stood at the ferry landing with ", " had come to the ferry landing with ", " waited at the landing, holding ")
    th = t.thing(FOODS + SMALL_GOODS)
    x = th.name
    t.w(f"{th.a} for ")
    b = t.person(south, near=a)
    B = b.name
    t.first(b, comma=False, kin=a)
    t.w(".")
    t.where[A] = "the ferry landing"
    t.holds[x] = A
    t.aside(B, ("home", "birthday", "food") if b.food == x else ("home", "birthday"))
    if t.flip(0.4):
        t.tell("the ferry landing", "keeper")
    t.S('"You could wait," ', '"Not today," ', '"You see how it is," ')
    t.say(
        "said Wren.", "said Wren, who was reading the water.", "said Wren, and went on bailing.", "said Wren from under the alder."
    )
    t.S('"Till when?"', '"How long?"', '"And tomorrow?"')
    t.S(
        '"Till it goes down."',
        '"Ask the river."',
        '"It is still coming up."',
        '"It fell by an inch since breakfast. Or the post rose."',
    )
    t.ask(
        "Why did the ferry not run?",
        "The river was too high",
        "because the river was high",
        "the river was in flood",
        "the river was up",
    )
    t.ask(f"For whom was the {x}?", f"For {B}", B)
    t.detail(0.95, "talk", "went", "table", "remember", "stock")
    end = t.pick((0, 1, 2, 3), (0.32, 0.28, 0.22, 0.18))
    t.par()
    if end == 0:
        if th.kind == "food":
            t.S(f"{A} thought about this. Then {A} gave Wren half of the {x}, and they sat on the wall and ate it.",
                f"At noon they ate the {x}, one end each, and watched a door float by.",
                f"By two o'clock they were hungry, and the {x} was still there. Then it was not.")  # fmt: skip
            t.say(f" {B} got a letter instead.", " It was a good one.", " The river went on.")
            t.holds.pop(x)
            t.ask(f"Who ate the {x}?", f"{A} and Wren", f"Wren and {A}")
            t.info.summary = f"The ferry did not run, so {A} and Wren ate the {x} that was meant for {B}."
        else:
            t.S(
                f"{A} left the {x} with Wren and went home to {a.home}.",
                f"In the end {A} gave the {x} to Wren to take over when she could.",
            )
            t.holds[x] = "Wren"
            t.S(
                "She put it on the high shelf, beside other people's things.",
                f'"It will be there before {b.he} knows it is late," she said.',
            )
            t.ask(f"Who has the {x} at the end?", "Wren")
            t.info.summary = f"The ferry did not run, so {A} left the {x} for {B} with Wren."
    elif end == 1:
        one, two = PLACE["the ferry landing"].minutes, PLACE[b.home].minutes
        t.S(
            f"So {A} went round by the bridge.",
            f"{A} walked. There was still the bridge.",
            f"There was the bridge, so {A} turned round.",
        )
        t.tell(b.home, "minutes")
        t.S(
            f"With the {one} minutes back to Wendon, that made {span(one + two)}.",
            f"The landing is {one} minutes from Wendon, so it came to {span(one + two)}.",
        )
        t.ask(f"How long was {A}'s walk?", span(one + two))
        t.speak(
            b,
            "You might have come tomorrow",
            "I saw you on the other bank and waved",
            "Did you swim?",
            "I could have done without it",
            other=a,
        )
        t.S(
            f"But {b.he} took the {x} with both hands.",
            f"Then {b.he} saw the shoes, and fetched dry ones.",
            f"{A} held out the {x} and asked for a chair.",
        )
        t.holds[x] = B
        t.where[A] = b.home
        t.ask(f"Who has the {x} at the end?", B)
        t.info.summary = f"The ferry did not run, so {A} walked round by the bridge to bring {B} the {x}."
    elif end == 2:
        t.S("By evening the water had gone down by ", "At five the water was lower by ")
        n = t.number(2, 9)
        t.w(f"{_NUMBER[n]} marks on the post, and Wren made one trip.")
        t.ask("By how many marks did the water go down?", f"{n} marks", _NUMBER[n], str(n))
        t.S(
            f"{B} was standing on the other side with a bag, about to cross to see {A}.",
            f"On the far bank stood {B}, who had waited there all day to come over to {A}.",
        )
        t.S(
            f"They shared the {x} in the middle of the river, since nobody could say whose turn it was."
            if th.kind == "food"
            else f"So {B} got the {x}, and {A} got the bag, and Wren got two fares.",
            "They had to decide at whose house to have tea, and by then the river was rising again.",
        )
        if th.kind != "food":
            t.holds[x] = B
        t.info.summary = f"The ferry did not run until the water fell, and then {A} found {B} waiting on the other side."
    else:
        t.S(f"Then {B} came down to the far bank, and they shouted.", f"On the far bank {B} appeared and shouted something.")
        t.S(f'"What?" shouted {A}.', f"{A} heard the word fish, or wish." if x != "fish pie" else f"{A} heard one word in four.")
        t.S(f"{B} shouted it again, with arms.", "A tree went by between them.", "The river was louder.")
        t.S(
            f"{A} held up the {x}, and {B} clapped, and both went home quite pleased.",
            f"After an hour they waved and went home, and {A} had the {x} for another day.",
        )
        t.ask(f"Who has the {x} at the end?", A)
        t.ask(f"Where did {B} stand?", "On the far bank", "the far bank")
        t.info.summary = f"The ferry did not run, and {A} and {B} shouted to each other across the river."
    t.ask("Who keeps the ferry?", "Wren")
    t.unasked(
        f"How old was the {x}?" if th.kind == "goods" else f"Who baked the {x}?" if x != "smoked trout" else "Who caught the trout?"
    )


def birthday(t: Tale) -> None:
    """A present is bought; several had the same idea, or there was a better one."""
    form = t.pick((0, 1), (0.6, 0.4))
    if form:
        t.lead()
        a = t.person()
        A = a.name
        t.first(a)
        t.say(" wanted a present for ", " needed a birthday present for ", " had forgotten the birthday of ")
        b = t.person(near=a)
        B = b.name
        t.first(b, comma=False, kin=a)
        t.w(".")
        t.tell(B, "birthday")
    else:
        t.sep()
        b = t.person()
        B = b.name
        t.w(f"{B}'s birthday is on {b.birthday}")
        t._state(FACT[B, "birthday"])
        t.say(", and ", ". This year ", ". The day before, ")
        a = t.person(near=b)
        A = a.name
        t.first(a, kin=b)
        t.say(
            " did not know what to give.",
            " wanted to give something useful.",
            " had forgotten until that moment.",
            " had saved for it.",
        )
    t.ask("Whose birthday is it?", f"{B}'s", B)
    friend = CHARACTER[b.friend]
    if friend.name not in t.named and t.allowed(friend) and t.flip(0.6):
        C = friend.name
        t.S(f"{A} asked {C}, who would know.", f"{A} went to ask {C}.", f"{A} met {C} and asked.")
        t._meet(friend)
        t.tell(B, "friend")
        t.S(f"{C} was ", f"At that hour {C} was ")
        t.small_talk(friend)
        t.w(".")
        t.par()
        t.speak(friend, "Food", f"{b.food.capitalize()}", f"Give {b.him} something to eat", "Anything but socks", other=a)
        t.ask(f"Whom did {A} ask?", C)
    else:
        t.unasked(f"What did {B} wish for?")
    t.detail(0.8, *OUT)
    end = t.pick((0, 1, 2), (0.45, 0.3, 0.25))
    if end < 2:
        food = THING[b.food]
        t.use(food)
        f = food.name
        t.tell(B, "food")
        site = PLACE[food.sold_at]
        if t.flip(0.5):
            t.tell(f, "sold_at")
        t.tell(f, "price")
        n = t.number(1, 3)
        total = n * food.price
        t.S(f"{A} bought ", f"{A} went to {site.name} and bought ", f"So {A} bought ")
        t.w(f"{_NUMBER[n] if n > 1 else food.article} {food.plural if n > 1 else f}")
        if n > 1:
            t.say(f" and paid {pence(total)}.", f" for {pence(total)}.", f", which made {pence(total)}.")
        else:
            t.say(
                " and a ribbon to go round it.",
                " and carried it home like an egg.",
                f" from {site.keeper}." if t.allowed(CHARACTER[site.keeper]) else " and had it wrapped.",
            )
        t.ask(f"What did {A} buy?", food.a if n == 1 else f"{_NUMBER[n]} {food.plural}", f, food.plural)
        if n > 1:
            t.ask(f"How much did {A} pay?", pence(total), str(total))
        t.holds[f] = B
        t.par()
        if end == 0:
            t.S(
                f"On the day, {B} opened the door at {b.home}.",
                f"At {b.home} the table was already full.",
                f"There was a line outside {b.his} door.",
            )
            others = t.number(2, 7)
            t.S(
                f"There were {_NUMBER[others]} other {food.plural} in the kitchen.",
                f"{_NUMBER[others].capitalize()} people had had the same thought, and there were {_NUMBER[others]} more {food.plural}.",
            )
            all_ = others + n
            t.S(f"That made {_NUMBER[all_]}.", f"With {A}'s there were {_NUMBER[all_]}.")
            t.ask(f"How many {food.plural} were there in the end?", _NUMBER[all_], str(all_))
            t.speak(
                b,
                "I shall not have to cook",
                "I had better ask everyone to stay",
                "They keep",
                "You can never have too many",
                other=b,
            )
            t.S(
                "By night there were none.",
                "They began at four and finished at nine.",
                f"{B} ate one, slowly, and gave away the rest.",
            )
            t.info.summary = f"{A} bought {B} {f} for the birthday, and so did others."
        else:
            it = "it" if n == 1 else "them"
            t.S(f"{B} looked at {it} for a long time.", f"{B} unwrapped {it} at once.", f"{B} was called to the door.")
            t.speak(
                b,
                "Did you bake this?" if n == 1 else "Did you bake these?",
                "You remembered",
                "Is there a fork?",
                "I was going to buy that for myself today",
                other=a,
            )
            t.S(
                f'"Not all of {it}," said {A}.',
                f"{A} cut it in two, and not down the middle." if n == 1 else f"{A} took the smallest, to be polite.",
                f"{A} said it was nothing, and could not stop smiling.",
            )
            t.info.summary = f"{A} bought {B} {f} for the birthday."
    else:
        t.S(f"{A} bought ", f"In the end {A} chose ", f"At the market {A} saw ")
        th = t.thing(SMALL_GOODS)
        x = th.name
        t.w(f"{th.a} for {pence(th.price)}.")
        t.ask(f"How much did {A} pay?", pence(th.price), str(th.price))
        t.ask(f"What did {A} buy?", th.a, x)
        t.tell(x, "made_of")
        t.par()
        t.S(
            f"On the day, {A} took it to {b.home} and put it on the table.",
            f"{A} wrapped it in a page of the newspaper and took it to {b.home}.",
        )
        t.detail(0.8, *ROOM)
        t.S(
            f"{B} unwrapped it and laughed, and brought out another {x} with {A}'s name on it.",
            f"{B} went to the cupboard and took out a parcel for {A}. In it was another {x}.",
            f"{B} was just wrapping one like it, for {A}.",
        )
        t.speak(
            b, "Now we have two", "Then we shall not need to lend each other one", "One for each hand", "You do like them", other=a
        )
        t.holds[x] = B
        t.ask(f"To whom did {A} give the {x}?", f"To {B}", B)
        t.info.summary = f"{A} gave {B} {th.a} for the birthday."
    _ending(t, a, b)


def debt(t: Tale) -> None:
    """A debt is paid, and the two do not agree how large it was."""
    t.lead()
    a = t.person(ADULTS)
    A = a.name
    t.first(a)
    t.say(" owed ", " still owed ")
    b = t.person(ADULTS, near=a)
    B = b.name
    t.first(b, kin=a)
    t.w(" for ")
    k = t.number(2, 5)
    goods = t.thing([g for g in _CARRIED if 2 <= g.price <= 9], said=_several(k))
    t.w(f"{_NUMBER[k]} {goods.plural}")
    t.say(".", " and had not slept well.", ", and meant to pay.", " since the spring.", ", bought in a hurry.")
    if t.flip(0.5):
        t.tell(goods.name, "price")
    n = k * goods.price
    t.S(f"That made {n} pence.", f"It came to {n} pence.", f"In all it was {n} pence.")
    t.ask(f"How much did {A} owe {B}?", pence(n), str(n))
    t.ask(f"For what did {A} owe {B} money?", f"For {_NUMBER[k]} {goods.plural}", goods.plural, f"{_NUMBER[k]} {goods.plural}")
    t.aside(B, ("home", "workplace", "manner", "trade"))
    t.detail(0.9, *OUT)
    t.S(f"{A} found {B} ", f"{A} came upon {B} ", f"When {A} came, {B} was ")
    t.small_talk(b)
    t.w(".")
    t.detail(0.95, *TALK, "smell", "table", "stock")
    end = t.pick((0, 1, 2, 3), (0.3, 0.25, 0.25, 0.2))
    if end == 0:
        less = t.number(1, 3)
        m = n - less
        t.S(f'"It was {m}," said {B}.', f'"You owe me {m} pence," said {B}, and showed it in writing.')
        t.S(f'"It was {n}."', f'"I make it {n}," said {A}.')
        t.S(
            f"Neither would give way. In the end {A} put down {n} pence, and {B} gave back {pence(less)}.",
            f"They argued until noon. Then {A} paid {m} pence and left {pence(less)} on the step.",
            f"So {A} paid {m} pence, and hid {pence(less)} under the cushion.",
        )
        t.ask(f"How much did {B} say it was?", f"{m} pence", str(m))
        t.info.summary = f"{A} owed {B} {n} pence, and {B} said it was {m}."
    elif end == 1:
        t.speak(b, "What debt?", "I had forgotten", "Was that you?", other=a)
        t.S(f"{A} was a little hurt.", f"{A} told the whole story from the start.", f"{A} had carried it about for a year.")
        t.S(f"{B} took the {n} pence, to be kind, and bought ", f"{B} would not take it, so they spent the {n} pence on ")
        cheap = [g for g in FOODS if g.price <= n]
        food = t.thing(cheap)
        t.w(f"{food.a} for {pence(food.price)}.")
        if n > food.price:
            t.S(f"There were {n - food.price} pence left over." if n - food.price > 1 else "There was 1 penny left over.")
            t.ask("How much was left over?", pence(n - food.price), str(n - food.price))
        t.ask("What was bought with the money?", food.a, food.name)
        t.info.summary = f"{A} paid {B} {n} pence, which {B} had forgotten."
    elif end == 2:
        t.S(f"{A} had only ", f"It turned out that {A} had just ")
        have = t.number(1, n - 1)
        t.w(f"{pence(have)}.")
        t.S(
            f"That left {pence(n - have)}.",
            f"So {pence(n - have)} were still to pay." if n - have > 1 else "So 1 penny was still to pay.",
        )
        how = t.S(
            f'"Pay the rest in work," said {B}.',
            f"{B} pointed at a broom.",
            f'"Can you hold this?" asked {B}.',
        )
        if "broom" in how:
            t.S(f"{A} swept until evening, and was asked to come again.", f"{A} swept the yard, and the road as well.")
        elif "hold" in how:
            t.S(f"{A} held it until supper, and they were even.", f"{A} held it, and then the other one too.")
        else:
            t.S(f"{A} carried water for two hours.", f"{A} chopped wood, and stayed to see it burn.")
        t.ask(f"How much money did {A} have?", pence(have), str(have))
        t.ask("How much was still to pay?", pence(n - have), str(n - have))
        t.info.summary = f"{A} paid {B} {pence(have)} of {n} and worked for the rest."
    else:
        t.speak(b, "But it was I who owed you", "No, no, I owe you", "You have it the wrong way round", other=a)
        t.S(f"{B} had the money in a cup on the shelf, counted, with {A}'s name on it.", f"{B} held out {n} pence of {b.his} own.")
        t.S("They looked at each other's money.", "Both sums were right.", "Nobody had written it down.")
        t.S(
            f"They bought {goods.plural} with all of it.",
            f"In the end each kept {a.his if a.his == b.his else 'the'} own, and felt richer."
            if a.his == b.his
            else "In the end each took the other's, and felt richer.",
            "So they put it all in the tin for the new lamp.",
        )
        t.unasked(f"Who was right, {A} or {B}?")
        t.info.summary = f"{A} came to pay {B} {n} pence, and {B} wanted to pay {A}."
    t.unasked(f"What is the horse of {B} called?")
    _ending(t, a, b)


def delivery(t: Tale) -> None:
    """Two parcels go to the wrong doors."""
    t.lead(parts=True)
    a = t.person([CHARACTER[n] for n in ("Tansy", "Bess", "Kit", "Gus", "Toby", "Cass", "Tam")])
    A = a.name
    t.first(a)
    t.say(" had two parcels: ", " was to deliver two things: ", " carried two parcels through the village: ")
    x = t.thing(SMALL_GOODS)
    t.w(f"{x.a} for ")
    b = t.person()
    B = b.name
    t.w(f"{B} and ")
    y = t.thing(SMALL_GOODS)
    t.w(f"{y.a} for ")
    c = t.person()
    C = c.name
    t.w(f"{C}.")
    t.tell(B, "home")
    if c.home != b.home:
        t.tell(C, "home")
    t.detail(0.9, *OUT)
    t.S(
        "The labels had come off in the wet.",
        "Nobody had put names on them.",
        f"{A} had read the labels and then thought of something else.",
        "They were wrapped in the same brown paper.",
    )
    t.S(
        f"So {B} got the {y.name} and {C} got the {x.name}.",
        f"The {x.name} went to {C}, and the {y.name} went to {B}.",
        f"{C} opened the {x.name} and {B} the {y.name}.",
    )
    t.holds[x.name], t.holds[y.name] = C, B
    t.ask(f"For whom was the {x.name}?", f"For {B}", B)
    t.ask("Who was to deliver the parcels?", A)
    t.detail(0.7, "work", "seen", "clock")
    t.par()
    end = t.pick((0, 1, 2), (0.4, 0.32, 0.28))
    if end == 0:
        t.S(
            f"{B} set out for {c.home} to put it right, and {C} set out for {b.home}."
            if b.home != c.home
            else f"{B} went to {C}'s door, and {C} went to {B}'s."
        )
        t.S("They passed each other in the dark.", "Each found the other out.", "They took different roads.")
        t.S("Each left the right parcel on the step.", "Each put the parcel down on the step and went home.")
        t.holds[x.name], t.holds[y.name] = B, C
        t.S("So in the morning all was well.", f"Nobody told {A}.", f"{A} heard of it at the weekend, and went red.")
        t.info.summary = f"{A} took two parcels to the wrong doors, and {B} and {C} each brought the other's back."
    elif end == 1:
        t.speak(
            b, f"I never knew that I needed {y.a}", f"What am I to do with {y.a}?", "I asked for something quite different", other=c
        )
        t.S(
            "But it was put to use within the hour.",
            f"By evening {b.he} could not do without it.",
            f"{B} turned it over and found that it was rather good.",
        )
        t.S(f"{C} thought the same of the {x.name}.", f"{C} had already got used to the {x.name}.")
        t.S("They kept them.", "So it was left as it was.", f"When {A} came to say sorry, nobody knew what for.")
        t.info.summary = f"{A} took two parcels to the wrong doors, and {B} and {C} kept them."
    else:
        t.S(f"{C} came to {A} at once with the {x.name}.", f"{C} sent the {x.name} straight back.")
        t.holds[x.name] = B
        t.S(f"{A} brought it to {B}, and asked for the {y.name}.", f"{A} took it to {B} and said what had happened.")
        t.speak(
            b, f"The {y.name}? I have given it to a friend", "I am afraid I have used it", "Come in and have a look at it", other=a
        )
        t.S(
            f"{A} bought another {y.name}, for {pence(y.price)}, and said nothing to the shop.",
            f"It cost {A} {pence(y.price)} to buy another.",
        )
        t.ask(f"How much did the second {y.name} cost?", pence(y.price), str(y.price))
        t.info.summary = f"{A} took two parcels to the wrong doors and had to buy another {y.name}."
    t.ask(f"Who has the {x.name} at the end?", t.holds[x.name])
    t.unasked("Who sent the parcels?")


_METAL = ("iron", "steel", "tin", "copper", "pewter", "lead", "silver")
_WOOD = ("pine", "oak", "beech", "walnut", "ash wood", "willow")


def _mender(th: Thing) -> Character:
    if th.made_of in _METAL:
        return CHARACTER["Odo"]
    if th.made_of in _WOOD:
        return CHARACTER["Rowan"]
    if th.made_of in ("brass", "glass", "plaster", "bone", "horn"):
        return CHARACTER["Moss"]
    return CHARACTER["Mina"]


_FAULTS = (
    "a pear stalk",
    "a crumb",
    "a dead beetle",
    "a grain of salt",
    "a loose pin",
    "a bent nail",
    "a hair",
    "a splinter",
    "a lump of wax",
    "a seed",
)


def mended(t: Tale) -> None:
    """A thing is mended; the cause was small."""
    t.lead()
    pool = [x for x in LENDABLE if _mender(x).name != x.owner] if t.force is None else LENDABLE
    a, th = t.owned(pool)
    A, x = a.name, th.name
    b = _mender(th)
    if not (t.force or t.allowed(b)) or b is a:
        b = CHARACTER["Nye"] if a.name != "Nye" else CHARACTER["Moss"]
    if t.force is not None:
        b = t.force[0]
    t.enter(b)
    B = b.name
    t.first(a)
    t.say(
        f" brought {a.his} {x} to {B} to be mended.",
        f" took the {x}, which no longer worked, to {B}.",
        f" put a broken {x} on {B}'s table." if not x.startswith("ring") else f" put {th.a} on {B}'s table. It was broken.",
    )
    t.aside(B, ("trade", "workplace", "manner", "home"))
    t.detail(0.9, *ROOM)
    if t.flip(0.6):
        t.S(f"{B} was ", f"At that moment {B} was ")
        t.small_talk(b)
        t.w(".")
    t.speak(b, "What does it do?", "When did it stop?", "Has it been in water?", "Leave it here", "It looks well enough", other=a)
    t.speak(
        a,
        "Nothing, that is the trouble",
        "It makes a noise",
        "It was like that when I got up",
        "I sat on it",
        "It is not what it was",
        other=b,
    )
    if t.flip(0.7):
        t.S('"Come back on ', '"It will be ready on ', '"Not before ')
        day = t.pick([d for d in DAYS if t.day is None or d != DAYS[t.day]], said=_itself)
        t.w(f'{day}," said {B}.')
        t.ask("When was it to be ready?", f"On {day}", day)
    else:
        t.unasked("When was it to be ready?")
    t.holds[x] = B
    t.detail(0.7, *TALK)
    t.par()
    t.S(f"All that was wrong with the {x} was ", f"{B} looked into it, and there was only ", f"It took {B} a minute to find ")
    fault = t.pick(_FAULTS, said=_itself)
    t.w(fault + ".")
    t.ask(f"What was wrong with the {x}?", fault.capitalize(), fault, fault.split(" ", 1)[1])
    end = t.pick((0, 1, 2, 3), (0.34, 0.26, 0.22, 0.18))
    if end == 0:
        n = t.number(2, 9)
        t.S(f"{B} charged {n} pence.", f'"That is {n} pence," said {B}.', f"The bill was {n} pence.")
        t.S(f"{A} paid with ", f"{A} gave ")
        coin = t.pick((10, 12, 20))
        t.w(f"{coin} pence")
        t.say(f" and got {coin - n} back.", f" and had {coin - n} pence change." if coin - n > 1 else " and had a penny change.")
        t.ask(f"How much did {B} charge?", f"{n} pence", str(n))
        t.ask(f"How much change did {A} get?", pence(coin - n), str(coin - n))
        t.give(th, a)
        t.info.summary = f"{B} mended {A}'s {x} for {n} pence."
    elif end == 1:
        t.speak(b, "No charge, for so little", "I cannot ask money for that", "You may pay me in eggs", other=a)
        t.S(f"{A} paid all the same.", f"{A} left a cheese on the step that night.", f"{A} told everybody, which was worth more.")
        t.give(th, a)
        t.info.summary = f"{B} mended {A}'s {x} and asked for no money."
        t.unasked(f"How much did the {x} cost when it was new?")
    elif end == 2:
        t.S(
            f"{B} used the {x} for a week to be sure.",
            f"{B} tried it at home, to be sure, and on Sunday too."
            if t.day is None
            else f"{B} tried it at home, to be sure, for several days.",
        )
        t.S(f"{A} came to ask and found {B} about to {USE[x]}.", f"When {A} came, {B} was out, to {USE[x]}.")
        t.speak(a, "So it works", "It never worked so well for me", "Shall I come back next week?", other=b)
        t.info.summary = f"{B} mended {A}'s {x} and went on using it."
        t.ask(f"Who has the {x} at the end?", B)
    else:
        t.S("Mended, it was not the same.", f"{A} took it home and missed the noise.", f"{A} had got used to doing without.")
        t.S(f"After a week {A} put {fault} back in.", f"The next day {A} asked whether {B} had kept {fault}.")
        t.speak(b, "That will be two pence", "I can always mend it again", "Everyone says that", other=a)
        t.give(th, a)
        t.info.summary = f"{B} mended {A}'s {x}, and {A} did not like it mended."
    t.unasked(f"Who had made the {x}?")
    t.ask(f"Who mended the {x}?", B)
    t.ask(f"Whose {x} was it?", f"{A}'s", A)
    _ending(t, a, b)


_MISHAPS = (
    "lost a shoe in the mud",
    "stopped to tie a lace",
    "took the wrong turn",
    "was held up by a cow",
    "laughed too much to run",
    "stopped to help an old hen over the road",
    "fell over the dog",
    "looked back once too often",
    "stopped for a drink",
    "ran into a washing line",
)


def race(t: Tale) -> None:
    """Three run to the bell."""
    t.lead(("fine", "wind", "heat", "frost"), parts=True)
    a = t.person(_RUNNERS)
    A = a.name
    t.w(A)
    t.w(", ")
    b = t.person(_RUNNERS, near=a)
    B = b.name
    t.w(f"{B} and ")
    c = t.person(_RUNNERS)
    C = c.name
    t.w(C)
    t.say(
        " ran to the bell tower from ",
        " raced each other to the bell from ",
        " had a bet who could first ring the bell, starting from ",
    )
    start = t.village("Bell Yard")
    t.w(start + ".")
    t.tell(start, "minutes")
    t.ask("Where did the race start?", f"At {start}", start, f"from {start}")
    t.S("The prize was ", "The winner was to have ", "They ran for ")
    prize = t.thing(FOODS)
    t.w(f"{prize.a}.")
    t.ask("What was the prize?", prize.a, prize.name)
    t.aside(B, ("manner", "trade", "home", "species", "belonging"))
    judge = CHARACTER["Tess"]
    if t.allowed(judge) and t.flip(0.4):
        t._meet(judge)
        t.S(
            "Tess, who is the bell ringer, held the watch.",
            "Tess stood at the door of the tower and counted.",
            "Tess had said that one pull at the rope was enough.",
        )
    t.par(0.8, *OUT)
    t.S(
        f"{A} was ahead at first, ",
        f"At the first corner {A} led, ",
        f"{A} started before the word was given, ",
        f"{A} went off like a hare, " if a.species != "hare" else f"{A} went off at once, ",
    )
    t.say("then ", "but ")
    fallen, ahead = t.pick(((a, b), (a, c), (b, c), (c, b)), (0.4, 0.3, 0.15, 0.15))
    if fallen is not a:
        t.w(fallen.name + " ")
    t.say(*_MISHAPS)
    t.w(".")
    t.S("That left ", "Now the first was ", "So into the lead went ")
    t.w(ahead.name + ".")
    third = next(p for p in (a, b, c) if p is not fallen and p is not ahead)
    t.detail(0.8, "seen", "went", "work")
    t.S(
        f"{third.name} kept an even pace the whole way.",
        f"{third.name} had said nothing and did not look round.",
        f"{third.name} was breathing hard.",
        f"{third.name} knew a gap in the hedge.",
    )
    win = t.pick((0, 1, 2), (0.5, 0.35, 0.15))
    first, second, last = ((ahead, third, fallen), (third, ahead, fallen), (fallen, third, ahead))[win]
    if win == 2:
        t.S(f"But {fallen.name} was up again and ran as one runs downhill.", f"Then {fallen.name} came past them both, on a cart.")
    t.S(f"{first.name} rang the bell, ", f"The bell was rung by {first.name}, ", f"It was {first.name} who pulled the rope, ")
    t.say(f"with {second.name} one step behind", f"{second.name} was second", f"just before {second.name}")
    t.say(f", and {last.name} came last.", f", and after a time came {last.name}.")
    t.ask("Who won the race?", first.name)
    t.ask("Who came second?", second.name)
    t.ask("Who came last?", last.name)
    t.unasked(f"How many minutes did {first.name} need?")
    t.holds[prize.name] = first.name
    t.where[first.name] = "the bell tower"
    end = t.pick((0, 1, 2), (0.4, 0.35, 0.25))
    if end == 0:
        t.S(
            f"{first.name} cut the {prize.name} in three.",
            f"The {prize.name} was in three parts before anyone had their breath back.",
        )
        t.S(f"{last.name} got the largest piece, for the story.", "Nobody asked who had which piece.")
    elif end == 1:
        t.S(
            "All over the town people came out to see what was on fire.",
            "Half the town set its clocks by it.",
            f"At {TOWN} they thought it was noon, and sat down to eat.",
        )
    else:
        t.S(
            f"{first.name} does not like {prize.name}, and gave it to {last.name}."
            if first.food != prize.name
            else f"{first.name}, whose favourite food is {prize.name}, ate it there and then."
        )
        if first.food != prize.name:
            t.holds[prize.name] = last.name
            t.ask(f"Who got the {prize.name}?", last.name)
    t.info.summary = f"{A}, {B} and {C} ran to the bell from {start}, and {first.name} won."


def recipe(t: Tale) -> None:
    """The chief ingredient is missing."""
    t.lead()
    a = t.person(ADULTS)
    A = a.name
    t.first(a)
    t.say(" meant to bake ", " had promised to make ", " wanted to make ", " was half way through ")
    f = t.thing([x for x in FOODS if x.name != "smoked trout"])
    x, i = f.name, f.made_of
    t.w(f"{f.a} for ")
    b = t.person(near=a)
    B = b.name
    t.first(b, comma=False, kin=a)
    t.w(".")
    if b.food == x:
        t.tell(B, "food")
    t.tell(x, "made_of")
    t.S(f"There was flour, there was butter, and there were no {i}." if i not in _MASS_I else f"There was flour, there was butter, and there was no {i}.",
        f"The {i} had gone.", f"But {A} had no {i}.", f"The dish for the {i} was empty.")  # fmt: skip
    t.ask(f"What did {A} not have?", i.capitalize(), i)
    site = PLACE[INGREDIENT_SOURCE[i]]
    t.tell(i, "source")
    t.S(
        f"{A} went to {site.name}.",
        f"So {A} put on a coat and walked to {site.name}.",
        f"{A} left everything on the table and set out.",
    )
    t.where[A] = site.name
    t.tell(site.name, "village") or t.tell(site.name, "opens")
    t.detail(0.9, *WAY)
    k = CHARACTER[site.keeper]
    known = not t.allowed(k)
    K = k.name
    end = t.pick((0, 1, 2), (0.38, 0.34, 0.28)) if not known else 1
    t.par()
    if end == 0:
        t.enter(k)
        t.S(f"{K} was ", f"There was {K}, ", f"{K} stood there, ")
        t.small_talk(k)
        t.w(".")
        t.speak(
            k,
            "How many do you want?" if i not in _MASS_I else "How much do you want?",
            "You are the third today",
            f"For {B}?",
            "What is it for?",
            other=a,
        )
        n = t.number(2, 9)
        t.detail(0.8, *TALK, "stock", "table")
        t.S(f"{A} came away with {n} pounds.", f"{A} got {n} pounds, and a taste of something else.")
        t.ask(f"How many pounds of {i} did {A} get?", f"{n} pounds", str(n))
        t.S(
            f"Within the hour the {x} was in the oven, and {B} was at the door.",
            f"The {x} was late, but it was hot.",
            f"{B} ate it in silence, which was praise.",
        )
        t.holds[x] = B
        t.info.summary = f"{A} fetched {i} from {site.name} and made {f.a} for {B}."
        t.ask(f"From whom did {A} get the {i}?", f"From {K}", K)
    elif end == 1:
        t.S(
            f"{site.name[0].upper() + site.name[1:]} was shut.",
            f"There was a note on the door: {i} again next week.",
            f"They had sold the last {i} an hour before.",
        )
        t.S(f"On the way back {A} was given some ", f"At home {A} still had some ", f"A neighbour lent {A} some ")
        other = t.thing([g for g in FOODS if g.name.split()[-1] == x.split()[-1] and g.name != x], said=lambda g: g.made_of)
        j = other.made_of
        t.w(f"{j}.")
        t.S(f"So it became {other.a}.", f"It was {other.a}, then.")
        t.ask(f"What did {A} make in the end?", other.a, other.name)
        t.speak(
            b,
            f"That is the best {x} I have ever had",
            f"You can hardly taste the {i}",
            f"I did not know you could make {other.name}",
            f"I had hoped for {other.name}",
            other=a,
        )
        t.S(f"{A} said nothing.", f"{A} cut another piece.", f"{A} has made it so ever since.")
        t.holds[other.name] = B
        t.info.summary = f"{A} had no {i} and made {other.a} instead of {f.a}."
    else:
        t.enter(k)
        t.S(f"{K} had just one basket left, and two people wanted it.", f"There was somebody before {A}, talking to {K}.")
        t.sep()
        c = t.person()
        C = c.name
        t.first(c)
        t.say(f" was making {f.a} too.", f" needed {i} as well.", f" had come for the last {i}.")
        t.speak(k, "Then make one together", "I shall give each of you half", "Toss a coin", other=a)
        t.S(
            f"They baked it at {c.home} and took it to {B}, who had eaten.",
            f"It was the largest {x} ever seen at {c.home}.",
            "They made one with two names on it.",
        )
        t.ask(f"Who else wanted the {i}?", C)
        t.info.summary = f"{A} and {C} both wanted the last {i} and made one {x}."
    t.ask(f"For whom was the {x} meant?", f"For {B}", B)
    t.unasked(f"How long did the {x} stay in the oven?")


def purse(t: Tale) -> None:
    """A purse is found, and the owner must say what is in it."""
    t.lead(parts=True)
    a = t.person()
    A = a.name
    t.first(a)
    t.say(" found a ", " picked up a ", " trod on a ", " saw a ")
    colour = t.pick(_COLOURS, said=_itself)
    t.w(f"{colour} purse ")
    t.say(*_BY)
    t.say(" at ", ", at ")
    place = t.village()
    t.w(place + ".")
    n = t.number(5, 40)
    t.S(f"In it were {n} pence", f"It held {n} pence", f"{A} counted {n} pence")
    item = ""
    if t.flip(0.6):
        t.w(" and ")
        item = t.say(*_NOTHING)
    t.w(".")
    t.ask("How much was in the purse?", f"{n} pence", str(n))
    t.ask("What colour was the purse?", colour.capitalize(), colour)
    t.unasked("How old was the purse?")
    t.ask(f"Where did {A} find the purse?", f"At {place}", place)
    if item:
        t.ask("What else was in the purse?", item.capitalize(), item)
    t.aside(A, ("home", "trade", "workplace", "manner"))
    t.S(
        f"{A} told the post office.",
        f"{A} put a notice on the pump.",
        f"{A} asked everyone who went by.",
        f"{A} sat down beside it and waited.",
    )
    t.detail(0.9, *OUT)
    t.par()
    wrong = t.pick((0, 1, 2), (0.3, 0.45, 0.25))
    for _ in range(wrong):
        t.sep()
        b = t.person()
        t.first(b)
        m = t.pick([x for x in range(5, 41) if x != n])
        m_words = f"{m} pence"
        t.say(
            f" came and said that there were {m_words} in it.",
            f' said, "Mine held {m_words}."',
            f" asked for it, and guessed {m_words}.",
        )
        t.S(f'"No," said {A}.', f"{A} shook {a.his} head.", "It was not that one, then.")
        t.ask(f"How much did {b.name} say was in the purse?", m_words, str(m))
    t.S("Then came ", "The next was ", "At last there was ") if wrong else t.S("The first to come was ", "Within the hour came ")
    c = t.person(near=a)
    C = c.name
    t.first(c, comma=False, kin=a)
    t.w(".")
    end = t.pick((0, 1, 2), (0.45, 0.3, 0.25))
    if end == 0:
        t.S(f'"{n} pence," said {C}', f"{C} knew it to the penny")
        t.say(", and held out a hand.", " without stopping to think.", ", and had the string it was tied with.")
        t.S(f"{C} gave {A} ", f"For finding it, {A} got ", f"{A} was given ")
        r = t.number(1, 4)
        t.w(f"{pence(r)}.")
        t.S(f"That left {n - r}.", f"So {C} went home with {n - r}." if n - r > 1 else f"That left {n - r}.")
        t.ask(f"What did {A} get for finding the purse?", pence(r), str(r))
        t.ask(f"How much did {C} have left?", pence(n - r), str(n - r))
        t.info.summary = f"{A} found a {colour} purse with {n} pence, and it was {C}'s."
    elif end == 1:
        t.speak(
            c,
            "Keep the money, I want the purse",
            "My mother made it",
            "I had not missed it yet",
            "I lost that one last year",
            other=a,
        )
        t.S(f"{A} gave it back, and the money too.", f"{A} emptied it out and handed it over, then handed over the rest.")
        t.unasked("Who made the purse?")
        t.info.summary = f"{A} found a {colour} purse and gave it back to {C}."
    else:
        t.S(
            f"{C} did not want the purse, having put it there.",
            f"{C} had laid it there on purpose, to see who was honest.",
            f"It was {C}'s, but the money was not.",
        )
        t.S("It was meant for whoever swept the steps.", "It was the bell money.", "It was to pay for the new pump.")
        t.S(f"{A} put it back where it had been.", f"{A} added a penny.", f"They put it back together, {colour} side up.")
        t.info.summary = f"{A} found a {colour} purse that {C} had left at {place}."
    t.ask("Whose purse was it?", f"{C}'s", C) if end < 2 else t.unasked("Who got the money in the end?")
    _ending(t, a, c)


def wrong_letter(t: Tale) -> None:
    """A letter goes to somebody whose name begins like the right one."""
    t.lead(parts=True)
    t.used.add("clock")
    a = t.person(_SHARED)
    A = a.name
    t.first(a)
    t.say(
        " got a letter that was not meant for ",
        " opened a letter and did not know the hand. It was not for ",
        " found a letter on the mat. It was no letter for ",
    )
    t.w(f"{a.him}.")
    t.S("The name on it began with ", "It was for somebody with ")
    t.w(f"{A[0]}, and the rest ")
    t.say("was a blot.", "had got wet.", "might have been anything.", "could have been a map.")
    if t.flip(0.5):
        t.S("The address had been copied out at the post office.", "At the post office somebody had written it out again.")
        if t.allowed(CHARACTER["Hob"]):
            t._meet(CHARACTER["Hob"])
            t.tell("Hob", "manner")
    t.S('It said: "', '"', 'Inside was written: "')
    t.say("Come on ", "I shall expect you on ", "Please be here on ")
    day = t.pick(DAYS, said=_itself)
    t.w(f"{day} at ")
    hour = t.number(2, 7)
    t.w(_NUMBER[hour])
    t.say(", and bring ", ", with ", ". I need ")
    th = t.thing(SMALL_GOODS)
    t.w(f"{th.a}.")
    t.S("I have made ", "There will be ")
    food = t.thing(FOODS, said=_name_of)
    t.w(f"{food.name}.")
    t.w('" Signed: ')
    c = t.person(near=a)
    C = c.name
    t.w(f"{C}.")
    t.holds[th.name] = A
    t.ask("Who wrote the letter?", C)
    t.ask("What was to be brought?", th.a, th.name)
    t.ask("For which day was the invitation?", f"For {day}", day, f"on {day}")
    t.par(0.9, *OUT)
    t.tell(C, "home")
    others = [o for o in CHARACTERS if o.name[0] == A[0] and t.allowed(o)]
    end = t.pick((0, 1, 2), (0.4, 0.35, 0.25)) if others else 2
    if end == 0:
        t.S(
            f"{A} went. It was {food.name}, after all.",
            f"{A} thought it over and went.",
            f"{A} bought {th.a} and went to {c.home}.",
        )
        t.detail(0.7, *WAY)
        t.S(f"{C} opened the door and looked past {a.him}.", f"{C} said nothing for a while.")
        t.S("The one who should have come was ", "The letter had been for ", "There was a place laid for ")
        b = t.person([o for o in others if o.name not in t.named] or CHARACTERS)
        B = b.name
        t.first(b, comma=False)
        t.w(".")
        t.speak(c, "Well, you have the right thing with you", "Sit down all the same", "I never see you otherwise", other=a)
        t.detail(0.8, *ROOM)
        t.S(
            "It was a pleasant evening.",
            f"They put a plate aside for {B}.",
            f"{B} came at nine, with no letter, to ask for some salt.",
        )
        t.where[A] = c.home
        t.ask("For whom was the letter meant?", f"For {B}", B)
        t.info.summary = f"{A} got a letter from {C} that was meant for {B}, and went all the same."
    elif end == 1:
        t.S(f"{A} took it to ", f"{A} tried ")
        b = t.person(others)
        B = b.name
        t.first(b, comma=False)
        t.w(".")
        t.speak(b, "I have one for you", "So that is where it went", f"Does it say {food.name}?", other=a)
        t.detail(0.9, *TALK)
        t.S(
            f"They swapped, and both went to {C} on {day}.",
            f"On {day} they went together.",
            f"{B} read it twice and said that {A} had better come too.",
        )
        t.ask("For whom was the letter meant?", f"For {B}", B)
        t.info.summary = f"{A} got a letter that was meant for {B} and took it there."
    else:
        t.S(f"{A} wrote back that there must be a mistake.", f"{A} sent it back with a note.")
        t.S(
            "The answer took three days: there was none.",
            f"{C} wrote again: it was for {A}, and there was no mistake.",
            f'"It was for you," wrote {C}. "Who else do I know?"',
        )
        t.S(
            f"So {A} bought {th.a} for {pence(th.price)} and a clean collar.",
            f"By then {day} was over, and the {food.name} was gone.",
        )
        t.unasked(f"What did {A} say to {C} when they met?")
        t.info.summary = f"{A} got a letter from {C} and thought that it was a mistake."
    t.unasked("What colour was the paper of the letter?")


def stuck_cart(t: Tale) -> None:
    """A cart is stuck, and one after another comes to push."""
    t.lead(("rain", "fog", "frost", "fine"), sky=0.6, parts=True)
    a = t.person([CHARACTER[n] for n in _CARTERS])
    A = a.name
    t.first(a)
    t.say(
        " was stuck in the mud with a cart of ",
        " had got a cart stuck, full of ",
        " sat on a cart that did not move. It was loaded with ",
    )
    load = t.pick([g for g in CART_GOODS if g.name not in t.ban_things], said=lambda g: g.plural)
    t.use(load)
    t.w(load.plural)
    t.say(". That was on the road to ", ", on the way to ", ". The road was the one to ", ", half a mile from ")
    place = t.village()
    t.w(place + ".")
    t.ask("What was on the cart?", load.plural.capitalize(), load.plural)
    t.ask("Where did the road lead?", f"To {place}", place)
    t.used.update(("walk", "went"))
    t.tell(load.name, "sold_at")
    t.detail(0.6)
    n = t.pick((2, 3, 4), (0.35, 0.4, 0.25))
    names = []
    for i in range(n):
        t.S("First came ", "The first to stop was ") if i == 0 else t.S("Then ", "After that ", "Next ")
        c = t.person()
        names.append(c.name)
        t.first(c, comma=i > 0, plain=0.45)
        if i == 0:
            t.say(
                ". " + c.he.capitalize() + " pushed.",
                ". " + c.he.capitalize() + " pulled at the wheel.",
                ". " + c.he.capitalize() + " gave advice.",
                ". " + c.he.capitalize() + " looked under the cart.",
            )
        else:
            t.say(
                " pushed too.",
                " put a shoulder to it.",
                " fetched a plank.",
                " lent a rope.",
                " counted to three.",
                " held the horse.",
            )
        if i:
            t.detail(0.25, "seen", "work", "clock")
        if t.flip(0.4):
            t.S(
                "It moved an inch.",
                "It sank a little.",
                "One wheel turned round.",
                "It was no use.",
                "The horse looked back at them.",
                "Something cracked, but it was only the plank.",
            )
    t.ask("Who came first to help?", names[0])
    t.ask("How many came to help before it was free?", _NUMBER[n], str(n))
    t.par()
    end = t.pick((0, 1, 2), (0.4, 0.35, 0.25))
    if end == 0:
        t.S("Last of all came ", "Then there was ")
        k = t.person(CHILDREN)
        K = k.name
        t.first(k, comma=False)
        t.w(".")
        t.S(
            f'"Why do you not take the {load.plural} off first?" asked {K}.',
            f'"Is it not lighter without the {load.plural}?" asked {K}.',
        )
        t.S(
            "They took everything off. The cart rolled out by itself.",
            "Nobody answered. They unloaded it, and one push was enough.",
        )
        t.ask("Who had the idea to unload the cart?", K)
        t.info.summary = f"{A}'s cart was stuck, and {K} told them to unload it."
    elif end == 1:
        t.S(
            f"By the time it was out, {A} had forgotten where it was going.",
            f"It came out all at once, and {names[-1]} sat down in the mud.",
            f"It came free and ran back down the hill as far as {names[0]}'s hat.",
        )
        t.S(
            f"{A} gave each of them one of the {load.plural}.", "Each got something from the cart for it."
        ) if not load.heavy else t.S(f"{A} promised them all a drink.", f"{A} thanked each by name.")
        t.info.summary = f"{A}'s cart was stuck, and {n} helped to push it out."
    else:
        t.S("They gave up and sat down on the load.", "In the end they left it there until the road dried.")
        t.S(
            f"That day the {load.plural} were sold from the roadside, and sold well.",
            f"People came from {place} to look, and bought {load.plural}.",
        )
        t.info.summary = f"{A}'s cart stayed stuck, and the {load.plural} were sold where it stood."
        t.unasked("On which day was the cart free again?")
    t.unasked("How old was the horse?")


def swap(t: Tale) -> None:
    """Somebody goes to market to swap one thing, and swaps on."""
    t.lead()
    a = t.person()
    A = a.name
    t.first(a)
    how = t.say(" went to the market hall with ", " was at the market hall with ", " had no use for ")
    x = t.thing(SMALL_GOODS + FOODS)
    t.w(x.a)
    if how == " had no use for ":
        t.say(" and took it to the market hall.", ", so it went to the market hall.", " any more, and market day had come.")
    else:
        t.say(".", " and no money.", ", and hoped to change it.", ", and was early.")
    start, have = x, x
    t.where[A] = "the market hall"
    if t.flip(0.35):
        t.tell("the market hall", "opens")
    n = t.pick((2, 3, 4), (0.35, 0.4, 0.25))
    for i in range(n):
        if i == 1:
            t.detail(0.5, "clock", "smell", "seen", "work")
        t.sep()
        b = t.person()
        B = b.name
        t.first(b, plain=0.5)
        t.say(
            f" took the {have.name} and gave {a.him} ",
            f" wanted the {have.name} and offered ",
            f" had long looked for {have.a}, and gave for it ",
        )
        y = t.thing(SMALL_GOODS + FOODS)
        t.w(y.a + ".")
        t.holds[have.name] = B
        t.holds[y.name] = A
        t.ask(f"What did {B} give for the {have.name}?", y.a, y.name)
        if t.flip(0.35):
            t.speak(a, "It is worth more", "Done", "I have always wanted one", f"Is that the price of {y.a}?", "Why not", other=b)
        elif t.flip(0.3):
            t.tell(y.name, "price")
        have = y
    t.par(0.7, "seen", "clock", "work", "smell")
    end = t.pick((0, 1, 2, 3), (0.35, 0.25, 0.22, 0.18))
    if end == 0:
        t.S(f"So {A} came home with the {have.name}.", f"With the {have.name} under one arm, {A} went home to {a.home}.")
        more = have.price - start.price
        t.S(
            f"It was worth {pence(more)} more than the {start.name}."
            if more > 0
            else f"It was worth {pence(-more)} less than the {start.name}, but there was more talk in it."
            if more < 0
            else f"It was worth just as much as the {start.name}, and that had taken all day."
        )
        t.where[A] = a.home
    elif end == 1:
        t.S(f"In the end {A} saw ", f"Going out, {A} met ")
        c = t.person(near=a)
        t.first(c, kin=a)
        t.say(f" and gave the {have.name} away.", f" and gave {c.him} the {have.name}, for nothing.")
        t.holds[have.name] = c.name
        t.S("It was the best swap of the day.", f"{c.name} is still surprised.", f"That was that, and {A} had both hands free.")
    elif end == 2:
        t.S(f"But {A} missed the {start.name}.", f"On the way home {A} thought of the {start.name}.")
        first_holder = t.holds[start.name]
        t.S(
            f"{first_holder} would not give it back, even for the {have.name}.",
            f"{A} ran back, and {first_holder} had already used it.",
            f"{first_holder} let {a.him} look at it."
            if CHARACTER[first_holder].he != a.he
            else f"{first_holder} let {A} look at it.",
        )
    else:
        t.S(f"{A} was asked what it had all been for.", f"At home they asked where the {start.name} was.")
        t.S(f'"I have {have.a} now," said {A}.', f"{A} put the {have.name} on the table and went to bed.")
    t.ask(f"Who has the {have.name} at the end?", t.holds[have.name])
    t.ask(f"Who has the {start.name} at the end?", t.holds[start.name])
    t.ask(f"What did {A} bring to the market?", start.a, start.name)
    t.ask("How many times did " + A + " swap?", f"{_NUMBER[n]} times", str(n), _NUMBER[n], "twice" if n == 2 else f"{n} times")
    t.unasked(f"What did {A} pay for the {start.name}?")
    t.info.summary = f"{A} came to the market with {start.a} and swapped it {n} times, last for {have.a}."


_HIDING = (
    "under the bed",
    "in the oven",
    "behind the clock",
    "in the rain barrel",
    "on top of the cupboard",
    "in the flour bin",
    "under the stairs",
    "in the hen house",
    "behind the wood pile",
    "in the big boot",
    "inside the piano",
    "under a flower pot",
)


def hidden(t: Tale) -> None:
    """A thing is hidden, and somebody moves it without knowing."""
    t.lead()
    if t.force:
        a, th = t.force
        t.use(th)
        t.enter(a)
        t.ban_things -= {th.name}
    else:
        a = t.person()
    A = a.name
    t.first(a)
    if t.force:
        t.say(" hid ", " had hidden ", " put ")
        t.w(th.a)
    else:
        t.say(" hid ", " had hidden ", " put ")
        th = t.thing(SMALL_GOODS + FOODS)
        t.w(th.a)
    x = th.name
    t.w(" ")
    one = t.pick(_HIDING, said=_itself)
    t.w(one)
    t.say(". It was a present for ", ", where it was safe from ", ", as a surprise for ")
    force, t.force = t.force, None
    b = t.person(near=a)
    B = b.name
    t.first(b, comma=False, kin=a)
    t.w(".")
    t.where[x] = one
    t.tell(B, "birthday") if t.flip(0.4) else None
    t.S("Nobody else knew.", f"{A} told nobody.", f"{A} whistled all day.", "Only the dog had seen it.")
    t.detail(0.8, "smell", "table", "seen", "work", "went")
    moved = t.flip(0.75)
    two = one
    c = None
    if moved:
        t.S("Then ", "In the afternoon ", "While the house was empty, ")
        c = t.person(near=a)
        C = c.name
        t.first(c, kin=a)
        t.say(" came to clean", " looked for a broom", " was looking for the scissors", " came in to shelter")
        t.say(f" and found the {x}.", f", saw the {x}, and shook {c.his} head.")
        t.S(f"{C} put it ", f"{C} thought it was lost and put it ", f"To be tidy, {C} moved it ")
        two = t.pick([h for h in _HIDING if h != one], said=_itself)
        t.w(two + ".")
        t.where[x] = two
        t.ask(f"Who moved the {x}?", C)
        t.ask(f"Where did {C} put the {x}?", two.capitalize(), two)
    t.par()
    if moved:
        t.days_later()
        t.w(f", {A} looked {one}.")
        t.hours = (9, 16)
        t.S("There was nothing there but ", "All that was there was ")
        t.say(*_NOTHING)
        t.w(".")
        t.ask(f"Where did {A} look for the {x}?", one.capitalize(), one)
        t.detail(0.8, *ROOM)
        end = t.pick((0, 1, 2), (0.4, 0.35, 0.25))
        if end == 0:
            t.speak(a, "Who has been here?", "It had legs, then", "I am getting old", other=b)
            t.S(f"{A} gave {B} ", f"So {B} got ", f"{B} was given ")
            y = t.thing(SMALL_GOODS)
            t.w(f"{y.a} instead")
            t.say(f", and in the spring the {x} came to light {two}.", f". The {x} is still {two}.")
            t.holds[y.name] = B
            t.ask(f"What did {B} get in the end?", y.a, y.name)
        elif end == 1:
            t.S(f"{C} had come back for {c.his} hat.", f"{C} was just passing.")
            t.S("The two of them turned red at the same time.", "It all came out.", f"They went and looked {two} together.")
            t.S(
                f"{B} stood in the door and had heard everything.",
                f"{B} got the {x} an hour late, wrapped in a cloth.",
                f"That is how {B} came by it.",
            )
            t.holds[x] = B
        else:
            t.S(f"{B} had found it by then, {two}, and thought nothing of it.", f"{B} was sitting in the kitchen with the {x}.")
            t.speak(b, "Look what somebody threw away", "Whose is this?", "I found it and thought of you", other=a)
            t.S(f'"Yours," said {A}.', f"{A} had to sit down.")
            t.holds[x] = B
    else:
        t.S(f"{B} found it the same evening.", f"{B} had known for a week.", f"{B} looked {one} first.")
        t.speak(b, "You always hide things there", "I was looking for a spoon", "You whistle when you hide things", other=a)
        t.S(f"{A} had to laugh.", f"{A} hides things elsewhere now.", f"So it was a surprise for {A}.")
        t.holds[x] = B
        t.ask(f"Who found the {x}?", B)
    t.ask(f"Where did {A} hide the {x}?", one.capitalize(), one)
    t.ask(f"For whom was the {x}?", f"For {B}", B)
    t.unasked(f"Where did {A} buy the {x}?")
    t.info.summary = f"{A} hid {th.a} {one} for {B}" + (f", and {c.name} moved it." if c else ", who found it.")
    t.force = force


_SNOW = (
    "It had snowed for two days",
    "There was snow up to the window sills",
    "Snow lay on everything that could not shake itself",
    "It snowed all night, and in the morning the valley was quiet",
    "The snow had covered the road to the first rail",
)


def snow(t: Tale) -> None:
    """A visit is paid in deep snow."""
    t.weather = "snow"
    t.S(*_SNOW)
    t.say(".", ", and nobody was on the road.", ", but the bell rang as always.")
    t.sep()
    a = t.person(ADULTS)
    A = a.name
    t.first(a)
    t.say(
        " put on two coats and went to see ",
        " had said that nothing would stop a visit to ",
        " wanted to know how things were with ",
    )
    far = [c for c in CHARACTERS if walk_minutes(a.home, c.home) >= 20]
    b = t.person(far, near=a)
    B = b.name
    t.first(b, comma=False, kin=a)
    t.w(".")
    t.tell(B, "home")
    usual = walk_minutes(a.home, b.home)
    t.S(f"On a dry road it is {span(usual)} from {a.home}.", f"From {a.home} one walks {span(usual)}.")
    t.ask(f"How long is the walk from {a.home} to {b.home}?", span(usual))
    times = t.pick((2, 3), (0.7, 0.3))
    t.S("That day it took twice as long." if times == 2 else "That day it took three times as long.")
    t.ask("How long did the walk take in the snow?", span(usual * times))
    t.S(f"{A} carried ", "In the bag was ", f"{A} had packed ")
    th = t.thing(FOODS + SMALL_GOODS)
    x = th.name
    t.w(f"{th.a}")
    t.say(".", " and dry socks.", ", under the coat.")
    t.holds[x] = A
    t.detail(0.6, "work", "clock", "seen")
    t.par()
    end = t.pick((0, 1, 2, 3), (0.32, 0.26, 0.22, 0.2))
    if end == 0:
        t.S(f"{B} opened the door with a shovel in one hand.", f"Smoke was coming from {B}'s chimney, and {B} was at the window.")
        t.speak(
            b,
            "You must have wanted something very much",
            "Did you meet the post?",
            "You have brought half the hill in with you",
            "Sit down before you melt",
            other=a,
        )
        t.detail(0.8, "smell", "table", "stock", "talk")
        t.S(f"{A} had forgotten what it was.", f'"Only to ask how you were," said {A}.', f"{A} pointed at the {x}.")
        t.holds[x] = B
        t.S(f"{A} stayed ", f"It snowed on, and {A} stayed ")
        n = t.number(2, 6)
        t.w(f"{_NUMBER[n]} days.")
        t.ask(f"How long did {A} stay?", f"{_NUMBER[n]} days", f"{n} days")
        t.where[A] = b.home
        t.info.summary = f"{A} walked through the snow to see {B} and stayed {n} days."
    elif end == 1:
        t.S(f"Half way, somebody came towards {a.him} with a lamp.", "At the half-way stone stood a white shape.")
        t.S(f"It was {B}, on the way to {a.home}.")
        t.detail(0.7, "talk", "remember")
        t.S(
            "They ate in the road, standing, and turned round."
            if th.kind == "food"
            else f"{B} took the {x} there and then, and they both turned round.",
            "They talked until their feet were cold, and each went home.",
            "Each had wanted to see if the other was all right. Each was.",
        )
        t.ask(f"Where did {A} meet {B}?", "Half way", "on the road", "half-way")
        t.info.summary = f"{A} set out through the snow to see {B}, and they met half way."
    elif end == 2:
        t.S(f"At {b.home} the door was open and nobody was in.", f"{B} was not at home.")
        t.S(f"A note said: gone to see {A}.", f"On the table lay a note: at {A}'s, back when it melts.")
        t.detail(0.8, "smell", "table", "stock", "clock")
        t.S(
            f"{A} lit the stove and waited in {B}'s chair, and {B}, at {a.home}, did the same.",
            f"So {A} fed the hens, made the bed, and put the {x} where it would be found.",
        )
        t.ask(f"Where was {B}?", f"At {A}'s", a.home, f"at {a.home}", f"gone to see {A}")
        t.info.summary = f"{A} walked through the snow to see {B}, who had gone to see {A}."
    else:
        t.S(f"After a mile {A} was wet to the knees.", "Then the road was gone.", "At the last house the tracks stopped.")
        t.S("A door opened, and there stood ", "Out of the first lit window looked ")
        c = t.person()
        C = c.name
        t.first(c, comma=False)
        t.w(".")
        t.speak(c, "You will not get there tonight", "In with you", f"{B} can wait, and you cannot", other=a)
        t.S(
            f"They had the {x} for supper."
            if th.kind == "food"
            else f"{A} slept by {C}'s stove, with the {x} for a pillow."
            if th.kind == "goods"
            else "",
            f"{A} had walked past that door for years and never been inside.",
        )
        t.ask(f"Who took {A} in?", C)
        t.info.summary = f"{A} set out through the snow to see {B}, and {C} took {a.him} in."
    t.ask(f"Whom did {A} set out to see?", B)
    t.unasked(f"What colour was {A}'s coat?")


def ladder(t: Tale) -> None:
    """Somebody is left on a roof."""
    t.lead(("fine", "wind", "heat"))
    a = t.person(ADULTS)
    A = a.name
    t.first(a)
    t.say(" was on the roof ", " had gone up on the roof ", " climbed on the roof ")
    t.say("to mend a tile", "to look at the chimney", "to get a ball down", "to sweep the gutter", "to see whether it leaked")
    t.say(" when ", ", and below ", ", and meanwhile ")
    b = t.person(near=a)
    B = b.name
    t.first(b, kin=a)
    t.say(" took the ladder away.", " borrowed the ladder.", " needed a ladder and found one.")
    juno = CHARACTER["Juno"]
    if t.allowed(juno) and "folding ladder" not in t.ban_things and t.flip(0.3):
        t._meet(juno)
        t.use(THING["folding ladder"])
        t.S("The ladder was not even theirs. Juno owns a folding ladder, and this was it.")
        t._state(FACT["Juno", "belonging"])
    t.used.update(("clock", "visitor"))
    t.ask("Who took the ladder?", B)
    t.S(f"{A} called.", f'"{B}!" shouted {A}, but {b.he} was gone.', f"{A} came to the edge and looked at where it had been.")
    n = t.pick((1, 2, 3), (0.35, 0.4, 0.25))
    names = []
    t.par()
    for _i in range(n):
        t.sep()
        c = t.person()
        C = c.name
        names.append(C)
        t.first(c, plain=0.5)
        t.say(" came by", " went past", " stopped below")
        t.say(
            " and waved.",
            " and said it was a fine view.",
            " and asked the time.",
            " and thought it was a wedding.",
            " and asked if there was work.",
            " and told a long story about another roof.",
            " and passed up a sandwich on a stick.",
        )
        if t.flip(0.4):
            t.S(f"{C} had ", f"{c.he.capitalize()} carried ")
            th = t.thing(_CARRIED)
            t.w(th.a)
            t.holds[th.name] = C
            t.say(".", " and had to go on.", ", and it was heavy.")
            t.ask(f"Who had {th.a}?", C)
        if t.flip(0.35):
            t.speak(a, "I should like to come down", "Have you a ladder?", "It is very nice up here, thank you", other=c)
    t.ask("Who came by first?", names[0])
    t.par(0.8, "seen", "work", "smell")
    first = t.S("At ", "It was ")
    clock = CLOCK[(t.number(3, 6) + 12) * 60 + 15 * t.number(0, 3)]
    t.w(clock)
    t.w(f" {B} brought the ladder back." if first == "At " else f" when {B} brought the ladder back.")
    t.ask(f"When did {B} bring the ladder back?", f"At {clock}", clock)
    t.speak(
        b,
        "Were you up there the whole time?",
        "You might have said",
        "I did not want to disturb you",
        "What are you doing on the roof?",
        other=a,
    )
    t.S(
        f"{A} came down and was asked to stay to tea.",
        f"{A} said that it had been a good day for thinking.",
        f"{A} came down, and then went up again for the hammer.",
        f"{A} has kept a rope in the chimney since.",
    )
    t.unasked("Whose house was it?")
    t.info.summary = f"{A} was left on a roof because {B} took the ladder."
    _ending(t, a, b)


def minding(t: Tale) -> None:
    """Somebody minds a shop for an hour, and sells."""
    t.lead()
    a = t.person(_SELLERS)
    A = a.name
    site = SITE_OF[A]
    t.told.add((A, "workplace"))
    t.first(a)
    t.say(" had to go out and asked ", " had a sore tooth, and asked ", " wanted to see about a cow, and asked ")
    b = t.person(near=a)
    B = b.name
    t.first(b, kin=a)
    t.w(f" to mind {site.name}.")
    t.where[B] = site.name
    t.tell(site.name, "village")
    t.ask(f"Who minded {site.name}?", B)
    t.S(
        f'"You only have to stand there," said {A}.',
        f"{A} explained the till, which did not take long.",
        f'"The prices are on the wall," said {A}.',
        f"{B} had never sold anything before.",
    )
    t.detail(0.7, "smell", "stock", "work")
    t.par(0.6, "seen", "work", "went")
    total = 0
    stock = [THING[x] for x in site.sells if x not in t.ban_things]
    stock = [x for x in stock if x.name not in t.info.things] or stock
    n = t.pick((1, 2, 3), (0.2, 0.5, 0.3))
    for _i in range(n):
        t.sep()
        c = t.person()
        C = c.name
        t.first(c, plain=0.5)
        t.say(" came in and bought ", " bought ", " took ", " was next and asked for ")
        k = t.number(1, 4)
        if k == 1:
            y = t.pick(stock, said=_a_of)
            t.w(y.a)
        else:
            y = t.pick(stock, said=_several(k))
            t.w(f"{_NUMBER[k]} {y.plural}")
        t.use(y)
        cost = k * y.price
        t.say(f" and paid {pence(cost)}.", f", which came to {pence(cost)}.", f". That was {pence(cost)}.")
        total += cost
        t.ask(f"What did {C} buy?", y.a if k == 1 else f"{_NUMBER[k]} {y.plural}", y.name if k == 1 else f"{k} {y.plural}")
        t.ask(f"How much did {C} pay?", pence(cost), str(cost))
        if t.flip(0.25):
            t.S(
                f"{B} wrapped it badly.",
                f"{B} dropped one and picked it up again.",
                f"{C} counted the change twice.",
                f"{B} said thank you three times.",
            )
    end = t.pick((0, 1, 2), (0.45, 0.3, 0.25))
    t.par()
    t.S(f"When {A} came back, ", f"{A} came in at last, and ")
    if end == 0:
        t.say(f"there were {pence(total)} in the till.", f"the till held {pence(total)}.")
        t.ask("How much was in the till?", pence(total), str(total))
        t.speak(
            a, "You have a gift for it", "And nothing broken?", "Did you charge for the string?", "Come again tomorrow", other=b
        )
        t.info.summary = f"{B} minded {site.name} for {A} and took {pence(total)}."
    elif end == 1:
        done = t.say(
            f"{B} had eaten one {stock[0].name} and paid for it."
            if stock[0].kind == "food"
            else f"{B} had bought {stock[0].a} as well.",
            f"{B} had put everything in order of size.",
        )
        t.S(f"{A} could not find anything for a week.", f"{A} gave {b.him} a penny back.") if "order" in done else t.S(
            f"That made {pence(total + stock[0].price)} in all."
        )
        if "order" not in done:
            t.use(stock[0])
            t.ask("How much was in the till?", pence(total + stock[0].price), str(total + stock[0].price))
        t.info.summary = f"{B} minded {site.name} for {A}."
    else:
        t.say(f"{B} did not want to go.", f"{B} asked to stay until closing time.", f"{B} had put on the apron.")
        t.S(
            f"They stood behind the counter together until {hour_words(site.closes)}.",
            f"Since then {B} comes every week.",
            f"{A} went out again, quite glad.",
        )
        t.info.summary = f"{B} minded {site.name} for {A} and liked it."
    t.unasked("Who came in just before closing time?")


_LESSONS = (
    ("splice a rope", "Cora"),
    ("shape a loaf", "Basil"),
    ("ring the bell", "Tess"),
    ("throw a pot", "Dora"),
    ("sole a boot", "Jot"),
    ("plait onions", "Gert"),
    ("milk a cow", "Ivy"),
    ("row backwards", "Wren"),
    ("read a clock", "Moss"),
    ("thatch a corner", "Juno"),
    ("graft a pear", "Hazel"),
    ("write in capitals", "Ada"),
    ("weave a stripe", "Flora"),
    ("smoke a trout", "Tam"),
    ("set type", "Una"),
    ("plane a board", "Rowan"),
    ("bend iron", "Odo"),
    ("dip a candle", "Faye"),
    ("find mushrooms", "Willa"),
    ("cook for forty", "Maud"),
    ("brush a hat", "Vera"),
    ("fold a paper bag", "Tib"),
    ("lose at chess", "Mungo"),
    ("tell the weather", "Zeb"),
)


def lesson(t: Tale) -> None:
    """Somebody learns something, or the teacher does."""
    t.lead()
    open_ = [p for p in _LESSONS if p[1] not in t.ban_names and (t.cast_filter is None or t.cast_filter(p[1]))] or list(_LESSONS)
    skill, A = t.pick(open_, said=lambda p: p[1])
    a = t.enter(CHARACTER[A])
    t.first(a)
    t.say(" was teaching ", " had promised to teach ", " tried to teach ")
    b = t.person(near=a)
    B = b.name
    t.first(b, kin=a)
    t.w(f" to {skill}.")
    t.ask(f"What did {B} want to learn?", f"To {skill}", skill)
    t.ask(f"Who taught {B}?", A)
    t.unasked(f"What did {B} pay for the lesson?")
    t.aside(A, ("workplace", "trade", "manner", "home"))
    t.speak(a, "Watch me first", "There is no trick to it", "It is all in the wrist", "Do not think about it", "Slowly", other=b)
    t.detail(0.5, "talk", "remember", "table")
    n = t.number(2, 7)
    t.S(
        f"{B} tried it {_NUMBER[n]} times" if n > 2 else f"{B} tried it twice",
        f"{B} failed {_NUMBER[n]} times" if n > 2 else f"{B} failed twice",
    )
    t.say(
        ", and each time it was worse.",
        " and broke something.",
        ", and then it rained." if t.weather in (None, "wind") else ", and then it was noon.",
        " without a word.",
        " and would not stop.",
    )
    t.ask(f"How many times did {B} try?", f"{_NUMBER[n]} times" if n > 2 else "twice", str(n), _NUMBER[n])
    t.detail(0.9, *ROOM)
    t.par(0.5, "clock", "seen", "went")
    end = t.pick((0, 1, 2, 3), (0.34, 0.26, 0.22, 0.18))
    if end == 0:
        t.S("Then it went well, all at once.", "The next one was perfect.", f"Suddenly {b.he} could do it.")
        t.speak(b, "I did not think about it", "Is that all?", "What did I do?", other=a)
        t.S(
            f"{A} could not say.",
            f"{A} asked {b.him} to show it again, more slowly."
            if a.he != b.he
            else f"{A} asked {B} to show it again, more slowly.",
            f"{A} took the rest of the day off.",
        )
        t.info.summary = f"{A} taught {B} to {skill}."
    elif end == 1:
        t.S(f"Then {A} tried to show it again and could not.", f"{A} said it should look like this, and it did not.")
        t.S("They had both thought about it too long.", f"{B} was very polite about it.", f'"Slowly," said {B}.')
        t.unasked(f"Did {B} ever learn to {skill}?")
        t.info.summary = f"{A} tried to teach {B} to {skill}, and then could not do it either."
    elif end == 2:
        t.S("Somebody had been watching from the wall: ", "On the wall, unseen, sat ")
        c = t.person(CHILDREN)
        C = c.name
        t.first(c, comma=False)
        t.w(".")
        t.S(f"{C} came over and did it at the first try.", f"{C} had learned it, without anyone's help, by looking.")
        t.S(f"{B} sat down on the wall instead.", f'"Could you teach me?" asked {B}.')
        t.ask("Who had been watching?", C)
        t.info.summary = f"{A} tried to teach {B} to {skill}, and {C} learned it by looking."
    else:
        t.S(f"{B} gave it up, and made tea.", f"{B} washed the cups instead, and washed them well.")
        t.speak(a, "This I never could do", "How do you get it so clear?", "What did you put in it?", other=b)
        t.S(f"So {B} gave a lesson after all.", f"{A} wrote it down.")
        t.info.summary = f"{A} tried to teach {B} to {skill}, and {B} made tea."
    _ending(t, a, b)


_COUNTED = (
    "ducks on the green",
    "strangers at the inn",
    "fish in one net",
    "boats on the river",
    "new houses",
    "broken lamps",
    "pigs on the road",
    "pears on one branch",
    "bells in the tower",
    "cracks in the bridge",
)


def rumour(t: Tale) -> None:
    """A number grows as it is passed on."""
    t.lead(parts=True)
    a = t.person()
    A = a.name
    t.first(a)
    t.say(" told ", " said to ", " mentioned to ")
    b = t.person(near=a)
    B = b.name
    t.first(b, kin=a)
    n = t.number(2, 4)
    first = n
    t.w(f" that there were {_NUMBER[n]} ")
    what = t.pick(_COUNTED, said=_itself)
    t.w(what + ".")
    t.ask(f"How many {what} did {A} speak of?", _NUMBER[n].capitalize(), _NUMBER[n], str(n))
    names = [A, B]
    teller = b
    for _i in range(t.pick((1, 2, 3), (0.3, 0.45, 0.25))):
        t.S(
            f"{teller.name} told ",
            f"At {teller.home}, {teller.name} told ",
            f"From {teller.name} it went to ",
            f"{teller.name} could not keep it from ",
        )
        c = t.person(near=teller)
        t.first(c, comma=False, kin=teller, plain=0.5)
        more = t.number(1, 4)
        n += more
        t.say(
            f". By then it was {_NUMBER[n]}.",
            f". Now there were {_NUMBER[n]}.",
            f", and said {_NUMBER[n]}.",
            f", who heard {_NUMBER[n]}.",
        )
        t.detail(0.35, "walk", "seen", "clock", "work")
        if c.name not in names:
            names.append(c.name)
        teller = c
        t.ask(f"How many did {c.name} hear of?", _NUMBER[n].capitalize(), _NUMBER[n], str(n))
        t.unasked(f"What did {c.name} have for breakfast?")
    L = teller.name
    t.par(0.95, *OUT)
    end = t.pick((0, 1, 2), (0.42, 0.33, 0.25))
    if end == 0:
        t.S(
            f"In the evening {L} met {A} and said that there were {_NUMBER[n]} {what}.",
            f"{L} told {A}, who had not known that there were {_NUMBER[n]}.",
        )
        t.speak(a, "So many?", f"I saw only {_NUMBER[first]}", "They must have come in after me", "I was right, then", other=teller)
        t.S(f"{A} went to look again.", f"{A} was glad to have seen the beginning of it.", f"{A} told {B} at once.")
        t.info.summary = f"{A} spoke of {_NUMBER[first]} {what}, and in the end {L} told {A} of {_NUMBER[n]}."
    elif end == 1:
        t.S(f"{L} went to see with a lamp and a notebook.", f"{L} went to count.")
        t.S("There was one.", f"There were {_NUMBER[first]}.", "There were none at all.")
        t.S(
            f"{L} said that the rest must have left.",
            f"{L} wrote down {_NUMBER[n]}, as agreed." if n != first else "That was that.",
            f"On the way home it was {_NUMBER[n + 1]}.",
        )
        t.info.summary = f"{A} spoke of {_NUMBER[first]} {what}, the number grew, and {L} went to count."
    else:
        t.S("It was in the paper at the weekend.", "The paper had it on the front page.")
        t.S(f'It said "{n} {what}, with more to come".', f'It said: "{_NUMBER[n].capitalize()} {what}. See inside."')
        t.S(f"{A} read it aloud to {B}, and neither knew where it came from.", f"{A} cut it out.")
        t.ask("What number did the paper give?", _NUMBER[n].capitalize(), _NUMBER[n], str(n))
        t.info.summary = f"{A} spoke of {_NUMBER[first]} {what}, and the paper wrote of {_NUMBER[n]}."


_GUESSES = (
    ("beans in the jar", "count the beans"),
    ("steps in the bell tower", "go up and count"),
    ("boats before noon", "sit on the bridge and count"),
    ("eggs in the basket", "turn the basket out"),
    ("bricks in the wall", "walk along it and count"),
    ("carts on market day", "stand at the gate and count"),
    ("candles in the box", "open the box"),
    ("planks in the ferry", "lift the mats and count"),
)


def bet(t: Tale) -> None:
    """Two guess a number; the nearer wins."""
    t.lead()
    a = t.person()
    A = a.name
    t.first(a)
    t.say(" made a bet with ", " bet against ", " had a bet with ")
    b = t.person(near=a)
    B = b.name
    t.first(b, kin=a, comma=False)
    t.say(". It was about the number of ", ". The question was the number of ")
    what, way = t.pick(_GUESSES, said=lambda g: g[0])
    t.w(what + ".")
    t.ask("What was the bet about?", f"The number of {what}", what)
    base = 10 * t.number(2, 9)
    x = base
    t.S(f"{A} said {x}", f"{A} guessed {x}")
    gap = t.pick((2, 4, 6, 8, 10, 20))
    y = base + gap
    t.say(f" and {B} said {y}.", f", and {B} said {y}, to be different." if gap < 6 else f", and {B} laughed and said {y}.")
    stake = t.number(1, 9)
    t.S(f"The loser was to pay {pence(stake)}.", f"There were {pence(stake)} on it." if stake > 1 else "There was a penny on it.")
    t.ask(f"What was {A}'s guess?", str(x))
    t.ask(f"What was {B}'s guess?", str(y))
    t.aside(B, ("manner", "trade", "species", "home"))
    t.detail(0.9, *TALK)
    t.par(0.5, "clock", "seen", "went")
    t.S("To be sure, they asked ", "To be fair, they sent for ", "The counting was left to ")
    c = t.person()
    C = c.name
    t.first(c, comma=False)
    t.say(f". {C} had to {way}.", f". {C} was told to {way}.")
    t.ask("Who counted?", C)
    t.detail(0.7, "smell", "seen", "went", "clock")
    shift = t.pick((-5, -3, -1, 1, 3, 5))
    z = (x if shift < 0 else y) + shift
    tie = abs(z - x) == abs(z - y)
    t.S(f"It was {z}.", f"There were {z}.", f"{C} counted twice and came to {z}.")
    t.ask(f"How many {what} were there?", str(z))
    if abs(z - x) < abs(z - y):
        win, lose = a, b
    else:
        win, lose = b, a
    assert not tie
    t.S(
        f"So {win.name} was nearer, by {abs(abs(z - x) - abs(z - y))}.",
        f"That was nearer to {win.name}'s guess.",
        f"{win.name} had won.",
    )
    t.ask("Who won the bet?", win.name)
    end = t.pick((0, 1, 2), (0.4, 0.35, 0.25))
    if end == 0:
        t.S(f"{lose.name} paid {pence(stake)}, ", f"{lose.name} put {pence(stake)} on the table, ")
        t.say(
            "and wanted to bet again.",
            f"and {win.name} bought {C} a bun for the trouble.",
            "and said that it had been a good guess.",
            "one by one." if stake > 1 else "face down.",
        )
    elif end == 1:
        t.S(f"{lose.name} wanted to count again.", f"{lose.name} had paid before {C} was done.")
        t.S("It came to the same.", "It came to one more, which changed nothing.")
    else:
        t.S(
            f"But while they talked, {C} had eaten one."
            if what in ("beans in the jar", "eggs in the basket")
            else "But while they talked, somebody had taken one."
            if what == "candles in the box"
            else f"But {C} had never counted past twelve before."
        )
        t.S(f"{win.name} would not take the money.", f"They gave the {pence(stake)} to {C}.")
    t.unasked(f"What did {win.name} do with the money?")
    t.info.summary = f"{A} bet {x} and {B} bet {y} on the number of {what}; it was {z}, and {win.name} won."


def errands(t: Tale) -> None:
    """A list, three shops, and one thing forgotten."""
    t.lead()
    a = t.person()
    A = a.name
    t.first(a)
    coin = t.pick((50, 60, 80, 100))
    t.say(f" went shopping with {coin} pence.", f" set out with a basket and {coin} pence.", f" had {coin} pence and a list.")
    t.ask(f"How much money did {A} set out with?", f"{coin} pence", str(coin))
    t.S("On the list were ", f"{A} was to get ", "The list said: ")
    n = t.pick((2, 3), (0.45, 0.55))
    items = []
    pool = [g for g in SMALL_GOODS + FOODS if g.price <= 12]
    for i in range(n):
        k = t.pick((1, 2, 3), (0.6, 0.25, 0.15))
        if k == 1:
            th = t.thing(pool)
            t.w(th.a)
        else:
            th = t.thing(pool, said=_several(k))
            t.w(f"{_NUMBER[k]} {th.plural}")
        items.append((k, th))
        t.w("." if i == n - 1 else " and " if i == n - 2 else ", ")
    t.detail(0.8, "walk", "seen", "went", "work")
    t.par(0.6, *OUT)
    left = coin
    forgot = t.flip(0.45)
    bought = items[:-1] if forgot else items
    for k, th in bought:
        cost = k * th.price
        site = PLACE[th.sold_at]
        what = th.name if k == 1 else th.plural
        if t.flip(0.3):
            t.tell(th.name, "price")
        t.S(f"{A} bought the {what} at {site.name}", f"At {site.name} {A} got the {what}", f"The {what} came from {site.name}")
        t.say(f" for {pence(cost)}.", f", for {pence(cost)}.", f", at {pence(cost)}.")
        left -= cost
        t.ask(f"Where did {A} buy the {what}?", f"At {site.name}", site.name)
        t.ask(f"How much did the {what} cost?", pence(cost), str(cost))
        t.holds[th.name] = A
        k_ = CHARACTER[site.keeper]
        if t.allowed(k_) and t.flip(0.3):
            t._meet(k_)
            t.S(f"{k_.name} was {DOING[k_.trade][0]}.", f"{k_.name} was {DOING[k_.trade][1]}.")
    t.S(f"That left {pence(left)}.", f"There were {left} pence left over." if left > 1 else f"There was {pence(left)} left over.")
    t.ask("How much was left?", pence(left), str(left))
    if forgot:
        k, th = items[-1]
        what = th.name if k == 1 else th.plural
        t.S(
            f"At {a.home} the list was read again. The {what} had been forgotten.",
            f"{A} was back at {a.home} before {a.he} thought of the {what}.",
            f"Only the {what} had been left out, and that was what it was all for.",
        )
        t.ask(f"What did {A} forget?", f"The {what}", what, th.a)
        t.S("So they did without.", f"{A} went out again, without the list.", f"{A} said that there had been none.")
        t.info.summary = f"{A} went shopping with {coin} pence and forgot the {what}."
    else:
        end = t.pick((0, 1, 2), (0.4, 0.35, 0.25))
        if end == 0:
            t.S(
                f"{A} went home to {a.home} and sat down for the first time that day.",
                f"{A} was home at {a.home} before the rain."
                if t.weather not in ("rain",)
                else f"{A} was home at {a.home}, wet through.",
            )
        elif end == 1:
            t.S(
                f"On the bridge a handle broke, and {A} carried the rest in {a.his} hat.",
                "It was only then that the basket broke.",
                f"It was more than {A} could carry, and somebody's dog was glad to help.",
            )
        else:
            t.S(
                "At home they asked who had wanted all this.",
                f"It was the wrong list. It was {a.home} that had the right one.",
                f"{A} read the list again. It was last week's.",
            )
        t.info.summary = f"{A} went shopping with {coin} pence and came home with {pence(left)}."
    t.unasked(f"Who wrote {A}'s list?")


_SOUNDS = (
    ("a bell", "the bell tower"),
    ("a mill wheel", "the water mill"),
    ("a hammer", "the smithy"),
    ("cows", "the dairy"),
    ("singing", "the inn"),
    ("bees", "the bee garden"),
    ("a printing press", "the print shop"),
    ("an axe", "the timber yard"),
    ("oars", "the ferry landing"),
)


def fog(t: Tale) -> None:
    """Lost in the fog, they follow a sound."""
    t.weather = "fog"
    t.sky(("fog",))
    t.sep()
    a = t.person()
    A = a.name
    t.first(a)
    t.say(" was on the way home to ", " had set out for ", " was walking to ")
    t.w(a.home)
    t.told.add((A, "home"))
    t.info.facts.append(FACT[A, "home"])
    t.say(
        " and had lost the road.",
        ", and had passed the same stone twice.",
        ", one hand on the hedge, and then there was no hedge.",
        " by what must have been the wrong path.",
    )
    t.ask(f"Where did {A} want to go?", f"To {a.home}", a.home, "home")
    b = None
    if t.flip(0.65):
        t.S("Somebody coughed. It was ", "Out of the fog came ", f"{A} walked into ")
        b = t.person(near=a)
        B = b.name
        t.first(b, comma=False, kin=a)
        t.w(".")
        t.speak(
            b,
            "Is this the road?",
            "Which way are you going?",
            "I was following you",
            "I thought you were a post",
            "Good morning, if it is",
            other=a,
        )
        t.detail(0.6, "talk", "remember")
        t.S(f"{A} did not know either.", f'"I was going to ask you," said {A}.', "They decided to be lost together.")
        t.ask(f"Whom did {A} meet?", B)
    who = f"{A} and {b.name}" if b else A
    t.par(0.8, "clock", "smell", "seen", "work")
    t.S("Then there was a sound: ", f"{who} stood still and heard ", "Somewhere ahead there was the sound of ")
    sound, site = t.pick(_SOUNDS, said=lambda p: p[0])
    t.w(f"{sound}.")
    t.ask(f"What did {A} hear?", sound.capitalize(), sound)
    end = t.pick((0, 1, 2), (0.42, 0.33, 0.25))
    if end == 0:
        t.S(f"{who} went after it, and came to {site}.", f"That could only be {site}, and it was.")
        t.tell(site, "village")
        t.where[A] = site
        t.ask(f"Where did {A} end up?", f"At {site}", site)
        k = CHARACTER[PLACE[site].keeper]
        if t.allowed(k):
            t._meet(k)
            t.S(
                f"{k.name} gave out dry socks.",
                f"{k.name} let them in by the back door." if b else f"{k.name} opened the back door.",
                f"{k.name} was {DOING[k.trade][0]} and asked why they were out."
                if b
                else f"{k.name} was {DOING[k.trade][0]} and had not noticed the fog.",
            )
        t.info.summary = f"{who} got lost in the fog and came to {site} by following {sound}."
    elif end == 1:
        t.S(
            f"It came from the left, then from the right, then from {TOWN}.",
            "It came from all sides.",
            "When they turned round, it turned too." if b else "It moved when it was listened to.",
        )
        t.S("In the end the fog lifted.", "Then the fog went up like a curtain.")
        t.S(
            f"{who} had been standing at {A}'s own gate." if b else f"{A} had been standing at {a.his} own gate.",
            f"{A} was in {a.his} own garden, and had trodden on the leeks.",
        )
        t.where[A] = a.home
        t.ask(f"Where was {A} when the fog lifted?", f"At {a.home}", a.home, "at home", "at the gate", "in the garden")
        t.info.summary = f"{who} got lost in the fog close to {A}'s home."
    else:
        t.S("It stopped. So they sat down on a milestone." if b else "It stopped.")
        t.S(
            "They sat and talked until they could see each other's feet." if b else f"{A} sat down on a milestone and waited.",
            "An hour went by, or it may have been two.",
        )
        t.S("The milestone said ", "By and by one could read the stone. It said ")
        v = t.pick([p for p in VILLAGES if p.minutes and p.name != a.home], said=lambda p: f"{p.name}, {p.minutes} minutes")
        t.w(f"{v.name}, {v.minutes} minutes")
        t.say(", and pointed up.", ".")
        t.S(f"It was the road to {v.name}, and not to {a.home} at all.", f"Nobody wanted to go to {v.name}.")
        t.ask("Which place was on the milestone?", v.name)
        t.info.summary = f"{who} got lost in the fog and waited by a milestone."
    t.unasked(f"How long was {A} away from home?")


def eggs(t: Tale) -> None:
    """Things are gathered, dropped and counted."""
    t.lead(("fine", "wind", "frost", "rain"))
    a = t.person()
    A = a.name
    t.first(a)
    t.say(" gathered ", " collected ", " was sent to gather ")
    what, verb = t.pick(
        (
            ("eggs", "broke"),
            ("pears", "fell into the mill race"),
            ("mushrooms", "were eaten by a sheep"),
            ("plums", "were trodden on"),
            ("nuts", "rolled away"),
            ("apples", "rolled into the river"),
        ),
        said=lambda p: p[0],
    )
    t.w(what)
    t.say(".", " for the market.", " before breakfast.", " with a basket that was too small.")
    one, two = t.number(3, 12), t.number(2, 8)
    t.S(f"There were {one} ", f"{A} found {one} ")
    spots = ("under the hedge", "by the wall", "behind the barn", "in the long grass", "near the well")
    s1 = t.pick(spots, said=_itself)
    t.w(s1)
    t.say(" and ", ", and ")
    t.w(f"{two} ")
    t.w(t.pick([s for s in spots if s != s1], said=_itself))
    t.w(".")
    sum_ = one + two
    if t.flip(0.6):
        t.S(f"That made {sum_}.", f"So the basket held {sum_}.")
    t.ask(f"How many {what} did {A} gather?", str(sum_), _NUMBER[sum_] if sum_ < 21 else f"{sum_} {what}")
    t.ask(f"How many {what} were there {s1}?", str(one), _NUMBER[one])
    t.detail(0.8, *OUT)
    t.par(0.5, "smell", "walk", "seen")
    t.S("On the way home ", "At the gate ", "Near the pump ")
    b = t.person(near=a)
    B = b.name
    t.first(b, kin=a)
    t.say(
        " asked the time, and the basket tipped over.",
        " jumped out from behind a tree.",
        " stopped to talk, and the basket was put down on a slope.",
        " tripped over the basket.",
    )
    lost = t.number(1, min(6, sum_ - 2))
    t.S(
        f"{_NUMBER[lost].capitalize()} {verb}."
        if lost > 1 or not verb.startswith("were")
        else f"One {verb.replace('were', 'was', 1)}."
    )
    rest = sum_ - lost
    t.S(f"Now there were {rest}.", f"{rest} were left.", f"They counted again and came to {rest}.")
    t.ask(f"How many {what} were left?", str(rest), _NUMBER[rest] if rest < 21 else f"{rest} {what}")
    t.ask(f"How many {what} were lost?", str(lost), _NUMBER[lost])
    t.detail(0.6, "talk", "remember", "went")
    end = t.pick((0, 1, 2), (0.4, 0.33, 0.27))
    if end == 0:
        t.speak(
            b,
            "I shall say it was me",
            "They would not have kept",
            "Let us eat the rest before something happens",
            f"{rest} is a good number",
            other=a,
        )
        t.S(f"{A} could not be cross for long.", "They were both late for breakfast.", f"{A} gave {b.him} the smallest.")
    elif end == 1:
        t.S(f"{B} went back and found ", f"{B} ran off and came back with ")
        more = t.number(lost, lost + 4)
        t.w(f"{more} more")
        t.say(", which was more than before." if more > lost else ", which was just right.", f", so that there were {rest + more}.")
        t.ask(f"How many {what} did {B} bring?", str(more), _NUMBER[more])
    else:
        t.S(f"At {a.home} nobody asked.", f"At {a.home} they had only wanted two.", f"The {what} went into one large cake.")
        t.S(f"{A} told them anyway.", f"{B} told them anyway.", "Nobody was told.")
    t.unasked(f"Who ate the {what}?")
    t.info.summary = f"{A} gathered {sum_} {what}, and after a mishap with {B} there were {rest}."


def queue(t: Tale) -> None:
    """A line at a shop, and one last loaf."""
    t.lead()
    site = None
    a = t.person()
    A = a.name
    t.w(A)
    t.say(" stood in line at ", " was first in the line at ", " had got up early to be first at ")
    site = t.pick(
        [PLACE[s] for s in ("the bakery", "the grocery", "the tea room", "the market hall", "the inn")], said=lambda p: p.name
    )
    t.w(site.name)
    t.say(". Behind came ", ", before ", ". Next was ")
    b = t.person()
    B = b.name
    t.first(b, comma=False)
    t.say(", and then ", ". After that came ", ". The last was ")
    c = t.person()
    C = c.name
    t.first(c, comma=False)
    t.w(".")
    t.tell(site.name, "opens")
    t.ask("Who was second in the line?", B)
    t.ask(f"Who stood behind {B}?", C)
    t.ask("Where did they stand in line?", f"At {site.name}", site.name)
    k = CHARACTER[site.keeper]
    if t.allowed(k):
        t.enter(k)
        t.S(
            f"{k.name} opened the door and said that all there was that day was ",
            f'"I have one thing today," said {k.name}, and held up ',
        )
    else:
        t.S("All there was that day was ", "In the window there was only ")
    foods = [THING[x] for x in site.sells if x in THING and THING[x].kind == "food"] or FOODS
    th = t.thing(foods)
    x = th.name
    t.w(f"{th.a}.")
    t.tell(x, "price")
    t.detail(0.9, "smell", "seen", "talk", "remember", "went")
    t.par(0.5, "clock", "stock", "visitor")
    end = t.pick((0, 1, 2, 3), (0.32, 0.28, 0.22, 0.18))
    if end == 0:
        t.S(f"{A} bought it and looked round.", f"It was {A}'s by right.")
        t.S(f"{C} had come all the way from {c.home}.", f"{B} looked at the floor, and {C} looked at the {x}.")
        t.S(f"{A} had it cut in three.", f'"Has anyone a knife?" asked {A}.')
        t.info.summary = f"{A}, {B} and {C} stood in line at {site.name}, and {A} shared the last {x}."
        t.ask(f"Who bought the {x}?", A)
    elif end == 1:
        t.speak(a, "I only came for the warm", "I came for something else", "Take it, I have had breakfast", other=b)
        t.S(f"{B} said the same.", f"{B} would not have it either.")
        t.S(f"So {C} got the {x}, and thanked them twice.", f"{C} put down the money before anyone thought again.")
        t.holds[x] = C
        t.ask(f"Who got the {x}?", C)
        t.info.summary = f"{A}, {B} and {C} stood in line at {site.name}, and {C} got the last {x}."
    elif end == 2:
        t.S(f"{B} said that {A} had been let in at the side.", f"{C} said that the line began at the other end.")
        t.S("They turned round, and then the last was first.", "It was talked over until the bell rang.")
        t.S(f"Meanwhile somebody had come in at the back and bought the {x}.", f"By then the {x} was cold, and nobody wanted it.")
        t.unasked(f"What was the name of the one who bought the {x}?")
        t.info.summary = f"{A}, {B} and {C} stood in line at {site.name} for one {x} and could not agree."
    else:
        t.S(f"{A} bought it and gave it to {B}.", f"{A} paid, and handed it to {B}.")
        t.speak(b, "What is this for?", "But it is yours", "I shall not forget it", other=a)
        t.S(
            f'"It is for last winter," said {A}.',
            f'"You held my place," said {A}.',
            f"{A} was already on the road home to {a.home}.",
        )
        t.holds[x] = B
        t.ask(f"Who has the {x} at the end?", B)
        t.info.summary = f"{A} stood in line at {site.name} and gave the last {x} to {B}."
    t.unasked(f"How long did {C} have to wait?")


_PAINTED = ("gate", "boat", "front door", "bench", "hen house", "cart", "fence", "letter box")


def paint(t: Tale) -> None:
    """Something is to be painted, and the colour is a matter of opinion."""
    t.lead(("fine", "wind", "heat"))
    a = t.person(ADULTS)
    A = a.name
    t.first(a)
    order = t.say(" wanted the ", " was going to paint the ", " had asked for a ")
    what = t.pick(_PAINTED, said=_itself)
    t.w(what)
    t.w(" in " if order.endswith(" a ") else " painted " if "wanted" in order else " ")
    one = t.pick(_COLOURS, said=_itself)
    t.w(one + ".")
    t.ask(f"What colour did {A} want?", one.capitalize(), one)
    t.ask("What was to be painted?", f"The {what}", what)
    t.S("The work was to be done by ", "For that there was ", "The brush was held by ")
    b = t.person(near=a)
    B = b.name
    t.first(b, comma=False, kin=a)
    t.w(".")
    t.aside(A, ("home", "workplace", "manner"))
    t.S(
        f"There was not enough {one}, so {B} mixed in some ",
        f"{B} had only half a pot, and added ",
        f"In the dark of the shed {B} took the pot of ",
    )
    two = t.pick([c for c in _COLOURS if c != one], said=_itself)
    t.w(two + ".")
    t.ask(f"Which colour came in by way of {B}?", two.capitalize(), two)
    t.detail(0.9, *OUT, "smell")
    t.par(0.6, "went", "clock", "work", "seen")
    t.S(f"{A} came to look.", "In the light it was something else.", f"When it was dry, {A} walked round it.")
    t.speak(a, f"That is not {one}", "What do you call this?", "It is very even", "Is it dry?", other=b)
    end = t.pick((0, 1, 2), (0.4, 0.33, 0.27))
    if end == 0:
        t.S("Then ", "Just then ")
        c = t.person()
        C = c.name
        t.first(c)
        t.say(" came past and asked for the same.", " stopped and said how well it looked.", " leaned on it.")
        t.S(
            "So it stayed.",
            f"{A} said that it had been {a.his} idea." if a.he != b.he else f"{A} said that it had been planned so.",
            f"Now half of {a.home} has a {what} like that.",
        )
        t.ask("Who came past?", C)
    elif end == 1:
        t.S(f"They painted it again, {one}, and it came out {two}.", f"{B} painted it again the next day, and the day after.")
        t.S("The third time nobody looked.", f"There is still some {two} on the dog.", f"{A} has got used to {two}.")
    else:
        t.S(f"{B} said that it would fade.", f"{B} said to look at it from further off.")
        t.S(
            f"{A} looked at it from further off, and that was better.",
            f"{A} went as far as {a.home} pump, and from there it was {one}.",
            "In the evening light there was no telling.",
        )
    t.unasked("How much did the paint cost?")
    t.info.summary = f"{A} wanted a {one} {what}, and {B} painted it with {two} in it."


def chess(t: Tale) -> None:
    """A game at the inn."""
    t.lead(parts=True)
    a = t.person(ADULTS)
    A = a.name
    m = CHARACTER["Mungo"]
    b = m if a is not m else CHARACTER["Hugo"]
    B = b.name
    t.enter(b)
    t.first(a)
    t.say(
        f" played chess with {B} at the inn.", f" sat down to chess opposite {B}.", f" had agreed to play {B} at chess."
    )
    t.where[A] = t.where[B] = "the inn"
    if b is m:
        if t.flip(0.7):
            t.tell(B, "manner")
    else:
        t.tell(B, "friend")
    t.ask(f"Whom did {A} play?", B)
    t.S("The stake was ", "They played for ", "The loser was to pay for ")
    f = t.thing(FOODS)
    t.w(f"{f.a}.")
    t.ask("What was the stake?", f.a, f.name)
    if t.flip(0.4):
        t.tell(f.name, "price")
    t.S("After ", "In ")
    n = t.number(5, 20)
    t.w(f"{n} moves {A} had lost ")
    t.say("a bishop", "both knights", "the queen", "two pawns", "a rook", "the thread")
    t.say(f" and {B} was humming.", f", and {B} ordered more tea.", f" and {B} had lost a glove.")
    t.detail(0.9, "smell", "clock", "remember", "stock", "talk")
    t.S("Watching them was ", "At the next table sat ")
    c = t.person()
    C = c.name
    t.first(c, comma=False)
    t.w(".")
    t.ask("Who was watching?", C)
    t.par(0.6, "visitor", "smell", "table", "work")
    end = t.pick((0, 1, 2), (0.4, 0.32, 0.28))
    if end == 0:
        t.S(
            f"Then {B} saw a move so fine that {b.he} forgot the rest of the board.",
            f"{B} was winning, and could not think what came next.",
            f"{B} moved the wrong horse.",
        )
        t.S(f"{A} won in three moves.", f"{A} did not like to win like that, and won.")
        w = a
        t.speak(b, "I had you", "It was the knight", "Again?", "I shall know next time", other=a)
        t.S(f"{B} paid for the {f.name}, and they ate it together.", f"The {f.name} was {A}'s, and {C} had a piece.")
    elif end == 1:
        t.S(f"{C} coughed, and {A} looked at the board again.", f"{C} said that white was to move.")
        t.S(f"It had been {B}'s turn for an hour.", "They had each been waiting for the other since noon.")
        t.S(f"They called it a draw and cut the {f.name} in half.", "They wrote down the places and went home.")
        w = None
    else:
        t.S(f"{B} won.", f"To everyone's surprise {B} won.", f"For once {B} won.")
        t.S(f"Nobody knew what to say, least of all {B}.", f"{C} had to count the pieces.", f"They told it at {a.home} for a week.")
        w = b
        t.S(f"{A} paid for the {f.name}.", f"{A} bought the {f.name} and was glad to.")
    if w is not None:
        t.ask("Who won the game?", w.name)
    else:
        t.ask("Who won the game?", "Nobody", "nobody won", "it was a draw")
    t.info.summary = f"{A} played chess with {B}" + (f", and {w.name} won." if w else ", and nobody won.")
    t.unasked("Who had the white pieces?") if end != 1 else t.unasked("How long did the game take?")


def blown(t: Tale) -> None:
    """The wind takes a thing, and somebody else puts it to use."""
    t.weather = "wind"
    t.sky(("wind",))
    t.sep()
    if t.force is not None:
        a, x = t.owned()
        A = a.name
        t.first(a)
        t.w(f" had left {a.his} {x.name} on the wall, and it was gone")
    else:
        t.w("The wind took ")
        light = [
            THING[n]
            for n in (
                "umbrella",
                "straw hat",
                "wool cap",
                "blue blanket",
                "scarf",
                "map of the valley",
                "calendar",
                "flat basket",
                "red kite",
                "bee veil",
                "leather apron",
                "picking bag",
            )
            if n not in t.ban_things
        ]
        x = None
        a = t.person()
        A = a.name
        t.w(f"{A}'s ")
        x = t.thing([g for g in light if not g.owner], said=_name_of)
        t.w(x.name)
        t.say(" off the line", " out of the cart", " over the hedge", " clean away", " off the bench")
    if t.force is not None:
        t.say(" after the storm.", " in the morning.")
    else:
        t.say(" at ", ", and that was at ")
        v1 = t.village()
        t.w(v1 + ".")
        t.ask(f"Where did {A} lose the {x.name}?", f"At {v1}", v1)
    t.aside(A, ("home", "trade", "manner", "species"))
    t.S(
        f"{A} looked for it until dark.",
        f"{A} ran after it as far as the river.",
        f"{A} asked at every door.",
        f"{A} thought no more of it.",
    ) if t.force is None else t.S(f"{A} asked at every door.", f"{A} thought no more of it.")
    t.detail(0.8, "walk", "went", "seen", "work")
    t.par()
    t.hours = (8, 18)
    t.days_later()
    t.w(", ")
    b = t.person()
    B = b.name
    t.first(b)
    t.holds[x.name] = B
    t.say(f" had the {x.name}", f" was seen with the {x.name}", f" found the {x.name}")
    t.say(" at ", ", a long way off, at ")
    v2 = t.village()
    t.w(v2 + ".")
    t.detail(0.7, "seen", "work", "clock")
    t.ask(f"Where was the {x.name} found?", f"At {v2}", v2)
    t.ask(f"Who found the {x.name}?", B)
    t.S(
        "It had been in a tree.",
        "A hen was sitting on it.",
        "It had come down the chimney.",
        "It was on the head of a cow."
        if x.name in ("straw hat", "wool cap", "bee veil")
        else "It lay on the grass as if somebody had put it there.",
    )
    end = t.pick((0, 1, 2), (0.4, 0.33, 0.27))
    if end == 0:
        t.S(f"{A} came by and knew it at once.", f"Then {A} came down the road.")
        t.speak(a, "That is mine", "It suits you", "I had one like that", "Where did you get it?", other=b)
        t.S(
            f"{B} gave it back, a little sorry.",
            f"{B} gave it back, and {A} lent it to {b.him} on Sundays."
            if a.he != b.he
            else f"{B} gave it back, and borrows it on Sundays.",
        )
        t.holds[x.name] = A
    elif end == 1:
        t.S(f"{B} put up a notice, and the wind took that too.", f"{B} asked whose it was, and three said it was theirs.")
        t.S(f"So {B} kept it until somebody should ask.", f"It hangs in {B}'s hall.")
    else:
        t.S("The next day the wind turned and took it back.", f"{B} hung it out to dry, and the wind took it again.")
        t.S(f"It came down at {a.home}.", f"{A} found it on the step.")
        t.holds[x.name] = A
        t.S(f"{A} thought that {B} had been very quick.", f"{A} put it on the line, with two pegs.")
    t.ask(f"Who has the {x.name} at the end?", t.holds[x.name])
    t.unasked("How strong was the wind?")
    t.info.summary = f"The wind took {A}'s {x.name}, {B} found it, and at the end {t.holds[x.name]} had it."


def night_lamp(t: Tale) -> None:
    """A light where there should be none."""
    t.night = True
    t.used.update(("clock", "went", "visitor"))
    t.lead(("rain", "wind", "fog", "frost"))
    a = t.person()
    A = a.name
    t.first(a)
    t.say(" saw a light in ", " went by and saw a lamp burning in ", " could not sleep, and saw that there was light in ")
    site = t.pick(_SHOPS_AT_NIGHT, said=lambda p: p.name)
    t.w(site.name + ".")
    t.ask(f"Where did {A} see a light?", f"In {site.name}", site.name)
    t.tell(site.name, "opens")
    k = CHARACTER[site.keeper]
    K = k.name
    if t.allowed(k):
        t.enter(k)
        t.tell(site.name, "keeper")
        t.S(f"{A} woke {K}.", f"{A} ran to {k.home} for {K}.", f"{A} knocked at {K}'s door.")
        t.speak(k, "I put it out myself", "What time is it?", "Thieves do not light lamps", "Are you sure?", other=a)
        t.ask(f"Whom did {A} fetch?", K)
        both = f"{A} and {K}"
    else:
        t.S(f"{A} looked through the window.", f"{A} tried the door, and it was open.")
        both = A
    t.detail(0.7, "seen", "smell")
    t.par(0.7, "smell", "table", "stock")
    t.S("Inside sat ", f"{both} went in on tiptoe. There was ", "Among the shelves was ")
    b = t.person()
    B = b.name
    t.first(b, comma=False)
    t.say(", asleep.", ", with a book.", ", eating.", ", with a screw in one hand.", ", counting.")
    t.ask(f"Who was in {site.name}?", B)
    t.speak(
        b,
        "I wanted to finish it",
        "I came in to get warm",
        "I could not sleep",
        "I was locked in at closing time",
        "It is quieter here",
        other=a,
    )
    t.detail(0.9, "talk", "table", "stock", "remember")
    end = t.pick((0, 1, 2), (0.4, 0.35, 0.25))
    if end == 0:
        t.S("So they made tea.", "They put more wood on.", f"{A} could not sleep either, and sat down.")
        t.S(
            "When it got light they were still talking.",
            f"In the morning {site.name} opened early.",
            "Nobody went to bed that night.",
        )
    elif end == 1:
        t.S("The light had been on since ", "It had been going on every night since ")
        t.w(t.pick(DAYS, said=_itself))
        t.say(", and nobody had seen it.", ", it turned out.")
        t.S(f"{B} was given a key.", f"{B} left {pence(2)} for the oil.")
    else:
        t.S(f"{A} blew out the lamp and they all went home.", f"{A} put a coat over {B} and closed the door softly.")
        t.S("The next night there was a light again.", "Nothing was said about it in the morning.")
    t.unasked("How much oil was left in the lamp?")
    t.info.summary = f"{A} saw a light in {site.name} at night, and it was {B}."


def dog(t: Tale) -> None:
    """Whose dog is it?"""
    t.lead(parts=True)
    a = t.person()
    A = a.name
    t.first(a)
    t.say(" found a ", " was followed home by a ", " came home and met a ")
    colour = t.pick(("brown", "white", "black", "grey", "spotted", "yellow"), said=_itself)
    t.w(colour)
    t.say(" dog", " dog with one ear up", " dog without a collar", " dog as big as a calf")
    t.say(" at ", " on the road to ")
    v = t.village()
    t.w(v + ".")
    t.ask("What colour was the dog?", colour.capitalize(), colour)
    t.ask(f"Where did {A} meet the dog?", f"At {v}", v, f"on the road to {v}")
    t.S("It sat down on ", "It ate ", "It looked at ", "It lay down beside ")
    th = t.thing(FOODS)
    t.w(f"{th.a}.")
    tansy = CHARACTER["Tansy"]
    if t.allowed(tansy) and t.flip(0.4):
        t._meet(tansy)
        t.tell("Tansy", "manner")
        t.S(f"So {A} asked her.", f"{A} went to ask her.")
        t.S('"That is the dog of ', '"It belongs to ')
        b = t.person()
        B = b.name
        t.w(f'{B}," said Tansy.')
    else:
        t.S(f"{A} asked round.", f"{A} put up a notice.", f"{A} let it walk ahead.")
        t.S("It was the dog of ", "It turned out to belong to ", "It led the way to the house of ")
        b = t.person()
        B = b.name
        t.first(b, comma=False)
        t.w(".")
    t.ask("Whose dog was it?", f"{B}'s", B)
    t.tell(B, "home")
    t.detail(0.7, *WAY)
    t.par(0.5, "clock", "went", "seen")
    end = t.pick((0, 1, 2), (0.4, 0.33, 0.27))
    if end == 0:
        t.S(f"{B} was ", f"At {b.home} {B} was ")
        t.small_talk(b)
        t.w(".")
        t.detail(0.8, *ROOM)
        t.speak(
            b,
            "He comes and goes",
            "Was he any trouble?",
            "I thought that he was under the table",
            "He does that every week",
            other=a,
        )
        t.S(
            "The dog looked from one to the other.",
            f"The dog had gone. It was waiting at {A}'s door.",
            "The dog was asleep already.",
        )
        t.info.summary = f"{A} found a {colour} dog and brought it back to {B}."
    elif end == 1:
        t.S(f"{B} had been looking for it for ", "It had been away for ")
        n = t.number(2, 9)
        t.w(f"{_NUMBER[n]} days.")
        t.ask(
            "For how many days had the dog been away?",
            _NUMBER[n].capitalize(),
            str(n),
            f"{n} days",
            f"{_NUMBER[n]} days",
            _NUMBER[n],
        )
        t.S(f"{A} was given ", f"By way of thanks {A} got ")
        y = t.thing(FOODS + SMALL_GOODS)
        t.w(f"{y.a}, and a look from the dog.")
        t.holds[y.name] = A
        t.info.summary = f"{A} found the {colour} dog that {B} had been looking for."
    else:
        t.speak(b, "I gave him to you last year", "I have no dog", "That is not mine, mine is here", other=a)
        t.S(f"So {A} has a dog now.", f"The dog chose {A}.", f"{A} and {B} looked at the dog, and the dog looked at the sky.")
        t.S("It answers to any name.", "It is called Monday.", f"It will only eat {th.name}.")
        t.info.summary = f"{A} found a {colour} dog, and {B} did not want it back."
    t.unasked("How old was the dog?")
    _ending(t, a, b)


def bridge(t: Tale) -> None:
    """Two carts meet on a bridge one cart wide."""
    t.used.add("clock")
    t.lead()
    a = t.person(ADULTS)
    A = a.name
    t.first(a)
    t.say(
        " drove on to the bridge at High Bridge with ",
        " was half way over High Bridge with ",
        " came to High Bridge from the north with ",
    )
    x = t.pick([g for g in CART_GOODS if g.name not in t.ban_things], said=lambda g: "a cart full of " + g.plural)
    t.use(x)
    t.w(f"a cart full of {x.plural}")
    t.say(", and from the other side came ", ". Towards it came ")
    b = t.person(ADULTS)
    B = b.name
    t.first(b, kin=a)
    t.w(" with ")
    y = t.pick([g for g in CART_GOODS if g is not x and g.name not in t.ban_things], said=lambda g: g.plural)
    t.use(y)
    t.w(f"{y.plural}.")
    t.ask(f"What was on {A}'s cart?", x.plural.capitalize(), x.plural)
    t.ask(f"What was on {B}'s cart?", y.plural.capitalize(), y.plural)
    t.S("The bridge is one cart wide.", "There is room there for one.", "One of them had to go back.")
    t.speak(a, "I was here first", "After you", "My horse cannot walk backwards", "You have the lighter load", other=b)
    t.speak(b, "So was I", "I have been on it longer", "Mine can, but will not", "I am in no hurry", other=a)
    t.detail(0.9, "seen", "talk", "remember")
    t.used.update(("clock", "went", "walk", "visitor"))
    n = t.number(2, 6)
    t.S(f"After {_NUMBER[n]} hours ", f"By {_NUMBER[n]} o'clock ")
    t.say(
        "there were six carts behind each of them.",
        "they had eaten what they had with them.",
        "the horses had made friends.",
        "they had talked of everything else.",
    )
    t.par()
    end = t.pick((0, 1, 2), (0.42, 0.33, 0.25))
    if end == 0:
        t.S(
            "Then they swapped carts, and each drove on with the other's load.",
            "In the end they changed places, and each turned home with the other's cart.",
        )
        t.S(
            f"So {A} sold {y.plural} that day, and {B} sold {x.plural}.",
            "Both said afterwards that it was easier to sell what one knew nothing about.",
        )
        t.ask(f"What did {A} have at the end?", y.plural.capitalize(), y.plural)
        t.info.summary = f"{A} and {B} met with their carts on a narrow bridge and swapped loads."
    elif end == 1:
        t.S("A child told them to unload. It was ", "Then along came ")
        c = t.person(CHILDREN)
        C = c.name
        t.w(C + ".")
        t.S(
            f"{C} tossed a coin, and {A} went back.",
            f"{C} walked between the wheels and out at the other side, and that decided it. {A} went back.",
        )
        t.S(
            f"{B} gave {A} one of the {y.plural} for it.",
            "It took an hour, and the horse did not like it.",
            f"{B} took off {b.his} hat.",
        )
        t.ask("Who went back?", A)
        t.info.summary = f"{A} and {B} met with their carts on a narrow bridge, and {A} went back."
    else:
        t.S(f"{B} backed off, and then {A} backed off too.", "At the same moment both gave way.")
        t.S("The bridge lay empty, and neither would go first.", "They met again in the middle.")
        t.S("It was dark before they were done.", "It went on like that until supper.")
        t.info.summary = f"{A} and {B} met with their carts on a narrow bridge, and each wanted to let the other go first."
    t.unasked("What were the horses called?")


CART_GOODS = [
    g
    for g in GOODS
    if g.name not in ("stamp", "bottle of ink", "alarm clock", "ball of string", "calendar", "bar of soap", "map of the valley")
]
_RUNNERS = [c for c in CHARACTERS if c.age < 45]
_MASS_I = ("honey", "cheese", "rhubarb", "cabbage", "trout", "fish")
_SHARED = [c for c in CHARACTERS if sum(d.name[0] == c.name[0] for d in CHARACTERS) >= 3]
_CARTERS = ("Bess", "Ben", "Hugo", "Jory", "Hew", "Cass", "Gert", "Rafe", "Martha", "Finn", "Sam", "Rowan")
_SELLERS = [CHARACTER[s.keeper] for s in SITES if len(s.sells) >= 1 and s.kind in ("shop", "workshop", "office", "farm", "hall")]
_SHOPS_AT_NIGHT = [s for s in SITES if s.closes <= 20 and s.kind not in ("farm",)]

PLOTS: dict[str, Callable[[Tale], None]] = {
    f.__name__: f
    for f in (
        lent, lost_key, ferry, birthday, debt, delivery, mended, race, recipe, purse,
        wrong_letter, stuck_cart, swap, hidden, snow, ladder, minding, lesson, rumour,
        bet, errands, fog, eggs, queue, paint, chess, blown, night_lamp, dog, bridge,
    )
}  # fmt: skip
_HELD_OUT_PLOTS = (lent, mended, hidden, blown)


def story(
    chance: Chance, cast_filter: Callable[[str], bool] | None = None, held_out: bool = False, plot: str | None = None
) -> Story:
    """Write one story with `chance` and return what is known of it.

    `cast_filter(name)` says who may play a part; `plot` names one of `PLOTS`
    (then it is not drawn); `held_out` forces a pair of `HELD_OUT_PAIRS`.
    """
    force = None
    if held_out:
        who, what = chance.pick(HELD_OUT_PAIRS)
        force = (CHARACTER[who], THING[what])
    tale = Tale(chance, cast_filter, force)
    if plot is not None:
        run = PLOTS[plot]
    elif held_out:
        run = chance.pick(_HELD_OUT_PLOTS)
    else:
        run = chance.pick(_ALL_PLOTS)
    tale.info.plot = run.__name__
    run(tale)
    if not tale.info.unanswered:
        tale.unasked(f"What did {tale.cast[0].name} have for breakfast?")
    return tale.info


_ALL_PLOTS = tuple(PLOTS.values())


def story_questions(info: Story) -> list[Question]:
    """All that can be asked: of the text, of text and valley, and in vain."""
    out = list(info.questions)
    for thing, who in info.holds.items():
        if any(q.answer == who and thing in q.question for q in info.questions):
            home = CHARACTER[who].home
            out.append(Question(f"Where does the one who has the {thing} at the end live?", f"At {home}", (home,)))
    out += [Question(q, "I do not know") for q in info.unanswered]
    return out
