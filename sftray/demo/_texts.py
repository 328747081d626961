"""Families that work on given words: sort, pick out, class, rewrite, sum up, put right."""

from __future__ import annotations

from random import Random

from sftray.demo._english import (
    SPELLED,
    Answer,
    Exchange,
    Talk,
    article,
    bullets,
    capital,
    count,
    listing,
    numbered,
    plural,
    single,
)
from sftray.demo._pools import DAYS, GOODS, KINDS, NAMES, SURNAMES, TOWNS


def sorting(rng: Random) -> Talk:
    """A list put in order by the alphabet, by length, or under headings."""
    (one, first), (two, second) = rng.sample(KINDS, 2)
    if rng.random() < 0.5:
        words = rng.sample(first + second, rng.choice((4, 5, 6)))
        given = ", ".join(words)
        ask = rng.choice(
            (
                f"Put these words in alphabetical order: {given}.",
                f"Sort by the alphabet: {given}.",
                f"Can you order {given} from A to Z?",
                f"I have a list: {given}. Please sort it from A to Z.",
            )
        )
        exchanges: list[Exchange] = [(ask, Answer(capital(", ".join(sorted(words))) + "."))]
        if rng.random() < 0.5:
            backwards = ", ".join(sorted(words, reverse=True))
            ask = rng.choice(("Now the other way round.", "And from Z to A?", "Please reverse it."))
            exchanges.append((ask, Answer(capital(backwards) + ".")))
        elif rng.random() < 0.5:
            longest = max(len(word) for word in words)
            found = [word for word in sorted(words) if len(word) == longest]
            told = f"The longest {'is' if len(found) == 1 else 'are'} {listing(found)}."
            exchanges.append(
                (
                    "Which word is the longest?",
                    Answer(
                        told,
                        more=(
                            f"{'It has' if len(found) == 1 else 'They have'} {longest} letters.",
                        ),
                    ),
                )
            )
        return Talk(tuple(exchanges))
    left, right = rng.sample(first, rng.choice((2, 3))), rng.sample(second, rng.choice((2, 3)))
    mixed = rng.sample(left + right, len(left) + len(right))
    ask = rng.choice(
        (
            f"Sort these into {plural(one)} and {plural(two)}: {', '.join(mixed)}.",
            f"Which are {plural(one)} and which are {plural(two)}? {capital(listing(mixed))}.",
            f"Make two lists, {plural(one)} and {plural(two)}, from: {', '.join(mixed)}.",
        )
    )
    keep = [word for word in mixed if word in left], [word for word in mixed if word in right]
    told = "\n".join(
        f"{capital(plural(kind))}: {', '.join(words)}"
        for kind, words in zip((one, two), keep, strict=True)
    )
    return single(ask, told)


def kinds(rng: Random) -> Talk:
    """The one that does not belong, or some examples of a kind."""
    (kind, members), (other, strangers) = rng.sample(KINDS, 2)
    if rng.random() < 0.5:
        odd, rest = rng.choice(strangers), rng.sample(members, 3)
        given = listing(rng.sample([*rest, odd], 4))
        ask = rng.choice(
            (
                f"Which word does not belong: {given}?",
                f"Find the odd one out: {given}.",
                f"One of these is not like the others: {given}. Which?",
                f"Which is the stranger among {given}?",
            )
        )
        more = f"It is {article(other)}, while the other three are {plural(kind)}."
        return single(ask, Answer(f"{capital(odd)} does not belong.", more=(more,)))
    wanted = rng.choice((2, 3, 4))
    named = rng.sample(members, wanted + 2)
    many = f"{SPELLED[wanted]} {plural(kind)}"
    ask = rng.choice(
        (
            f"Name {many}.",
            f"Give me {many}.",
            f"Can you list {many}?",
            f"I need {many} for a game.",
            f"Tell me {many}, please.",
            f"We are playing a word game. Which {many} can I say?",
            f"What are {many} that a child would know?",
        )
    )
    head = rng.choice(
        (f"{SPELLED[wanted].capitalize()} {plural(kind)} are", "For example:", "Here you are:")
    )
    exchanges: list[Exchange] = [(ask, Answer(f"{head} {listing(named[:wanted])}."))]
    if rng.random() < 0.5:
        exchanges.append(("And two more?", Answer(f"Two more are {listing(named[wanted:])}.")))
    if rng.random() < 0.4:
        word = rng.choice(named[:wanted])
        exchanges.append(
            (
                f"How many letters has the word {word}?",
                Answer(f"The word {word} has {len(word)} letters."),
            )
        )
    return Talk(tuple(exchanges))


