"""Families that explain: why things are so, what words mean, comparisons, yes or no, quizzes."""

from __future__ import annotations

from random import Random

from sftray.demo._english import Answer, Exchange, Talk, article, capital, listing, single
from sftray.demo._pools import NAMES


def reasons(rng: Random) -> Talk:
    """Everyday knowledge in simple words."""
    why, indirect, lead, *more = rng.choice(_REASONS)
    picked = tuple(more[: rng.choice((1, 2, 2, 3, 3, 3))])
    question = rng.choice(_ASK_WHY).format(
        why=why, indirect=indirect, Indirect=capital(indirect), who=rng.choice(_ASKERS)
    )
    exchanges: list[Exchange] = [(question, Answer(lead, more=picked))]
    rest = more[len(picked) :]
    if rest and rng.random() < 0.3:
        ask = rng.choice(
            ("Tell me a little more.", "Interesting. What else?", "Can you add something?")
        )
        exchanges.append((ask, Answer(rest[0])))
    elif rng.random() < 0.2:
        ask = rng.choice(("Shorter, please.", "Can you say that in one sentence?", "In short?"))
        exchanges.append((ask, Answer(lead)))
    return Talk(tuple(exchanges))


def definitions(rng: Random) -> Talk:
    """The meaning of a word, with a sentence that uses it, or the word for a meaning."""
    word, meaning, example = rng.choice(_WORDS)
    shown = rng.choice((word, f'"{word}"'))
    lead = f"{capital(article(word))} is {meaning}."
    if rng.random() < 0.25:
        question = rng.choice(
            (
                "What do you call {}?",
                "What is the word for {}?",
                "I am looking for the word for {}.",
                "Crossword: {}?",
            )
        ).format(meaning)
        exchanges: list[Exchange] = [(question, Answer(f"That is {article(word)}."))]
    else:
        question = rng.choice(_ASK_MEANING).format(
            word=shown, a_word=article(word), name=rng.choice(NAMES)
        )
        more = (f"For example: {example}",) if rng.random() < 0.5 else ()
        exchanges = [(question, Answer(lead, more=more))]
        if more:
            return Talk(tuple(exchanges))
    if rng.random() < 0.35:
        ask = rng.choice(
            ("Can you use it in a sentence?", "Give me an example.", "How is it used?")
        )
        exchanges.append((ask, Answer(example)))
    return Talk(tuple(exchanges))


def comparisons(rng: Random) -> Talk:
    """Two things held side by side, and which one to take."""
    one, two, of_one, of_two, purposes = rng.choice(_PAIRS)
    if rng.random() < 0.5:
        one, two, of_one, of_two = two, one, of_two, of_one
    question = capital(rng.choice(_ASK_COMPARE).format(one=one, two=two))
    lead = f"{capital(of_one)}, while {of_two}."
    (need, pick), (other_need, other_pick) = rng.sample(purposes, 2)
    more = (f"{capital(need)}, take {pick}.",) if rng.random() < 0.6 else ()
    exchanges: list[Exchange] = [(question, Answer(lead, more=more))]
    if rng.random() < 0.4:
        ask = rng.choice(("Which one is better {}?", "And which would you take {}?", "And {}?"))
        told = rng.choice(("I would take {}.", "{} would suit better.", "Then choose {}."))
        exchanges.append((ask.format(other_need), Answer(capital(told.format(other_pick)))))
    return Talk(tuple(exchanges))


def yes_or_no(rng: Random) -> Talk:
    """A question with a yes or a no, and the reason."""
    question, verdict, reason = rng.choice(_VERDICTS)
    asked = (
        rng.choice(
            (
                "{}",
                "{} Yes or no?",
                "{} Please give a reason.",
                "Quick question: {}",
                "{} I am not sure.",
                "We had an argument at home. {}",
                "Just wondering. {}",
                "For a quiz: {}",
                "{name} says yes, I say no. {}",
                "Tell me, please. {}",
                "A child asked me: {}",
            )
        )
        .replace("{name}", rng.choice(NAMES))
        .format(question)
    )
    lead = f"{verdict}." if rng.random() < 0.3 else f"{verdict}, {_lower(reason)}"
    more = (reason,) if lead == f"{verdict}." else ()
    return single(asked, Answer(lead, more=more))


def quizzes(rng: Random) -> Talk:
    """A guessing game over several turns."""
    (thing, given), (other, _) = rng.sample(_RIDDLES, 2)
    hints = rng.sample(given, len(given))
    name = rng.choice(NAMES)
    opening = rng.choice(
        (
            "Give me a riddle.",
            "Let us play a guessing game.",
            "Can you ask me a riddle?",
            f"{name} wants a riddle.",
            "Ask me something to guess.",
            "I am bored. A riddle, please.",
            f"Please make a riddle for {name}.",
            f"A riddle for {name} and me, please.",
            f"{name} and I have a long train ride before us. Have you a riddle?",
            f"My nephew {name} loves riddles. Do you know one?",
        )
    )
    exchanges: list[Exchange] = [(opening, f"I {hints[0]}, and I {hints[1]}. What am I?")]
    tries = rng.choice((0, 1, 1))
    if tries:
        guess = rng.choice((f"Are you {other}?", f"Is it {other}?", f"{capital(other)}?"))
        exchanges.append((guess, f"No, not {other}. Here is a hint: I {hints[2]}."))
    if rng.random() < 0.7:
        guess = rng.choice((f"Then you are {thing}.", f"Is it {thing}?", f"{capital(thing)}!"))
        exchanges.append(
            (
                guess,
                rng.choice(
                    (
                        f"Yes, I am {thing}. Well done!",
                        "Right! You have got it.",
                        f"Correct, it is {thing}.",
                    )
                ),
            )
        )
    else:
        exchanges.append(("I give up.", f"The answer is {thing}. I {hints[0]}, you see."))
    return Talk(tuple(exchanges))


