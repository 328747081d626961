"""Families that go to and fro: a shop, a table, an appointment, a question back, a polite no."""

from __future__ import annotations

from random import Random

from sftray.demo._english import Answer, Exchange, Talk, article, capital, count, listing
from sftray.demo._pools import DAYS, GOODS, NAMES, SURNAMES, TOWNS


def shop(rng: Random) -> Talk:
    """The help desk of an invented shop: a fault, a late parcel, a return, a change of address."""
    name, thing = rng.choice(_SHOPS), rng.choice(GOODS)[0]
    order = f"{rng.choice('ABCDEFGH')}{rng.randint(100, 999)}"
    day, town = rng.choice(DAYS), rng.choice(TOWNS)
    filled = {"thing": thing, "order": order, "day": day, "town": town, "shop": name}
    trouble, first_words, remedies, closing, has_other = rng.choice(_TROUBLES)
    known = rng.random() < 0.4
    signed = rng.random() < 0.45
    system = rng.choice(_DESKS).format(**filled) if signed else ""
    greeting = f"Welcome to {name}. " if "Greet" in system else ""
    end = " Have a good day!" if "good day" in system else ""
    opening = rng.choice(trouble).format(**filled)
    remedy, other = (text.format(**filled) for text in rng.sample(remedies, 2))
    if known:
        exchanges: list[Exchange] = [
            (
                f"{opening} The order is {order}.",
                f"{greeting}{rng.choice(first_words)} {remedy}{end}",
            )
        ]
    else:
        exchanges = [
            (opening, f"{greeting}{rng.choice(first_words)} {rng.choice(_ORDER_ASKS)}{end}"),
            (rng.choice(_ORDER_TOLD).format(order), f"Thank you. {remedy}{end}"),
        ]
    if has_other and rng.random() < 0.4:
        exchanges.append((rng.choice(_OTHERWISE), f"{other}{end}"))
    elif rng.random() < 0.5:
        exchanges.append(
            (
                rng.choice(closing[0]).format(**filled),
                f"{rng.choice(closing[1]).format(**filled)}{end}",
            )
        )
    return Talk(tuple(exchanges), system)


def opening_hours(rng: Random) -> Talk:
    """Facts of a shop that stand in the system prompt, or in the question."""
    name = rng.choice(_SHOPS)
    first, last = rng.choice(
        (("Monday", "Friday"), ("Tuesday", "Saturday"), ("Monday", "Saturday"))
    )
    opens, closes = rng.randint(7, 10), rng.randint(4, 8)
    street = f"{rng.randint(2, 90)} {rng.choice(_STREETS)}"
    fee = rng.choice((3, 4, 5, 6))
    facts = (
        f"{name} is open from {first} to {last}, {opens} am to {closes} pm, at {street}. "
        f"Delivery costs ${fee}."
    )
    hour = rng.choice((opens - 1, opens + 1))
    verdict = "No, that is too early" if hour < opens else "Yes"
    asks = (
        ("When do {} open?", Answer(f"At {opens} am.")),
        ("When do {} close?", Answer(f"At {closes} pm.")),
        ("Where are {}?", Answer(f"At {street}.")),
        ("How much is delivery?", Answer(f"Delivery costs ${fee}.")),
        ("Are {} open on Sunday?", Answer("No.", more=(f"The shop opens again on {first}.",))),
        (
            f"Can one come at {hour} am?",
            Answer(f"{verdict}.", more=(f"The shop opens at {opens} am.",)),
        ),
        ("Can you tell me the way to Rome?", Answer(f"I am sorry, I can only help with {name}.")),
    )
    picked = rng.sample(asks, rng.choice((1, 1, 2, 3)))
    if rng.random() < 0.5:
        system = f"You answer for {name}. {facts}"
        opening = f"{rng.choice(('Hello', 'Good morning', 'Hi', 'Excuse me'))}, {name}? "
        said = "you"
    else:
        system, opening, said = "", f"{facts} ", "they"
    return Talk(
        tuple(
            (opening * (place == 0) + ask.format(said), told)
            for place, (ask, told) in enumerate(picked)
        ),
        system,
    )