def extraction(rng: Random) -> Talk:
    """Names, places, times and things picked out of a sentence."""
    name, second = rng.sample(NAMES, 2)
    town, day = rng.choice(TOWNS), rng.choice(DAYS)
    time = f"{rng.randint(8, 19)}:{rng.choice(('00', '15', '30', '45'))}"
    thing, low, high = rng.choice(GOODS)
    price = rng.randint(low, high) * 10
    many = rng.randint(2, 12)
    text, facts = rng.choice(
        (
            (
                f"On {day} {name} and {second} will take the {time} train to {town}.",
                (("names", f"{name}, {second}"), ("day", day), ("time", time), ("place", town)),
            ),
            (
                f"{name} {rng.choice(SURNAMES)} sold {article(thing)} to {second} for ${price} "
                f"in {town} last {day}.",
                (("thing", thing), ("price", f"${price}"), ("place", town), ("day", day)),
            ),
            (
                f"Please send {count(many, thing)} to {name} in {town}; the van leaves at {time}.",
                (
                    ("thing", thing),
                    ("number", str(many)),
                    ("name", name),
                    ("place", town),
                    ("time", time),
                ),
            ),
        )
    )
    if rng.random() < 0.5:
        wanted = rng.sample(facts, min(len(facts), rng.choice((2, 3, 4))))
        keys = listing([key for key, _ in wanted])
        ask = rng.choice(
            (
                f"Find the {keys} in this sentence: {text}",
                f"{text} Pick out the {keys}.",
                f"Take the {keys} from the text. {text}",
                f"Note the {keys}: {text}",
            )
        )
        return single(ask, "\n".join(f"{capital(key)}: {value}" for key, value in wanted))
    askable = [fact for fact in facts if fact[0] != "thing"]
    picked = rng.sample(askable, rng.choice((1, 2, 3)))
    exchanges: list[Exchange] = []
    for key, value in picked:
        word = "names are" if key == "names" else f"{key} is"
        ask = f"Which {key} {'are' if key == 'names' else 'is'} given?"
        if not exchanges:
            ask = rng.choice((f"Read this: {text} {ask}", f"{text} {ask}", f'"{text}" {ask}'))
        exchanges.append((ask, Answer(f"The {word} {value}.")))
    return Talk(tuple(exchanges))


def sentiment(rng: Random) -> Talk:
    """Whether a review is glad, cross, or both."""
    thing, good, bad = rng.choice(_REVIEWED)
    kind = rng.choice(("positive", "negative", "mixed"))
    praise, blame = rng.sample(good, 2), rng.sample(bad, 2)
    said = {
        "positive": f"{capital(praise[0])} and {praise[1]}.{rng.choice(_GLAD)}",
        "negative": f"{capital(blame[0])} and {blame[1]}.{rng.choice(_CROSS)}",
        "mixed": f"{capital(praise[0])}, but {blame[0]}.{rng.choice(_UNSURE)}",
    }[kind]
    why = {
        "positive": f"The writer is glad that {praise[0]}.",
        "negative": f"The writer complains that {blame[0]}.",
        "mixed": f"The writer likes that {praise[0]}, but not that {blame[0]}.",
    }[kind]
    ask = rng.choice(
        (
            f"Is this review of {thing} positive, negative or mixed? {said}",
            f"Positive, negative or mixed? {said}",
            f"What is the mood of this note about {thing}: {said}",
            f"Sort this comment about {thing} as positive, negative or mixed: {said}",
            f"A customer wrote about {thing}: {said} Was the customer content?",
        )
    )
    lead = kind.capitalize() + "."
    if "Was the customer" in ask:
        lead = {"positive": "Yes.", "negative": "No.", "mixed": "Only in part."}[kind]
        why = why.replace("writer", "customer")
    exchanges: list[Exchange] = [(ask, Answer(lead, more=(why,)))]
    if kind != "positive" and rng.random() < 0.35:
        exchanges.append(
            (
                rng.choice(("What could we reply?", "Please write a short answer to the writer.")),
                f"Thank you for your note. We are sorry that {blame[0]}, and we will see to it. "
                "We hope to do better next time.",
            )
        )
    return Talk(tuple(exchanges))


