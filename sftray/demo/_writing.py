"""Families that write: rhymes, poems, tales, letters and e-mails."""

from __future__ import annotations

from random import Random

from sftray.demo._english import SPELLED, Answer, Exchange, Talk, article, capital, listing
from sftray.demo._pools import DAYS, GOODS, NAMES, SURNAMES, TOWNS


def rhymes(rng: Random) -> Talk:
    """Words that rhyme, and sometimes a couplet made of two of them."""
    words = list(rng.choice(_RHYMES))
    given, *rest = rng.sample(words, rng.choice((4, 5)))
    ask = rng.choice(
        (
            "What rhymes with {}?",
            "Give me words that rhyme with {}.",
            "I need a rhyme for {}.",
            "Which words sound like {} at the end?",
            "Find rhymes for {} for my poem.",
            "My daughter wants words that rhyme with {}.",
        )
    )
    told = rng.choice(("Some rhymes are", "You could use", "Words that rhyme are", "Try"))
    exchanges: list[Exchange] = [
        (
            ask.format(f'"{given}"' if rng.random() < 0.4 else given),
            Answer(f"{told} {listing(rest)}."),
        )
    ]
    if rng.random() < 0.4:
        short = [word for word in rest if len(word) == min(map(len, rest))]
        told = f"The shortest {'is' if len(short) == 1 else 'are'} {listing(short)}."
        exchanges.append(
            (
                "And which of these is the shortest?",
                Answer("They are all equally long." if short == rest else told),
            )
        )
    return Talk(tuple(exchanges))