def appointment(rng: Random) -> Talk:
    """Filling the blanks of an appointment: what, day, time, name."""
    reasons, first_words = rng.choice(_CALLS)
    name = f"{rng.choice(NAMES)} {rng.choice(SURNAMES)}"
    day, other_day = rng.sample(DAYS[:5], 2)
    hour, other_hour = rng.sample(range(8, 18), 2)
    half = rng.choice(("00", "15", "30", "45"))
    system = ""
    if rng.random() < 0.15:
        system = rng.choice(
            (
                "Confirm every appointment in one line: name, day, time.",
                "Write the final appointment as: NAME / DAY / TIME.",
            )
        )
    time, other_time = f"{hour}:{half}", f"{other_hour}:{half}"
    reason = rng.choice(reasons)
    final = (
        f"{name} / {day} / {time}"
        if "/" in system
        else f"{name}, {day}, {time}."
        if system
        else rng.choice(
            (
                f"You are down for {day} at {time}, {name}.",
                f"Done: {name}, {day}, {time}, {reason}.",
                f"Good, {name}. We expect you on {day} at {time}.",
            )
        )
    )
    opening = rng.choice(first_words)
    opening = capital(opening.format(reason=reason, day=day, time=time, name=name))
    exchanges: list[Exchange] = []
    has_day, has_time, has_name = day in opening, time in opening, name in opening
    say = opening
    if not has_day:
        exchanges.append(
            (
                say,
                rng.choice(
                    (
                        "Which day suits you?",
                        "Certainly. On which day?",
                        "On what day would you like to come?",
                    )
                ),
            )
        )
        say = rng.choice(
            (f"{day}, please.", f"On {day}.", f"{day} would be good.", f"Is {day} possible?")
        )
    if not has_time:
        full = rng.random() < 0.3
        exchanges.append(
            (
                say,
                rng.choice(
                    (
                        f"{day} is fine. At what time?",
                        "And at what time?",
                        f"At what time on {day}?",
                    )
                ),
            )
        )
        if full:
            exchanges.append(
                (f"At {other_time}.", f"I am sorry, {other_time} is taken. {time} is free.")
            )
            say = rng.choice(("I take that.", "That is fine too.", "Yes, then."))
        else:
            say = rng.choice((f"At {time}.", f"{time}, if possible.", f"Can I come at {time}?"))
    if not has_name:
        exchanges.append(
            (
                say,
                rng.choice(
                    (
                        "What is your name, please?",
                        "Good. Under which name?",
                        "May I have your name?",
                    )
                ),
            )
        )
        say = rng.choice((f"{name}.", f"My name is {name}.", f"I am {name}."))
    exchanges.append((say, final))
    if rng.random() < 0.15 and not system and len(exchanges) < 4:
        exchanges.append(
            (
                f"Sorry, can we make it {other_day}?",
                f"Of course. I have changed it to {other_day} at {time}.",
            )
        )
    return Talk(tuple(exchanges), system)


def table(rng: Random) -> Talk:
    """Booking a table, or sending food home."""
    house, food = rng.choice(_HOUSES)
    name, guests = rng.choice(SURNAMES), rng.randint(2, 9)
    day, time = rng.choice(DAYS), f"{rng.randint(6, 9)}:{rng.choice(('00', '15', '30'))}"
    place = rng.choice(("by the window", "outside", "in a quiet corner", "near the door"))
    wish, granted = rng.choice(_WISHES)
    start = rng.choice(
        (
            f"I want to book a table for {guests} at {house}.",
            f"Have you a table for {guests} on {day}?",
            f"A table for {guests}, please, {day} at {time}.",
            f"Hello, is this {house}? We are {guests} and hungry.",
            f"Can I reserve a table at {house} for {day}?",
            f"Good evening, a table at {time} for {guests}, please.",
        )
    )
    exchanges: list[Exchange] = []
    say = start
    if str(guests) not in start.replace(time, ""):
        exchanges.append((say, "With pleasure. For how many people?"))
        say = rng.choice((f"We are {guests}.", f"For {guests}.", f"{guests} people."))
    if day not in start:
        exchanges.append(
            (say, rng.choice(("Gladly. For which day?", "On which day would you like to come?")))
        )
        say = rng.choice((f"On {day}.", f"{day}, please."))
    if time not in start:
        exchanges.append(
            (
                say,
                rng.choice(("At what time?", "And when on that day?", "What time would suit you?")),
            )
        )
        say = rng.choice((f"At {time}.", f"{time}, please.", f"Around {time}."))
    done = rng.choice(
        (
            f"I have a table for {guests} on {day} at {time}. What is the name?",
            f"That is possible: {guests} people, {day}, {time}. Under what name?",
        )
    )
    exchanges.append((say, done))
    exchanges.append(
        (
            rng.choice((f"{name}.", f"The name is {name}.", f"Under the name of {name}.")),
            rng.choice(
                (
                    f"Thank you, {name}. Table for {guests}, {day} at {time}. See you then.",
                    f"All set for {name}: {guests} people on {day} at {time}.",
                )
            ),
        )
    )
    if len(exchanges) < 4 and rng.random() < 0.5:
        exchanges.append(
            rng.choice(
                (
                    (f"Could we sit {place}?", f"I have noted it: a table {place}."),
                    (wish, granted),
                    (f"Do you have {rng.choice(food)}?", f"Yes, we have that every {day}."),
                )
            )
        )
    return Talk(tuple(exchanges))


