# ruff: noqa: E501
"""What is true in the valley: who lives there, where, and what things cost.

Everything is derived from four tables (characters, villages, sites, things)
and one list of families, so that the facts have structure: a mother's sister is
an aunt, a pie needs what a farm grows, a walk through the town adds up.

The river is the Wend. It runs from west to east. The market town, Wendon, lies
on the north bank. There is one bridge at Low Bridge, a ferry from the ferry
landing at Old Landing to Far Landing, and a second, narrow bridge high up at
High Bridge.

`FACTS` are plain (subject, relation, object) triples with one right object
each. `cloze(fact)` gives a sentence without its end and the end;
`statement(fact)` the whole sentence, in the very words the documents use.
"""

from __future__ import annotations

from dataclasses import dataclass

from pocket_world.words import MONTHS, article

RIVER = "the Wend"
TOWN = "Wendon"


@dataclass(frozen=True)
class Place:
    """A village (`site` False, people live there) or a site (people work there).

    The name of a site begins with "the": "the bakery". Everything is "at" a
    place: "at Low Bridge", "at the bakery".
    """

    name: str
    kind: str  # "village", "hamlet", "street", "market town", "shop", "farm", …
    bank: str  # "north" or "south"
    minutes: int  # walking to Wendon
    near: str  # a village: the nearest other village; a site: its village
    site: bool = False
    keeper: str = ""  # a site: who keeps it
    opens: int = 0  # hour of the day, 24-hour clock; 0 for villages
    closes: int = 0
    landmark: str = ""  # a village: what a stranger sees first
    sells: tuple[str, ...] = ()  # names of things

    @property
    def village(self) -> str:
        """The village itself, or the one a site stands in."""
        return self.near if self.site else self.name


@dataclass(frozen=True)
class Thing:
    """A thing that can be carried, lent, bought or eaten; always countable."""

    name: str
    plural: str
    kind: str  # "belonging", "food", "goods"
    price: int  # pence, each
    made_of: str  # material, or a food's chief ingredient
    sold_at: str = ""  # a site; "" for belongings
    owner: str = ""  # a belonging's owner; "" otherwise

    @property
    def article(self) -> str:
        return article(self.name)

    @property
    def a(self) -> str:
        """ "a kettle", "an apple cake"."""
        return f"{self.article} {self.name}"

    @property
    def the(self) -> str:
        return f"the {self.name}"

    @property
    def heavy(self) -> bool:
        """Too heavy to carry under one arm."""
        return self.name in _HEAVY


_HEAVY = frozenset(
    (
        "copper churn",
        "tea urn",
        "hand loom",
        "paper press",
        "potter's wheel",
        "seed drawer",
        "case of type",
        "iron toolbox",
        "sack barrow",
        "wheel rim",
        "wheelbarrow",
        "bale of hay",
        "sack of bran",
    )
)


@dataclass(frozen=True)
class Character:
    """One animal of the valley."""

    name: str
    species: str
    he: str
    him: str
    his: str
    age: int  # at the last midwinter count; orders brothers and sisters
    trade: str  # one of a kind: there is one baker
    workplace: str  # a site
    home: str  # a village
    born: str  # a village
    birthday: str  # "12 May"
    friend: str  # friendship is mutual
    food: str
    belonging: str
    manner: str  # what they are known for
    mother: str = ""
    father: str = ""
    spouse: str = ""
    siblings: tuple[str, ...] = ()  # oldest first
    children: tuple[str, ...] = ()

    @property
    def child(self) -> bool:
        return self.age < 16


@dataclass(frozen=True)
class Fact:
    subject: str
    relation: str
    object: str


@dataclass(frozen=True)
class Relation:
    """How a relation is put into words; `{s}` is the subject, `{o}` the object.

    `stem` is the sentence up to the object, which always ends the sentence.
    `question` has the same object for its answer.
    """

    name: str
    of: str  # "character", "place", "thing" or "ingredient"
    stem: str
    end: str
    question: str


SPECIES_PLURAL = {
    "hare": "hares",
    "badger": "badgers",
    "otter": "otters",
    "mole": "moles",
    "hedgehog": "hedgehogs",
    "squirrel": "squirrels",
    "fox": "foxes",
    "mouse": "mice",
    "toad": "toads",
    "goose": "geese",
    "rabbit": "rabbits",
    "vole": "voles",
    "beaver": "beavers",
    "owl": "owls",
    "crow": "crows",
    "stoat": "stoats",
    "heron": "herons",
    "newt": "newts",
}