def topics(rng: Random) -> Talk:
    """The section of a newspaper a headline belongs to, or the kind of a message."""
    classes, rows = rng.choice(((_SECTIONS, _HEADLINES), (_TRAYS, _MESSAGES)))
    place = rng.randrange(len(classes))
    town, name = rng.choice(TOWNS), rng.choice(NAMES)
    text = rng.choice(rows[place]).format(town=town, name=name, n=rng.randint(2, 40) * 2)
    options = list(classes)
    shown = listing(rng.sample(options, len(options)), "or")
    ask = rng.choice(
        (
            f"{capital(shown)}? {text}",
            f"Which topic fits, {shown}? {text}",
            f"{text} Is that {shown}?",
            f"Choose one of {shown} for this line: {text}",
            f"What is this? {text} The choices are {shown}.",
        )
    )
    lead = rng.choice(("{}.", "This is {}.", "It is {}."))
    return single(
        ask,
        Answer(
            capital(lead.format(classes[place])),
            more=(rng.choice(_BECAUSE).format(classes[place]),),
        ),
    )


def forms(rng: Random) -> Talk:
    """A sentence in the past, in the plural, as a question, or with its meaning turned round."""
    verb, past, rest = rng.choice(_VERBS)
    name, (adverb, before) = rng.choice(NAMES), rng.choice(_WHEN)
    present = f"{name} {_third(verb)} {rest} {adverb}."
    changed = {
        "past": f"{name} {past} {rest} {before}.",
        "question": f"Does {name} {verb} {rest} {adverb}?",
        "negative": f"{name} does not {verb} {rest} {adverb}.",
        "future": f"{name} will {verb} {rest} {rng.choice(('tomorrow', 'next week', 'soon'))}.",
    }
    kind = rng.choice(tuple(changed))
    ask = rng.choice(_FORM_ASKS[kind]).format(present)
    exchanges: list[Exchange] = [(ask, Answer(changed[kind]))]
    others = [other for other in changed if other != kind]
    for other in rng.sample(others, rng.choice((0, 0, 1, 2))):
        exchanges.append((rng.choice(_NOW_ASKS[other]), Answer(changed[other])))
    return Talk(tuple(exchanges))


def plurals(rng: Random) -> Talk:
    members = rng.choice([things for kind, things in KINDS if kind not in _UNCOUNTED])
    words = [*rng.sample(members, 2), *rng.sample(_ODD_PLURALS, rng.choice((1, 2)))]
    rng.shuffle(words)
    ask = rng.choice(
        (
            "Write in the plural: {}.",
            "What are the plurals of {}?",
            "Give the plural of {}.",
            "Turn these into the plural: {}.",
            "My spelling list today is {}. What are the plurals?",
        )
    )
    exchanges: list[Exchange] = [
        (
            ask.format(listing(words) if "of" in ask or "list" in ask else ", ".join(words)),
            capital(listing([plural(word) for word in words])) + ".",
        )
    ]
    if rng.random() < 0.4:
        word = rng.choice(words)
        adjective, verb = rng.choice(_SENTENCE_PARTS)
        exchanges.append(
            (f"Use the plural of {word} in a sentence.", f"The {adjective} {plural(word)} {verb}.")
        )
    return Talk(tuple(exchanges))


def tone(rng: Random) -> Talk:
    """A message made formal or friendly."""
    formal, friendly = rng.choice(_TONES)
    name, day = rng.choice(NAMES), rng.choice(DAYS)
    formal, friendly = (text.format(name=name, day=day) for text in (formal, friendly))
    if rng.random() < 0.55:
        ask = rng.choice(_FORMAL).format(friendly)
        exchanges: list[Exchange] = [(ask, Answer(formal))]
        if rng.random() < 0.3:
            exchanges.append(
                (
                    "Add a polite ending.",
                    f"{formal}\n\nYours sincerely,\n{rng.choice(NAMES)} {rng.choice(SURNAMES)}",
                )
            )
    else:
        ask = rng.choice(_FRIENDLY).format(formal)
        exchanges = [(ask, Answer(friendly))]
    return Talk(tuple(exchanges))