def menu(rng: Random) -> Talk:
    """Ordering food by the menu; the sum is right."""
    house, food = rng.choice(_HOUSES)
    prices = {dish: rng.randint(3, 14) for dish in rng.sample(food, 3)}
    shown = ", ".join(f"{dish} ${price}" for dish, price in prices.items())
    (one, price_one), (two, price_two) = rng.sample(list(prices.items()), 2)
    many = rng.randint(2, 4)
    total = many * price_one + price_two
    ask = rng.choice(
        (
            f"{house} has {shown}. What do {many} portions of {one} and one of {two} cost?",
            f"Menu: {shown}. I take {many} portions of {one} and one of {two}. What do I pay?",
            f"We had {many} portions of {one} and one of {two}. Prices: {shown}. What is due?",
        )
    )
    steps = (
        f"{capital(one)}: {many} x ${price_one} = ${many * price_one}.",
        f"{capital(two)}: ${price_two}.",
    )
    exchanges: list[Exchange] = [(ask, Answer(f"Together it is ${total}.", steps=steps))]
    if rng.random() < 0.6:
        cheap = min(prices, key=lambda dish: prices[dish])
        if list(prices.values()).count(prices[cheap]) == 1:
            exchanges.append(
                (
                    "What is the cheapest dish?",
                    Answer(f"The cheapest is {cheap} for ${prices[cheap]}."),
                )
            )
    return Talk(tuple(exchanges))


def clarifying(rng: Random) -> Talk:
    """A vague wish, a question back, and then an answer that fits."""
    vague, question, cases = rng.choice(_VAGUE)
    said, told = rng.choice(cases)
    name = rng.choice(NAMES)
    ask = rng.choice(
        (
            "{}",
            "Hello! {}",
            "{} Thank you.",
            "I am {name}. {}",
            "Please help. {}",
            "{} It is for {name}.",
            "Good morning! {}",
            "{} {name} could not tell me.",
            "Hi, {name} here. {}",
        )
    )
    opening = ask.replace("{name}", name).format(vague)
    middle = rng.choice(("", "Gladly. ", "Of course. ", "I can help. ")) + question
    exchanges: list[Exchange] = [(opening, middle), (said, told)]
    if rng.random() < 0.3:
        exchanges.append((rng.choice(_THANKS), rng.choice(_WELCOMES)))
    return Talk(tuple(exchanges))


def declining(rng: Random) -> Talk:
    """A request that must be turned down kindly, with something that can be done instead."""
    asks, reason, instead = rng.choice(_REFUSED)
    name, town = rng.choice(NAMES), rng.choice(TOWNS)
    ask = rng.choice(asks).format(
        name=name, town=town, surname=rng.choice(SURNAMES), n=rng.randint(2, 30)
    )
    no = rng.choice(
        (
            "I am sorry, but {}.",
            "I cannot do that, because {}.",
            "Sorry, {}.",
            "I had better not: {}.",
            "I must say no here, since {}.",
        )
    )
    exchanges: list[Exchange] = [(ask, Answer(no.format(reason), more=(instead,)))]
    if rng.random() < 0.35:
        exchanges.append(
            (
                rng.choice(
                    ("Are you sure?", "Please, just this once.", "Nobody will know.", "Why not?")
                ),
                Answer(f"I am sure: {reason}."),
            )
        )
    return Talk(tuple(exchanges))


