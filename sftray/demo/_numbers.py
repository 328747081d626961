"""Families with figures in them: units, sums, money, dates and clocks, each one worked out."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from random import Random

from sftray.demo._english import (
    Answer,
    Talk,
    are,
    article,
    count,
    listing,
    number,
    plural,
    single,
)
from sftray.demo._pools import CHORES, DAYS, GOODS, NAMES, TOWNS


def units(rng: Random) -> Talk:
    """A conversion within one system of units; often a third unit is asked for next."""
    scale = rng.choice(_SCALES)
    pairs = [
        (big, small)
        for big in scale
        for small in scale
        if 1 < big[1] // small[1] <= 1000 and big[1] % small[1] == 0
    ]
    (big, big_size), (small, small_size) = rng.choice(pairs)
    ratio = big_size // small_size
    amount = (
        Fraction(rng.randint(2, 60), rng.choice((1, 1, 2)))
        if ratio % 2 == 0
        else Fraction(rng.randint(2, 60))
    )
    bigs, smalls = count(amount, big), count(amount * ratio, small)
    rule = f"One {big} is {count(ratio, small)}."
    if rng.random() < 0.6:
        given, wanted, unit = bigs, smalls, small
        working = f"{number(amount)} x {number(ratio)} = {number(amount * ratio)}."
    else:
        given, wanted, unit = smalls, bigs, big
        working = f"{number(amount * ratio)} / {number(ratio)} = {number(amount)}."
    lead = f"{given} {are(amount)} {wanted}."
    question = rng.choice(_CONVERT).format(given=given, unit=plural(unit), use=_use(rng, scale))
    exchanges = [(question, _worked(rng, lead, rule, working))]
    third = [
        (name, size)
        for name, size in scale
        if name not in (big, small) and (amount * big_size / size * 4).denominator == 1
    ]
    if third and rng.random() < 0.55:
        name, size = rng.choice(third)
        total = amount * big_size / size
        if total < 1_000_000:
            ask = rng.choice(_AND_IN).format(unit=plural(name))
            told = rng.choice(("That makes {}.", "It would be {}.", "That would be {}."))
            exchanges.append((ask, Answer(told.format(count(total, name)))))
    return Talk(tuple(exchanges))


def measures(rng: Random) -> Talk:
    """A conversion between systems, rounded, or between Celsius and Fahrenheit, exact."""
    if rng.random() < 0.45:
        return _temperature(rng)
    one, factor, other, decimals = rng.choice(_ACROSS)
    amount = rng.randint(2, 40)
    exact = amount * factor
    rounded = round(exact, 1)
    given = count(amount, one)
    about = f"{given} are {'exactly' if exact == rounded else 'about'} {count(rounded, other)}."
    rule = f"One {one} is {decimals}{number(factor)} {plural(other)}."
    working = f"{amount} x {number(factor)} = {number(exact)}."
    question = rng.choice(_CONVERT).format(given=given, unit=plural(other), use="for a plan")
    return single(question, _worked(rng, about, rule, working))


def sums(rng: Random) -> Talk:
    """One small sum with its steps, and often a second that goes on from the first."""
    task, value, steps = rng.choice((_add, _subtract, _multiply, _divide, _average))(rng)
    question = rng.choice(_WORK_OUT).format(task)
    lead = rng.choice(("The answer is {}.", "So the result is {}.", "That makes {}."))
    exchanges = [(question, Answer(lead.format(number(value)), steps=steps))]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        by = rng.randint(2, 9)
        after, line, ask = rng.choice(
            (
                (value + by * 10, f"{number(value)} + {by * 10}", f"add {by * 10} to that"),
                (value * by, f"{number(value)} x {by}", f"multiply that by {by}"),
                (value + by, f"{number(value)} + {by}", f"add {by}"),
            )
        )
        ask = rng.choice(("Now {}.", "And if you {}?", "Please {}.", "Then {}, please.")).format(
            ask
        )
        exchanges.append((ask, Answer(f"{line} = {number(after)}.")))
        value = after
    return Talk(tuple(exchanges))


def stories(rng: Random) -> Talk:
    """A word problem in everyday clothes."""
    return rng.choice((_sharing, _shopping, _walking, _reading, _ages, _boxes, _left_over))(rng)


def percents(rng: Random) -> Talk:
    thing, low, high = rng.choice(GOODS)
    price = rng.randrange(low, high + 1) * 10
    rate = rng.choice((5, 10, 15, 20, 25, 30, 40, 50))
    cut = Fraction(price * rate, 100)
    shop = rng.choice(("The shop takes", "In the sale they take", "With my card I get"))
    kind = rng.random()
    if kind < 0.6:
        question = (
            f"{article(thing).capitalize()} costs ${price}. {shop} {rate}% off. "
            + rng.choice(("What do I pay?", "How much is it now?", "What is the new price?"))
        )
        lead = f"You pay ${_money(price - cut)} for the {thing}."
        steps = (
            f"{rate}% of ${price} is ${_money(cut)}.",
            f"${price} - ${_money(cut)} = ${_money(price - cut)}.",
        )
    else:
        rate = rng.choice((5, 10, 15, 20, 25))
        price, ask, told = rng.choice(
            (
                (
                    rng.randrange(20, 200, 5),
                    "The bill is ${} and I want to tip {}%. How much is that together?",
                    "Together it is",
                ),
                (
                    rng.randrange(20, 400, 10),
                    "What is ${} with {}% service added?",
                    "With service it is",
                ),
                (
                    rng.randrange(300, 1500, 50),
                    "My rent of ${} goes up by {}%. What is the new rent?",
                    "The new rent is",
                ),
            )
        )
        cut = Fraction(price * rate, 100)
        question = ask.format(price, rate)
        lead = f"{told} ${_money(price + cut)}."
        steps = (
            f"{rate}% of ${price} is ${_money(cut)}.",
            f"${price} + ${_money(cut)} = ${_money(price + cut)}.",
        )
    exchanges = [(question, Answer(lead, steps=steps))]
    if kind < 0.25:
        two = 2 * (price - cut)
        exchanges.append(
            (
                rng.choice(("And if I buy two?", "What would two cost?", "And two of them?")),
                Answer(f"Two cost 2 x ${_money(price - cut)} = ${_money(two)}."),
            )
        )
    return Talk(tuple(exchanges))


def purse(rng: Random) -> Talk:
    """Prices to add, and the change from a note."""
    picked = rng.sample(_GROCERIES, rng.choice((2, 3, 3)))
    cents = [rng.randrange(low, high, 5) for _, low, high in picked]
    total = sum(cents)
    note = next(value for value in (5, 10, 20, 50) if value * 100 > total)
    costs = [
        f"{name} for ${_cents(each)}" for (name, _, _), each in zip(picked, cents, strict=True)
    ]
    opening = rng.choice(("I bought", "Today I bought", "At the market I took", "My basket has"))
    closing = rng.choice(
        (
            f"I pay with a ${note} note. What change do I get?",
            f"How much is left of ${note}?",
            f"What change should I get from ${note}?",
        )
    )
    adding = " + ".join(f"${_cents(each)}" for each in cents)
    steps = (
        f"{adding} = ${_cents(total)}.",
        f"${note}.00 - ${_cents(total)} = ${_cents(note * 100 - total)}.",
    )
    lead = f"Your change is ${_cents(note * 100 - total)}."
    return single(f"{opening} {listing(costs)}. {closing}", Answer(lead, steps=steps))


def calendar(rng: Random) -> Talk:
    return rng.choice((_weekday, _date_after, _days_between))(rng)


def clock(rng: Random) -> Talk:
    """When something ends or must begin, and what follows from it."""
    start = rng.randrange(6 * 60, 19 * 60, 5)
    length = rng.choice(
        (20, 25, 35, 40, 45, 50, 55, 65, 70, 75, 80, 90, 95, 105, 110, 120, 135, 150)
    )
    end = start + length
    what = rng.choice(CHORES)
    hours = _duration(length)
    if rng.random() < 0.55:
        question = rng.choice(
            (
                f"{what} starts at {_time(start)} and takes {hours}. When does it end?",
                f"If {_low(what)} begins at {_time(start)} and lasts {hours}, when is it over?",
                f"{what}: start {_time(start)}, length {hours}. What is the end?",
            )
        )
        lead = f"It ends at {_time(end)}."
        steps = _clock_steps(start, length)
    else:
        question = rng.choice(
            (
                f"{what} takes {hours} and must be over by {_time(end)}. When should it start?",
                f"When must {_low(what)} begin if it takes {hours} and should end at {_time(end)}?",
            )
        )
        lead = f"It should start at {_time(start)}."
        steps = (f"Count back {hours} from {_time(end)}.",)
    exchanges = [(question, Answer(lead, steps=steps))]
    if rng.random() < 0.5:
        late = rng.choice((5, 10, 15, 20, 30))
        ask = rng.choice(("What if it is {} minutes late?", "And with a delay of {} minutes?"))
        told = f"Then it starts at {_time(start + late)} and ends at {_time(end + late)}."
        exchanges.append((ask.format(late), Answer(told)))
    return Talk(tuple(exchanges))


def rows_of_numbers(rng: Random) -> Talk:
    """Order, the largest, the even ones, or the next of a row."""
    if rng.random() < 0.4:
        first, step = rng.randint(1, 40), rng.randint(2, 15)
        row = [first + step * place for place in range(5)]
        shown = ", ".join(map(str, row[:4]))
        question = rng.choice(
            ("Which number comes next: {}?", "Go on with this row: {}.", "What follows {}?")
        ).format(shown)
        return single(
            question,
            Answer(
                f"The next number is {row[4]}.",
                steps=(
                    f"Each number is {step} more than the one before.",
                    f"{row[3]} + {step} = {row[4]}.",
                ),
            ),
        )
    given = rng.sample(range(3, 200), rng.choice((4, 5, 6)))
    shown = ", ".join(map(str, given))
    up = ", ".join(map(str, sorted(given)))
    down = ", ".join(map(str, sorted(given, reverse=True)))
    even = [value for value in given if value % 2 == 0]
    asks = [
        (f"from small to large: {shown}", f"From small to large: {up}."),
        (f"from large to small: {shown}", f"From large to small: {down}."),
    ]
    ask, told = rng.choice(asks)
    verb = rng.choice(("Put these numbers in order,", "Sort these numbers", "Please order these"))
    exchanges: list[tuple[str, Answer | str]] = [(f"{verb} {ask}.", Answer(told))]
    if rng.random() < 0.6:
        evens = "None of them is even."
        if even:
            are_even = "is the only even one" if len(even) == 1 else "are even"
            evens = f"{listing(list(map(str, even)))} {are_even}."
        exchanges.append((rng.choice(("Which of them are even?", "And the even ones?")), evens))
    if rng.random() < 0.5:
        gap = f"{max(given)} - {min(given)} = {max(given) - min(given)}."
        ask = "How far is the largest from the smallest?"
        exchanges.append((ask, Answer(gap)))
    return Talk(tuple(exchanges))


def _worked(rng: Random, lead: str, rule: str, working: str) -> Answer:
    """The working before the result, after it, or in part."""
    return rng.choice(
        (
            Answer(lead, steps=(rule, working)),
            Answer(lead, more=(rule, working)),
            Answer(lead, more=(rule,)),
            Answer(f"So {lead}", steps=(rule,)),
        )
    )


def _use(rng: Random, scale: tuple[tuple[str, int], ...]) -> str:
    return rng.choice(_USES[scale[0][0]])


def _temperature(rng: Random) -> Talk:
    celsius = rng.randrange(-20, 250, 5)
    fahrenheit = celsius * 9 // 5 + 32
    setting = rng.choice(_HOT if celsius > 100 else _MILD if celsius > 45 else _OUTDOORS)
    if rng.random() < 0.5:
        question = rng.choice(
            (
                f"{setting} {celsius} degrees Celsius. What is that in Fahrenheit?",
                f"How many degrees Fahrenheit are {celsius} degrees Celsius?",
                f"Convert {celsius} degrees Celsius to Fahrenheit.",
            )
        )
        steps = (
            "Multiply by 9, divide by 5 and add 32.",
            f"{celsius} x 9 / 5 = {celsius * 9 // 5}, and {celsius * 9 // 5} + 32 = {fahrenheit}.",
        )
        lead = f"It is {fahrenheit} degrees Fahrenheit."
    else:
        question = rng.choice(
            (
                f"{setting} {fahrenheit} degrees Fahrenheit. What is that in Celsius?",
                f"How many degrees Celsius are {fahrenheit} degrees Fahrenheit?",
                f"Convert {fahrenheit} degrees Fahrenheit to Celsius.",
            )
        )
        steps = (
            "Take away 32, multiply by 5 and divide by 9.",
            f"{fahrenheit} - 32 = {fahrenheit - 32}, and {fahrenheit - 32} x 5 / 9 = {celsius}.",
        )
        lead = f"It is {celsius} degrees Celsius."
    return single(question, Answer(lead, steps=steps if rng.random() < 0.7 else ()))


def _add(rng: Random) -> tuple[str, int, tuple[str, ...]]:
    one, two = rng.randint(14, 480), rng.randint(13, 99)
    tens, ones = two // 10 * 10, two % 10
    steps = (f"{one} + {tens} = {one + tens}.", f"{one + tens} + {ones} = {one + two}.")
    return f"{one} + {two}", one + two, steps if ones else steps[:1]


def _subtract(rng: Random) -> tuple[str, int, tuple[str, ...]]:
    two = rng.randint(12, 90)
    one = two + rng.randint(12, 400)
    tens, ones = two // 10 * 10, two % 10
    steps = (f"{one} - {tens} = {one - tens}.", f"{one - tens} - {ones} = {one - two}.")
    return f"{one} - {two}", one - two, steps if ones else steps[:1]


def _multiply(rng: Random) -> tuple[str, int, tuple[str, ...]]:
    tens, ones, by = rng.randint(1, 9) * 10, rng.randint(1, 9), rng.randint(3, 9)
    steps = (
        f"{tens} x {by} = {tens * by}.",
        f"{ones} x {by} = {ones * by}.",
        f"{tens * by} + {ones * by} = {(tens + ones) * by}.",
    )
    return f"{tens + ones} x {by}", (tens + ones) * by, steps


def _divide(rng: Random) -> tuple[str, int, tuple[str, ...]]:
    by, ones = rng.randint(3, 9), rng.randint(1, 9)
    value = 10 * rng.randint(1, 3) + ones
    whole, easy = value * by, (value - ones) * by
    steps = (
        f"{easy} / {by} = {value - ones}.",
        f"The remaining {ones * by} / {by} = {ones}.",
        f"{value - ones} + {ones} = {value}.",
    )
    return f"{whole} / {by}", value, steps


def _average(rng: Random) -> tuple[str, int, tuple[str, ...]]:
    mean, first, second = rng.randint(10, 60), rng.randint(1, 9), rng.randint(1, 9)
    values = [mean - first, mean + first + second, mean - second]
    shown = " + ".join(map(str, values))
    steps = (f"{shown} = {3 * mean}.", f"{3 * mean} / 3 = {mean}.")
    return f"the average of {listing(list(map(str, values)))}", mean, steps


def _sharing(rng: Random) -> Talk:
    name, people, each = rng.choice(NAMES), rng.randint(3, 9), rng.randint(3, 16)
    noun = plural(rng.choice(_SMALL_THINGS))
    total = people * each
    question = rng.choice(
        (
            f"{name} has {total} {noun} and shares them fairly among {people} friends.",
            f"{total} {noun} are to be shared among {people} children.",
            f"{name} puts {total} {noun} into {people} bags, the same number in each.",
        )
    )
    ask = "How many are in each bag?" if "bags" in question else "How many does each one get?"
    lead = f"Each {'bag holds' if 'bags' in question else 'one gets'} {each} {noun}."
    return single(f"{question} {ask}", Answer(lead, steps=(f"{total} / {people} = {each}.",)))


def _shopping(rng: Random) -> Talk:
    name = rng.choice(NAMES)
    one, two = rng.sample(_SMALL_THINGS, 2)
    many, few, dear, cheap = (rng.randint(2, limit) for limit in (9, 9, 5, 5))
    first, second = many * dear, few * cheap
    question = (
        f"{name} buys {count(many, one)} at ${dear} each and {count(few, two)} at ${cheap} each. "
        + rng.choice(("What is the total?", f"How much does {name} pay?", "What does it all cost?"))
    )
    steps = (
        f"The {plural(one)} cost {many} x ${dear} = ${first}.",
        f"The {plural(two)} cost {few} x ${cheap} = ${second}.",
    )
    return single(
        question, Answer(f"Together that is ${first} + ${second} = ${first + second}.", steps=steps)
    )


def _walking(rng: Random) -> Talk:
    how, low, high = rng.choice((("walks", 3, 6), ("cycles", 10, 20), ("drives", 40, 90)))
    speed, hours = rng.randint(low, high), rng.randint(2, 6)
    name, town = rng.choice(NAMES), rng.choice(TOWNS)
    far = speed * hours
    if rng.random() < 0.5:
        question = f"{name} {how} at {speed} km an hour for {hours} hours. How far is that?"
        return single(
            question,
            Answer(
                f"{name} comes {far} km far.",
                steps=(f"Distance is speed times time: {speed} x {hours} = {far}.",),
            ),
        )
    question = (
        f"It is {far} km to {town}. {name} {how} at {speed} km an hour. How long does it take?"
    )
    return single(
        question,
        Answer(
            f"The way to {town} takes {hours} hours.",
            steps=(f"Time is distance divided by speed: {far} / {speed} = {hours}.",),
        ),
    )


def _reading(rng: Random) -> Talk:
    name, pages, days = rng.choice(NAMES), rng.randint(8, 40), rng.randint(4, 15)
    total = pages * days
    question = rng.choice(
        (
            f"{name} reads {pages} pages a day. How long does a book of {total} pages take?",
            f"A book has {total} pages and {name} reads {pages} of them every day. "
            "After how many days is it finished?",
        )
    )
    exchanges = [
        (question, Answer(f"{name} needs {days} days.", steps=(f"{total} / {pages} = {days}.",)))
    ]
    if rng.random() < 0.5:
        exchanges.append(
            (
                "And at double the speed?" if days % 2 == 0 else "And a book twice as long?",
                Answer(f"Then it takes {days // 2 if days % 2 == 0 else days * 2} days."),
            )
        )
    return Talk(tuple(exchanges))


def _ages(rng: Random) -> Talk:
    old, young = rng.sample(NAMES, 2)
    age, gap, years = rng.randint(5, 30), rng.randint(2, 9), rng.randint(3, 20)
    question = (
        f"{young} is {age} years old and {old} is {gap} years older. "
        f"How old will {old} be in {years} years?"
    )
    steps = (
        f"Now {old} is {age} + {gap} = {age + gap}.",
        f"In {years} years that is {age + gap} + {years} = {age + gap + years}.",
    )
    return single(question, Answer(f"{old} will be {age + gap + years} years old.", steps=steps))


def _boxes(rng: Random) -> Talk:
    noun, per, boxes = rng.choice(_SMALL_THINGS), rng.randint(4, 12), rng.randint(3, 12)
    extra = rng.randint(1, per - 1)
    total = per * boxes + extra
    question = f"One box holds {per} {plural(noun)}. I have {total} {plural(noun)}. " + rng.choice(
        ("How many boxes do I need?", "How many boxes should I buy?")
    )
    steps = (
        f"{boxes} full boxes hold {boxes} x {per} = {boxes * per}.",
        f"{count(extra, noun)} {are(extra)} left over and {'needs' if extra == 1 else 'need'} "
        "one more box.",
    )
    return single(question, Answer(f"You need {boxes + 1} boxes.", steps=steps))


def _left_over(rng: Random) -> Talk:
    name, noun = rng.choice(NAMES), plural(rng.choice(_SMALL_THINGS))
    had, gave, got = rng.randint(20, 60), rng.randint(3, 18), rng.randint(3, 25)
    question = rng.choice(
        (
            f"{name} had {had} {noun}, gave away {gave} and got {got} new ones. How many now?",
            f"There were {had} {noun} in the basket. {name} took {gave} out and put {got} in. "
            "How many are there?",
        )
    )
    steps = (f"{had} - {gave} = {had - gave}.", f"{had - gave} + {got} = {had - gave + got}.")
    return single(question, Answer(f"Now there are {had - gave + got} {noun}.", steps=steps))


def _weekday(rng: Random) -> Talk:
    today, ahead = rng.randrange(7), rng.randint(8, 60)
    weeks, rest = divmod(ahead, 7)
    then = DAYS[(today + ahead) % 7]
    question = rng.choice(
        (
            f"Today is {DAYS[today]}. Which day is it in {ahead} days?",
            f"If today is {DAYS[today]}, what day of the week is {ahead} days from now?",
            f"My order comes {ahead} days after {DAYS[today]}. What day is that?",
        )
    )
    after = f"and {count(rest, 'day')}" if rest else "exactly"
    steps = (f"{ahead} days are {count(weeks, 'week')} {after}.",)
    return single(question, Answer(f"It will be {article(then)}.", steps=steps))


def _date_after(rng: Random) -> Talk:
    start = date(2025, 3, 1) + timedelta(days=rng.randrange(300))  # no end of February: leap years
    ahead = rng.choice((7, 10, 14, 20, 21, 28, 30))
    end = start + timedelta(days=ahead)
    question = rng.choice(
        (
            f"Which date is {ahead} days after {_date(start)}?",
            f"I have {ahead} days from {_date(start)}. What is the last date?",
            f"A library book was lent on {_date(start)} for {ahead} days. When is it due?",
        )
    )
    month = _MONTHS[start.month - 1]
    length = (date(2025 + start.month // 12, start.month % 12 + 1, 1) - timedelta(days=1)).day
    steps: tuple[str, ...] = (f"{start.day} + {ahead} = {start.day + ahead}.",)
    if end.month != start.month:
        steps = (*steps, f"{month} has {length} days, so take away {length}: {end.day}.")
    return single(question, Answer(f"It is {_date(end)}.", steps=steps))


def _days_between(rng: Random) -> Talk:
    month = rng.randrange(12)
    first = rng.randint(1, 14)
    last = first + rng.randint(3, 14)
    question = rng.choice(
        (
            f"How many days are there from {first} to {last} {_MONTHS[month]}?",
            f"I arrive on {first} {_MONTHS[month]} and leave on {last} {_MONTHS[month]}. "
            "How many nights is that?",
        )
    )
    nights = last - first
    word = "night" if "nights" in question else "day"
    exchanges = [
        (
            question,
            Answer(f"That is {count(nights, word)}.", steps=(f"{last} - {first} = {nights}.",)),
        )
    ]
    if word == "night" and rng.random() < 0.6:
        price = rng.randrange(30, 120, 5)
        exchanges.append(
            (
                f"One night costs ${price}. What do I pay in all?",
                Answer(f"{nights} x ${price} = ${number(nights * price)}."),
            )
        )
    return Talk(tuple(exchanges))


def _clock_steps(start: int, length: int) -> tuple[str, ...]:
    hours, minutes = divmod(length, 60)
    if not hours or not minutes:
        return ()
    middle = _time(start + hours * 60)
    return (
        f"{count(hours, 'hour')} after {_time(start)} is {middle}, "
        f"and {minutes} minutes later it is {_time(start + length)}.",
    )


def _duration(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    parts = ([count(hours, "hour")] if hours else []) + ([count(rest, "minute")] if rest else [])
    return listing(parts)


def _time(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def _date(day: date) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]}"


def _money(value: int | Fraction) -> str:
    exact = Fraction(value)
    return str(exact.numerator) if exact.denominator == 1 else f"{float(exact):.2f}"


def _cents(value: int) -> str:
    return f"{value // 100}.{value % 100:02d}"


def _low(text: str) -> str:
    return text[0].lower() + text[1:]


_SCALES = (
    (("millimetre", 1), ("centimetre", 10), ("metre", 1000), ("kilometre", 1_000_000)),
    (("gram", 1), ("kilogram", 1000), ("tonne", 1_000_000)),
    (("millilitre", 1), ("centilitre", 10), ("litre", 1000)),
    (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400), ("week", 604_800)),
    (("inch", 1), ("foot", 12), ("yard", 36)),
    (("ounce", 1), ("pound", 16), ("stone", 224)),
    (("teaspoon", 1), ("tablespoon", 3), ("cup", 48)),
    (("month", 1), ("year", 12), ("decade", 120), ("century", 1200)),
    (("pint", 1), ("quart", 2), ("gallon", 8)),
)  # fmt: skip
_USES = {
    "millimetre": ("for a shelf", "for my map", "for a drawing", "for the garden path"),
    "gram": ("for a parcel", "for the farm", "for my shopping", "for a recipe"),
    "millilitre": ("for a recipe", "for my fish tank", "for the watering can"),
    "second": ("for a timer", "for school", "for my training", "for a timetable"),
    "inch": ("for a curtain", "for a plank", "for a fence", "for some cloth"),
    "ounce": ("for a parcel", "for the kitchen", "for a book"),
    "teaspoon": ("for a cake", "for a sauce", "for a big batch of soup"),
    "month": ("for a history lesson", "for a family tree", "for a plan"),
    "pint": ("for a party", "for the milk order", "for painting the wall"),
}  # fmt: skip
_ACROSS = (
    ("inch", Fraction(254, 100), "centimetre", ""),
    ("foot", Fraction(3048, 100), "centimetre", ""),
    ("mile", Fraction(161, 100), "kilometre", "about "),
    ("pound", Fraction(45, 100), "kilogram", "about "),
    ("ounce", Fraction(2835, 100), "gram", "about "),
    ("yard", Fraction(91, 100), "metre", "about "),
    ("US gallon", Fraction(379, 100), "litre", "about "),
    ("kilogram", Fraction(22, 10), "pound", "about "),
    ("metre", Fraction(328, 100), "foot", "about "),
    ("kilometre", Fraction(62, 100), "mile", "about "),
)  # fmt: skip
_CONVERT = (
    "How many {unit} are there in {given}?", "Convert {given} to {unit}.",
    "What is {given} in {unit}?", "I need {given} in {unit} {use}.",
    "Please turn {given} into {unit}.", "Can you tell me how many {unit} make {given}?",
    "{given} in {unit}, please.", "The label says {given}. How much is that in {unit}?",
    "Could you change {given} into {unit} {use}?",
)  # fmt: skip
_AND_IN = (
    "And in {unit}?", "How many {unit} would that be?", "Could I have that in {unit}?",
    "And what is it in {unit}?",
)  # fmt: skip
_WORK_OUT = (
    "What is {}?", "Work out {}.", "Please calculate {} and show the steps.", "How much is {}?",
    "Can you help me with {}?", "I need {} for my homework. How is it done?",
    "Solve {} step by step.", "My son has to find {}. How would you do it?",
)  # fmt: skip
_SMALL_THINGS = (
    "apple", "pencil", "candle", "shell", "button", "orange", "marble", "stamp", "egg", "biscuit",
    "pear", "notebook", "ribbon", "postcard", "lemon", "plum", "bead", "bulb", "sticker", "brush",
    "bun", "key ring", "badge", "nail", "walnut",
)  # fmt: skip
_GROCERIES = (
    ("bread", 180, 420), ("milk", 95, 190), ("cheese", 240, 690), ("apples", 150, 390),
    ("rice", 120, 310), ("tea", 200, 480), ("butter", 190, 350), ("soap", 85, 260),
    ("honey", 380, 720), ("onions", 70, 190), ("coffee", 350, 790), ("eggs", 190, 410),
    ("a newspaper", 120, 280), ("carrots", 60, 210), ("flour", 80, 180), ("olives", 170, 420),
)  # fmt: skip
_HOT = ("My oven is set to", "The recipe says", "The pizza stone reaches", "The baking tray is at")
_MILD = ("The water in the pot is at", "The tea should brew at", "The sauna is at")
_OUTDOORS = (
    "Outside it is", "The thermometer shows", "Tomorrow they expect", "In the cellar it is",
)  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