def riddles(rng: Random) -> Talk:
    """Hints from the user, a thing from the assistant."""
    thing, hints = rng.choice(_RIDDLES)
    one, two, three = rng.sample(hints, 3)
    question = rng.choice(
        (
            f"I {one}, I {two}, and I {three}. What am I?",
            f"What am I? I {one}, and I {two}.",
            f"Guess: I {one}, and I {two}. Who am I?",
            f"Riddle: I {one}. I {two}. I {three}.",
        )
    )
    return single(question, Answer(f"You are {thing}.", more=(rng.choice(_HOW_GUESSED),)))


def opposites(rng: Random) -> Talk:
    pairs = rng.sample(_OPPOSITES, rng.choice((1, 2, 3)))
    turned = [(two, one) if rng.random() < 0.5 else (one, two) for one, two in pairs]
    asked, told = [one for one, _ in turned], [two for _, two in turned]
    if len(turned) == 1:
        question = rng.choice(
            (
                "What is the opposite of {}?",
                "Which word is the contrary of {}?",
                "If it is not {}, what is it?",
                "Give me the opposite of {}.",
            )
        )
        lead = f"The opposite of {asked[0]} is {told[0]}."
    else:
        question = rng.choice(
            (
                "What are the opposites of {}?",
                "Give the opposites of {}, please.",
                "I need the contrary of {}.",
            )
        )
        lead = "The opposites are " + listing(told) + "."
    exchanges: list[Exchange] = [(question.format(listing(asked)), Answer(lead))]
    if rng.random() < 0.5:
        again = rng.choice([pair for pair in _OPPOSITES if pair not in pairs])
        exchanges.append(
            (f"And of {again[0]}?", Answer(f"The opposite of {again[0]} is {again[1]}."))
        )
    return Talk(tuple(exchanges))


def _lower(text: str) -> str:
    return text if text.startswith("I ") else text[0].lower() + text[1:]


