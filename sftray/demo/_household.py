"""Families about daily life: cooking, packing, plants, repairs, how-to, travel, plans and gifts."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from sftray.demo._english import (
    Answer,
    Exchange,
    Talk,
    article,
    bullets,
    capital,
    count,
    listing,
    number,
    numbered,
    plural,
    single,
)
from sftray.demo._pools import NAMES


def recipes(rng: Random) -> Talk:
    """How a dish is cooked, what it needs for some people, or what can take the place of a part."""
    dish, parts, steps = rng.choice(_DISHES)
    people = rng.choice((2, 3, 4, 4, 5, 6, 8))
    kind = rng.random()
    system = ""
    if kind < 0.3:
        ask = rng.choice(_ASK_WHOLE).format(dish=dish, n=people, name=rng.choice(NAMES))
        told = (
            f"For {people} people take:\n{bullets(_amounts(parts, people))}\n"
            f"This is how it is done:\n{numbered([_sentence(step) for step in steps])}"
        )
        exchanges: list[Exchange] = [(ask, told)]
        if rng.random() < 0.4:
            exchanges.append(
                (
                    rng.choice(("Any tip?", "Do you have a tip for me?", "What should I watch?")),
                    f"My tip: {rng.choice(_TIPS)}",
                )
            )
    elif kind < 0.6:
        ask = rng.choice(_ASK_NEEDED).format(dish=dish, n=people)
        told = f"For {people} people you need:\n{bullets(_amounts(parts, people))}"
        if rng.random() < 0.4:
            system = rng.choice(
                (
                    "You are a cook. Name only what is needed, in one line.",
                    "You run a kitchen. Answer with one line of amounts.",
                )
            )
            told = capital(", ".join(_amounts(parts, people))) + "."
        exchanges = [(ask, told)]
        if rng.random() < 0.55:
            more = people + rng.choice((1, 2, 4))
            ask = rng.choice(("And for {} people?", "We are {} after all.", "What if {} come?"))
            told = f"Then take {listing(_amounts(parts, more))}."
            exchanges.append((ask.format(more), told))
    else:
        ask = rng.choice(_ASK_COOK).format(dish=dish, name=rng.choice(NAMES))
        told = numbered([capital(step) + "." for step in steps])
        if rng.random() < 0.35:
            told = " ".join(
                f"{word} {step}."
                for word, step in zip(
                    ("First", "Then", "Next", "After that", "At the end"), steps, strict=False
                )
            )
        if rng.random() < 0.3:
            system, tip = rng.choice(
                (
                    ("You are a cook. End each recipe with: Enjoy your meal!", "Enjoy your meal!"),
                    ("You are an old cook who always gives a tip.", f"My tip: {rng.choice(_TIPS)}"),
                    ("Add a tip to every recipe.", f"Tip: {rng.choice(_TIPS)}"),
                )
            )
            told += f"\n{tip}"
        exchanges = [(ask, told)]
        if rng.random() < 0.3:
            part = rng.choice(parts)
            exchanges.append(
                (
                    f"And what amount of {part[2]} for {people}?",
                    Answer(f"For {people} people take {_amount(part, people)}."),
                )
            )
    return Talk(tuple(exchanges), system)


def swaps(rng: Random) -> Talk:
    """Something is missing in the kitchen."""
    missing, instead, how = rng.choice(_SWAPS)
    dish = rng.choice(_DISHES)[0]
    ask = rng.choice(
        (
            f"I have no {missing}. What can I use instead?",
            f"What can take the place of {missing}?",
            f"We ran out of {missing}. Any ideas?",
            f"{rng.choice(NAMES)} cannot eat {missing}. What now?",
            f"We make {dish} and a cake, but there is no {missing} in the house. What now?",
            f"Is there something like {missing} that I may have at home?",
        )
    )
    return single(ask, Answer(f"Instead of {missing} you can use {instead}.", more=(how,)))


def packing(rng: Random) -> Talk:
    """A list for a journey, with as many shirts as there are days."""
    trip, things = rng.choice(_TRIPS)
    days = rng.randint(2, 9)
    picked = rng.sample(things, rng.choice((3, 4, 5)))
    shirts = f"{days} {rng.choice(('shirts', 'pairs of socks', 'sets of underwear'))}"
    ask = rng.choice(
        (
            f"What should I pack for {days} days {trip}?",
            f"Make a packing list for {days} days {trip}.",
            f"I am going away for {days} days, {trip}. What do I need?",
            f"{rng.choice(NAMES)} and I spend {days} days {trip}. What goes in the bag?",
            f"Please help me pack: {days} days {trip}.",
        )
    )
    things_list = [shirts, *picked]
    if rng.random() < 0.5:
        told = f"{rng.choice(('Pack', 'Take', 'I would bring'))} {listing(things_list)}."
    else:
        told = bullets(things_list)
    exchanges: list[Exchange] = [(ask, told)]
    if rng.random() < 0.55:
        who, extra = rng.choice(_COMPANIONS)
        rest = [thing for thing in things if thing not in picked]
        exchanges.append(
            rng.choice(
                (
                    (f"And if {who} comes along?", f"Then add {listing(rng.sample(extra, 2))}."),
                    (
                        "Have I forgotten something?",
                        f"Perhaps {rest[0]}, and do not forget your keys.",
                    ),
                    (
                        "My bag is small. What can stay at home?",
                        f"You could do without {picked[-1]}.",
                    ),
                )
            )
        )
    return Talk(tuple(exchanges))


def plants(rng: Random) -> Talk:
    """Light and water for a plant, and what to do when it looks ill."""
    plant, light, water, note = rng.choice(_PLANTS)
    kind = rng.random()
    if kind < 0.5:
        ask = (
            rng.choice(
                (
                    "How do I care for {}?",
                    "I got {} as a gift. What does it need?",
                    "How often do I water {}?",
                    "Where should I put {}?",
                    "{name} gave me {}. How do I keep it alive?",
                    "What does {} need?",
                    "Any advice on {}?",
                )
            )
            .replace("{name}", rng.choice(NAMES))
            .format(article(plant))
        )
        lead = f"Give it {light} and water it {water}."
        exchanges: list[Exchange] = [(ask, Answer(lead, more=(note,)))]
        if rng.random() < 0.5:
            sign, cause, cure = rng.choice(_PLANT_SIGNS)
            exchanges.append(
                (
                    f"A month has passed, and now {sign}.",
                    Answer(f"It probably {cause}.", more=(cure,)),
                )
            )
    else:
        sign, cause, cure = rng.choice(_PLANT_SIGNS)
        ask = rng.choice(
            (
                f"My {plant} looks ill: {sign}. What is wrong?",
                f"I have {article(plant)}, but {sign}. Why?",
                f"Help! I have {article(plant)} and {sign}.",
                f"Something is wrong with my {plant}: {sign}.",
                f"What can I do for my {plant}? I see that {sign}.",
            )
        )
        exchanges = [(ask, Answer(f"Your {plant} probably {cause}.", more=(cure,)))]
        if rng.random() < 0.4:
            exchanges.append(
                (
                    "And how much water in general?",
                    Answer(f"In general water {article(plant)} {water}."),
                )
            )
    return Talk(tuple(exchanges))


def devices(rng: Random) -> Talk:
    """Something in the house does not work."""
    device, trouble, checks = rng.choice(_DEVICES)
    ask = rng.choice(
        (
            f"My {device} {trouble}. What can I do?",
            f"The {device} {trouble}.",
            f"Why is it that the {device} {trouble}?",
            f"Help, our {device} {trouble}!",
            f"Since yesterday the {device} {trouble}. Any idea?",
            f"What should I check when a {device} {trouble}?"
            if device[0] not in "aeiou"
            else f"What should I check when an {device} {trouble}?",
            f"{rng.choice(NAMES)} says that the {device} {trouble}. Can we mend it?",
        )
    )
    picked = rng.sample(checks, len(checks))
    if rng.random() < 0.5:
        exchanges: list[Exchange] = [
            (
                ask,
                Answer(
                    f"First {picked[0]}.",
                    more=tuple(
                        capital(f"{word} {check}.")
                        for word, check in zip(("then", "also"), picked[1:], strict=False)
                    ),
                ),
            )
        ]
        if rng.random() < 0.3:
            exchanges.append(("That did not help.", Answer(rng.choice(_GIVE_UP))))
    else:
        exchanges = [(ask, f"{rng.choice(_SORRY)} {capital(picked[0])}. {rng.choice(_DID_IT)}")]
        for check in picked[1:]:
            if rng.random() < 0.6:
                exchanges.append((rng.choice(_NOT_YET), f"{capital(check)}. {rng.choice(_DID_IT)}"))
        exchanges.append(
            rng.choice(
                (
                    (
                        rng.choice(
                            ("It works now, thank you!", "Yes, that was it!", "Now it runs. Great!")
                        ),
                        rng.choice(
                            ("I am glad to hear it.", "Very good! Enjoy it.", "You are welcome.")
                        ),
                    ),
                    (rng.choice(("Still no luck.", "No, still the same.")), rng.choice(_GIVE_UP)),
                )
            )
        )
    return Talk(tuple(exchanges))


def how_to(rng: Random) -> Talk:
    """A task in steps."""
    task, steps = rng.choice(_TASKS)
    ask = rng.choice(
        (
            f"How do I {task}?",
            f"What is the best way to {task}?",
            f"Can you tell me how to {task}?",
            f"I want to {task}. Where do I begin?",
            f"Explain step by step how to {task}.",
            f"{rng.choice(NAMES)} wants to {task}. What are the steps?",
            f"Teach me to {task}, please.",
            f"Is there a simple way to {task}?",
        )
    )
    lead, *rest = steps
    exchanges: list[Exchange] = [(ask, Answer(_sentence(lead), more=tuple(map(_sentence, rest))))]
    if rng.random() < 0.35:
        place = rng.randrange(1, len(steps))
        before, after = steps[place - 1], steps[place]
        exchanges.append(
            (f"What comes after I {before.split(' and ')[0]}?", Answer(_sentence(after)))
        )
    return Talk(tuple(exchanges))


def travels(rng: Random) -> Talk:
    """Hints for a place, by the kind of place it is."""
    place, sights, advice = rng.choice(_PLACES)
    days = rng.choice((1, 2, 2, 3))
    picked = rng.sample(sights, len(sights))
    ask = rng.choice(
        (
            f"What can I see in {place} in {count(days, 'day')}?",
            f"We visit {place} for {count(days, 'day')}. Any tips?",
            f"Plan {count(days, 'day')} in {place} for me.",
            f"I have {count(days, 'day')} in {place}. What should I do?",
            f"{rng.choice(NAMES)} flies to {place} for {count(days, 'day')}. What is worth seeing?",
        )
    )
    if days == 1:
        exchanges: list[Exchange] = [
            (ask, Answer(f"Choose {picked[0]} and, if there is time, {picked[1]}.", more=(advice,)))
        ]
    else:
        plan = [f"Day {day}: {picked[day - 1]}" for day in range(1, days + 1)]
        exchanges = [(ask, bullets(plan) if rng.random() < 0.5 else ". ".join(plan) + ".")]
    follow = rng.random()
    if follow < 0.25 and days > 1:
        exchanges.append(
            (rng.choice(("Anything I should know?", "What should I look out for?")), Answer(advice))
        )
    elif follow < 0.45:
        exchanges.append(
            (
                rng.choice(("It will rain. What then?", "And in bad weather?")),
                Answer(rng.choice(_RAINY)),
            )
        )
    return Talk(tuple(exchanges))


def gifts(rng: Random) -> Talk:
    """What to give to somebody, and something else when the first idea fails."""
    who, love, ideas = rng.choice(_RECEIVERS)
    price = rng.choice((10, 15, 20, 30, 40, 50, 60))
    first, second, third = rng.sample(ideas, 3)
    ask = rng.choice(
        (
            f"I need a gift for {who}, who loves {love}. I can spend ${price}.",
            f"What can I give {who} for about ${price}? The hobby is {love}.",
            f"A present for {who}, please, up to ${price}. Think of {love}.",
            f"Gift ideas for {who}? They love {love}, and I have ${price}.",
        )
    )
    lead = rng.choice(
        (
            f"How about {first} or {second}?",
            f"I would choose {first}.",
            f"{capital(first)} could be right, or {second}.",
        )
    )
    exchanges: list[Exchange] = [(ask, Answer(lead, more=(rng.choice(_GIFT_NOTES),)))]
    if rng.random() < 0.5:
        ask = rng.choice(
            ("They have that already.", "Hm, anything else?", "Something more unusual?")
        )
        exchanges.append((ask, Answer(f"Then perhaps {third}.")))
    return Talk(tuple(exchanges))


def _amounts(parts: tuple[tuple[Fraction | int, str, str], ...], people: int) -> list[str]:
    return [_amount(part, people) for part in parts]


def _amount(part: tuple[Fraction | int, str, str], people: int) -> str:
    each, unit, name = part
    total = Fraction(each) * people
    if unit == "g" or unit == "ml":
        return f"{number(total)} {unit} of {name}"
    if unit:
        return f"{_whole(total, unit)} of {name}"
    return f"{_whole(total, name.removesuffix('s') if name != 'potatoes' else 'potato')}"


def _whole(total: Fraction, noun: str) -> str:
    """`total` rounded up to a whole number of `noun`."""
    whole = -(-total.numerator // total.denominator)
    return f"{whole} {noun if whole == 1 else plural(noun)}"


def _sentence(step: str) -> str:
    return capital(step) + "."


_HALF, _THIRD, _QUARTER = Fraction(1, 2), Fraction(1, 3), Fraction(1, 4)
_ASK_NEEDED = (
    "What do I need for {dish} for {n} people?", "Ingredients for {dish}, {n} people, please.",
    "We are {n} and want {dish}. What should I buy?", "Give me a shopping list for {dish} for {n}.",
    "How much do I need of everything for {dish} for {n} people?",
)  # fmt: skip
_ASK_WHOLE = (
    "Write the whole recipe of {dish} for {n} people.",
    "I want to cook {dish} for {n}. What do I need and do?",
    "Please note down {dish} for {n} people, with amounts and steps.",
    "{name} and I cook {dish} for {n} people tonight. Tell us everything we must know.",
)  # fmt: skip
_ASK_COOK = (
    "How do I make {dish}?", "Give me a simple recipe for {dish}.", "How does one make {dish}?",
    "{name} wants to cook {dish}. How does it go?", "Please tell me how to prepare {dish}.",
    "Can you teach me to make {dish}?",
    "I would like to surprise {name} with {dish}. What are the steps?",
    "My first try at {dish}: what do I do?",
)  # fmt: skip
_TIPS = (
    "taste it before you serve it.", "do not hurry it.", "weigh everything before you begin.",
    "use the freshest things you can get.", "clean up while you wait.", "put out warm plates.",
    "save a little for the cook.", "read the recipe twice.", "let the children help.",
)  # fmt: skip
_DISHES: tuple[tuple[str, tuple[tuple[Fraction | int, str, str], ...], tuple[str, ...]], ...] = (
    ("potato soup",
     ((200, "g", "potatoes"), (_HALF, "", "onions"), (250, "ml", "broth"), (30, "ml", "cream")),
     ("peel and cut the potatoes", "fry the onion in a pot", "add potatoes and broth",
      "boil for twenty minutes", "mash it and stir in the cream")),
    ("pancakes", ((60, "g", "flour"), (1, "", "eggs"), (125, "ml", "milk")),
     ("mix flour, eggs and milk", "let the batter rest for ten minutes",
      "heat some butter in a pan", "fry thin cakes on both sides")),
    ("tomato sauce", ((150, "g", "tomatoes"), (_HALF, "clove", "garlic"), (1, "spoon", "oil")),
     ("chop the tomatoes and the garlic", "warm the garlic in oil",
      "add the tomatoes and some salt", "simmer for half an hour")),
    ("rice pudding", ((50, "g", "rice"), (250, "ml", "milk"), (15, "g", "sugar")),
     ("bring the milk to the boil", "stir in rice and sugar", "cook gently for half an hour",
      "serve it with cinnamon")),
    ("an omelette", ((2, "", "eggs"), (10, "g", "butter"), (20, "g", "cheese")),
     ("beat the eggs with salt", "melt butter in a pan", "pour in the eggs",
      "add cheese and fold it over")),
    ("apple cake", ((40, "g", "flour"), (_HALF, "", "eggs"), (1, "", "apples"), (25, "g", "sugar")),
     ("beat the eggs with the sugar", "fold in the flour", "spread it in a tin",
      "lay slices of apple on top", "bake it for forty minutes")),
    ("lentil stew", ((75, "g", "lentils"), (1, "", "carrots"), (300, "ml", "water")),
     ("cut the carrots small", "put everything in a pot", "simmer for thirty minutes",
      "season with salt and vinegar")),
    ("fried rice", ((75, "g", "rice"), (1, "", "eggs"), (40, "g", "peas")),
     ("cook the rice and let it cool", "fry the peas in oil", "add the rice",
      "stir in the beaten eggs")),
    ("cucumber salad", ((_HALF, "", "cucumbers"), (30, "ml", "cream"), (1, "spoon", "vinegar")),
     ("slice the cucumber thinly", "salt it and wait ten minutes", "pour off the water",
      "mix with cream and vinegar")),
    ("vegetable curry",
     ((150, "g", "vegetables"), (100, "ml", "coconut milk"), (1, "spoon", "curry powder")),
     ("cut the vegetables", "warm the curry powder in oil",
      "add the vegetables and the coconut milk", "cook until all is soft")),
    ("baked fish", ((180, "g", "fish"), (_QUARTER, "", "lemons"), (10, "g", "butter")),
     ("heat the oven", "lay the fish in a dish", "put lemon and butter on it",
      "bake it for twenty minutes")),
    ("porridge", ((50, "g", "oats"), (200, "ml", "milk"), (1, "spoon", "honey")),
     ("warm the milk", "stir in the oats", "cook for five minutes", "sweeten with honey")),
    ("pea soup", ((80, "g", "dried peas"), (_HALF, "", "carrots"), (300, "ml", "water")),
     ("soak the peas overnight", "boil them for an hour", "add the chopped carrot",
      "cook twenty minutes more")),
    ("scones", ((60, "g", "flour"), (15, "g", "butter"), (30, "ml", "milk")),
     ("rub the butter into the flour", "add the milk", "cut out round pieces",
      "bake them for a quarter of an hour")),
    ("bean salad", ((100, "g", "beans"), (_THIRD, "", "onions"), (1, "spoon", "oil")),
     ("cook the beans and drain them", "chop the onion", "mix all with oil and vinegar",
      "let it stand for an hour")),
    ("mashed potatoes", ((250, "g", "potatoes"), (40, "ml", "milk"), (10, "g", "butter")),
     ("boil the peeled potatoes", "pour off the water", "mash them with hot milk",
      "stir in the butter")),
    ("chicken stew",
     ((150, "g", "chicken"), (1, "", "carrots"), (_HALF, "", "onions"), (150, "ml", "broth")),
     ("brown the chicken", "add onion and carrots", "pour in the broth",
      "cook it under a lid for an hour")),
    ("berry jam toast", ((2, "slice", "bread"), (20, "g", "jam"), (10, "g", "butter")),
     ("toast the bread", "spread butter while it is hot", "put jam on top")),
)  # fmt: skip
"""A dish, what it needs for one person (amount, unit, name), and its steps."""
_SWAPS = (
    ("butter", "oil or margarine", "Take a little less oil than butter."),
    ("sugar", "honey", "Honey is sweeter, so take less."),
    ("eggs", "a mashed banana", "One half of a banana stands for one egg in a cake."),
    ("milk", "oat milk or water", "With water the taste is plainer."),
    ("cream", "milk with a little butter", "Stir it well and do not boil it."),
    ("lemon juice", "mild vinegar", "Begin with half as much."),
    ("baking powder", "soda with a little vinegar", "Bake at once, for it works quickly."),
    ("broth", "water with salt and herbs", "A piece of celery helps the taste."),
    ("breadcrumbs", "crushed crackers", "Salt the dish less then."),
    ("yoghurt", "sour cream", "It is richer, so use less."),
    ("garlic", "chives or onion", "Add chives at the end."),
    ("wine", "grape juice with a drop of vinegar", "The sauce will be a little sweeter."),
    ("flour for the sauce", "cornflour", "Half the amount is enough."),
    ("chocolate", "cocoa with butter and sugar", "Melt the butter and stir in the rest."),
    ("honey", "syrup", "It can be used in the same amount."),
    ("fresh herbs", "dried herbs", "One spoon of dried herbs stands for three of fresh ones."),
)  # fmt: skip
_TRIPS = (
    ("at the sea",
     ("a swimsuit", "sun cream", "a towel", "sandals", "a sun hat", "a book", "a light jacket")),
    ("in the mountains",
     ("hiking boots", "a rain coat", "a map", "a water bottle", "a warm jumper", "plasters",
      "a whistle")),
    ("in a big city",
     ("comfortable shoes", "an umbrella", "a city map", "a small bag", "a charger",
      "a clean jacket")),
    ("on a farm",
     ("rubber boots", "old trousers", "work gloves", "a hat", "insect spray", "a warm jumper")),
    ("in the snow",
     ("a thick coat", "gloves", "a woollen hat", "a scarf", "lip balm", "warm boots", "a flask")),
    ("with a tent",
     ("a sleeping bag", "a torch", "matches", "a pocket knife", "a mat", "a cooking pot",
      "insect spray")),
    ("on a boat",
     ("soft-soled shoes", "a rain jacket", "sun cream", "a cap", "ginger sweets", "a dry bag")),
    ("on business",
     ("a suit", "good shoes", "a notebook", "a charger", "a tie or scarf", "cards with your name")),
    ("with my bicycle",
     ("a pump", "a spare tube", "a helmet", "padded shorts", "a rain cape", "a lock")),
    ("in a spa",
     ("a bathrobe", "slippers", "a swimsuit", "a novel", "a soft jumper", "a hair band")),
)  # fmt: skip
_COMPANIONS = (
    ("a baby", ("nappies", "a soft blanket", "two bottles", "a toy")),
    ("my dog", ("a leash", "a bowl", "food for the dog", "an old towel")),
    ("my grandfather", ("his medicine", "a folding chair", "reading glasses", "a warm blanket")),
    ("a small child", ("a picture book", "spare trousers", "a snack", "a toy")),
    ("a friend who paints", ("a sketchbook", "a box of colours", "an apron", "a stool")),
)  # fmt: skip
_PLANTS = (
    ("cactus", "full sun", "every two or three weeks", "In winter it wants hardly any water."),
    ("fern", "shade", "often, so that the soil stays damp",
     "It likes moist air, such as in a bathroom."),
    ("orchid", "bright light without midday sun", "once a week",
     "Let the water run off, for wet roots rot."),
    ("basil plant", "a sunny window", "every day in summer",
     "Pick the tips and it will grow bushy."),
    ("rubber plant", "a bright place", "once a week", "Wipe the dust off its leaves."),
    ("ivy", "light or half shade", "when the top of the soil is dry",
     "It can be cut back at any time."),
    ("rose bush", "at least six hours of sun", "deeply twice a week in dry weather",
     "Cut it back in early spring."),
    ("tomato plant", "the sunniest place you have", "every day at the roots",
     "Tie it to a stick as it grows."),
    ("lavender", "full sun", "seldom", "It loves poor, dry soil."),
    ("palm", "a bright corner", "once a week", "Brown tips show that the air is too dry."),
    ("lemon tree", "a sunny window", "twice a week in summer",
     "Bring it in before the first frost."),
    ("mint plant", "half shade", "often", "Keep it in a pot, because it spreads quickly."),
    ("violet", "an east window", "from below, once a week", "Do not wet its leaves."),
    ("geranium", "sun", "every other day in summer", "Take off the faded flowers."),
    ("snake plant", "almost any light", "every two weeks", "It forgives you if you forget it."),
    ("spider plant", "bright light", "once or twice a week", "Its young ones root well in water."),
    ("aloe", "a sunny window", "every two weeks", "Use soil with sand in it."),
    ("hydrangea", "half shade", "a lot on hot days", "The colour depends on the soil."),
    ("strawberry plant", "sun", "every morning", "Lay straw under the fruit."),
    ("oregano plant", "a sunny window", "when the soil feels dry",
     "It tastes best just before it blooms."),
)  # fmt: skip
_PLANT_SIGNS = (
    ("the leaves turn yellow", "gets too much water", "Let the soil dry before you water again."),
    ("the tips are brown", "stands in air that is too dry",
     "Spray it now and then, or move it away from the heater."),
    ("it hangs its head", "is thirsty", "Water it well, and it should stand up in a few hours."),
    ("it grows long and thin", "has too little light", "Move it closer to the window."),
    ("white spots are on the leaves", "has mildew", "Cut off these leaves and give it more air."),
    ("there are tiny flies on the soil", "is kept too wet",
     "Let the top dry out and put sand on it."),
    ("it does not grow any more", "needs a larger pot", "Give it fresh soil in spring."),
    ("small sticky insects sit on the stems", "has lice",
     "Wash it with soapy water and repeat after a week."),
    ("the leaves fall off", "stands in a draught or was moved",
     "Leave it in one warm place and be patient."),
)  # fmt: skip
_DEVICES = (
    ("washing machine", "does not drain",
     ("clean the filter at the bottom", "see whether the hose is bent",
      "look for a sock in the pump")),
    ("kettle", "smells bad",
     ("boil water with vinegar in it and rinse it twice", "clean the lid", "leave it open to dry")),
    ("bicycle", "squeaks",
     ("put oil on the chain", "see whether the brake rubs on the wheel", "tighten the saddle")),
    ("radio", "only hisses",
     ("pull out the aerial", "move it to the window", "search for the station again")),
    ("printer", "prints nothing",
     ("check that there is paper", "see whether the ink is empty", "turn it off and on again")),
    ("lamp", "flickers", ("screw the bulb in firmly", "try another bulb", "try another socket")),
    ("fridge", "is too warm",
     ("check that the door shuts well", "set the dial a step colder", "melt the ice at the back")),
    ("door bell", "does not ring",
     ("change the battery", "press the button a little longer", "look for a loose wire")),
    ("tap", "drips",
     ("turn off the water below the sink", "change the rubber ring",
      "clean the chalk from the seat")),
    ("vacuum cleaner", "has no pull",
     ("empty the bag", "clean the filter", "look for something stuck in the pipe")),
    ("clock", "runs slow",
     ("put in a new battery", "keep it away from the cold wall",
      "set it again and watch it for a day")),
    ("phone", "does not charge",
     ("try another cable", "clean the dust from the socket", "switch it off and on again")),
    ("toaster", "burns the bread",
     ("turn the dial down", "empty the crumb tray", "use thicker slices")),
    ("window", "does not close",
     ("look for dirt in the frame", "oil the hinges", "tighten the screws of the handle")),
    ("shower", "gives little water",
     ("take off the head and lay it in vinegar", "open the main tap fully",
      "see whether the hose is bent")),
    ("heater", "stays cold",
     ("let the air out with the small key", "turn the dial fully open once",
      "ask whether the boiler is on")),
    ("oven", "does not get hot",
     ("check the clock, for some ovens wait for a set time", "look at the fuse",
      "see whether the door closes")),
    ("computer", "is very slow",
     ("close the programs you do not need", "start it again", "see whether the disk is full")),
    ("torch", "stays dark",
     ("turn the batteries round", "clean the contacts", "put in fresh batteries")),
    ("drain", "is blocked",
     ("pour hot water with soda into it", "use a plunger", "unscrew the bend under the sink")),
    ("smoke alarm", "beeps every minute",
     ("change the battery", "blow out the dust", "see how old it is, for ten years is the limit")),
    ("dishwasher", "leaves spots",
     ("fill up the salt", "clean the spray arms", "use a hotter wash")),
    ("iron", "leaves brown marks",
     ("empty the old water", "clean the plate with a damp cloth", "run it once on an old towel")),
    ("coffee machine", "is slow",
     ("remove the chalk with citric acid", "use coarser coffee", "clean the filter holder")),
)  # fmt: skip
_SORRY = (
    "Let us see.", "That is a nuisance.", "I am sorry to hear that.", "We will find it.",
    "No need to worry.", "That happens.",
)  # fmt: skip
_DID_IT = ("Does that help?", "Is it better now?", "Tell me what happens.", "Does it work then?")
_NOT_YET = (
    "No, nothing changed.", "I did, but it is the same.", "No.", "Not yet. What next?",
    "I tried that already.",
)  # fmt: skip
_GIVE_UP = (
    "Then it is better to call someone who repairs it.",
    "Then a part may be worn out; take it to a repair shop.",
    "In that case, ask the shop whether you still have a guarantee.",
    "Then please unplug it and let an expert look at it.",
)  # fmt: skip
_TASKS = (
    ("iron a shirt",
     ("damp the shirt a little", "begin with the collar", "do the sleeves and the cuffs",
      "iron the back and the front last")),
    ("remove a wine stain",
     ("dab the stain with a cloth", "put salt or soda water on it", "wait a few minutes",
      "wash it in cold water")),
    ("wrap a present",
     ("lay the box upside down on the paper", "fold the long sides over it and tape them",
      "fold the ends to a point and tape them", "turn it over and tie a ribbon")),
    ("sew on a button",
     ("thread the needle and make a knot", "hold the button in its place",
      "sew through each hole four times", "wind the thread below and tie it off")),
    ("plant tulips",
     ("choose a sunny bed in autumn", "dig holes three times as deep as the bulb",
      "set the bulbs with the tip up", "cover them and water once")),
    ("polish shoes",
     ("brush off the dirt", "rub in some polish with a cloth", "wait five minutes",
      "brush until they shine")),
    ("clean a window",
     ("mix warm water with a drop of soap", "wash the glass with a sponge",
      "wipe it dry with a blade", "polish the edges with a cloth")),
    ("mend a flat tyre",
     ("take off the wheel and the tyre", "find the hole under water",
      "roughen the spot and glue on a patch", "put all together and pump it up")),
    ("learn a poem by heart",
     ("read it aloud three times", "learn two lines at a time", "say them while you walk",
      "repeat the whole before bed")),
    ("write a good letter",
     ("think what the reader wants to know", "say the main thing first", "use short sentences",
      "read it once more before you send it")),
    ("save money at home",
     ("write down what you spend", "make a plan for each week", "cook more and buy less",
      "put something aside on the first of the month")),
    ("fall asleep faster",
     ("go to bed at the same hour", "leave the phone outside", "keep the room cool and dark",
      "read a quiet page or two")),
    ("hang a picture",
     ("mark the spot with a pencil", "look out for wires in the wall", "drive in a nail at a slant",
      "hang the picture and make it level")),
    ("make a compost heap",
     ("find a shady corner", "lay twigs at the bottom", "mix green waste with dry leaves",
      "turn it every few weeks")),
    ("cut an onion",
     ("cut it in half through the root", "peel both halves", "slice towards the root",
      "turn it and cut across")),
    ("give a short speech",
     ("choose one thought", "begin with a small story", "speak slowly and look up",
      "stop before they grow tired")),
    ("teach a dog to sit",
     ("hold a treat over its nose", "move it back until the dog sits", "say sit and give the treat",
      "repeat it five times a day")),
    ("clean a wooden table",
     ("wipe off the crumbs", "wash it with a damp cloth", "dry it at once", "rub in a little oil")),
    ("store apples",
     ("take only those without spots", "lay them side by side in a box", "keep them cool and dark",
      "look at them every week")),
    ("defrost a freezer",
     ("switch it off and empty it", "put a bowl of hot water inside",
      "wipe up the water and the ice", "dry it and switch it on")),
    ("whistle",
     ("wet your lips", "make a small round opening", "lay the tongue behind the lower teeth",
      "blow gently and try different shapes")),
    ("fold a paper boat",
     ("fold the sheet in half", "fold the top corners to the middle", "fold up both lower edges",
      "open it from below and pull the ends apart")),
    ("find north without a compass",
     ("push a stick into the ground", "mark the tip of its shadow",
      "wait a quarter of an hour and mark it again",
      "the first mark is west and the second is east, so north is between them")),
    ("make a budget",
     ("add up what comes in", "list what must be paid", "set a limit for the rest",
      "compare it with what you really spent")),
    ("keep bread fresh",
     ("let it cool fully", "wrap it in a cloth", "keep it in a wooden box",
      "freeze what you cannot eat in three days")),
    ("wash a woollen jumper",
     ("fill a basin with cool water", "add a mild soap", "press it gently and do not rub",
      "dry it flat on a towel")),
    ("paint a door",
     ("take off the handle", "sand the old paint", "paint the edges first",
      "paint the rest from top to bottom")),
    ("prepare for a test",
     ("collect what may be asked", "learn a little every day", "ask yourself questions",
      "sleep well on the last night")),
)  # fmt: skip
_PLACES = (
    ("Paris",
     ("the Eiffel Tower", "the Louvre", "the hill of Montmartre", "a walk along the Seine"),
     "Buy museum tickets beforehand."),
    ("Rome", ("the Colosseum", "the Forum", "the Trevi Fountain", "St Peter's"),
     "Wear good shoes, for the streets are rough."),
    ("London", ("the Tower", "the British Museum", "Hyde Park", "Greenwich"),
     "On the left is where they drive, so look right first."),
    ("Venice",
     ("St Mark's Square", "the Rialto Bridge", "the island of Murano", "the small canals"),
     "There are no cars, so travel with little luggage."),
    ("Lisbon",
     ("the castle on the hill", "the old tram number 28", "the tower of Belem",
      "the Alfama quarter"),
     "The streets are steep, so take your time."),
    ("Vienna", ("the palace of Schonbrunn", "the opera", "a coffee house", "the Prater"),
     "Book the opera early."),
    ("Prague", ("the Charles Bridge", "the castle", "the old clock", "the Jewish quarter"),
     "The bridge is best at dawn."),
    ("Amsterdam",
     ("the Rijksmuseum", "the canals by boat", "the flower market", "the house of Anne Frank"),
     "Mind the bicycles."),
    ("Edinburgh", ("the castle", "Arthur's Seat", "the Royal Mile", "the harbour of Leith"),
     "Take a jacket, the wind is strong."),
    ("Athens", ("the Acropolis", "the Agora", "the Plaka quarter", "the beach near the city"),
     "In summer go out early, before the heat."),
    ("Istanbul",
     ("the Hagia Sophia", "the Grand Bazaar", "a ferry on the Bosphorus", "the Blue Mosque"),
     "Cover your shoulders in mosques."),
    ("New York",
     ("Central Park", "the Statue of Liberty", "the Brooklyn Bridge", "a show on Broadway"),
     "The subway runs all night."),
    ("Tokyo",
     ("a temple in Asakusa", "the fish market", "the palace gardens", "the Shibuya crossing"),
     "Stand quietly in line for trains."),
    ("Cairo",
     ("the pyramids of Giza", "the Egyptian Museum", "the old bazaar", "a boat on the Nile"),
     "Drink a lot of bottled water."),
    ("Copenhagen", ("Tivoli", "the harbour of Nyhavn", "the Little Mermaid", "the round tower"),
     "Rent a bicycle."),
    ("Barcelona", ("the Sagrada Familia", "Park Guell", "the Gothic quarter", "the beach"),
     "Watch your purse in the crowd."),
)  # fmt: skip
_RAINY = (
    "Then go to a museum and take your lunch there.", "Then visit a covered market.",
    "Take a tram from end to end and watch the town.",
    "Sit in a coffee house and write your postcards.",
)  # fmt: skip
_RECEIVERS = (
    ("my grandmother", "her garden",
     ("a pair of garden gloves", "a rose bush", "a book on herbs", "a small bench")),
    ("my father", "cooking",
     ("a good knife", "a box of spices", "a wooden board", "an evening at a cooking school")),
    ("a colleague", "tea",
     ("a tin of fine tea", "a little teapot", "a cup with a lid", "a honey set")),
    ("my nephew", "drawing",
     ("a box of crayons", "a thick sketchbook", "an easel", "a book of animals to draw")),
    ("my sister", "books",
     ("a reading lamp", "a novel she does not know", "a book token", "a set of book marks")),
    ("my neighbour", "birds",
     ("a bird feeder", "a pair of field glasses", "a book of bird songs", "a nest box")),
    ("my best friend", "music",
     ("two concert tickets", "a songbook", "an old record", "a pair of earphones")),
    ("a teacher", "history",
     ("an old map", "a museum ticket", "a calendar with old pictures", "a book on castles")),
    ("my uncle", "fishing", ("a folding stool", "a warm hat", "a box for hooks", "a flask")),
    ("my little cousin", "puzzles",
     ("a wooden puzzle", "a book of riddles", "a magic cube", "a board game")),
    ("our postman", "long walks",
     ("a pair of thick socks", "a walking map", "a thermos", "an umbrella")),
    ("my mother", "baking",
     ("a cake stand", "a rolling pin", "a set of tins", "a bag of vanilla sugar")),
)  # fmt: skip
_GIFT_NOTES = (
    "A card with a few warm words belongs to it.", "Wrap it in plain paper with a ribbon.",
    "That should fit your budget.", "Such a thing is always of use.",
    "It shows that you thought of them.",
)  # fmt: skip