# name | kind | bank | minutes | near | landmark
_VILLAGES = """
Wendon        | market town | north |  0 | Market Cross | a square with a lime tree
Market Cross  | street  | north |  5 | Bell Yard    | a stone cross with no top
Bell Yard     | street  | north | 10 | Market Cross | a tower that leans a little
Cooper Row    | street  | north |  5 | Lamp Lane    | barrels on both pavements
Lamp Lane     | street  | north | 10 | Cooper Row   | eleven lamps and a broken one
Low Bridge    | village | north | 20 | Mill End     | a bridge with three arches
Mill End      | village | north | 25 | Low Bridge   | a wheel you can hear at night
Old Landing   | hamlet  | north | 15 | Reed Bank    | an alder with a rope round it
Reed Bank     | hamlet  | north | 20 | Old Landing  | boats upside down on the grass
Ash Corner    | hamlet  | north | 35 | Long Field   | an ash tree and a bench
Long Field    | village | north | 40 | Ash Corner   | a field without a single tree
High Bridge   | village | north | 45 | Fern Hollow  | a bridge one cart wide
Fern Hollow   | hamlet  | north | 50 | High Bridge  | a well with a tin cup
Nettle Hill   | hamlet  | north | 60 | Crow Wood    | a windmill with four sails
Crow Wood     | hamlet  | north | 65 | Nettle Hill  | smoke among the trees
Goose Green   | village | south | 30 | Red Gate     | a pond with a wooden island
Red Gate      | hamlet  | south | 35 | Goose Green  | a red gate with no fence
Stone Ford    | village | south | 40 | Hay Barn     | a row of flat stones
Hay Barn      | hamlet  | south | 45 | Stone Ford   | a barn with a blue door
Far Landing   | hamlet  | south | 50 | Otter Bend   | a bell on a post
Otter Bend    | hamlet  | south | 55 | Far Landing  | a chimney that always smokes
Kiln Lane     | hamlet  | south | 55 | Clay Pit     | a kiln like a fat bottle
Clay Pit      | hamlet  | south | 60 | Kiln Lane    | a pit full of green water
Pear Row      | hamlet  | south | 70 | Salt Spring  | a row of pear trees
Salt Spring   | hamlet  | south | 75 | Pear Row     | a white path
"""

# name | kind | village | opens | closes | keeper
_SITES = """
the bakery         | shop     | Market Cross |  6 | 14 | Basil
the grocery        | shop     | Market Cross |  8 | 18 | Martha
the pharmacy       | shop     | Market Cross |  9 | 17 | Edda
the hat shop       | shop     | Market Cross | 10 | 17 | Vera
the market hall    | hall     | Wendon       |  7 | 13 | Silas
the bell tower     | tower    | Bell Yard    |  7 | 12 | Tess
the school         | school   | Bell Yard    |  9 | 15 | Ada
the reading room   | hall     | Bell Yard    | 10 | 19 | Otis
the smithy         | workshop | Cooper Row   |  7 | 17 | Odo
the shoe shop      | shop     | Cooper Row   |  9 | 18 | Jot
the clock shop     | shop     | Lamp Lane    | 10 | 18 | Moss
the print shop     | workshop | Lamp Lane    |  8 | 20 | Una
the tea room       | shop     | Lamp Lane    | 11 | 19 | Clara
the post office    | office   | Low Bridge   |  8 | 16 | Hob
the water mill     | mill     | Mill End     |  6 | 16 | Hew
the ferry landing  | landing  | Old Landing  |  7 | 19 | Wren
the boat yard      | workshop | Reed Bank    |  7 | 16 | Ned
the onion farm     | farm     | Ash Corner   |  6 | 15 | Gert
the wheat farm     | farm     | Long Field   |  6 | 17 | Ben
the paper mill     | mill     | High Bridge  |  8 | 15 | Percy
the bee garden     | farm     | Fern Hollow  |  9 | 14 | Opal
the windmill       | mill     | Nettle Hill  |  7 | 15 | Zeb
the timber yard    | workshop | Crow Wood    |  7 | 14 | Jory
the dairy          | farm     | Goose Green  |  5 | 12 | Ivy
the wool shed      | workshop | Red Gate     |  8 | 14 | Flora
the inn            | inn      | Stone Ford   | 11 | 22 | Mungo
the hay store      | farm     | Hay Barn     |  6 | 13 | Hugo
the rope walk      | workshop | Far Landing  |  8 | 17 | Cora
the smoke house    | workshop | Otter Bend   |  5 | 11 | Tam
the pottery        | workshop | Kiln Lane    |  9 | 16 | Dora
the brick yard     | workshop | Clay Pit     |  7 | 16 | Rafe
the orchard        | farm     | Pear Row     |  8 | 16 | Hazel
the salt house     | workshop | Salt Spring  |  9 | 13 | Ike
"""