def summary(rng: Random) -> Talk:
    """A short account in one sentence, and a question about it."""
    name, town = rng.choice(NAMES), rng.choice(TOWNS)
    (wish, wished), (trouble, troubled), (way, solved) = (
        rng.choice(_WISHES),
        rng.choice(_TROUBLES),
        rng.choice(_WAYS),
    )
    season = rng.choice(("Last spring", "One summer", "In the autumn", "Last winter", "Years ago"))
    extra = rng.choice(_ASIDES)
    text = (
        f"{season} {name} from {town} wanted to {wish}. {trouble} {extra} "
        f"{way.format(name=name)} In the end {name} was proud of the work."
    )
    told = f"{name} wanted to {wished}, {troubled}, and {solved}."
    ask = rng.choice(
        (
            f"Sum this up in one sentence: {text}",
            f"{text} What is this about, in one sentence?",
            f"Please shorten this story. {text}",
            f"Give me the main point: {text}",
            f"Summarise: {text}",
        )
    )
    exchanges: list[Exchange] = [(ask, Answer(told))]
    if rng.random() < 0.3:
        exchanges.append(
            rng.choice(
                (
                    (f"What did {name} want?", f"{name} wanted to {wish}."),
                    (f"Where does {name} live?", f"{name} is from {town}."),
                    ("Give it a title.", f"{name} Does Not Give Up"),
                )
            )
        )
    return Talk(tuple(exchanges))


def correction(rng: Random) -> Talk:
    """A sentence with a slip in it, put right and explained."""
    wrong, right, why = rng.choice(_SLIPS)
    name, thing = rng.choice(NAMES), rng.choice(GOODS)[0]
    wrong, right = (
        text.format(name=name, thing=thing, a=article(thing)) for text in (wrong, right)
    )
    ask = rng.choice(
        (
            f"Correct this sentence: {wrong}",
            f"Is this right? {wrong}",
            f"Please mend my English: {wrong}",
            f"Find the mistake: {wrong}",
            f"What is wrong with this? {wrong}",
        )
    )
    if "Is this right" in ask:
        return single(ask, Answer(f"Not quite. It should be: {right}", more=(why,)))
    return single(ask, Answer(right, more=(why,)))


def steps_in_order(rng: Random) -> Talk:
    """Jumbled steps brought into their order."""
    task, steps = rng.choice(_ORDERED)
    picked = list(steps)
    mixed = rng.sample(picked, len(picked))
    if mixed == picked:
        mixed.reverse()
    ask = rng.choice(
        (
            "Put the steps of {} in order:",
            "In which order do these belong, for {}?",
            "I mixed up my notes on {}. Please sort them:",
        )
    )
    return single(f"{ask.format(task)}\n{bullets(mixed)}", numbered(picked))


