# ruff: noqa: E501
"""Small English: articles, numbers, times, verbs, and sums done digit by digit.

Nothing here draws anything; it is what every genre needs to write correctly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

NUMBER_WORDS = (
    "no one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
).split()

WEEKDAYS = (
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
)

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


@lru_cache(maxsize=4096)
def article(word: str) -> str:
    """Say "a" or "an", whichever stands before `word`."""
    low = word.lower()
    if low.startswith(("hour", "honest", "heir")):
        return "an"
    if low.startswith(("one", "use", "uni", "eu")):
        return "a"
    return (
        "an" if low[:1] in "aeiou" or low.startswith(("8", "11", "18")) else "a"
    )


def with_article(noun: str) -> str:
    """The noun with its indefinite article: "an otter"."""
    return f"{article(noun)} {noun}"


@lru_cache(maxsize=4096)
def capital(text: str) -> str:
    """`text` with its first letter in capitals and the rest left alone."""
    return text[:1].upper() + text[1:]


def join_list(items: list[str] | tuple[str, ...], last: str = "and") -> str:
    """Join as in "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


@lru_cache(maxsize=4096)
def clock(minutes: int) -> str:
    """Minutes after midnight as the valley's boards write it: "7:05"."""
    return f"{minutes // 60}:{minutes % 60:02d}"


def number_word(n: int) -> str:
    """0–20 in words, the rest in digits."""
    return NUMBER_WORDS[n] if 0 <= n <= 20 else str(n)


# -- sums, digit by digit ---------------------------------------------------

_COLUMNS = ("Ones", "Tens", "Hundreds", "Thousands")


@lru_cache(maxsize=16384)
def worked_addition(a: int, b: int) -> str:
    """`a + b` column by column, as the valley's school teaches it.

    >>> worked_addition(47, 38)
    'Ones: 7 + 8 = 15, write 5, carry 1. Tens: 4 + 3 + 1 = 8. So 47 + 38 = 85.'

    Numbers of up to four digits. Raises ValueError for others.
    """
    if not (0 <= a < 10000 and 0 <= b < 10000):
        raise ValueError(f"worked_addition takes 0–9999, got {a} and {b}")
    steps, carry, x, y = [], 0, a, b
    last = max(len(str(a)), len(str(b))) - 1
    for column in range(last + 1):
        terms = (
            [x % 10, y % 10] if x and y or not column else [x % 10 or y % 10]
        )
        if carry:
            terms.append(carry)
        here = sum(terms)
        shown = " + ".join(map(str, terms))
        step = f"{_COLUMNS[column]}: {shown}"
        if len(terms) > 1:
            step += f" = {here}"
        carry = here // 10 if column < last else 0
        if carry:
            step += f", write {here % 10}, carry {carry}"
        steps.append(step + ".")
        x, y = x // 10, y // 10
    return f"{' '.join(steps)} So {a} + {b} = {a + b}."


@lru_cache(maxsize=16384)
def worked_subtraction(a: int, b: int) -> str:
    """`a - b` column by column, borrowing where the upper digit is too small.

    >>> worked_subtraction(83, 47)
    'Ones: borrow 1, 13 - 7 = 6. Tens: 8 - 1 - 4 = 3. So 83 - 47 = 36.'

    Numbers of up to four digits, `a` the larger. Raises ValueError otherwise.
    """
    if not 0 <= b <= a < 10000:
        raise ValueError(
            f"worked_subtraction takes 9999 ≥ a ≥ b ≥ 0, got {a}, {b}"
        )
    steps, borrow, x, y = [], 0, a, b
    column = 0
    while x or not column:
        upper, lower = x % 10, y % 10
        less = f" - {borrow}" if borrow else ""
        if upper - borrow < lower:
            shown, here = f"borrow 1, {upper + 10}", upper + 10 - borrow - lower
            borrow = 1
        else:
            shown, here = str(upper), upper - borrow - lower
            borrow = 0
        if y or not column:
            less += f" - {lower}"
        step = f"{_COLUMNS[column]}: {shown}{less}"
        if less:
            step += f" = {here}"
        steps.append(step + ".")
        x, y, column = x // 10, y // 10, column + 1
    return f"{' '.join(steps)} So {a} - {b} = {a - b}."


# -- verbs --------------------------------------------------------------------


@dataclass(frozen=True)
class Verb:
    """One verb of the school's table, with things that can follow it."""

    base: str
    third: str
    past: str
    gerund: str
    ends: tuple[str, ...]


def _third(base: str) -> str:
    if base.endswith(("s", "sh", "ch", "x", "z", "o")):
        return base + "es"
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ies"
    return base + "s"