# name species he/she age | trade @ workplace | home | born | birthday |
# favourite food | belonging (price, material) | known for
_CHARACTERS = """
Bram hare he 71 | lock keeper @ the water mill | Mill End | Low Bridge | 3 February | onion pie | pewter mug 9 pewter | counting boats
Nell hare she 69 | lace maker @ the wool shed | Mill End | Goose Green | 21 June | seed cake | silver thimble 12 silver | short answers
Hob hare he 44 | postmaster @ the post office | Low Bridge | Low Bridge | 12 May | plum tart | letter scale 24 brass | bad handwriting
Ivy hare she 39 | dairy keeper @ the dairy | Goose Green | Low Bridge | 30 August | cheese pie | copper churn 60 copper | singing to the cows
Finn hare he 41 | cheese maker @ the dairy | Goose Green | High Bridge | 8 January | nut cake | cheese wire 5 steel | guessing weights
Pip hare he 9 | goose herd @ the dairy | Goose Green | Goose Green | 17 March | cherry tart | tin whistle 3 tin | being late for school
Dot hare she 7 | egg collector @ the dairy | Goose Green | Goose Green | 5 October | honey cake | red kite 6 paper | asking why
Odo badger he 52 | smith @ the smithy | Cooper Row | Crow Wood | 19 November | potato pie | iron toolbox 40 iron | thinking before speaking
Maud badger she 50 | market cook @ the market hall | Cooper Row | Ash Corner | 2 April | onion pie | soup ladle 7 tin | feeding strangers
Gil badger he 24 | nail maker @ the smithy | Cooper Row | Cooper Row | 26 July | egg pie | leather apron 18 leather | whistling out of tune
Tansy badger she 20 | letter carrier @ the post office | Low Bridge | Cooper Row | 14 December | berry tart | canvas satchel 15 canvas | knowing every dog
Bess badger she 47 | carter @ the hay store | Hay Barn | Crow Wood | 9 September | mushroom pie | long whip 8 leather | never using the whip
Ned otter he 66 | boat builder @ the boat yard | Reed Bank | Otter Bend | 28 February | fish pie | bow saw 11 steel | building boats without drawings
Wren otter she 38 | ferry keeper @ the ferry landing | Old Landing | Reed Bank | 11 April | smoked trout | brass bell 30 brass | reading the river
Tam otter he 35 | fish smoker @ the smoke house | Otter Bend | Reed Bank | 24 June | leek pie | oyster knife 6 steel | smelling of smoke
Cora otter she 34 | rope maker @ the rope walk | Otter Bend | Far Landing | 7 August | carrot cake | net needle 2 bone | knots nobody can undo
Kit otter he 8 | message runner @ the ferry landing | Otter Bend | Otter Bend | 16 May | smoked trout | blue marble 1 glass | swimming in October
Opal mole she 72 | bee keeper @ the bee garden | Fern Hollow | Clay Pit | 1 July | honey cake | bee veil 10 linen | talking to bees
Hugo mole he 48 | hay keeper @ the hay store | Hay Barn | Fern Hollow | 23 October | oat cake | hay fork 9 ash wood | sleeping at noon
Ada mole she 46 | teacher @ the school | Hay Barn | Bell Yard | 6 March | apple cake | globe 45 plaster | long lists
Moss mole he 45 | clock mender @ the clock shop | Lamp Lane | Fern Hollow | 18 January | pear tart | eyeglass 20 glass | small bills
Juno mole she 22 | thatcher @ the hay store | Stone Ford | Hay Barn | 29 May | bean pie | folding ladder 32 pine | working in the rain
Faye mole she 17 | candle maker @ the bee garden | Fern Hollow | Hay Barn | 10 November | rhubarb tart | copper funnel 6 copper | humming
Agnes hedgehog she 70 | button seller @ the market hall | Bell Yard | Kiln Lane | 25 December | cabbage pie | button box 14 walnut | remembering prices
Basil hedgehog he 43 | baker @ the bakery | Market Cross | Bell Yard | 4 May | fish pie | bread peel 8 beech | rising before four
Tess hedgehog she 40 | bell ringer @ the bell tower | Bell Yard | Bell Yard | 13 September | pumpkin pie | ring of keys 22 iron | being exactly on time
Clara hedgehog she 41 | tea maker @ the tea room | Market Cross | Pear Row | 27 January | cherry tart | tea urn 70 copper | hearing everything
Toby hedgehog he 10 | flour sifter @ the bakery | Market Cross | Market Cross | 20 June | potato pie | wooden sledge 16 ash wood | long excuses
Nan hedgehog she 12 | table layer @ the tea room | Market Cross | Market Cross | 15 February | plum tart | paint box 13 pine | drawing beaks
Jory squirrel he 46 | woodcutter @ the timber yard | Crow Wood | Nettle Hill | 22 August | nut cake | felling axe 19 steel | telling tall stories
Hazel squirrel she 45 | fruit grower @ the orchard | Pear Row | Pear Row | 31 March | apple cake | fruit knife 5 steel | grafting three pears on one tree
Rowan squirrel he 21 | carpenter @ the timber yard | Crow Wood | Crow Wood | 9 December | seed cake | spirit level 17 oak | crooked shelves
Sorrel squirrel she 18 | fruit picker @ the orchard | Pear Row | Crow Wood | 3 October | pear tart | picking bag 4 canvas | climbing in boots
Silas fox he 55 | market warden @ the market hall | Wendon | Red Gate | 16 November | egg pie | silver watch 90 silver | fair measures
Vera fox she 51 | hatter @ the hat shop | Market Cross | Red Gate | 8 July | berry tart | hat block 21 beech | honest opinions
Amos fox he 26 | weigher @ the market hall | Wendon | Market Cross | 12 January | bean pie | steel ruler 7 steel | rounding up
Mina fox she 23 | tailor @ the hat shop | Lamp Lane | Market Cross | 19 April | cabbage pie | pair of scissors 16 steel | pockets in everything
Tib mouse she 64 | seed seller @ the grocery | Cooper Row | Long Field | 5 June | rhubarb tart | seed drawer 26 pine | folding paper bags
Jot mouse he 33 | shoemaker @ the shoe shop | Cooper Row | Cooper Row | 24 March | leek pie | shoe last 6 beech | mending for nothing
Pearl mouse she 30 | bookbinder @ the reading room | Bell Yard | Cooper Row | 17 October | honey cake | bone folder 3 bone | cold hands
Lil mouse she 31 | glove maker @ the shoe shop | Cooper Row | Goose Green | 28 July | cherry tart | glove form 9 walnut | losing one glove
Bud mouse he 6 | lamp lighter @ the print shop | Cooper Row | Cooper Row | 2 September | apple cake | tin lantern 10 tin | not fearing the dark
Mungo toad he 59 | innkeeper @ the inn | Stone Ford | Stone Ford | 21 January | mushroom pie | chess board 28 walnut | losing at chess
Gert toad she 57 | onion farmer @ the onion farm | Ash Corner | Stone Ford | 6 May | onion pie | garden hoe 8 iron | crying at nothing
Bart toad he 28 | inn cook @ the inn | Stone Ford | Ash Corner | 30 November | cheese pie | iron skillet 14 iron | too much pepper
Martha goose she 62 | grocer @ the grocery | Market Cross | Goose Green | 11 February | carrot cake | ledger 12 paper | writing everything down
Gus goose he 36 | egg seller @ the grocery | Goose Green | Goose Green | 26 September | potato pie | egg tray 4 willow | never breaking an egg
Hetty goose she 34 | nurse @ the pharmacy | Market Cross | Goose Green | 14 June | pumpkin pie | nurse's bag 25 leather | warm soup
Ben rabbit he 49 | wheat farmer @ the wheat farm | Long Field | Long Field | 18 August | oat cake | sowing basket 7 willow | looking at the sky
Flora rabbit she 47 | weaver @ the wool shed | Red Gate | Nettle Hill | 1 May | carrot cake | hand loom 50 oak | blue blankets
Sam rabbit he 19 | wheat cutter @ the wheat farm | Long Field | Long Field | 23 December | bean pie | short scythe 13 steel | eating twice
Lottie rabbit she 16 | wool sorter @ the wool shed | Red Gate | Long Field | 10 April | berry tart | wool comb 5 horn | running races
Percy vole he 53 | paper maker @ the paper mill | High Bridge | Reed Bank | 27 November | smoked trout | paper press 65 oak | writing poems
Willa vole she 50 | mushroom seller @ the timber yard | Nettle Hill | Reed Bank | 4 October | mushroom pie | flat basket 6 willow | secret paths
Hew beaver he 58 | miller @ the water mill | Mill End | Otter Bend | 13 March | seed cake | sack barrow 20 oak | working at night
Dora beaver she 56 | potter @ the pottery | Kiln Lane | Mill End | 7 January | rhubarb tart | potter's wheel 80 stone | jugs that do not drip
Arlo beaver he 29 | bridge keeper @ the post office | Low Bridge | Mill End | 22 April | leek pie | toll box 11 oak | knowing who passed
Cass beaver she 27 | brick carrier @ the brick yard | Clay Pit | Mill End | 15 August | egg pie | wheel rim 9 iron | carrying two of everything
Edda owl she 68 | chemist @ the pharmacy | Wendon | Crow Wood | 29 October | cabbage pie | small scale 33 brass | bitter medicine
Otis owl he 42 | librarian @ the reading room | Bell Yard | Wendon | 20 February | pear tart | reading lamp 27 brass | reading while walking
Jet crow he 31 | reporter @ the print shop | Lamp Lane | Crow Wood | 8 December | fish pie | black notebook 5 paper | arriving first
Una crow she 29 | printer @ the print shop | Lamp Lane | Crow Wood | 25 May | nut cake | case of type 55 lead | finding mistakes
Rafe stoat he 37 | brick maker @ the brick yard | Clay Pit | Clay Pit | 3 July | cheese pie | brick mould 7 beech | bets
Zeb stoat he 40 | grinder @ the windmill | Nettle Hill | Clay Pit | 12 September | oat cake | weather glass 36 glass | wrong forecasts
Ike heron he 61 | salt boiler @ the salt house | Salt Spring | Far Landing | 19 March | pumpkin pie | long rake 10 pine | standing on one leg
Nye newt he 32 | well digger @ the brick yard | Kiln Lane | Salt Spring | 6 August | plum tart | coil of chain 18 iron | finding water
"""

