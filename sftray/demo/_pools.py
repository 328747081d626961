"""Names, things and places that more than one family draws from."""

from __future__ import annotations

NAMES = (
    "Anna", "Ben", "Clara", "David", "Edith", "Frank", "Grace", "Henry", "Ida", "Jack", "Kate",
    "Leo", "Mary", "Noah", "Olive", "Peter", "Rose", "Sam", "Tom", "Vera", "Will", "Lucy", "Hugo",
    "Emma", "Oscar", "Nina", "Paul", "Ruth", "Simon", "Alice", "Martin", "Helen", "George", "Ella",
    "Arthur", "Jane", "Max", "Sophie", "Theo", "Maria",
)  # fmt: skip
SURNAMES = (
    "Hill", "Marsh", "Brook", "Carter", "Dale", "Field", "Green", "Hunter", "King", "Lane",
    "Miller", "North", "Page", "Reed", "Stone", "Wells", "Wood", "Young", "Baker", "Cole",
)  # fmt: skip
TOWNS = (
    "Ashford Bay", "Millbridge", "Oldwick", "Stonehaven Hill", "Larkfield", "Port Ellery",
    "Westmere", "Fairholm", "Green Harbour", "Northgate", "Redwater", "Silverton", "Elmstead",
    "Kingsbrook", "Hollow Creek", "Sandwell", "Thornby", "Whitecliff", "Maple Falls", "Easton",
)  # fmt: skip
GOODS = (
    ("lamp", 2, 9), ("bicycle", 20, 60), ("coat", 5, 18), ("kettle", 2, 6), ("desk", 8, 30),
    ("watch", 4, 25), ("tent", 6, 24), ("radio", 3, 12), ("sofa", 30, 90), ("umbrella", 1, 4),
    ("camera", 15, 70), ("guitar", 10, 45), ("chair", 3, 14), ("rucksack", 4, 12),
    ("carpet", 6, 30), ("oven", 25, 70), ("armchair", 12, 40), ("printer", 7, 20),
    ("mirror", 3, 12), ("suitcase", 5, 18),
)  # fmt: skip
"""A thing to buy, and its lowest and highest price in tens of dollars."""
CHORES = (
    "The film", "The piano lesson", "The meeting", "The train ride", "The football match",
    "The concert", "The cake in the oven", "The washing", "The guided tour", "The swimming class",
    "The school play", "The ferry crossing", "The choir practice", "The bus trip", "The lecture",
)  # fmt: skip
"""What starts at one time and ends at another."""
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
KINDS = (
    ("fruit",
     ("apple", "pear", "plum", "cherry", "grape", "lemon", "peach", "melon", "fig", "apricot")),
    ("vegetable", ("carrot", "onion", "leek", "cabbage", "potato", "turnip", "radish", "parsnip")),
    ("mammal", ("horse", "dog", "fox", "rabbit", "goat", "wolf", "bear", "mouse", "sheep", "lion")),
    ("bird", ("robin", "eagle", "owl", "sparrow", "swan", "crow", "gull", "heron", "pigeon")),
    ("tree", ("oak", "birch", "pine", "elm", "maple", "willow", "beech", "poplar", "larch")),
    ("tool", ("hammer", "saw", "spade", "drill", "rake", "chisel", "screwdriver", "file", "axe")),
    ("colour", ("red", "blue", "green", "yellow", "brown", "purple", "grey", "white", "black")),
    ("instrument",
     ("violin", "flute", "drum", "harp", "trumpet", "piano", "cello", "guitar", "oboe")),
    ("vehicle", ("bus", "lorry", "tram", "ferry", "train", "bicycle", "van", "taxi", "tractor")),
    ("piece of furniture", ("table", "chair", "wardrobe", "bed", "shelf", "desk", "stool", "sofa")),
    ("garment", ("coat", "scarf", "shirt", "skirt", "jacket", "sock", "glove", "hat", "belt")),
    ("drink", ("tea", "coffee", "milk", "cocoa", "lemonade", "juice", "water", "cider")),
    ("fish", ("trout", "salmon", "herring", "cod", "tuna", "carp", "pike", "eel", "mackerel")),
    ("insect", ("bee", "ant", "wasp", "beetle", "moth", "butterfly", "fly", "cricket", "gnat")),
    ("metal", ("iron", "copper", "silver", "gold", "tin", "lead", "zinc", "nickel")),
    ("part of the body", ("knee", "elbow", "ankle", "shoulder", "wrist", "chin", "thumb", "heel")),
)  # fmt: skip
"""A kind of thing, and things that are of that kind and of no other kind here."""