def small_talk(rng: Random) -> Talk:
    """Feelings and good wishes, with a kind word and one small piece of advice."""
    said, kind, advice = rng.choice(_MOODS)
    name = rng.choice(NAMES)
    sigh = "Guess what! {}" if kind.startswith(_CHEERS) else "Oh dear. {}"
    opening = rng.choice(
        (
            "{}",
            "Hello. {}",
            "{} What do you say?",
            "I am {name}. {}",
            "Good evening. {}",
            sigh,
            "My name is {name}. {}",
            "Hi! {}",
        )
    )
    opening = opening.replace("{name}", name).format(said)
    greeting = f"Hello {name}! " if name in opening and rng.random() < 0.6 else ""
    exchanges: list[Exchange] = [(opening, f"{greeting}{kind} {rng.choice(advice)}")]
    if rng.random() < 0.5:
        exchanges.append((rng.choice(_THANKS), rng.choice(_WELCOMES)))
    return Talk(tuple(exchanges))


def remembering(rng: Random) -> Talk:
    """Facts told in one turn and asked for in a later one."""
    name, friend = rng.sample(NAMES, 2)
    thing, town, day = rng.choice(GOODS)[0], rng.choice(TOWNS), rng.choice(DAYS)
    number = rng.randint(2, 40)
    facts = [
        (f"my name is {name}", "What is my name?", f"Your name is {name}."),
        (f"I live in {town}", "Where do I live?", f"You live in {town}."),
        (
            f"I have to buy {article(thing)}",
            "What do I have to buy?",
            f"You have to buy {article(thing)}.",
        ),
        (f"{friend} comes on {day}", f"When does {friend} come?", f"{friend} comes on {day}."),
        (
            f"my seat has the number {number}",
            "Which seat do I have?",
            f"You have seat number {number}.",
        ),
        (f"the key is with {friend}", "Who has the key?", f"{friend} has the key."),
    ]
    picked = rng.sample(facts, rng.choice((2, 3)))
    told = rng.choice(
        ("Please remember that {}.", "Note that {}.", "Keep in mind: {}.", "For later: {}.")
    )
    yes = rng.choice(
        ("I will remember it.", "Noted.", "All right, I have noted it.", "I will keep it in mind.")
    )
    exchanges: list[Exchange] = [(told.format(listing([fact for fact, _, _ in picked])), yes)]
    for _, ask, answer in rng.sample(picked, rng.choice((1, 2))):
        exchanges.append((ask, Answer(answer)))
    return Talk(tuple(exchanges))


def plans(rng: Random) -> Talk:
    """A day or an evening planned around fixed hours."""
    tasks = rng.sample(_ERRANDS, rng.choice((3, 4)))
    start = rng.randint(8, 13)
    lengths = [rng.choice((1, 1, 2)) for _ in tasks]
    hour, lines = start, []
    for task, length in zip(tasks, lengths, strict=True):
        lines.append(f"{hour}:00 {task}")
        hour += length
    wishes = listing(
        [f"{task} ({count(length, 'hour')})" for task, length in zip(tasks, lengths, strict=True)]
    )
    ask = rng.choice(
        (
            f"Plan my day from {start}:00: {wishes}.",
            f"I start at {start}:00. Put in order: {wishes}.",
            f"Make a timetable, beginning at {start}:00, for {wishes}.",
            f"Today I have to do this: {wishes}. I begin at {start}:00.",
        )
    )
    exchanges: list[Exchange] = [(ask, "\n".join(lines))]
    if rng.random() < 0.6:
        exchanges.append(
            (
                rng.choice(("When am I done?", "And when is it all over?", "When can I rest?")),
                Answer(f"You are done at {hour}:00."),
            )
        )
    return Talk(tuple(exchanges))