def _third(verb: str) -> str:
    if verb.endswith(("s", "x", "ch", "sh", "o")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + "s"


_REVIEWED = (
    ("a hotel",
     ("the room was bright", "the staff were kind", "the bed was soft", "the breakfast was rich",
      "the view was splendid"),
     ("the walls were thin", "the shower was cold", "the lift was broken", "the floor was dirty",
      "nobody answered the bell")),
    ("a pair of boots",
     ("they look smart", "the leather is soft", "the sole is thick", "the colour is lovely"),
     ("they let in water", "the laces broke", "a seam came open", "they rub at the heels")),
    ("a restaurant",
     ("the soup was hot", "the waiter was friendly", "the fish was fresh", "the prices were fair",
      "the music was soft"),
     ("the wait was long", "the plates were cold", "the bill was wrong", "the meat was tough",
      "the table was sticky")),
    ("a novel",
     ("the hero is charming", "the style is clear", "the dialogue is witty",
      "the ending is a surprise"),
     ("the plot is slow", "there are too many names", "the print is tiny",
      "the middle part is dull")),
    ("a vacuum cleaner",
     ("it is quiet", "it picks up every crumb", "it is light to carry", "the price was fair"),
     ("it smells of rubber", "it broke in a week", "the cord is short",
      "the bag is hard to change")),
    ("a train ride",
     ("the seats were wide", "the guard was helpful", "the windows were clean", "the tea was good"),
     ("the train was an hour late", "the heating did not work", "the toilets were closed",
      "the doors got stuck")),
    ("a language course",
     ("the teacher explained well", "the group was small", "the books were free",
      "the tasks were useful"),
     ("the room was too warm", "the fee was high", "half the classes were cancelled",
      "the pace was too quick")),
    ("a winter coat",
     ("it is warm", "the pockets are deep", "the hood fits well", "it looks smart"),
     ("the zip jams", "the seam tore", "the sleeves are short", "the colour faded")),
    ("a garden tour",
     ("the roses were in bloom", "the guide knew every plant", "the tea was free",
      "the paths were dry"),
     ("the guide spoke too softly", "half of the garden was closed", "the tickets were dear",
      "there was nowhere to sit")),
    ("a telephone",
     ("the picture is sharp", "it charges fast", "the sound is clear", "the battery lasts long"),
     ("it gets hot", "the screen cracked", "the menu is confusing", "calls break off")),
)  # fmt: skip
_GLAD = (
    "", " I would buy it again.", " Many thanks!", " I am very pleased.", " Just what I wanted.",
    " A real joy.",
)  # fmt: skip
_CROSS = (
    "", " Never again.", " I want my money back.", " What a pity.", " I am not amused.",
    " It was a waste of money.",
)  # fmt: skip
_UNSURE = (
    "", " So I am in two minds.", " I may try it once more.", " Not bad, not good.",
    " I expected a little more.",
)  # fmt: skip
_SECTIONS = ("sport", "weather", "business", "science", "arts")
_HEADLINES = (
    ("{town} win the cup after a late goal.", "{name} runs the mile in record time.",
     "Rowing team from {town} takes {n} medals.", "Injured captain misses the final in {town}.",
     "Young {name} beats the chess champion of {town}.", "Cyclists race {n} miles to {town}."),
    ("Heavy snow closes the road to {town}.", "Storm with strong wind expected in {town} tonight.",
     "Sunny days ahead for {town}, up to {n} hours of sun a week.",
     "Fog holds up ships off {town}.", "Frost warning for gardens around {town}.",
     "After {n} dry days, rain falls on {town} at last."),
    ("Factory in {town} hires {n} workers.", "Bakery chain from {town} opens {n} new shops.",
     "Bank in {town} lowers its interest rate.", "Price of wool rises by {n} per cent.",
     "Shipyard of {town} sells {n} boats abroad.", "{name} takes over the family firm in {town}."),
    ("Researchers near {town} find a new kind of beetle.",
     "Telescope above {town} sees {n} new stars.", "Laboratory in {town} tests a better battery.",
     "Study of {n} bees shows how they find home.", "Bones of a giant fish dug up at {town}.",
     "{name} measures the age of old ice."),
    ("Painter {name} shows {n} pictures in {town}.", "Choir of {town} sings a new mass.",
     "The theatre in {town} opens with a comedy.", "Novel by {name} sells {n} thousand copies.",
     "Museum in {town} buys a rare statue.", "{name} plays the violin for {n} guests."),
)  # fmt: skip
_TRAYS = ("a complaint", "an order", "a question", "a word of thanks")
_MESSAGES = (
    ("My parcel from {town} came broken and I want a new one.",
     "I have waited {n} days for an answer!", "The {n} cups you sent are the wrong colour.",
     "{name} was rude to me on the telephone.", "The jacket lost a button after {n} hours."),
    ("Please send {n} blue folders to our office in {town}.", "I would like to buy {n} candles.",
     "Could we have {n} boxes of paper by Friday? {name}, {town}.",
     "We take {n} chairs for the hall.", "Send {name} the big basket, please."),
    ("Are you open on Sundays in {town}?", "How long is the way from {town} to your shop?",
     "Do you also sell {n} inch shelves?", "Can {name} pay by card?",
     "Is the {n} dollar lamp in stock?"),
    ("The flowers were lovely, bless you all in {town}!", "{name} helped me so well, how kind.",
     "I am grateful for the quick repair after only {n} hours.",
     "What good service in {town}! I am happy.", "We enjoyed all {n} cakes, thank you so much."),
)  # fmt: skip
_BECAUSE = (
    "The words point to {}.", "The line clearly speaks of {}.", "It fits {} best.",
    "None of the others fits.",
)  # fmt: skip
_VERBS = (
    ("write", "wrote", "a letter to the bank"),
    ("drink", "drank", "tea with milk"),
    ("sing", "sang", "in the choir"),
    ("buy", "bought", "fresh bread"),
    ("run", "ran", "round the lake"),
    ("eat", "ate", "soup for supper"),
    ("go", "went", "to the library"),
    ("see", "saw", "the old doctor"),
    ("take", "took", "the early bus"),
    ("bring", "brought", "flowers to the office"),
    ("teach", "taught", "the little ones"),
    ("swim", "swam", "in the cold river"),
    ("drive", "drove", "to the coast"),
    ("read", "read", "two newspapers"),
    ("carry", "carried", "the wood in"),
    ("wash", "washed", "the windows"),
    ("paint", "painted", "a small picture"),
    ("visit", "visited", "an aunt in town"),
    ("cook", "cooked", "for the neighbours"),
    ("ride", "rode", "a grey pony"),
    ("wear", "wore", "a green scarf"), ("feed", "fed", "the ducks"),
    ("lose", "lost", "the door key"),
    ("catch", "caught", "the last tram"), ("draw", "drew", "a map"),
    ("speak", "spoke", "with the postman"),
    ("sell", "sold", "eggs at the market"),
    ("mend", "mended", "an old clock"), ("fly", "flew", "a red kite"),
    ("build", "built", "a wooden box"),
)  # fmt: skip
_WHEN = (
    ("every day", "yesterday"), ("on Mondays", "last Monday"), ("every week", "last week"),
    ("in the morning", "this morning"),
    ("each evening", "last evening"), ("every year", "last year"),
    ("at noon", "yesterday at noon"),
)  # fmt: skip
_FORM_ASKS = {
    "past": ("Put into the past tense: {}", "Rewrite as if it had happened already: {}",
             "Write this sentence in the past: {}", "How do you say it in the past? {}"),
    "question": ("Turn this into a question: {}", "Ask a question from this: {}",
                 "Make a yes or no question of it: {}"),
    "negative": ("Make this sentence negative: {}", "Say the opposite: {}",
                 "Rewrite with the word not: {}"),
    "future": ("Put into the future: {}", "Rewrite with will: {}", "Write this in the future: {}"),
}  # fmt: skip
_NOW_ASKS = {
    "past": ("And in the past?", "Now put it into the past."),
    "question": ("Now as a question.", "And how would one ask it?"),
    "negative": ("Now make the first sentence negative.", "And with the word not?"),
    "future": ("And in the future?", "Now with will, please."),
}  # fmt: skip
_UNCOUNTED = ("colour", "drink", "metal", "fish")
_ODD_PLURALS = (
    "child", "foot", "goose", "knife", "leaf", "loaf", "man", "mouse", "scarf", "sheep", "shelf",
    "tooth", "wife", "wolf", "woman", "box", "city", "lady", "church", "dish", "baby", "watch",
    "glass", "story", "day", "key", "potato", "tomato",
)  # fmt: skip
_SENTENCE_PARTS = (
    ("two", "are mine"),
    ("old", "were in the picture"), ("three", "looked alike"), ("other", "are over there"),
    ("little", "came last"), ("new", "surprised us"),
)  # fmt: skip
_TONES = (
    ("I regret that I am unable to attend the meeting on {day}.",
     "Sorry, I can't make it on {day}."),
    ("Could you please send me the documents by {day}?", "Send me the papers by {day}, will you?"),
    ("I would be grateful for an early reply, {name}.", "Hey {name}, let me know soon!"),
    ("Please accept my apologies for the delay, {name}.",
     "Oops, {name}, I'm late, sorry about that!"),
    ("We kindly ask all guests to leave the hall before {day}.",
     "Folks, get out of the hall by {day}!"),
    ("{name} would like to invite you to dinner on {day}.",
     "{name} says come over for a bite on {day}!"),
    ("I should like to thank {name} for the excellent advice.",
     "{name} gave great tips, thanks a lot!"),
    ("May I ask whether the room is free on {day}?", "Is the room free on {day}?"),
    ("Unfortunately the machine has ceased to function since {day}.",
     "The thing's been broken since {day}."),
    ("It would be helpful if {name} arrived earlier on {day}.",
     "{name} should really turn up earlier on {day}."),
    ("I am writing to inform you that {name} will leave us on {day}.",
     "Just so you know, {name} is off on {day}."),
    ("We would appreciate your opinion of the plan by {day}.",
     "What do you think of the plan? Tell us by {day}."),
    ("Kindly refrain from speaking loudly while {name} is at work.",
     "Keep it down, {name} is working!"),
    ("I would be delighted to meet you at the station on {day}.",
     "Great, see you at the station on {day}!"),
    ("Please note that the office will be closed on {day}.", "By the way, nobody's in on {day}."),
    ("{name} wishes to discuss the matter with you on {day}.",
     "{name} wants a chat about it on {day}."),
    ("I am afraid that I must decline your offer, {name}.", "No thanks, {name}, it's not for me."),
    ("Would it be possible to move our appointment to {day}?", "Can we do {day} instead?"),
)  # fmt: skip
_FORMAL = (
    "Make this formal: {}", "Rewrite for a business letter: {}", "Say this more politely: {}",
    "How would I write this to my boss? {}", "Please put it in polite words: {}",
)  # fmt: skip
_FRIENDLY = (
    "Make this sound friendly and casual: {}", "How would I say this to a friend? {}",
    "Too stiff! Please loosen it up: {}", "Rewrite as a chat message: {}",
    "Put this in everyday words: {}",
)  # fmt: skip
_WISHES = (
    ("build a small boat and sail it on the lake", "build a boat"),
    ("open a bakery in the old school house", "open a bakery"),
    ("grow the largest pumpkin of the village", "grow a giant pumpkin"),
    ("learn to play the cello before the winter feast", "learn the cello"),
    ("repair the clock in the church tower", "repair the tower clock"),
    ("write a history of the harbour and its people", "write a history of the harbour"),
    ("plant an orchard behind the house", "plant an orchard"),
    ("turn the empty barn into a reading room", "turn a barn into a reading room"),
    ("paint a picture of every bridge in the valley", "paint every bridge"),
    ("start a choir for young and old", "start a choir"),
    ("teach the dog to fetch the newspaper", "train the dog"),
    ("walk along the whole coast in one week", "walk along the coast"),
)  # fmt: skip
_TROUBLES = (
    ("But the money was gone after the first month.", "ran out of money"),
    ("At first nobody in the town believed in the plan.", "met with doubt"),
    ("Then a storm ruined all that had been done.", "was thrown back by a storm"),
    ("Soon it was clear that there was far too little time.", "had too little time"),
    ("A broken arm made all the work very slow.", "was slowed by a broken arm"),
    ("There was no one near who knew how it was done.", "found no teacher"),
    ("The council refused to give leave for it.", "was refused leave by the council"),
    ("The only helper moved away in the second week.", "lost the only helper"),
)  # fmt: skip
_WAYS = (
    ("{name} asked the neighbours, and on Saturday ten of them came to help.",
     "got help from neighbours"),
    ("{name} went on alone, an hour every evening.", "went on patiently alone"),
    ("{name} wrote to the newspaper, and many readers sent what was needed.",
     "found help through the newspaper"),
    ("{name} found an old book and followed it page by page.", "learned the way from an old book"),
    ("{name} began again with a smaller plan, and that one worked.",
     "succeeded with a smaller plan"),
    ("{name} made friends with a retired engineer who knew what to do.",
     "was helped by an engineer"),
)  # fmt: skip
_ASIDES = (
    "It rained a good deal that year.", "The cat watched from the window.",
    "The days grew shorter.", "Some people laughed about it.", "Letters went to and fro.",
    "The kitchen table was never empty.", "Even the mayor heard of it.",
    "There was much talk in the market.",
)  # fmt: skip
_SLIPS = (
    ("{name} don't like the {thing}.", "{name} doesn't like the {thing}.",
     "With he, she or a name we use doesn't."),
    ("{name} have bought {a}.", "{name} has bought {a}.", "One person has, many people have."),
    ("There is two letters for {name} beside the {thing}.",
     "There are two letters for {name} beside the {thing}.",
     "Two letters are plural, so the verb is are."),
    ("Yesterday {name} buy {a}.", "Yesterday {name} bought {a}.",
     "Yesterday asks for the past tense."),
    ("{name} is more taller than the {thing}.", "{name} is taller than the {thing}.",
     "Taller already means more tall."),
    ("The {thing} of {name} are new.", "The {thing} of {name} is new.",
     "There is only one, so the verb is is."),
    ("{name} and me went to buy {a}.", "{name} and I went to buy {a}.",
     "As the subject we say I, not me."),
    ("{name} has went home with the {thing}.", "{name} has gone home with the {thing}.",
     "After has we need gone."),
    ("{name} didn't saw the {thing}.", "{name} didn't see the {thing}.",
     "After didn't the verb stays plain."),
    ("I gave {name} an new {thing}.", "I gave {name} a new {thing}.",
     "Before the sound of n we write a."),
    ("{name} can sings beside the {thing}.", "{name} can sing beside the {thing}.",
     "After can the verb has no s."),
    ("Its a gift for {name}: {a}.", "It's a gift for {name}: {a}.", "It's is short for it is."),
    ("The {thing} is to heavy for {name}.", "The {thing} is too heavy for {name}.",
     "Too with two o means more than is good."),
    ("{name} put they're hat on the {thing}.", "{name} put the hat on the {thing}.",
     "They're means they are, which does not fit here."),
    ("Where is the {thing} who {name} bought?", "Where is the {thing} that {name} bought?",
     "For things we say that or which, not who."),
    ("{name} has less coins than the {thing} costs.",
     "{name} has fewer coins than the {thing} costs.", "For what can be counted we say fewer."),
)  # fmt: skip
_ORDERED = (
    ("making tea",
     ("boil the water", "pour it over the leaves", "wait four minutes", "take out the leaves")),
    ("posting a letter",
     ("write the letter", "put it in an envelope", "stick on a stamp", "drop it in the box")),
    ("planting a tree", ("dig a hole", "set the roots in", "fill up with earth", "water it well")),
    ("washing clothes",
     ("sort the colours", "fill the machine", "add the powder", "start the wash", "hang it up")),
    ("baking bread",
     ("mix flour and water", "knead the dough", "let it rise", "bake it", "let it cool")),
    ("changing a bulb",
     ("switch off the light", "let the bulb cool", "unscrew the old bulb", "screw in the new one",
      "switch the light on")),
    ("painting a wall",
     ("move the furniture", "cover the floor", "tape the edges", "roll on the paint",
      "peel off the tape")),
    ("taking a bath",
     ("put in the plug", "run warm water", "get in and wash", "dry yourself", "drain the tub")),
    ("frying an egg",
     ("heat the pan", "melt some butter", "break the egg into it", "salt the egg",
      "serve it on a plate")),
    ("going by train",
     ("buy a ticket", "find the platform", "board the train", "take a seat",
      "get off at your stop")),
    ("lighting a stove", ("open the damper", "lay paper and twigs", "strike a match", "add a log")),
    ("making a bed",
     ("shake the pillow", "pull the sheet tight", "spread the blanket", "lay the pillow on top")),
    ("moving house",
     ("sort out old things", "pack the boxes", "load the van", "drive to the new house",
      "unpack the boxes")),
    ("brushing teeth",
     ("wet the brush", "put paste on it", "brush for two minutes", "rinse the mouth")),
    ("borrowing a book",
     ("find it on the shelf", "take it to the desk", "show your card", "read it at home",
      "bring it back")),
    ("potting a plant",
     ("choose a larger pot", "lay stones on the bottom", "put in the plant", "fill up with soil",
      "water it")),
)  # fmt: skip
