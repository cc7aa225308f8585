"""The words of the story grammar: who, where, what, and which of them fit together.

Plain data. Every noun here is singular and every helper carries what it can do, so that a plot can ask for
"somebody who flies" and the sentence about the beak comes out right.
"""

MALE_NAMES = ("Tom", "Ben", "Max", "Sam", "Leo", "Finn", "Jack", "Tim", "Hugo", "Pip", "Otto", "Milo", "Bruno", "Rusty")
FEMALE_NAMES = ("Lily", "Anna", "Mia", "Sue", "Emma", "Lucy", "Nora", "Ella", "Zoe", "Ruby", "Luna", "Hazel", "Poppy", "Tilly")

TRAITS = ("little", "small", "young", "happy", "curious", "kind", "clever", "cheerful", "shy", "brave")

# Animals that can be the hero. Each lists the abilities it already has: no plot makes a cat fail at climbing.
HERO_ANIMALS = {
    "fox": ("dig",),
    "rabbit": ("dig",),
    "mouse": ("dig",),
    "bear": ("climb", "strong", "swim"),
    "cat": ("climb",),
    "dog": ("dig", "swim"),
    "hedgehog": (),
    "badger": ("dig",),
    "otter": ("swim",),
    "squirrel": ("climb",),
}

CHILD_HOMES = (
    "in a small village", "in a little house by the sea", "on a farm", "in a house on a green hill",
    "in a quiet town", "in a little house near the forest", "in a village by the river",
)
ANIMAL_HOMES = (
    "in a deep forest", "under an old oak tree", "in a little house by the river", "on a green hill",
    "at the edge of the forest", "in a quiet valley", "near a blue lake",
)

FAMILY = {"she": ("mother", "grandmother", "aunt", "sister"), "he": ("father", "grandfather", "uncle", "brother")}

# Helpers by ability. Persons are marked, so that they have hands and a trade.
HELPERS = {
    "fly": ("owl", "crow", "robin", "eagle"),
    "climb": ("squirrel", "monkey", "cat"),
    "swim": ("duck", "otter", "turtle", "frog", "beaver"),
    "dig": ("mole", "rabbit", "badger"),
    "strong": ("bear", "horse", "elephant", "farmer"),
    "work": ("farmer", "baker", "miller", "shepherd", "gardener"),
    "walk": ("deer", "goat", "hedgehog", "fox", "mouse", "horse", "shepherd", "farmer", "sailor"),
}
WISE = ("owl", "turtle", "horse", "goat", "bear", "shepherd", "sailor", "gardener")
HELPER_TRAITS = ("old", "kind", "wise", "friendly", "gentle", "big")

COLORS = ("red", "blue", "green", "yellow", "white", "brown")

# What can be carried off by the wind, float, roll, break, or be bought; "made" says how it is mended.
TREASURES = {
    "wind": ("kite", "hat", "scarf"),
    "water": ("ball", "boat", "hat", "drum"),
    "roll": ("ball", "ring", "marble", "button"),
    "heavy": ("ball", "wagon", "hat", "drum"),
    "lose": ("ball", "key", "ring", "book", "scarf", "hat", "spoon", "bell"),
    "wood": ("boat", "chair", "wagon", "drum", "flute"),
    "cloth": ("coat", "scarf", "blanket", "kite", "bag"),
    "toy": ("ball", "kite", "drum", "boat", "wagon"),
    "shop": ("kite", "drum", "flute", "boat", "hat", "book", "coat"),
    "house": ("cup", "plate", "lamp", "clock", "bowl", "jar"),
    "gift": ("scarf", "hat", "flute", "book", "bell", "ring"),
}

# Where a lost thing lies: how it is told, and where one walks to get there. The thing is seen, then found, there.
HIDING_PLACES = (
    ("under the old bridge", "the bridge"),
    ("behind the mill", "the mill"),
    ("in the tall grass", "the meadow"),
    ("next to the well", "the well"),
    ("under a bench", "the market"),
    ("beside the pond", "the pond"),
    ("near the big rock", "the hill"),
)
SEARCHED = ("under the bed", "behind the door", "in the garden", "under the table", "in the kitchen", "on the stairs")

OUTINGS = ("the meadow", "the park", "the river", "the hill", "the lake", "the garden", "the forest")

# Food that is shared: told with its amount, then as one word, then as a pronoun.
FOODS = (
    ("a loaf of bread", "bread", "it"),
    ("a piece of cheese", "cheese", "it"),
    ("a warm pie", "pie", "it"),
    ("a big cake", "cake", "it"),
    ("a basket of berries", "berries", "them"),
    ("a bag of nuts", "nuts", "them"),
    ("two apples", "apples", "them"),
    ("six cookies", "cookies", "them"),
)

# skill, what goes wrong, what the teacher says, what finally happens
SKILLS = (
    ("swim", "$he sank and swallowed water", "Kick your legs and breathe slowly", "$he swam all the way across the lake", "the lake"),
    ("sing", "$his voice was too low and too quiet", "Stand up tall and open your mouth wide", "$he sang a song for the whole village", "the market"),
    ("dance", "$he fell over $his own feet", "Listen to the music and count to four", "$he danced at the big party", "the barn"),
    ("bake bread", "the bread was as hard as a stone", "Wait until the dough is soft and round", "$he baked a loaf that smelled wonderful", "the kitchen"),
    ("paint", "the paint ran all over the paper", "Look first, and then paint slowly", "$he painted a picture of the blue sea", "the garden"),
    ("skate", "$he slipped and fell on the ice", "Bend your knees and look ahead", "$he skated around the pond without falling", "the pond"),
    ("play the flute", "it only made a terrible noise", "Blow softly and move one finger at a time", "$he played a sweet song for everyone", "the hill"),
)

# fear, when it comes, what the friend shows, what the hero does at the end
FEARS = (
    ("the dark", "One night, the lamp went out and the house was black", "Look up. The stars are small lights that never go out",
     "$he looked at the stars and went to sleep without a lamp"),
    ("thunder", "One evening, a storm came and the thunder was very loud", "Thunder is only a noise. Count with me until it is over",
     "$he counted to ten and smiled at every loud noise"),
    ("deep water", "One day, everyone went to the lake to swim", "Hold on to me. First we only put our feet in the water",
     "$he jumped into the lake with a big splash"),
    ("the old bridge", "One morning, the only way to the market was over the old bridge", "Do not look down. Look at me and take one step at a time",
     "$he walked over the bridge alone, step by step"),
    ("the big dog next door", "One day, the big dog stood in the middle of the road", "He only wants to play. Let him smell you first",
     "$he patted the dog, and the dog wagged his tail"),
)

# seed, what it grows into, what it bears
PLANTS = (
    ("tiny seed", "tall sunflower", "The flower was as yellow as the sun"),
    ("brown seed", "apple tree", "The tree was full of sweet red apples"),
    ("round seed", "big pumpkin", "The pumpkin was so big that nobody could lift it"),
    ("black seed", "rose bush", "The bush was full of soft red roses"),
    ("small bean", "green bean plant", "The plant was taller than the house"),
)

CHORES = (
    ("carry the wood", "carried the wood"), ("feed the hens", "fed the hens"), ("sweep the floor", "swept the floor"),
    ("water the garden", "watered the garden"), ("wash the windows", "washed the windows"), ("pick the apples", "picked the apples"),
)