_SHOPS = (
    "Larkfield Lamps", "The Blue Barrow", "Hobson and Daughter", "Pine Street Store",
    "Oldwick Outfitters", "Tinker and Twine", "The Copper Kettle Shop", "Marrow and Sons",
    "Fairholm Furniture", "Harbour Goods", "The Corner Cart", "Wren House", "Seven Hills Supply",
    "The Green Crate", "Bramble Books and More",
)  # fmt: skip
_STREETS = (
    "Mill Lane", "High Street", "Bridge Road", "Garden Row", "Harbour Street", "Church Hill",
    "Market Square",
)  # fmt: skip
_DESKS = (
    "You work for {shop}. Greet every customer with the name of the shop.",
    "You are the help desk of {shop}. End every answer with: Have a good day!",
    "You answer letters to {shop}. Greet the customer with the name of the shop.",
    "You work at the counter of {shop}. Close each answer by wishing a good day.",
)  # fmt: skip
_REGRETS = (
    "I am sorry about that.", "I am sorry for the trouble.", "That should not have happened.",
    "Thank you for telling us.", "Let me see what we can do.",
)  # fmt: skip
_GLADLY = ("Certainly.", "Of course.", "I can help with that.", "No problem.", "Let us see to it.")
_ORDER_ASKS = (
    "What is your order number?", "May I have the order number?",
    "Please tell me the number of your order.", "Could you give me the order number?",
)  # fmt: skip
_ORDER_TOLD = ("It is {}.", "The number is {}.", "{}.", "Order {}.", "Here it is: {}.")
_OTHERWISE = (
    "I would rather have something else.", "Is there another way?", "That does not suit me.",
    "And otherwise?",
)  # fmt: skip
_TROUBLES = (
    (("My {thing} arrived broken.", "The {thing} I bought from you has a crack.",
      "There is a scratch on my new {thing}.", "I unpacked the {thing} and it does not work."),
     _REGRETS,
     ("We will send you a new {thing} by {day}.", "You can have the money for the {thing} back.",
      "We can repair the {thing} free of charge.",
      "Please bring the {thing} to our shop in {town} and choose another."),
     (("What shall I do with the old one?", "Do I have to send it back?"),
      ("Please keep it until our driver comes on {day}.", "No, you may keep it.",
       "Give it to the driver, please.")),
     True),
    (("Where is my {thing}? It should have come on {day}.", "My {thing} has not arrived yet.",
      "I am still waiting for the {thing}.", "The parcel with the {thing} is late."),
     _REGRETS,
     ("Your {thing} is in our store in {town} and will reach you on {day}.",
      "The parcel left {town} today and needs two more days.",
      "It went to a wrong address, so we send a second {thing} at once.",
      "You may also fetch the {thing} in {town}."),
     (("Can I track it?", "Will somebody call me?"),
      ("Yes, with the number {order} on our page.", "Yes, the driver calls you an hour before.")),
     False),
    (("I would like to return the {thing}.", "The {thing} is too large. Can I give it back?",
      "I do not like the colour of the {thing}.", "May I change the {thing} for another one?"),
     _GLADLY,
     ("You can return the {thing} within thirty days.",
      "We will send a label for the parcel, and the way back is free.",
      "We can change it for another colour.", "Bring it to {town}, and you get the money at once."),
     (("How long does the money take?", "When do I get my money?"),
      ("It takes about five days.", "You will have it by {day}.")),
     True),
    (("I have moved to {town}. Can you send the {thing} there?",
      "Please change the address for my {thing} to {town}.",
      "Can the {thing} be sent to my office in {town}?"),
     _GLADLY,
     ("I have changed the address, and the {thing} goes to {town}.",
      "The {thing} has not left yet, so we send it to {town}.",
      "We can also keep the {thing} here until {day}.", "Our driver will be in {town} on {day}."),
     (("Does that cost more?", "Is there a fee?"),
      ("No, that is free of charge.", "No, you pay nothing for it.")),
     False),
    (("I was charged twice for the {thing}.", "The bill for my {thing} is wrong.",
      "Why did I pay more for the {thing} than it says?", "I got two bills for the {thing}."),
     _REGRETS,
     ("You will get back what you paid too much by {day}.",
      "There was a slip in our books, and it is put right now.",
      "You are right, and we have put the bill in order.",
      "A new bill for the {thing} is on its way."),
     (("Can I have that in writing?", "Will you confirm it?"),
      ("Yes, a letter about order {order} is on its way.",
       "Of course, you will get an e-mail today.")),
     False),
)  # fmt: skip
_CALLS = (
    (("a check-up", "a toothache", "a new filling"),
     ("I need to see the dentist for {reason}.", "Can I come in for {reason}?",
      "Have you time for me on {day}? It is {reason}.",
      "My name is {name} and I need {reason} soon.")),
    (("a haircut", "a new colour", "a trim"),
     ("I would like to have {reason}.", "Can I get {reason} on {day}?",
      "{reason} on {day} at {time}, please.", "{name} here. I want {reason}.")),
    (("new tyres", "an oil change", "a repair of the brakes"),
     ("My car needs {reason}.", "Can you do {reason} on {day}?",
      "I am {name}. My car needs {reason}, on {day} if possible.")),
    (("my cat's cough", "a vaccination for my dog", "my rabbit's teeth"),
     ("I need an appointment for {reason}.", "Could the vet see us on {day} about {reason}?",
      "I would like to come at {time} for {reason}.")),
    (("a first lesson", "a lesson for my son", "an extra lesson"),
     ("I would like {reason}.", "Is {reason} possible on {day}?",
      "{name} here. May we have {reason} at {time}?")),
    (("an eye test", "new glasses", "a loose screw in my glasses"),
     ("I should like to come in for {reason}.", "Do you have time on {day} at {time} for {reason}?",
      "I am {name}, and it is about {reason}.")),
    (("a new passport", "a fishing permit", "a change of address"),
     ("I have to come in for {reason}.", "I need {reason}. Is there a free hour on {day}?",
      "Can I see someone about {reason} at {time}?")),
)  # fmt: skip
_HOUSES = (
    ("The Olive Branch", ("lentil soup", "grilled fish", "lemon cake", "stuffed peppers")),
    ("Green Gables", ("mushroom pie", "pea soup", "apple tart", "cheese toast")),
    ("The Old Ferry", ("fish stew", "crab salad", "baked potato", "plum cake")),
    ("Mario's", ("pizza", "tomato soup", "mixed salad", "ice cream")),
    ("The Red Lantern", ("fried rice", "noodle soup", "spring roll", "steamed fish")),
    ("Station Inn", ("roast chicken", "onion soup", "rice pudding", "garden salad")),
    ("The Silver Spoon", ("leek tart", "beef stew", "chocolate cake", "bean salad")),
)  # fmt: skip
_WISHES = (
    ("One of us is in a wheelchair.", "That is no trouble, we have a ramp at the side door."),
    ("We bring a baby.", "We will have a high chair ready."),
    ("It is a birthday.", "How nice! We will put a candle on the table."),
    ("My friend eats no meat.", "There are always three dishes without meat."),
    ("Can we bring our dog?", "Yes, a quiet dog is welcome."),
    ("Is there a place for the car?", "Yes, you can park behind the house."),
)  # fmt: skip
_VAGUE = (
    ("How long should I boil it?", "What would you like to boil?",
     (("Eggs, soft ones.", "Boil soft eggs for about five minutes."),
      ("Eggs, hard ones.", "Boil hard eggs for about ten minutes."),
      ("Potatoes.", "Potatoes need about twenty minutes."),
      ("Spaghetti.", "Spaghetti need eight to ten minutes."),
      ("White rice.", "White rice takes about fifteen minutes."),
      ("Carrots.", "Sliced carrots take about ten minutes."))),
    ("I need a present.", "Who is it for, and what do they like?",
     (("My aunt, she likes birds.", "A bird feeder would please her."),
      ("A boy of six who loves trains.", "A wooden train is a good choice."),
      ("My boss, who drinks a lot of tea.", "Take a tin of good tea."),
      ("My wife, she paints.", "A set of fine brushes would be right."),
      ("A friend who cooks.", "A box of rare spices would be nice."))),
    ("How far is it?", "From where to where do you mean?",
     (("From the earth to the moon.", "From the earth to the moon it is about 384,000 kilometres."),
      ("From the earth to the sun.", "It is about 150 million kilometres."),
      ("Once round the earth.", "Once round the equator it is about 40,000 kilometres."),
      ("A marathon, from start to end.", "A marathon is a little more than 42 kilometres."))),
    ("How many are there?", "How many of what?",
     (("Days in a leap year.", "A leap year has 366 days."),
      ("Players in a football team.", "A football team has eleven players on the field."),
      ("Keys on a piano.", "A piano has 88 keys."),
      ("Strings on a violin.", "A violin has four strings."),
      ("Letters in the alphabet.", "The English alphabet has 26 letters."),
      ("Squares on a chess board.", "A chess board has 64 squares."),
      ("Planets around our sun.", "There are eight planets."),
      ("Legs on a spider.", "A spider has eight legs."))),
    ("Can you translate a word for me?", "Which word, and into which language?",
     (("Good morning, into French.", "Good morning is bonjour in French."),
      ("Thank you, into German.", "Thank you is danke in German."),
      ("Water, into Spanish.", "Water is agua in Spanish."),
      ("House, into Italian.", "House is casa in Italian."),
      ("Bread, into French.", "Bread is pain in French."),
      ("Dog, into German.", "Dog is Hund in German."),
      ("Book, into Spanish.", "Book is libro in Spanish."),
      ("Sun, into Italian.", "Sun is sole in Italian."))),
    ("How do I get rid of a stain?", "What made the stain, and on what is it?",
     (("Red wine on a cloth.", "Put salt on it, then wash it in cold water."),
      ("Ink on my shirt.", "Dab it with a little alcohol, then wash it."),
      ("Grass on trousers.", "Rub it with soap, wait a while and wash it."),
      ("Blood on a sheet.", "Soak it in cold water, never in hot."),
      ("Candle wax on the table.", "Let it get hard and lift it off with a spoon."))),
    ("What is the capital?", "The capital of which country?",
     (("Of France.", "The capital of France is Paris."),
      ("Of Japan.", "The capital of Japan is Tokyo."),
      ("Of Norway.", "The capital of Norway is Oslo."),
      ("Of Egypt.", "The capital of Egypt is Cairo."),
      ("Of Canada.", "The capital of Canada is Ottawa."),
      ("Of Spain.", "The capital of Spain is Madrid."),
      ("Of Australia.", "The capital of Australia is Canberra."),
      ("Of Greece.", "The capital of Greece is Athens."),
      ("Of Portugal.", "The capital of Portugal is Lisbon."),
      ("Of Poland.", "The capital of Poland is Warsaw."))),
    ("Which wood should I take?", "What do you want to make?",
     (("A table for the garden.", "Take oak or larch, which can stand the rain."),
      ("A shelf for books.", "Pine is light and cheap for a shelf."),
      ("A spoon.", "Maple or cherry is good for a spoon."),
      ("A fire.", "Take dry beech or birch."))),
    ("Who wrote it?", "Which work do you mean?",
     (("Hamlet.", "Hamlet was written by William Shakespeare."),
      ("Emma.", "Emma was written by Jane Austen."),
      ("Oliver Twist.", "Oliver Twist was written by Charles Dickens."),
      ("Moby Dick.", "Moby Dick was written by Herman Melville."),
      ("The Odyssey.", "The Odyssey is said to be by Homer."),
      ("Frankenstein.", "Frankenstein was written by Mary Shelley."))),
    ("How warm should it be?", "Do you mean a room, a bath or food?",
     (("The bedroom.", "A bedroom should have about 18 degrees Celsius."),
      ("The fridge.", "A fridge should have about 5 degrees Celsius."),
      ("The bath of a baby.", "A bath for a baby should have about 37 degrees Celsius."),
      ("The living room.", "Most people like about 20 degrees Celsius."),
      ("The freezer.", "A freezer should have minus 18 degrees Celsius."))),
)  # fmt: skip
_REFUSED = (
    (("What is the password of {name}?", "Help me read the e-mails of {name}.",
      "I want to get into {name}'s account."),
     "what belongs to someone else is private",
     "If it is your own account, I can show you how to reset it."),
    (("Which numbers will win the lottery in {town}?",
      "Tell me the winning horse of {town} on Sunday.", "Will it rain in {town} in {n} weeks?",
      "Who will win the cup in {n} years?"),
     "nobody can know the future", "I can explain how the chances are worked out."),
    (("I have had pain in my chest for {n} hours. Which pills should I take?",
      "{name} has had a fever for {n} days. What is the illness?",
      "Can I take {n} of these tablets at once?", "How much of my heart medicine may I leave out?"),
     "that is a matter for a doctor",
     "Please call a doctor at once, and in danger the emergency number."),
    (("Write my exam essay for me, {n} pages, nobody checks.", "Do the whole test of {name}.",
      "Give me the answers for tomorrow's test in {town}."),
     "the work should be your own", "I can explain the subject and look at your draft."),
    (("Where does the actress {name} {surname} live?",
      "Give me the telephone number of {name} {surname} in {town}.",
      "Find out how much {name} {surname} earns."),
     "I do not give out such facts about people", "You could write to the person and ask."),
    (("Write a mean letter to {name}.", "Make up a bad rumour about {name} {surname}.",
      "Help me scare {name} at night."),
     "I do not want to hurt anyone", "I can help you to say calmly what made you angry."),
    (("How do I get on the train to {town} without a ticket?",
      "How can I make my bill smaller by a false paper?", "Show me how to sign as {name}."),
     "that would be fraud", "I can help you to look for a cheap ticket or to ask for more time."),
    (("How do I open the lock of {name}'s house?",
      "Which tool opens a bicycle lock in {town} quickly?",
      "How do I climb into the house of {name}?"),
     "I cannot help to enter what is not yours",
     "If you have lost your own key, a locksmith will help."),
    (("Should I put all my money into {name}'s firm?",
      "Is it wise to borrow for {n} years to play cards?", "Which share will double in {n} weeks?"),
     "I cannot decide about your money", "I can list what speaks for it and against it."),
    (("Please order {n} pizzas to {town} for me.", "Call {name} and say that I am late.",
      "Turn on the light in {name}'s room.", "Send this to {name} by post."),
     "I can only write and have no hands", "I can write the message, and you send it."),
    (("What did {name} {surname} eat this morning?", "What is in the box under my bed?",
      "How many coins are in {name}'s pocket?", "Which colour has my front door in {town}?"),
     "I cannot see that from here", "If you describe it, I will gladly help."),
)  # fmt: skip
_MOODS = (
    ("I failed my driving test.", "I am sorry to hear that.",
     ("Many people need a second try.", "Ask your teacher what to practise.")),
    ("I start a new job on Monday.", "How exciting!",
     ("Go to bed early on Sunday.", "Lay out your clothes the evening before.",
      "Write down the names you hear.")),
    ("My cat has run away.", "That is hard.",
     ("Look in cellars and sheds, and put its blanket outside.",
      "Tell the neighbours and hang up a note.")),
    ("I cannot sleep.", "That sounds tiring.",
     ("Get up for a while and read something quiet.", "Leave the phone in another room.")),
    ("I have passed all my exams.", "Well done!",
     ("You have earned a rest.", "Do something nice with your friends today.")),
    ("I feel lonely in this town.", "That is hard at first.",
     ("Perhaps join a choir or a club.", "Ask a neighbour round for tea.")),
    ("We are going to have a baby.", "What lovely news!",
     ("Enjoy the quiet nights while they last.", "Make a list of names together.")),
    ("I have quarrelled with my brother.", "I am sorry about that.",
     ("Wait a day and then call him.", "Tell him how you feel without blaming him.")),
    ("It has rained for a week.", "That sounds gloomy.",
     ("It is good weather for soup and a thick book.", "Put on boots and look for puddles.")),
    ("I am nervous about my speech.", "That is quite natural.",
     ("Practise it aloud twice.", "Breathe out slowly before you begin.")),
    ("My grandfather is ninety today.", "What a fine age!",
     ("Ask him to tell you a story of his youth.", "Bake him his favourite cake.")),
    ("I have broken my favourite cup.", "That is a pity.",
     ("Perhaps it can be glued and hold pencils.", "Keep a piece of it in a flower pot.")),
    ("I am bored this afternoon.", "Let us change that.",
     ("Bake something you have never baked.", "Write a letter to an old friend.",
      "Walk a street that you do not know.")),
    ("I have too much to do today.", "That sounds stressful.",
     ("Choose the three most important things.", "Begin with the smallest task.")),
    ("My plants are blooming at last.", "How lovely!",
     ("Take a picture of them.", "Put one flower on the table.")),
    ("I am moving to another city.", "That is a big step.",
     ("Label every box with its room.", "Say good-bye to your favourite places.")),
    ("I want to read more.", "A good plan.",
     ("Ten pages a day make twelve books a year.", "Keep a book in your bag.")),
    ("I have a cold.", "I am sorry to hear it.",
     ("Drink warm tea and rest.", "Stay in bed and see a doctor if it gets worse.")),
)  # fmt: skip
_CHEERS = ("How", "Well", "What", "A good")
_THANKS = (
    "Thank you!", "Thanks, that helps.", "That is kind of you.", "Good idea, thank you.",
    "Thank you, I will try.", "Great, thanks a lot.",
)  # fmt: skip
_WELCOMES = (
    "You are welcome.", "Gladly. All the best!", "My pleasure.", "Any time.", "I wish you luck.",
    "You are welcome. Good luck!",
)  # fmt: skip
_ERRANDS = (
    "shopping", "lunch with a friend", "the dentist", "homework", "a walk", "cleaning the kitchen",
    "writing letters", "piano practice", "gardening", "the bank", "a nap", "ironing",
    "a visit to grandmother", "swimming", "washing the car", "reading", "baking a cake",
)  # fmt: skip