_ASK_WHY = (
    "{why}", "{why}", "Can you explain {indirect}?", "Tell me in simple words {indirect}.",
    "I never understood {indirect}.", "{who} asked me {indirect}. What should I say?",
    "Please explain {indirect}.", "Do you know {indirect}?", "I wonder {indirect}.",
    "Explain {indirect}, please, as if to a child.", "Hello! {why}", "{Indirect}: can you tell me?",
)  # fmt: skip
_ASKERS = (
    "My daughter", "My son", "A pupil", "My little brother", "A friend", "My grandmother",
    "Our neighbour", "My niece",
)  # fmt: skip
_REASONS = (
    ("Why is the sky blue?", "why the sky is blue",
     "The air scatters blue light more than red light.", "Sunlight is a mix of all colours.",
     "So blue reaches our eyes from every side.",
     "In the evening the way through the air is longer and the red is left."),
    ("Why does ice float?", "why ice floats",
     "Ice floats because it is lighter than the same amount of water.",
     "Water grows a little when it freezes.", "That is also why full bottles burst in the cold.",
     "Fish can live beneath the ice all winter."),
    ("Why do leaves turn yellow in autumn?", "why leaves turn yellow in autumn",
     "In autumn the tree takes the green out of its leaves, and the yellow is left.",
     "The green stuff catches sunlight in summer.",
     "When the days grow short, it is not worth keeping.",
     "Then the leaves fall, and the tree saves water."),
    ("How do bees make honey?", "how bees make honey",
     "Bees gather the sweet juice of flowers and dry it in the hive.",
     "They carry the juice home in a special stomach.",
     "In the comb they fan it with their wings until it is thick.",
     "The honey is their food for the winter."),
    ("Why is the sea salty?", "why the sea is salty",
     "Rivers wash a little salt out of the rocks and carry it to the sea.",
     "The water rises again as vapour, but the salt stays behind.",
     "Over millions of years it has become a lot.", "Lakes with a way out stay fresh."),
    ("How does a rainbow come about?", "how a rainbow comes about",
     "A rainbow appears when sunlight is bent and split in drops of rain.",
     "Each colour is bent a little differently.",
     "You see it with the sun behind you and the rain in front.",
     "Red is on the outside and violet on the inside."),
    ("Why do we yawn?", "why we yawn",
     "Nobody knows for sure, but we yawn mostly when we are tired or bored.",
     "A yawn stretches the muscles of the face.", "It may help us to stay awake for a moment.",
     "It is catching: seeing a yawn makes us yawn."),
    ("Why does bread rise?", "why bread rises",
     "Yeast eats sugar in the dough and gives off gas, which makes bubbles.",
     "The dough is elastic and holds the bubbles.", "In the oven they grow and then set.",
     "A warm place makes the yeast work faster."),
    ("Why do onions make us cry?", "why onions make us cry",
     "A cut onion gives off a gas that stings the eyes.", "The tears are there to wash it away.",
     "A sharp knife and a cold onion help.", "Some people cut them beside an open window."),
    ("How does a candle burn?", "how a candle burns",
     "The flame melts the wax, and the wick draws it up to be burned.",
     "It is really the vapour of the wax that burns.", "Without air the flame goes out.",
     "That is why a glass over a candle puts it out."),
    ("Why do cats purr?", "why cats purr", "Cats mostly purr when they feel safe and content.",
     "The sound comes from quick movements in the throat.", "Kittens purr when they drink milk.",
     "Some cats also purr to calm themselves when they are ill."),
    ("Why is the moon sometimes only half?", "why the moon is sometimes only half",
     "We see only the part of the moon that the sun shines on.",
     "The moon goes round the earth in about a month.",
     "So we see its bright side from another angle each night.",
     "At full moon the whole bright side faces us."),
    ("What makes the tides?", "what makes the tides",
     "The moon pulls on the sea and makes the water rise and fall.", "The sun helps a little.",
     "Most coasts have high water twice a day.", "The highest tides come at full and new moon."),
    ("Why does iron rust?", "why iron rusts",
     "Iron rusts because it joins with oxygen when it is wet.", "Salt makes it go faster.",
     "Paint or oil keeps the water away.", "Gold does not rust at all."),
    ("Why do birds fly south?", "why birds fly south",
     "Many birds fly south because they find too little food in winter.",
     "Insects are gone when it is cold.",
     "They find the way by the sun, the stars and the land below.",
     "In spring they come back to nest."),
    ("How does soap clean?", "how soap cleans",
     "Soap clings to grease on one side and to water on the other.",
     "So it lifts the grease off the skin.", "Then the water carries both away.",
     "Warm water makes it easier."),
    ("Why do we have day and night?", "why we have day and night",
     "The earth turns round once a day, and only one side faces the sun.",
     "On our side it is day when we look towards the sun.",
     "At the same time it is night on the other side.",
     "That is why the clocks differ around the world."),
    ("Why do we have seasons?", "why we have seasons",
     "We have seasons because the axis of the earth is tilted.",
     "In summer our half leans towards the sun.",
     "The days are then longer and the light falls more steeply.",
     "When it is summer in the north, it is winter in the south."),
    ("What is thunder?", "what thunder is",
     "Thunder is the sound of air that a flash of lightning heats all at once.",
     "The hot air bursts outwards like an explosion.",
     "Light is faster than sound, so we see the flash first.",
     "Three seconds between them mean about one kilometre."),
    ("How do fish breathe?", "how fish breathe",
     "Fish take oxygen out of the water with their gills.",
     "Water flows in at the mouth and out past the gills.",
     "In the gills the oxygen goes into the blood.", "On land the gills dry and stick together."),
    ("Why do we sweat?", "why we sweat", "Sweat cools the skin as it dries.",
     "Water needs heat to turn into vapour.", "It takes that heat from the body.",
     "In damp air sweat dries slowly, so we feel hotter."),
    ("How does a magnet work?", "how a magnet works",
     "In a magnet many tiny magnets all point the same way.",
     "Together they pull iron towards them.", "Each magnet has a north and a south pole.",
     "Two equal poles push each other away."),
    ("Why does a boat of iron swim?", "why a boat of iron can swim",
     "It pushes away as much water as it weighs, because it is hollow.",
     "A solid block of iron would sink.", "The air inside makes the ship light for its size.",
     "With a hole in it the water comes in and it goes down."),
    ("Why do stars twinkle?", "why stars twinkle", "The moving air bends their light to and fro.",
     "From space the stars do not twinkle.", "Planets look larger and are steadier.",
     "Near the horizon it is strongest."),
    ("How does yeast differ from baking powder?", "how yeast differs from baking powder",
     "Yeast is alive and works slowly, baking powder is a salt that works at once.",
     "Yeast gives bread its taste.", "Baking powder suits cakes that must be quick.",
     "Both make bubbles of gas."),
    ("Why should we wash our hands?", "why we should wash our hands",
     "Washing takes away germs that could make us ill.", "We touch many things and then our face.",
     "Use soap and take your time, about twenty seconds.", "Before meals it matters most."),
    ("How does a fridge keep food cold?", "how a fridge keeps food cold",
     "A fridge pumps the heat from the inside to the outside.",
     "A liquid turns into gas inside and takes up heat.",
     "At the back it becomes liquid again and gives the heat away.",
     "That is why the back feels warm."),
    ("Why do old books smell?", "why old books smell",
     "Old paper slowly breaks down and gives off sweet-smelling vapours.",
     "Glue and ink add to it.", "Damp books smell of mould instead.", "Dry air keeps them best."),
    ("Why do owls hunt at night?", "why owls hunt at night",
     "Owls hunt at night because their prey is awake then.", "They hear the smallest rustle.",
     "Their soft feathers make hardly a sound.", "Large eyes help them in the dark."),
    ("How does a plant drink?", "how a plant drinks",
     "A plant draws water from the soil with its roots.", "Thin tubes carry it up to the leaves.",
     "There it goes into the air as vapour and pulls more after it.",
     "On hot days a plant drinks more."),
    ("Why is glass clear?", "why glass is clear",
     "Light passes through glass because nothing in it takes up the light we see.",
     "Glass is made of melted sand.", "A little iron gives it a green tint.",
     "Scratches scatter the light and make it dull."),
    ("What is a desert?", "what a desert is", "A desert is a place where it hardly ever rains.",
     "Few plants can live there.", "Days may be hot and nights very cold.",
     "There are cold deserts too, covered with ice."),
    ("Why do we dream?", "why we dream",
     "Nobody knows exactly, but dreams seem to help the brain sort the day.",
     "Most dreams come in a light phase of sleep.", "We forget nearly all of them.",
     "Animals seem to dream as well."),
    ("How is paper made?", "how paper is made",
     "Paper is made from wood that is boiled to a pulp, spread thin and dried.",
     "Rollers press out the water.", "Old paper can be used again.",
     "Long ago rags were used instead of wood."),
    ("Why does milk turn sour?", "why milk turns sour",
     "Tiny bacteria turn the sugar of the milk into acid.", "Warmth makes them grow faster.",
     "That is why milk belongs in the fridge.", "Yoghurt is made in the same way on purpose."),
    ("What is a volcano?", "what a volcano is",
     "A volcano is a mountain where melted rock comes out of the earth.",
     "The melted rock is called lava outside.", "Ash and gas come out too.",
     "The soil around old volcanoes is often very fertile."),
    ("Why do we need sleep?", "why we need sleep",
     "In sleep the body rests and the brain puts things in order.",
     "Most grown-ups need seven to nine hours.", "Children need more.",
     "Too little sleep makes us cross and forgetful."),
    ("How does a key open a lock?", "how a key opens a lock",
     "The teeth of the key lift small pins to just the right height.",
     "Only then can the barrel turn.", "Each key has its own pattern.",
     "A worn key may lift the pins too little."),
    ("Why does the wind blow?", "why the wind blows",
     "Wind is air that flows from high pressure to low pressure.",
     "The sun warms some places more than others.", "Warm air rises and cool air flows in below.",
     "By the sea you can feel this on a summer day."),
    ("What are clouds made of?", "what clouds are made of",
     "Clouds are made of tiny drops of water or bits of ice.",
     "They form when damp air rises and cools.", "When the drops join and grow heavy, it rains.",
     "Fog is a cloud on the ground."),
    ("How do spiders make webs?", "how spiders make webs",
     "Spiders spin threads from glands at the end of their body.",
     "First they build a frame of dry threads.", "Then they add a sticky spiral.",
     "The thread is very strong for its weight."),
    ("Why are flowers so colourful?", "why flowers are so colourful",
     "Flowers use colour to call bees and other insects.", "The insects find sweet juice inside.",
     "They carry pollen from flower to flower.",
     "Flowers of the night are often white and smell strongly."),
    ("Why does a ball bounce?", "why a ball bounces",
     "The ball is squeezed when it hits the ground and springs back.",
     "The air inside works like a spring.", "A little energy is lost each time.",
     "A flat ball hardly bounces."),
    ("How does a compass work?", "how a compass works",
     "The needle is a small magnet that turns along the field of the earth.",
     "One end points north.", "Iron close by can mislead it.",
     "Sailors have used it for many hundred years."),
    ("Why do we get goose bumps?", "why we get goose bumps",
     "Tiny muscles pull up the hairs when we are cold or moved.",
     "In animals with fur this traps warm air.", "On us there is too little hair for it to help.",
     "Music can cause it too."),
    ("Why do dogs wag their tails?", "why dogs wag their tails",
     "Dogs wag their tails to show what they feel.", "A loose wide wag is mostly friendly.",
     "A stiff high tail can be a warning.", "Puppies learn it in the first weeks."),
    ("What is an echo?", "what an echo is",
     "An echo is sound that comes back from a wall or a cliff.", "It must travel there and back.",
     "So the wall should be at least seventeen metres away.", "Curtains and grass swallow it."),
    ("How do bicycles stay upright?", "how bicycles stay upright",
     "A rolling bicycle keeps upright because small turns of the front wheel catch it.",
     "When it leans, we steer a little into the lean.", "It is easier at some speed.",
     "Standing still it falls over."),
    ("Why does metal feel cold?", "why metal feels cold",
     "Metal feels cold because it leads the heat away from the hand quickly.",
     "Wood in the same room is just as warm.", "It leads heat slowly, so it feels warmer.",
     "That is why pans have wooden handles."),
    ("How does the heart work?", "how the heart works",
     "The heart is a muscle that pumps blood through the body.", "One side sends it to the lungs.",
     "The other side sends it to all the rest.", "At rest it beats about seventy times a minute."),
    ("Why do apples turn brown?", "why cut apples turn brown",
     "The flesh of the apple joins with oxygen from the air.", "Lemon juice slows it down.",
     "The brown parts can be eaten.", "Some kinds brown less than others."),
    ("How do clocks know the time?", "how clocks keep the time",
     "Every clock counts something that swings very evenly.", "In old clocks it is a pendulum.",
     "In most watches it is a small crystal.", "Radio clocks also listen for a signal."),
    ("Why do we salt roads in winter?", "why roads are salted in winter",
     "Salt water freezes only at a lower temperature, so the ice melts.",
     "In hard frost it does not help much.", "Salt is bad for trees and for paws.",
     "Sand or grit is often the better choice."),
    ("How does a hot-air balloon fly?", "how a hot-air balloon flies",
     "Hot air is lighter than cool air, so the balloon rises.", "A burner heats the air inside.",
     "To go down, the pilot lets it cool.", "The wind alone decides the direction."),
    ("Why is exercise good for us?", "why exercise is good for us",
     "Moving keeps the heart, the muscles and the mood in good order.",
     "Half an hour of walking a day already helps.", "It also helps us to sleep.",
     "Begin slowly if you are not used to it."),
    ("How do vaccines work?", "how vaccines work",
     "A vaccine shows the body a harmless piece of a germ so that it can practise.",
     "The body then makes its own defence.", "If the real germ comes, it is known already.",
     "Some vaccines need a second dose after a time."),
)  # fmt: skip
_ASK_MEANING = (
    "What does {word} mean?", "What is {a_word}?", "Explain the word {word}.", "Define {word}.",
    "I do not know the word {word}. What is it?", "Can you tell me what {a_word} is?",
    "{name} used the word {word}. What does it mean?", "Please tell me the meaning of {word}.",
    "I read about {a_word} in a book. What is that?", "In simple words, what is {a_word}?",
)  # fmt: skip
_WORDS = (
    ("lighthouse", "a tower with a strong light that guides ships",
     "The lighthouse could be seen for twenty miles."),
    ("orchard", "a piece of land where fruit trees grow", "We picked plums in the orchard."),
    ("ladle", "a large deep spoon for soup", "She filled the bowls with a ladle."),
    ("widow", "a woman whose husband has died", "The widow lived alone in the house."),
    ("glacier", "a slow river of ice in the mountains", "The glacier moves a few inches a day."),
    ("harbour", "a place where ships lie safely", "The boats came back to the harbour at dusk."),
    ("cellar", "a room under a house", "The wine is kept in the cellar."),
    ("cousin", "a child of your uncle or aunt", "My cousin is older than I am."),
    ("thimble", "a small cap that protects the finger in sewing",
     "Without a thimble the needle hurts."),
    ("drought", "a long time without rain", "The drought ruined the corn."),
    ("meadow", "a field of grass and flowers", "The cows stand in the meadow."),
    ("receipt", "a paper that shows what you have paid", "Keep the receipt for the shoes."),
    ("anchor", "a heavy iron hook that holds a ship in place",
     "They dropped the anchor near the beach."),
    ("island", "a piece of land with water all round", "Only a ferry goes to the island."),
    ("budget", "a plan of how much money may be spent", "The new roof is not in our budget."),
    ("recipe", "a set of steps for cooking a dish", "I have a recipe for pea soup."),
    ("hinge", "a joint on which a door turns", "The hinge squeaks and needs oil."),
    ("jury", "a group of people who decide in a court", "The jury found him not guilty."),
    ("kennel", "a small house for a dog", "The dog sleeps in his kennel."),
    ("library", "a place where books can be read and borrowed", "The library closes at six."),
    ("mason", "a worker who builds with stone", "The mason mended the garden wall."),
    ("nephew", "a son of your brother or sister", "My nephew starts school this year."),
    ("oasis", "a green place with water in a desert", "They rested at an oasis."),
    ("pantry", "a small room for keeping food", "There is jam in the pantry."),
    ("quarry", "a place where stone is cut from the ground",
     "The church was built of stone from the quarry."),
    ("rumour", "a story that is told without proof", "It was only a rumour."),
    ("saddle", "a seat for a rider", "He put the saddle on the horse."),
    ("tailor", "a person who makes clothes", "The tailor took in the sleeves."),
    ("valley", "low land between hills", "A brook runs through the valley."),
    ("wharf", "a place where ships are loaded", "Barrels stood on the wharf."),
    ("fable", "a short story, mostly with animals, that teaches something",
     "In the fable the fox loses his cheese."),
    ("debt", "money that one owes to somebody", "He paid back his debt in May."),
    ("shepherd", "a person who looks after sheep", "The shepherd counted his flock."),
    ("barometer", "an instrument that shows the pressure of the air",
     "The barometer fell before the storm."),
    ("parcel", "a thing wrapped up to be sent by post", "The parcel came on Friday."),
    ("twig", "a small thin branch", "The bird carried a twig to its nest."),
    ("proverb", "a short wise saying that many people know",
     "My aunt has a proverb for every case."),
    ("sculptor", "an artist who makes figures of stone or wood",
     "The sculptor worked a year on the statue."),
    ("refund", "money that is given back to a buyer", "The shop gave me a refund."),
    ("deadline", "the last day or hour for finishing something",
     "The deadline is on Monday at noon."),
    ("canal", "a waterway made by people", "Boats go slowly along the canal."),
    ("chimney", "a pipe that leads smoke out of a house", "Smoke rose from the chimney."),
    ("dialect", "the way a language is spoken in one region",
     "In the dialect of our valley the word is shorter."),
    ("envelope", "a paper cover for a letter", "She wrote the address on the envelope."),
    ("habit", "a thing one does often without thinking", "Reading in bed is a habit of mine."),
    ("inn", "a house where travellers eat and sleep", "They stayed at an inn for the night."),
    ("lease", "a contract for renting a house or a flat", "The lease runs for two years."),
    ("motto", "a short sentence that says what one believes in", "Slow and steady is her motto."),
    ("nickname", "a name that friends use instead of the real one", "His nickname is Red."),
    ("orphan", "a child whose parents are dead", "The orphan was brought up by an aunt."),
    ("passport", "a small book that shows who you are when you travel",
     "I forgot my passport at home."),
    ("ruin", "what is left of a fallen building", "Ivy grows over the ruin."),
    ("siege", "the surrounding of a town by an army", "The siege lasted three months."),
    ("telescope", "a tube with lenses that makes far things look near",
     "We saw the rings through a telescope."),
    ("vaccine", "a medicine that prepares the body against a disease",
     "The vaccine is given in the arm."),
    ("witness", "a person who has seen something happen", "The witness told what she saw."),
    ("apprentice", "a young person who learns a trade", "The apprentice swept the shop."),
    ("bargain", "a thing bought at a good price", "The coat was a real bargain."),
    ("crew", "all the people who work on a ship or plane", "The crew slept below the deck."),
    ("diary", "a book in which one writes about each day", "I wrote it in my diary."),
)  # fmt: skip
_ASK_COMPARE = (
    "What is the difference between {one} and {two}?", "Compare {one} and {two}.",
    "How does {one} differ from {two}?", "Should I choose {one} or {two}?",
    "{one} or {two}: what speaks for each?", "I cannot decide between {one} and {two}.",
    "Which is better, {one} or {two}?", "Tell me how {one} and {two} differ, please.",
)  # fmt: skip
_PAIRS = (
    ("a cat", "a dog", "a cat is happy alone for hours", "a dog needs company and walks",
     (("if you are out all day", "a cat"), ("if you like long walks", "a dog"))),
    ("tea", "coffee", "tea is mild and comes in many kinds",
     "coffee is strong and wakes you quickly",
     (("if you want to sleep soon", "a mild tea"), ("if the morning is hard", "coffee"))),
    ("the train", "the car", "the train lets you read and rest",
     "the car takes you from door to door",
     (("if you are tired", "the train"), ("if you carry heavy boxes", "the car"))),
    ("butter", "oil", "butter has a fine taste but burns easily", "oil can stand more heat",
     (("if you fry something hot", "oil"), ("if you bake biscuits", "butter"))),
    ("a letter", "an e-mail", "a letter is personal and can be kept",
     "an e-mail arrives at once and costs nothing",
     (("if it is a wedding", "a letter"), ("if it is urgent", "an e-mail"))),
    ("a tent", "a hotel", "a tent is cheap and close to nature", "a hotel offers a bed and a bath",
     (("if it rains all week", "a hotel"), ("if you have little money", "a tent"))),
    ("wool", "cotton", "wool keeps you warm even when damp", "cotton is light and easy to wash",
     (("if it is cold", "wool"), ("if it is a hot day", "cotton"))),
    ("a fish", "a frog", "a fish breathes with gills all its life",
     "a frog breathes air when it is grown",
     (("if you have only a glass tank", "a fish"), ("if there is a pond in the garden", "a frog"))),
    ("a knife", "scissors", "a knife cuts on a board", "scissors cut in the air with two blades",
     (("if you cut paper", "scissors"), ("if you cut bread", "a knife"))),
    ("a novel", "a film", "a novel leaves the pictures to you", "a film shows them in two hours",
     (("if you have a long journey", "a novel"), ("if you want to laugh with friends", "a film"))),
    ("gas", "electricity", "a gas cooker gets hot at once",
     "an electric cooker is safer and easy to clean",
     (("if small children live with you", "electricity"), ("if you cook in a wok", "gas"))),
    ("a pencil", "a pen", "what a pencil writes can be rubbed out", "what a pen writes will stay",
     (("if you draw a plan", "a pencil"), ("if you sign a paper", "a pen"))),
    ("the mountains", "the sea", "the mountains offer cool air and long views",
     "the sea offers beaches and swimming",
     (("if you love hiking", "the mountains"),
      ("if the children want to build castles", "the sea"))),
    ("a bus", "a tram", "a bus can take another road", "a tram runs on rails and more smoothly",
     (("if the street is blocked", "a bus"), ("if you feel sick on the road", "a tram"))),
    ("fresh fruit", "dried fruit", "fresh fruit is juicy but spoils soon",
     "dried fruit keeps for months and is very sweet",
     (("if you go on a long hike", "dried fruit"), ("if you are thirsty", "fresh fruit"))),
    ("a bath", "a shower", "a bath is restful and uses much water",
     "a shower is quick and saves water",
     (("if you are in a hurry", "a shower"), ("if your back aches", "a bath"))),
    ("a piano", "a guitar", "a piano is heavy and stays in its place",
     "a guitar can be carried anywhere",
     (("if you travel a lot", "a guitar"), ("if you want to play many notes at once", "a piano"))),
    ("renting", "buying", "renting leaves you free to move",
     "buying costs a lot first and less later",
     (("if you stay only a year", "renting"), ("if you want to stay for good", "buying"))),
    ("honey", "sugar", "honey has a taste of its own", "sugar is plain and easy to measure",
     (("if you sweeten tea", "honey"), ("if you bake a light cake", "sugar"))),
    ("a paper map", "a phone map", "a paper map needs no power", "a phone map shows where you are",
     (("if the battery is low", "a paper map"), ("if you are new in town", "a phone map"))),
    ("rice", "potatoes", "rice keeps dry for a year", "potatoes are filling and grow in the garden",
     (("if you cook a curry", "rice"), ("if you want a thick soup", "potatoes"))),
    ("a broom", "a vacuum cleaner", "a broom is silent and needs no plug",
     "a vacuum cleaner takes up fine dust as well",
     (("if the baby sleeps", "a broom"), ("if you have thick carpets", "a vacuum cleaner"))),
    ("a rose", "a cactus", "a rose needs water and rich soil", "a cactus needs sun and little else",
     (("if you often forget to water", "a cactus"), ("if it is a gift for your mother", "a rose"))),
    ("walking", "cycling", "walking needs nothing but shoes", "cycling is about four times as fast",
     (("if it is a short way", "walking"), ("if the shop is three miles off", "cycling"))),
    ("leather shoes", "canvas shoes", "leather shoes last long and keep out rain",
     "canvas shoes are light and cheap",
     (("if it is a hot day", "canvas shoes"), ("if you go to an office", "leather shoes"))),
)  # fmt: skip
_VERDICTS = (
    ("Is a tomato a fruit?", "Yes",
     "For botanists it is one, because it holds the seeds of the plant."),
    ("Is a whale a fish?", "No", "A whale breathes air and feeds its young with milk."),
    ("Can a penguin fly?", "No", "Its wings are made for swimming."),
    ("Is the sun a star?", "Yes", "It is the star that is nearest to us."),
    ("Does the moon make its own light?", "No", "It only throws back the light of the sun."),
    ("Is a spider an insect?", "No", "Spiders have eight legs, and insects have six."),
    ("Do plants need light?", "Yes", "Green plants use light to make their food."),
    ("Is 51 a prime number?", "No", "It can be divided by 3 and by 17."),
    ("Is 29 a prime number?", "Yes", "Only 1 and 29 divide it."),
    ("Can you freeze milk?", "Yes", "It can be frozen, but leave some room in the bottle."),
    ("May I give my dog chocolate?", "No", "Chocolate is poison for dogs."),
    ("Is honey safe for a baby?", "No", "Babies under one year should not eat honey."),
    ("Is a bat a bird?", "No", "Bats have fur and feed their young with milk."),
    ("Does oil float on water?", "Yes", "Oil is lighter than water and does not mix with it."),
    ("Is zero an even number?", "Yes", "It can be divided by two with nothing left."),
    ("Does every year have 365 days?", "No", "A leap year has 366."),
    ("Does water boil at a lower temperature on a high mountain?", "Yes",
     "The pressure of the air is lower up there."),
    ("Can sound travel through empty space?", "No",
     "Sound needs air, water or something else to travel in."),
    ("Is a mushroom a plant?", "No", "Mushrooms are fungi and do not need light."),
    ("Are all swans white?", "No", "There are black swans in Australia."),
    ("Is Africa larger than Europe?", "Yes", "It is about three times as large."),
    ("Does a snake have bones?", "Yes", "It has a long backbone and very many ribs."),
    ("Can I put a metal spoon in the microwave?", "No", "Metal can cause sparks there."),
    ("Should I turn off the power before I change a lamp?", "Yes",
     "It keeps you safe from a shock."),
    ("Is a square also a rectangle?", "Yes", "It has four right angles like every rectangle."),
    ("Do fish sleep?", "Yes", "They rest and hardly move, though most cannot shut their eyes."),
    ("Can a camel live without water for a week?", "Yes",
     "Camels can go without drinking for a week or more."),
    ("Is coffee made from beans?", "Not quite",
     "They look like beans, but they are the seeds of a fruit."),
    ("Is it safe to eat raw potatoes?", "Better not",
     "Raw potatoes are hard to digest, and green ones are poisonous."),
    ("Is gold heavier than iron?", "Yes",
     "A piece of gold weighs more than twice as much as iron of the same size."),
    ("Do bees sleep?", "Yes", "They rest at night, often inside the hive."),
    ("Is the earth perfectly round?", "No", "It is a little flatter at the poles."),
    ("Can glass be used again?", "Yes", "It can be melted and shaped many times."),
    ("Is a pumpkin a berry?", "Yes", "For botanists it is a kind of berry with many seeds."),
    ("Does the heart lie on the right side?", "No",
     "It lies in the middle of the chest, a little to the left."),
    ("Should bread be kept in the fridge?", "Better not", "In the fridge it goes stale faster."),
    ("Do cats always land on their feet?", "Not always",
     "They turn quickly, but a fall can still hurt them."),
    ("Is lightning hotter than fire?", "Yes", "It is many times hotter than any flame at home."),
    ("Is a kilogram of feathers lighter than a kilogram of iron?", "No",
     "A kilogram is a kilogram, only the size differs."),
    ("Can I mix bleach and vinegar for cleaning?", "No", "Together they give off a poisonous gas."),
    ("Does a leap year come every four years?", "Mostly",
     "Full hundreds are left out unless 400 divides them."),
    ("Do trees grow in winter?", "Hardly", "In cold lands they rest until spring."),
    ("Is snow always white?", "Nearly always", "Dust or tiny plants can colour it pink or grey."),
    ("Are there more stars than people?", "Yes",
     "Our galaxy alone has more stars than there are people."),
)  # fmt: skip
_RIDDLES = (
    ("a clock",
     ("have hands but no fingers", "never stop talking of time", "hang on the wall",
      "strike, but hurt nobody")),
    ("a river",
     ("run, but have no legs", "have a bed, but never sleep", "have a mouth, but cannot eat",
      "end in the sea")),
    ("a candle",
     ("am tall when young and short when old", "weep while I work", "am afraid of the wind",
      "make the night brighter")),
    ("a book",
     ("have a back, but no bones", "have leaves, but am no tree", "tell stories without a voice",
      "live on a shelf")),
    ("an umbrella",
     ("open when the sky weeps", "have ribs, but no heart", "keep you dry",
      "am often left on the bus")),
    ("a needle",
     ("have one eye, but cannot see", "carry a long tail of thread", "am small and sharp",
      "help the tailor")),
    ("a mirror",
     ("show you your face", "copy all you do", "turn left into right",
      "break easily and am made of glass")),
    ("a kettle",
     ("sing when I am hot", "have a nose, but cannot smell", "stand on the stove",
      "help you make tea")),
    ("a snail",
     ("carry my house with me", "am slow, but never late", "love the rain", "leave a silver path")),
    ("a key",
     ("have teeth, but do not bite", "live in your pocket", "let you into your house",
      "turn in a small hole")),
    ("a map",
     ("have towns without houses", "have rivers without water", "can be folded",
      "show you the way")),
    ("a shadow",
     ("follow you all day", "am long in the evening", "vanish in the dark",
      "have no weight at all")),
    ("a broom",
     ("live in a corner", "love dust", "have a stick for a body", "clean the kitchen floor")),
    ("a bell",
     ("have a tongue, but cannot speak", "hang in a tower", "call people together", "ring")),
    ("an egg",
     ("have a house without a door", "hide something golden", "break when I fall",
      "am laid in a nest")),
    ("a chair",
     ("have four legs, but cannot walk", "have arms at times", "stand at the table",
      "carry you when you are tired")),
    ("the wind",
     ("have no hands, but open doors", "cannot be seen", "play with kites", "push ships along")),
    ("a letter",
     ("travel with a stamp", "speak without a voice", "wear an envelope",
      "am brought by the postman")),
    ("a tree",
     ("wear green in summer and nothing in winter", "drink with my feet", "give you shade",
      "have a trunk, but no luggage")),
    ("snow",
     ("fall, but do not hurt myself", "am white and cold", "make children glad", "die in the sun")),
)  # fmt: skip
_HOW_GUESSED = (
    "That was a good riddle.", "Did I guess right?", "All the hints fit.",
    "Nothing else fits so well.",
)  # fmt: skip
_OPPOSITES = (
    ("hot", "cold"), ("old", "young"), ("early", "late"), ("empty", "full"), ("heavy", "light"),
    ("rich", "poor"), ("strong", "weak"), ("loud", "quiet"), ("wide", "narrow"),
    ("deep", "shallow"), ("clean", "dirty"), ("brave", "timid"), ("sharp", "blunt"), ("wet", "dry"),
    ("public", "private"), ("generous", "mean"), ("ancient", "modern"), ("smooth", "rough"),
    ("cheap", "dear"), ("lazy", "busy"), ("victory", "defeat"), ("arrive", "leave"),
    ("remember", "forget"), ("increase", "decrease"), ("begin", "end"), ("buy", "sell"),
    ("laugh", "cry"), ("push", "pull"), ("ceiling", "floor"), ("north", "south"),
    ("summer", "winter"), ("question", "answer"), ("friend", "enemy"), ("above", "below"),
    ("inside", "outside"), ("always", "never"), ("success", "failure"),
)  # fmt: skip