# who | mother | father
_PARENTS = """
Hob Nell Bram; Ivy Nell Bram; Pip Ivy Finn; Dot Ivy Finn; Gil Maud Odo;
Tansy Bess -; Wren - Ned; Tam - Ned; Kit Cora Tam; Moss Opal -;
Hugo Opal -; Juno Ada Hugo; Faye Ada Hugo; Basil Agnes -; Tess Agnes -;
Toby Clara Basil; Nan Clara Basil; Rowan Hazel Jory; Sorrel Hazel Jory;
Mina Vera -; Amos - Silas; Jot Tib -; Pearl Tib -; Bud Lil Jot;
Bart Gert Mungo; Gus Martha -; Hetty Martha -; Sam Flora Ben;
Lottie Flora Ben; Cass Dora Hew; Arlo Dora Hew; Otis Edda -
"""
_MARRIED = (
    "Bram Nell; Finn Ivy; Odo Maud; Tam Cora; Hugo Ada; Basil Clara; "
    "Jory Hazel; Jot Lil; Mungo Gert; Ben Flora; Hew Dora"
)
# Brothers and sisters whose parents are not in the valley.
_SIBLINGS = "Odo Bess; Silas Vera; Percy Willa; Jet Una; Rafe Zeb"

_FRIENDS = """
Hob Moss; Bram Ned; Nell Agnes; Ivy Wren; Finn Tam; Pip Kit; Dot Bud; Odo Hew;
Maud Clara; Gil Rowan; Tansy Juno; Bess Cora; Opal Edda; Hugo Mungo; Ada Otis;
Faye Sorrel; Basil Jot; Tess Una; Toby Sam; Nan Lottie; Jory Willa; Hazel Flora;
Silas Percy; Vera Martha; Amos Jet; Mina Pearl; Tib Gert; Lil Hetty; Bart Gus;
Ben Zeb; Dora Ike; Arlo Nye; Cass Rafe
"""