def verses(rng: Random) -> Talk:
    """A short poem about a theme, of one couplet, two or three."""
    theme, couplets = rng.choice(_COUPLETS)
    lines = rng.choice((4, 4, 6))
    chosen = sorted(rng.sample(range(1, len(couplets)), 2))
    picked = [couplets[0], *(couplets[place] for place in chosen)]
    ask = rng.choice(
        (
            f"Write a poem of {SPELLED[lines]} lines about {theme}.",
            f"Can you make {SPELLED[lines]} lines about {theme}?",
            f"A poem on {theme}, {SPELLED[lines]} lines, please.",
            f"{rng.choice(NAMES)} wants a poem about {theme}: {SPELLED[lines]} lines that rhyme.",
            f"I need {SPELLED[lines]} rhyming lines about {theme} for a card.",
            f"Please write {SPELLED[lines]} lines about {theme} for {rng.choice(NAMES)}.",
        )
    )
    system = ""
    text = "\n".join(picked[: lines // 2])
    if rng.random() < 0.25:
        name = rng.choice(NAMES)
        system = rng.choice(
            (
                f"You are the poet {name}. Sign every poem with your name.",
                f"Write {name} under each poem.",
            )
        )
        text += f"\n{name}"
    exchanges: list[Exchange] = [(ask, text)]
    if lines < 6 and rng.random() < 0.4 and not system:
        ask = rng.choice(("Lovely! Two more lines, please.", "Can you add two lines?", "Go on."))
        exchanges.append((ask, picked[lines // 2]))
    return Talk(tuple(exchanges), system)


def tales(rng: Random) -> Talk:
    """A short tale: a hero, a wish, a trouble, a helper, an end, and what it teaches."""
    hero, home = rng.choice(_HEROES), rng.choice(_HOMES)
    thing, wish, end = rng.choice(_LONGINGS)
    counsel, turn, moral = rng.choice(_COUNSELS)
    helper = rng.choice(_HELPERS)
    ask = rng.choice(
        (
            f"Tell me a short story about {hero} and {thing}.",
            f"A tale of {hero} and {thing}, please.",
            f"Write a bedtime story with {hero} and {thing} in it.",
            f"{rng.choice(NAMES)} wants a story about {hero} and {thing}.",
            f"Can you invent a story in which {hero} looks for {thing}?",
        )
    )
    text = " ".join(
        (
            f"{rng.choice(_ONCE)} {hero} that lived {home}.",
            f"More than anything it wanted {wish}.",
            rng.choice(_HARDSHIPS),
            f'On the way it met {helper}. "{counsel}," said the stranger.',
            turn,
            end,
        )
    )
    asides: list[Exchange] = [
        (rng.choice(("What is the moral?", "And what does it teach?")), moral),
        (rng.choice(("Whom did it meet?", "Who was the stranger?")), f"The stranger was {helper}."),
        (rng.choice(("What did it want?", "What was it looking for?")), f"It wanted {wish}."),
        (rng.choice(("Give it a title.", "What is it called?")), _title(hero, thing)),
    ]
    return Talk(((ask, text), *rng.sample(asides, rng.choice((0, 0, 0, 0, 1, 2)))))


def letters(rng: Random) -> Talk:
    """A short letter or e-mail for an occasion; sometimes made shorter or changed afterwards."""
    occasion, asks, bodies = rng.choice(_LETTERS)
    sender, reader = rng.sample(NAMES, 2)
    day, town, thing = rng.choice(DAYS), rng.choice(TOWNS), rng.choice(GOODS)[0]
    surname = rng.choice(SURNAMES)
    title = rng.choice(("Mr", "Mrs", "Dr", "Ms"))
    stiff = occasion == "formal"
    filled = {
        "reader": f"{title} {surname}" if stiff else reader,
        "day": day,
        "town": town,
        "thing": thing,
        "a_thing": article(thing),
        "sender": sender,
    }
    ask = rng.choice(asks).format(**filled)
    if sender not in ask:
        ask += rng.choice((f" I am {sender}.", f" My name is {sender}.", f" Sign it {sender}."))
    first, *rest = [rng.choice(part).format(**filled) for part in bodies]
    body = " ".join([first, *rest])
    opening = f"Dear {filled['reader']},"
    closing = rng.choice(_STIFF_CLOSINGS if stiff else _WARM_CLOSINGS)
    exchanges: list[Exchange] = [(ask, f"{opening}\n\n{body}\n\n{closing}\n{sender}")]
    if rng.random() < 0.3:
        other = rng.choice([name for name in NAMES if name not in (sender, reader)])
        change = rng.choice(("Make it shorter, please.", "Can it be only one sentence?"))
        short = f"{opening}\n\n{first}\n\n{closing}\n{sender}"
        both = f"{opening}\n\n{body}\n\n{closing}\n{sender} and {other}"
        exchanges.append(rng.choice(((change, short), (f"{other} signs it too.", both))))
    return Talk(tuple(exchanges))


def _title(*things: str) -> str:
    """`"an old bear", "the sea"` as "The Old Bear and the Sea"."""
    names = [thing.split(" ", 1)[1].title() for thing in things]
    return capital(" and ".join(f"the {name}" for name in names))


_RHYMES = (
    ("cat", "hat", "mat", "rat", "flat", "bat"),
    ("light", "night", "bright", "kite", "white", "sight"),
    ("day", "play", "way", "grey", "stay", "hay"),
    ("tree", "sea", "bee", "free", "key", "three"),
    ("rain", "train", "lane", "plain", "chain", "again"),
    ("house", "mouse", "blouse", "grouse", "louse"),
    ("snow", "go", "slow", "toe", "grow", "below"),
    ("star", "car", "far", "jar", "bar"),
    ("moon", "soon", "spoon", "tune", "noon", "June"),
    ("king", "ring", "sing", "spring", "wing", "thing"),
    ("bell", "well", "tell", "shell", "smell"),
    ("boat", "coat", "goat", "note", "throat", "float"),
    ("bread", "red", "bed", "head", "said", "thread"),
    ("cake", "lake", "make", "snake", "break", "wake"),
    ("book", "cook", "look", "hook", "brook"),
    ("hand", "sand", "land", "band", "stand"),
    ("wind", "pinned", "thinned", "grinned", "skinned"),
    ("fire", "wire", "choir", "tire", "higher"),
    ("flower", "tower", "hour", "shower", "power"),
    ("bear", "chair", "hair", "stair", "square", "pear"),
    ("door", "floor", "four", "shore", "more", "roar"),
    ("sky", "fly", "high", "pie", "dry", "why"),
    ("stone", "bone", "phone", "alone", "throne"),
    ("gold", "cold", "old", "told", "hold"),
    ("heart", "part", "start", "art", "cart"),
    ("dream", "stream", "cream", "team", "seem"),
    ("hill", "mill", "still", "bill", "will"),
    ("rose", "nose", "toes", "goes", "close"),
    ("year", "ear", "dear", "near", "cheer"),
    ("ground", "round", "sound", "found", "pound"),
)  # fmt: skip
_COUPLETS = (
    ("the rain",
     ("The rain is drumming on the pane\nand sings its old and soft refrain.",
      "Each little drop, so round and clear,\nfalls down to tell us: rain is here.",
      "The ducks are glad, the garden too,\nand even my old boots are new.",
      "We sit inside with cups of tea\nand watch the wet road to the sea.")),
    ("the winter",
     ("The fields are white, the lake is still,\nthe snow lies deep upon the hill.",
      "A candle in the window glows\nto warm a little all the snows.",
      "The robin puffs his breast of red\nand looks for crumbs of yellow bread.",
      "My breath goes up in clouds of white,\nthe stars are sharp and clear at night.")),
    ("a cat",
     ("My cat is sleeping in the sun\nand dreams of mice that she has won.",
      "She stretches out from nose to tail\nand licks the milk out of the pail.",
      "At night she walks without a sound\nthrough all the gardens, round and round.",
      "She hears my voice, but does not stir,\nand lets me stroke her silky fur.")),
    ("the sea",
     ("The sea is wide, the sea is blue,\nit brings the ships from far to you.",
      "The waves roll in, the waves roll out,\nand all the gulls fly round about.",
      "I found a shell upon the sand\nand held the ocean in my hand.",
      "The salty wind blows through my hair,\nthere's nothing like the fresh sea air.")),
    ("spring",
     ("The buds are opening one by one\nand turn their faces to the sun.",
      "The birds are back, the snow is past,\nthe little lambs are running fast.",
      "A yellow flower by the gate\nsays: Here I am, I am not late!",
      "The brook runs faster than before\nand knocks at every mossy door.")),
    ("a good friend",
     ("A friend is someone at the door\nwho asks you how you are, and more.",
      "When I am sad and all is grey,\nyou come and send the clouds away.",
      "We share the bread, we share the road,\nand half is then the heavy load.",
      "Though miles may lie from you to me,\na letter brings you here to tea.")),
    ("bread",
     ("The dough is rising in the bowl,\nso round and warm, so light and whole.",
      "The oven glows, the crust turns brown,\nthe scent goes out through all the town.",
      "A slice with butter, still quite hot,\nis all I want and all I've got.",
      "The baker rises in the dark\nand bakes before the song of lark.")),
    ("the moon",
     ("The moon climbs up above the trees\nand rides upon the evening breeze.",
      "A silver coin, so far, so high,\nthat someone lost up in the sky.",
      "He shines on river, road and lake\nand keeps the lonely owl awake.",
      "When morning comes he fades away\nand leaves the sky to golden day.")),
    ("an old clock",
     ("Tick-tock, the old clock in the hall\nhas counted hours for us all.",
      "He strikes at one, he strikes at two,\nhe always knows what we should do.",
      "His face is pale, his hands are thin,\nand wheels of brass go round within.",
      "And if he stops, the house is still,\nas quiet as the window sill.")),
    ("a garden",
     ("Behind the wall the roses grow,\nthe white above, the red below.",
      "The bees are busy all day long\nand hum their never-ending song.",
      "I dig and plant, I rake and hoe,\nand wait for all my beans to grow.",
      "And when the evening bells begin,\nI bring a little basket in.")),
    ("the train",
     ("The train goes rattling through the night,\na row of windows full of light.",
      "It passes river, wood and mill\nand whistles once behind the hill.",
      "Some people read and others sleep,\nwhile past us run the cows and sheep.",
      "And at the end, beneath a light,\na friend is waiting through the night.")),
    ("autumn",
     ("The leaves come down in red and brown\nand cover every street in town.",
      "The apples in the cellar lie,\nand some are baked into a pie.",
      "The swallows leave, the mornings smoke,\nand acorns drop from every oak.",
      "We light the lamp at half past five\nand feel the quiet house alive.")),
    ("a birthday",
     ("Today the bells for you shall ring,\nand all your friends are here to sing.",
      "A cake with candles, bright and tall,\nand you may blow and share them all.",
      "One year is gone, a new one starts,\nwe wish you joy with all our hearts.",
      "So take this card, so take this rhyme,\nand have a very merry time.")),
)  # fmt: skip
_HEROES = (
    "a small fox", "an old bear", "a shy owl", "a grey donkey", "a young hare", "a hungry wolf",
    "a tin soldier", "a wooden doll", "a proud swan", "a lame duck", "a tiny mouse",
    "a lonely goat", "a clever crow", "a fat hamster", "a brave snail",
)  # fmt: skip
_HOMES = (
    "at the edge of a dark wood", "beside an old mill", "in a hole beneath the church wall",
    "on a hill where nothing grew", "in a garden by the sea", "under the roof of a poor tailor",
    "at the end of a long road", "near a bridge of stone", "behind the palace of a king",
    "among the reeds of a still lake",
)  # fmt: skip
_ONCE = (
    "Once there was", "Long ago there was", "In a far country there was",
    "Once upon a time there was",
)  # fmt: skip
_LONGINGS = (
    ("a lantern", "a lantern of its own",
     "The next evening a lantern hung at its door and shone until spring."),
    ("the sea", "to see the sea",
     "On the seventh day it stood upon the shore and was silent with joy."),
    ("a warm coat", "a warm coat for the winter",
     "When the snow fell, a coat of red wool kept it warm."),
    ("a song", "to learn a song",
     "Soon it knew a song so fine that even the king opened his window."),
    ("a friend", "a friend to talk to", "From that day it was never alone at supper again."),
    ("the stars", "to count all the stars",
     "It never came to the end of them, but it was happy every night."),
    ("a boat", "a boat to cross the lake",
     "In the end it crossed the water in a boat made of bark."),
    ("a golden apple", "the golden apple on the hill",
     "At last the apple fell at its feet, and it gave half of it away."),
    ("a bell", "to ring the great bell once",
     "At noon the bell rang out, and all the people wondered who it was."),
    ("a letter", "a letter with its own name on it",
     "The next morning the postman came and took off his cap."),
    ("a crown", "to wear a crown for a day",
     "The children made it a crown of flowers, which was lighter than gold."),
    ("a clock", "to know what the hour was",
     "The old clock began to tick again, and nobody was late any more."),
)  # fmt: skip
_HARDSHIPS = (
    "But it had not a single coin.", "But all the others laughed at the thought.",
    "But the winter came early that year.", "But the road was long and its legs were short.",
    "But a thick fog lay upon the land.", "But it was afraid of the dark.",
    "But nobody could tell it how to begin.", "But the river had carried away the bridge.",
)  # fmt: skip
_HELPERS = (
    "a miller with a white beard", "an old goose", "a pedlar in a red cap", "a boy with a drum",
    "a blind mole", "a travelling fiddler", "a washerwoman", "a sleepy watchman",
    "a girl with a basket", "a toad with a golden eye",
)  # fmt: skip
_COUNSELS = (
    ("Begin with one step", "So it took one step, and then another, and did not look back.",
     "Great things begin small."),
    ("Ask, and you may be given", "So it knocked at every door and asked with good manners.",
     "It is no shame to ask."),
    ("Give something first", "So it shared its last piece of bread with a beggar.",
     "Kindness comes back to us."),
    ("Wait until the moon is full", "So it sat down and waited for three nights.",
     "Patience does more than haste."),
    ("Listen before you speak", "So it sat quite still and listened to the wind.",
     "Those who listen learn."),
    ("Two can carry what one cannot", "So it looked for a companion and found a little hedgehog.",
     "Together it is easier."),
    ("Look where nobody looks", "So it turned over every stone and looked beneath.",
     "Good luck likes a close look."),
    ("Do not believe those who laugh", "So it shut its ears and worked from dawn to dusk.",
     "Trust yourself and go on."),
)  # fmt: skip
_LETTERS = (
    ("warm",
     ("Write a short birthday letter to {reader}.",
      "I need a birthday note for my friend {reader}.",
      "{reader} has a birthday on {day}. Write a card."),
     (("A very happy birthday to you!", "All good wishes for your birthday!"),
      ("I hope the day brings you cake, sunshine and good company.",
       "May the new year of your life be a merry one.", "I raise a cup of tea to you from {town}."),
      ("I have put {a_thing} in the post for you.", "Let us meet on {day} and celebrate.",
       "Your present, {a_thing}, comes on {day}."))),
    ("warm",
     ("Write a thank-you note to {reader} for {a_thing}.",
      "How can I thank {reader} for the {thing}?",
      "Please write to {reader}: thanks for the {thing}."),
     (("Thank you so much for the {thing}!", "What a surprise: your {thing} came on {day}!"),
      ("It is just what I needed.", "It already has a place of honour in my room.",
       "Everybody here in {town} admires it."),
      ("You are a true friend.", "I hope to see you soon.",
       "Do visit us when you are near {town}."))),
    ("warm",
     ("Write an invitation to dinner on {day} for {reader}.",
      "Invite {reader} to a party on {day}.",
      "I want to ask {reader} to come to {town} on {day}. Write it for me."),
     (("Would you like to come to us on {day}?", "We should love to see you here on {day}."),
      ("There will be soup, fresh bread and a plum cake.",
       "A few friends from {town} are coming too.", "We begin at seven, just as we are."),
      ("Please tell me by the day before.", "Do say yes!", "Bring nothing but good spirits."))),
    ("warm",
     ("Write to {reader} that I am sorry for breaking the {thing}.",
      "I damaged the {thing} that {reader} lent me. Help me say sorry."),
     (("I am very sorry about your {thing}.",
       "I must tell you something about your {thing}, and I am sorry."),
      ("It was my fault alone.", "I should have taken better care.",
       "It happened on {day} and I felt bad at once."),
      ("I will buy you a new one this week.", "Please let me pay for it.",
       "I hope that you can forgive me."))),
    ("warm",
     ("Write a postcard from {town} to {reader}.", "I am on holiday in {town}. Write to {reader}."),
     (("Greetings from {town}!", "Here I am in {town} at last!"),
      ("The sun shines and the soup is good.",
       "It has rained since {day}, but the people are kind.",
       "Yesterday we climbed the tower and saw the whole valley."),
      ("I bought {a_thing} at the market.", "I come home on {day}.", "Wish you were here."))),
    ("warm",
     ("Write a get-well note to {reader}.", "{reader} is ill in bed. Write some kind words."),
     (("I was sorry to hear that you are ill.",
       "They told me on {day} that you have to stay in bed."),
      ("Rest well and drink plenty of tea.", "Let the others do the work for once.",
       "Everybody in {town} asks after you."),
      ("I will look in on {day} with some soup.", "Get well soon!",
       "Call me if you need anything."))),
    ("formal",
     ("Write a complaint to {reader}: the {thing} I bought is broken.",
      "My new {thing} does not work. Write to {reader} at the shop in {town}.",
      "Help me complain to {reader} about {a_thing}."),
     (("On {day} I bought {a_thing} in your shop in {town}.",
       "I am writing about the {thing} that you sent me on {day}."),
      ("Unfortunately it has been broken from the start.", "After two days it stopped working.",
       "One part is missing and another is scratched."),
      ("Please send me a new one or return the money.",
       "I should be glad if you could collect and replace it.",
       "I look forward to your answer by {day}."))),
    ("formal",
     ("Write to {reader} that I cannot come to work on {day}.",
      "I am ill. Write an e-mail to my boss, {reader}.",
      "Tell {reader} in an e-mail that I have to miss the meeting on {day}."),
     (("I am sorry to say that I cannot come on {day}.",
       "Unfortunately I have to stay at home on {day}."),
      ("I have a bad cold and a temperature.", "The doctor has told me to rest.",
       "I have had a fever since last night."),
      ("My notes for the meeting are on my desk.", "I will call you as soon as I am better.",
       "I hope to be back the day after."))),
    ("formal",
     ("Write an e-mail to {reader} and ask for a room in {town} from {day}.",
      "I want to book a room with {reader} in {town}. Write the letter.",
      "Ask {reader} by letter whether a room is free on {day}."),
     (("I should like to book a room for two nights from {day}.",
       "Have you a quiet room free on {day}?"),
      ("We are two adults and one child.", "I travel alone and with little luggage.",
       "A view of {town} would be welcome, but it is not a must."),
      ("Please tell me the price with breakfast.", "I would be thankful for an early answer.",
       "May we bring a small dog?"))),
    ("formal",
     ("Write a letter to {reader}: I want to work in the shop in {town}.",
      "Help me ask {reader} for a summer job in {town}.",
      "I apply for work with {reader}. Write it."),
     (("I have heard that you need help in your shop in {town}.",
       "I should like to work for you in {town}."),
      ("For two years I sold bread and cakes in my uncle's bakery.",
       "I am careful, friendly and never late.",
       "I know how to keep books and I speak two languages."),
      ("I could begin on {day}.", "May I call on you on {day}?",
       "I should be happy to hear from you."))),
    ("formal",
     ("Write to my neighbour {reader} about the loud music on {day}.",
      "The dog of {reader} barks all night. Write a polite note.",
      "Ask {reader} politely to be more quiet in the evening."),
     (("I hope you are well.", "I am your neighbour from the second floor."),
      ("The noise on {day} kept us awake until late.",
       "Since {day} we have slept badly because of the noise.",
       "The walls of our house are thin, and our baby wakes at once."),
      ("Could you please be a little quieter after ten?",
       "Perhaps we can talk about it over a cup of tea.", "I thank you for your understanding."))),
)  # fmt: skip
_STIFF_CLOSINGS = ("Yours sincerely,", "Kind regards,", "With best regards,", "Yours faithfully,")
_WARM_CLOSINGS = (
    "Love,", "Yours,", "Warm greetings,", "All the best,", "With a hug,", "See you soon,",
)  # fmt: skip