def _verbs(table: str) -> tuple[Verb, ...]:
    verbs = []
    for line in table.strip().splitlines():
        base, past, gerund, ends = (part.strip() for part in line.split("|"))
        endings = tuple(end.strip() for end in ends.split("/"))
        verbs.append(Verb(base, _third(base), past, gerund, endings))
    return tuple(verbs)


VERBS: tuple[Verb, ...] = _verbs(
    """
    bake | baked | baking | two loaves / a plum tart / the bread for the inn
    begin | began | beginning | the letter again / a new page / the day early
    borrow | borrowed | borrowing | a ladder / the long rope / two cups of flour
    break | broke | breaking | a plate / the spade / the ice on the pond
    bring | brought | bringing | a basket of pears / the post / good news
    build | built | building | a wall / a shed for the boat / a fence
    buy | bought | buying | a jar of honey / six eggs / a new hat
    call | called | calling | the ferry / for help / the children in
    carry | carried | carrying | the basket / water to the garden / two sacks
    catch | caught | catching | a fish / the last ferry / a cold
    choose | chose | choosing | the red one / a card / the longer road
    clean | cleaned | cleaning | the lamp / the windows / the boots
    climb | climbed | climbing | the hill / the tower stairs / over the wall
    close | closed | closing | the shop at six / the gate / the book
    come | came | coming | home late / to supper / down the lane
    cook | cooked | cooking | soup / beans for nine / the fish slowly
    count | counted | counting | the spoons / the sheep twice / the change
    cross | crossed | crossing | the bridge / the river / the square
    cut | cut | cutting | the hay / a slice of cheese / the rope
    dig | dug | digging | the garden / a ditch / up the beans
    draw | drew | drawing | a map / the mill / water from the well
    drink | drank | drinking | tea from a bowl / cold milk / the last of the cider
    drive | drove | driving | the cart / to market / the geese home
    drop | dropped | dropping | the key / a cup / the letter in a puddle
    dry | dried | drying | the washing / apples on a string / the nets
    eat | ate | eating | an apple / a cold pie / on the wall
    fall | fell | falling | off the ladder / asleep / into the pond
    feed | fed | feeding | the hens / the fire / everybody
    feel | felt | feeling | tired / much better / the cold
    fill | filled | filling | the kettle / a bucket / the lamp
    find | found | finding | a brass key / the lost glove / an egg in the hay
    fix | fixed | fixing | the hinge / a hook to the wall / the roof
    fold | folded | folding | the cloth / the letter twice / the sails
    forget | forgot | forgetting | the bread / a name / what day it is
    get | got | getting | up at five / a letter / wet
    give | gave | giving | the dog a bone / away the plums / a short talk
    go | went | going | to the mill / home by the road / out in the rain
    grind | ground | grinding | the corn / a knife / barley all night
    grow | grew | growing | leeks / a little taller / beans by the wall
    hang | hung | hanging | the lamp up / a coat on the nail / the bell
    hear | heard | hearing | the bell / a knock / the rain on the roof
    help | helped | helping | the neighbours / with the hay / at the inn
    hide | hid | hiding | the present / under the table / a yawn
    hold | held | holding | the ladder / the rope / the door open
    hope | hoped | hoping | for rain / for a letter / to be home by dark
    keep | kept | keeping | bees / the receipt / a dry match in a tin
    know | knew | knowing | the way / every song / who has the ladder
    learn | learned | learning | to swim / the tune / six new words
    leave | left | leaving | a note / by the back door / the umbrella behind
    lend | lent | lending | the saw to a friend / a coat / a hand
    light | lit | lighting | the fire / the lamps / a candle
    like | liked | liking | plum jam / the quiet / rainy days
    listen | listened | listening | to the rain / at the door / to both sides
    lock | locked | locking | the gate / the shop / the cupboard
    look | looked | looking | at the river / for the spoon / out of the window
    lose | lost | losing | a glove / the way / count
    love | loved | loving | the bells / a good pie / that hill
    make | made | making | candles / a list / the beds
    measure | measured | measuring | the door / the flour / the field
    meet | met | meeting | the cart / a friend at noon / the ferry
    mend | mended | mending | the clock / a net / the same boot
    milk | milked | milking | the goat / the cow at six / the sheep
    move | moved | moving | the table / the hives / house
    need | needed | needing | a rest / string / a longer ladder
    open | opened | opening | the shop / the letter / a window
    order | ordered | ordering | a sack of flour / soup / new spoons
    pack | packed | packing | a lunch / the crate / the wool
    paint | painted | painting | the boat green / a sign / the door
    pay | paid | paying | the bill / two pence / for both
    pick | picked | picking | the plums / mint / up the parcel
    plant | planted | planting | leeks / an apple tree / a row of beans
    play | played | playing | the fiddle / cards / a slow tune
    pour | poured | pouring | the tea / the milk / out the rest
    pull | pulled | pulling | the rope / the cart / up the carrots
    push | pushed | pushing | the cart / the boat out / the door
    put | put | putting | the kettle on / up a shelf / the cat out
    read | read | reading | the notice / a letter aloud / the paper
    rest | rested | resting | on the bench / an hour / under the oak
    ride | rode | riding | on the cart / to the fair / home
    ring | rang | ringing | the bell / twice / at noon
    row | rowed | rowing | the boat / across the river / home in the dark
    run | ran | running | for the ferry / the stall / down the lane
    say | said | saying | good night / nothing / the same thing twice
    see | saw | seeing | the light / a heron / no one
    sell | sold | selling | eggs / the old cart / the last loaf
    send | sent | sending | a parcel / for the doctor / a note
    sew | sewed | sewing | on a button / a sack / a blue coat
    sharpen | sharpened | sharpening | the knives / the axe / a pencil
    shut | shut | shutting | the door / the hen house / the book
    sing | sang | singing | an old song / in the bath / at work
    sit | sat | sitting | by the fire / on the wall / near the window
    sleep | slept | sleeping | in the barn / badly / till ten
    speak | spoke | speaking | slowly / to the mayor / up
    spend | spent | spending | six pence / a day in bed / an hour on the roof
    stack | stacked | stacking | the logs / the chairs / the plates
    stand | stood | standing | in line / by the gate / in the rain
    start | started | starting | the stew / a new book / out at dawn
    stay | stayed | staying | at home / to supper / out of the rain
    stir | stirred | stirring | the soup / the paint / the fire
    stop | stopped | stopping | the clock / at the well / for breath
    sweep | swept | sweeping | the yard / the step / up the crumbs
    swim | swam | swimming | across / in the pond / before breakfast
    take | took | taking | the short path / a nap / the tray upstairs
    talk | talked | talking | about cheese / to the hens / all evening
    teach | taught | teaching | the small class / a song / us to row
    tell | told | telling | the truth / a long story / the time
    thank | thanked | thanking | the ferryman / both of them / the cook
    think | thought | thinking | about lunch / twice / of a name
    tie | tied | tying | a knot / the boat to the post / up the roses
    try | tried | trying | the new key / on a hat / the soup
    turn | turned | turning | the page / left at the mill / the hay
    visit | visited | visiting | an aunt / the market / the school
    wait | waited | waiting | for the ferry / an hour / under the bridge
    wake | woke | waking | the baker / at four / up early
    walk | walked | walking | to the village / home / along the river
    want | wanted | wanting | more soup / a quiet day / the window seat
    wash | washed | washing | the cups / the wool / in cold water
    watch | watched | watching | the river / the boats / from the gate
    water | watered | watering | the beans / the garden / the mule
    wear | wore | wearing | a straw hat / two coats / odd socks
    weigh | weighed | weighing | the parcel / a pound of nails / the cheese
    win | won | winning | the race / a ham / by a nose
    work | worked | working | by lamp light / all night / with the door open
    write | wrote | writing | a letter / to the paper / on the wall
    """
)
VERB: dict[str, Verb] = {verb.base: verb for verb in VERBS}
PAST_TO_BASE: dict[str, str] = {verb.past: verb.base for verb in VERBS}


def sorting_steps(words: Sequence[str]) -> str:
    """Words with different first letters put in order, as the school does it.

    >>> sorting_steps(["kettle", "spoon", "bread"])
    'Letters: k, s, b. In order: b, k, s. So bread, kettle, spoon.'
    """
    right = sorted(words, key=str.casefold)
    letters = ", ".join(w[0].lower() for w in words)
    ordered = ", ".join(w[0].lower() for w in right)
    return f"Letters: {letters}. In order: {ordered}. So {', '.join(right)}."


def counting_steps(row: Sequence[str], counted: Iterable[str]) -> str:
    """The row once more, with a running number behind each word to be counted.

    >>> counting_steps(["egg", "pear", "egg"], {"egg"})
    'egg 1, pear, egg 2'
    """
    seen = dict.fromkeys(counted, 0)
    said = []
    for word in row:
        if word in seen:
            seen[word] += 1
            word = f"{word} {seen[word]}"
        said.append(word)
    return ", ".join(said)