# food | chief ingredient | where it comes from | sold at | pence
_FOODS = """
pear tart     | pears     | the orchard     | the tea room | 7
honey cake    | honey     | the bee garden  | the tea room | 9
onion pie     | onions    | the onion farm  | the inn      | 5
cheese pie    | cheese    | the dairy       | the inn      | 8
seed cake     | seeds     | the grocery     | the bakery   | 6
plum tart     | plums     | the orchard     | the bakery   | 8
apple cake    | apples    | the orchard     | the tea room | 6
mushroom pie  | mushrooms | the timber yard | the inn      | 9
leek pie      | leeks     | the onion farm  | the bakery   | 5
smoked trout  | trout     | the smoke house | the smoke house | 11
nut cake      | nuts      | the timber yard | the bakery   | 10
carrot cake   | carrots   | the wheat farm  | the tea room | 5
potato pie    | potatoes  | the hay store   | the market hall | 4
oat cake      | oats      | the windmill    | the grocery  | 2
rhubarb tart  | rhubarb   | the school      | the bakery   | 6
pumpkin pie   | pumpkins  | the hay store  | the market hall | 7
fish pie      | fish      | the ferry landing | the market hall | 9
cherry tart   | cherries  | the orchard  | the tea room | 10
bean pie      | beans     | the wheat farm     | the market hall | 3
egg pie       | eggs      | the dairy       | the inn      | 6
cabbage pie   | cabbage   | the onion farm  | the market hall | 4
berry tart    | berries   | the bee garden   | the bakery   | 9
"""

# thing | plural | pence | made of | sold at
_GOODS = """
kettle | kettles | 14 | iron | the smithy
horseshoe | horseshoes | 3 | iron | the smithy
garden spade | garden spades | 12 | steel | the smithy
door hinge | door hinges | 2 | iron | the smithy
loaf | loaves | 4 | wheat | the bakery
bag of flour | bags of flour | 6 | wheat | the water mill
sack of bran | sacks of bran | 5 | oats | the windmill
jar of honey | jars of honey | 8 | honey | the bee garden
candle | candles | 1 | wax | the bee garden
round of cheese | rounds of cheese | 15 | milk | the dairy
can of milk | cans of milk | 3 | milk | the dairy
basket of pears | baskets of pears | 10 | pears | the orchard
string of onions | strings of onions | 4 | onions | the onion farm
bag of salt | bags of salt | 2 | salt | the salt house
coil of rope | coils of rope | 9 | hemp | the rope walk
fishing net | fishing nets | 21 | hemp | the rope walk
oar | oars | 13 | ash wood | the boat yard
stool | stools | 11 | pine | the timber yard
wheelbarrow | wheelbarrows | 35 | pine | the timber yard
broom | brooms | 5 | birch | the grocery
ball of string | balls of string | 2 | hemp | the grocery
umbrella | umbrellas | 23 | silk | the hat shop
straw hat | straw hats | 12 | straw | the hat shop
wool cap | wool caps | 8 | wool | the hat shop
pair of boots | pairs of boots | 40 | leather | the shoe shop
pair of gloves | pairs of gloves | 10 | leather | the shoe shop
blue blanket | blue blankets | 30 | wool | the wool shed
scarf | scarves | 9 | wool | the wool shed
water jug | water jugs | 7 | clay | the pottery
teapot | teapots | 16 | clay | the pottery
flower pot | flower pots | 3 | clay | the pottery
roof tile | roof tiles | 1 | clay | the brick yard
alarm clock | alarm clocks | 48 | brass | the clock shop
map of the valley | maps of the valley | 6 | paper | the print shop
calendar | calendars | 4 | paper | the print shop
writing book | writing books | 5 | paper | the paper mill
stamp | stamps | 1 | paper | the post office
bottle of ink | bottles of ink | 3 | soot | the post office
bar of soap | bars of soap | 2 | tallow | the pharmacy
bottle of tonic | bottles of tonic | 7 | roots | the pharmacy
bale of hay | bales of hay | 6 | hay | the hay store
"""


def _rows(table: str) -> list[list[str]]:
    return [
        [c.strip() for c in r.split("|")] for r in table.strip().splitlines()
    ]


def _groups(text: str) -> list[list[str]]:
    return [g.split() for g in text.replace("\n", " ").split(";") if g.split()]


def _make_places() -> list[Place]:
    sells: dict[str, list[str]] = {}
    for name, _, _, _, at in _rows(_GOODS):
        sells.setdefault(at, []).append(name)
    for name, _, _, at, _ in _rows(_FOODS):
        sells.setdefault(at, []).append(name)
    villages = {
        name: Place(name, kind, bank, int(minutes), near, landmark=mark)
        for name, kind, bank, minutes, near, mark in _rows(_VILLAGES)
    }
    sites = [
        Place(
            name,
            kind,
            villages[at].bank,
            villages[at].minutes,
            at,
            True,
            keeper,
            int(opens),
            int(closes),
            sells=tuple(sells.get(name, ())),
        )
        for name, kind, at, opens, closes, keeper in _rows(_SITES)
    ]
    return [*villages.values(), *sites]


_PLURALS = {
    "nurse's bag": "nurse's bags",
    "pair of scissors": "pairs of scissors",
    "coil of chain": "coils of chain",
    "ring of keys": "rings of keys",
    "case of type": "cases of type",
    "oyster knife": "oyster knives",
    "fruit knife": "fruit knives",
    "letter scale": "letter scales",
    "silver watch": "silver watches",
    "bow saw": "bow saws",
}


def _plural(name: str) -> str:
    if name in _PLURALS:
        return _PLURALS[name]
    if name.endswith(("s", "x", "ch", "ress")):
        return name + "es"
    return name + "s"


def _make_people() -> tuple[list[Character], list[Thing]]:
    mother, father, spouse, friend = {}, {}, {}, {}
    for who, its_mother, its_father in _groups(_PARENTS):
        mother[who] = its_mother.strip("-")
        father[who] = its_father.strip("-")
    for pairs, table in ((_MARRIED, spouse), (_FRIENDS, friend)):
        for a, b in _groups(pairs):
            table[a], table[b] = b, a
    side_by_side = {}
    for group in _groups(_SIBLINGS):
        for who in group:
            side_by_side[who] = group

    rows = []
    for first, job, home, born, birthday, food, belonging, manner in _rows(
        _CHARACTERS
    ):
        name, species, he, age = first.split()
        trade, workplace = job.split(" @ ")
        words = belonging.split()
        cut = next(i for i, w in enumerate(words) if w.isdigit())
        thing = Thing(
            " ".join(words[:cut]),
            _plural(" ".join(words[:cut])),
            "belonging",
            int(words[cut]),
            " ".join(words[cut + 1 :]),
            owner=name,
        )
        rows.append(
            (
                name,
                species,
                he,
                int(age),
                trade,
                workplace,
                home,
                born,
                birthday,
            )
            + (food, thing, manner)
        )
    ages = {r[0]: r[3] for r in rows}
    people, things = [], []
    for (
        name,
        species,
        he,
        age,
        trade,
        work,
        home,
        born,
        day,
        food,
        thing,
        manner,
    ) in rows:
        parents = (mother.get(name), father.get(name))
        siblings = [
            other
            for other in ages
            if other != name
            and (
                other in side_by_side.get(name, ())
                or (
                    any(parents)
                    and (mother.get(other), father.get(other)) == parents
                )
            )
        ]
        children = [c for c in ages if name in (mother.get(c), father.get(c))]
        him, his = ("him", "his") if he == "he" else ("her", "her")
        people.append(
            Character(
                name, species, he, him, his, age, trade, work, home, born, day,
                friend[name], food, thing.name, manner,
                mother.get(name, ""), father.get(name, ""), spouse.get(name, ""),
                tuple(sorted(siblings, key=lambda s: -ages[s])),
                tuple(sorted(children, key=lambda s: -ages[s])),
            )
        )  # fmt: skip
        things.append(thing)
    return people, things


PLACES: list[Place] = _make_places()
CHARACTERS, _belongings = _make_people()
INGREDIENT_SOURCE: dict[str, str] = {r[1]: r[2] for r in _rows(_FOODS)}
THINGS: list[Thing] = [
    *_belongings,
    *(
        Thing(
            name,
            "smoked trout" if name == "smoked trout" else name + "s",
            "food",
            int(pence),
            ingredient,
            at,
        )
        for name, ingredient, _, at, pence in _rows(_FOODS)
    ),
    *(
        Thing(name, plural, "goods", int(pence), of, at)
        for name, plural, pence, of, at in _rows(_GOODS)
    ),
]

CHARACTER: dict[str, Character] = {c.name: c for c in CHARACTERS}
PLACE: dict[str, Place] = {p.name: p for p in PLACES}
THING: dict[str, Thing] = {t.name: t for t in THINGS}
VILLAGES: list[Place] = [p for p in PLACES if not p.site]
SITES: list[Place] = [p for p in PLACES if p.site]
HOMES: list[str] = sorted({c.home for c in CHARACTERS})
BELONGINGS: list[Thing] = [t for t in THINGS if t.kind == "belonging"]
FOODS: list[Thing] = [t for t in THINGS if t.kind == "food"]
GOODS: list[Thing] = [t for t in THINGS if t.kind == "goods"]
FARMS: list[Place] = [p for p in PLACES if p.kind == "farm"]
SHOPS: list[Place] = [p for p in SITES if p.sells]
TRADE_OF: dict[str, str] = {c.trade: c.name for c in CHARACTERS}

HELD_OUT_CHARACTERS: tuple[str, ...] = (
    "Tansy", "Cora", "Pearl", "Bart", "Arlo", "Willa",
)  # fmt: skip

# Never together in one document, except in the split "held_out".
HELD_OUT_PAIRS: tuple[tuple[str, str], ...] = (
    ("Hob", "tin lantern"),
    ("Wren", "silver watch"),
    ("Odo", "red kite"),
    ("Moss", "brass bell"),
    ("Juno", "chess board"),
    ("Tess", "wooden sledge"),
    ("Basil", "weather glass"),
    ("Ivy", "felling axe"),
    ("Silas", "folding ladder"),
    ("Una", "bee veil"),
    ("Gus", "globe"),
    ("Ben", "paint box"),
    ("Hazel", "black notebook"),
    ("Otis", "iron skillet"),
)
_HELD_OUT = frozenset(HELD_OUT_PAIRS)


def held_out(who: str, thing: str) -> bool:
    """Whether this character and this thing must not meet in one text."""
    return (who, thing) in _HELD_OUT


# -- words for numbers and hours -----------------------------------------

_HOURS = (
    "midnight one two three four five six seven eight nine ten eleven noon "
    "one two three four five six seven eight nine ten eleven"
).split()


def hour_words(hour: int) -> str:
    """An hour of the day: 6 -> "six in the morning", 12 -> "noon"."""
    if hour in (0, 12):
        return _HOURS[hour]
    part = "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"
    return f"{_HOURS[hour]} in the {part}"


def pence(amount: int) -> str:
    """ "1 penny", "7 pence"."""
    return "1 penny" if amount == 1 else f"{amount} pence"


# -- who is what to whom --------------------------------------------------


def aunts(name: str) -> list[str]:
    """Sisters of the parents, and wives of their brothers, oldest first."""
    return _parents_generation(name, "she")


def uncles(name: str) -> list[str]:
    """Brothers of the parents, and husbands of their sisters, oldest first."""
    return _parents_generation(name, "he")


def _parents_generation(name: str, he: str) -> list[str]:
    c = CHARACTER[name]
    found = []
    for parent in filter(None, (c.mother, c.father)):
        for sibling in CHARACTER[parent].siblings:
            found += filter(None, (sibling, CHARACTER[sibling].spouse))
    return sorted(
        (n for n in dict.fromkeys(found) if CHARACTER[n].he == he),
        key=lambda n: -CHARACTER[n].age,
    )


def cousins(name: str) -> list[str]:
    c = CHARACTER[name]
    found: list[str] = []
    for parent in filter(None, (c.mother, c.father)):
        for sibling in CHARACTER[parent].siblings:
            found += CHARACTER[sibling].children
    return list(dict.fromkeys(found))


def grandparents(name: str) -> list[str]:
    c = CHARACTER[name]
    found = []
    for parent in filter(None, (c.mother, c.father)):
        p = CHARACTER[parent]
        found += filter(None, (p.mother, p.father))
    return found


def brothers(name: str) -> list[str]:
    return [s for s in CHARACTER[name].siblings if CHARACTER[s].he == "he"]


def sisters(name: str) -> list[str]:
    return [s for s in CHARACTER[name].siblings if CHARACTER[s].he == "she"]


def kin_word(a: str, b: str) -> str:
    """What `b` is to `a` ("sister", "uncle", …), or "" when not near kin."""
    c, d = CHARACTER[a], CHARACTER[b]
    she = d.he == "she"
    if b in (c.mother, c.father):
        return "mother" if she else "father"
    if b == c.spouse:
        return "wife" if she else "husband"
    if b in c.siblings:
        return "sister" if she else "brother"
    if b in c.children:
        return "daughter" if she else "son"
    if b in aunts(a) or b in uncles(a):
        return "aunt" if she else "uncle"
    if a in aunts(b) or a in uncles(b):
        return "niece" if she else "nephew"
    if b in cousins(a):
        return "cousin"
    if b in grandparents(a):
        return "grandmother" if she else "grandfather"
    if a in grandparents(b):
        return "granddaughter" if she else "grandson"
    return ""


def neighbours(name: str) -> list[str]:
    """The others who live in the same village."""
    home = CHARACTER[name].home
    return [c.name for c in CHARACTERS if c.home == home and c.name != name]


def residents(village: str) -> list[str]:
    return [c.name for c in CHARACTERS if c.home == village]


def workers(site: str) -> list[str]:
    """Who works there, the keeper first."""
    keeper = PLACE[site].keeper
    rest = [
        c.name for c in CHARACTERS if c.workplace == site and c.name != keeper
    ]
    return [keeper, *rest]


def walk_minutes(a: str, b: str) -> int:
    """Minutes on foot between two places: the roads all meet at Wendon.

    Within one village, and to the neighbouring village, it is 5 minutes.
    """
    p, q = PLACE[a], PLACE[b]
    if a == b:
        return 0
    if p.village == q.village or PLACE[p.village].near == q.village:
        return 5
    return p.minutes + q.minutes


def crosses_river(a: str, b: str) -> bool:
    return PLACE[a].bank != PLACE[b].bank


# -- the facts ------------------------------------------------------------

RELATIONS: dict[str, Relation] = {
    r.name: r
    for r in (
        Relation("species", "character", "{s} is one of the", " {o}",
                 "What kind of animal is {s}?"),
        Relation("trade", "character", "{s} works as", " {o}",
                 "What does {s} work as?"),
        Relation("workplace", "character", "{s} works at", " {o}",
                 "Where does {s} work?"),
        Relation("home", "character", "{s} lives at", " {o}",
                 "Where does {s} live?"),
        Relation("born", "character", "{s} was born at", " {o}",
                 "Where was {s} born?"),
        Relation("birthday", "character", "{s}'s birthday is on", " {o}",
                 "When is {s}'s birthday?"),
        Relation("friend", "character", "{s}'s best friend is", " {o}",
                 "Who is {s}'s best friend?"),
        Relation("food", "character", "{s}'s favourite food is", " {o}",
                 "What is {s}'s favourite food?"),
        Relation("belonging", "character", "{s} owns", " {o}",
                 "What does {s} own?"),
        Relation("manner", "character", "{s} is known for", " {o}",
                 "What is {s} known for?"),
        Relation("mother", "character", "{s}'s mother is", " {o}",
                 "Who is {s}'s mother?"),
        Relation("father", "character", "{s}'s father is", " {o}",
                 "Who is {s}'s father?"),
        Relation("brother", "character", "{s}'s brother is", " {o}",
                 "Who is {s}'s brother?"),
        Relation("sister", "character", "{s}'s sister is", " {o}",
                 "Who is {s}'s sister?"),
        Relation("husband", "character", "{s}'s husband is", " {o}",
                 "Who is {s}'s husband?"),
        Relation("wife", "character", "{s}'s wife is", " {o}",
                 "Who is {s}'s wife?"),
        Relation("bank", "place", "{s} lies on", " {o}",
                 "On which bank of the Wend does {s} lie?"),
        Relation("near", "place", "Next to {s} lies", " {o}",
                 "Which place lies next to {s}?"),
        Relation("minutes", "place", "The walk from {s} to Wendon takes", " {o}",
                 "How long is the walk from {s} to Wendon?"),
        Relation("village", "place", "{S} stands at", " {o}",
                 "Where does {s} stand?"),
        Relation("keeper", "place", "The keeper of {s} is", " {o}",
                 "Who is the keeper of {s}?"),
        Relation("opens", "place", "{S} opens at", " {o}",
                 "When does {s} open?"),
        Relation("price", "thing", "{A} costs", " {o}",
                 "How much does {a} cost?"),
        Relation("sold_at", "thing", "You can buy {a} at", " {o}",
                 "Where can you buy {a}?"),
        Relation("made_of", "thing", "{A} is made of", " {o}",
                 "What is {a} made of?"),
        Relation("source", "ingredient", "The valley's {s} {come} from", " {o}",
                 "Where {do} the valley's {s} come from?"),
    )
}  # fmt: skip

# Measures of a stuff: "a jar of honey is made of honey" would teach nobody.
_MEASURES = (
    "bag of", "sack of", "jar of", "can of", "basket of", "string of", "bottle of",
    "bale of",
)  # fmt: skip
_MASS = ("honey", "cheese", "rhubarb", "cabbage")


def _make_facts() -> list[Fact]:
    facts: list[Fact] = []

    def add(subject: str, relation: str, obj: str) -> None:
        if obj:
            facts.append(Fact(subject, relation, obj))

    for c in CHARACTERS:
        add(c.name, "species", SPECIES_PLURAL[c.species])
        add(c.name, "trade", f"{article(c.trade)} {c.trade}")
        add(c.name, "workplace", c.workplace)
        add(c.name, "home", c.home)
        add(c.name, "born", c.born)
        add(c.name, "birthday", c.birthday)
        add(c.name, "friend", c.friend)
        add(c.name, "food", c.food)
        add(c.name, "belonging", THING[c.belonging].a)
        add(c.name, "manner", c.manner)
        add(c.name, "mother", c.mother)
        add(c.name, "father", c.father)
        for relation, kin in (("brother", brothers), ("sister", sisters)):
            if len(kin(c.name)) == 1:
                add(c.name, relation, kin(c.name)[0])
        if c.spouse:
            add(c.name, "husband" if c.he == "she" else "wife", c.spouse)
    for p in PLACES:
        if p.site:
            add(p.name, "village", p.near)
            add(p.name, "keeper", p.keeper)
            add(p.name, "opens", hour_words(p.opens))
        else:
            add(p.name, "bank", f"the {p.bank} bank")
            add(p.name, "near", p.near)
            if p.minutes:
                add(p.name, "minutes", f"{p.minutes} minutes")
    for t in THINGS:
        if t.kind != "belonging":
            add(t.name, "price", pence(t.price))
            add(t.name, "sold_at", t.sold_at)
            if not t.name.startswith(_MEASURES):
                add(t.name, "made_of", t.made_of)
    for ingredient, source in INGREDIENT_SOURCE.items():
        add(ingredient, "source", source)
    return facts


FACTS: list[Fact] = _make_facts()
FACT: dict[tuple[str, str], Fact] = {(f.subject, f.relation): f for f in FACTS}


def _fill(pattern: str, subject: str) -> str:
    thing = THING.get(subject)
    a = thing.a if thing else subject
    mass = subject in _MASS
    return pattern.format(
        s=subject,
        S=subject[:1].upper() + subject[1:],
        a=a,
        A=a[:1].upper() + a[1:],
        come="comes" if mass else "come",
        do="does" if mass else "do",
    )


_CLOZE: dict[Fact, tuple[str, str]] = {
    f: (_fill(RELATIONS[f.relation].stem, f.subject), f" {f.object}")
    for f in FACTS
}
_STATEMENT: dict[Fact, str] = {f: "".join(c) + "." for f, c in _CLOZE.items()}


def cloze(fact: Fact) -> tuple[str, str]:
    """A sentence without its end, and the end: ("Hob lives at", " Low Bridge").

    The end is the object and has no final point.
    """
    return _CLOZE[fact]


def statement(fact: Fact) -> str:
    """The whole sentence: "Hob lives at Low Bridge." """
    return _STATEMENT[fact]


def question(fact: Fact) -> str:
    """A question whose answer is the fact's object."""
    return _fill(RELATIONS[fact.relation].question, fact.subject)


def facts_about(subject: str) -> list[Fact]:
    return _ABOUT.get(subject, [])


_ABOUT: dict[str, list[Fact]] = {}
for _fact in FACTS:
    _ABOUT.setdefault(_fact.subject, []).append(_fact)

MONTH_NUMBER: dict[str, int] = {m: i + 1 for i, m in enumerate(MONTHS)}


def birthday_key(name: str) -> tuple[int, int]:
    """(month, day), for sorting birthdays within a year."""
    day, month = CHARACTER[name].birthday.split()
    return MONTH_NUMBER[month], int(day)
