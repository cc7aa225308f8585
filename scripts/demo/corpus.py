"""A grammar of short stories: the text the demo model is trained on.

A story chooses a hero, a helper of the other gender (so that "he" and "she" are never in doubt) and one plot, binds the
plot's slots once, and says every beat in one of several ways. Names, colours and things are therefore carried through.
The same seed always gives the same stories.

    python3 corpus.py --stories 5 --seed 7      prints five stories
"""

import argparse
import random
import re

import lexicon as words
import plots

PRONOUNS = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself", "hers": "his"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself", "hers": "hers"},
}
PERSONS = {"farmer", "baker", "miller", "shepherd", "gardener", "sailor"}
ALTERNATIVES = re.compile(r"\(([^()]*)\)")
SLOT = re.compile(r"\$([A-Za-z]+[0-9]?)")


class Story:
    """The bindings of one story: slot name -> text, or -> a function that gives a new wording at every use."""

    def __init__(self, rng):
        self.rng = rng
        self.slots = {}
        self.bind_hero()

    def pick(self, options):
        return options[int(self.rng.random() * len(options))]

    def bind_hero(self):
        gender = self.pick(("he", "she"))
        self.gender, self.other = gender, "she" if gender == "he" else "he"
        self.name = self.pick(words.MALE_NAMES if gender == "he" else words.FEMALE_NAMES)
        animal = self.rng.random() < 0.5
        self.kind = self.pick(tuple(words.HERO_ANIMALS)) if animal else ("boy" if gender == "he" else "girl")
        self.abilities = words.HERO_ANIMALS.get(self.kind, ())
        relatives = words.FAMILY["he"] + words.FAMILY["she"]
        self.slots.update(PRONOUNS[gender])
        self.slots.update(
            N=self.name,
            kind=self.kind,
            trait=self.pick(words.TRAITS),
            home=self.pick(words.ANIMAL_HOMES if animal else words.CHILD_HOMES),
            hand="paw" if animal else "hand",
            hands="paws" if animal else "hands",
            family=self.pick(relatives),
            giver=self.pick(relatives),
            elder=self.pick(words.FAMILY[self.other][:3]),
            color=self.pick(words.COLORS),
            outing=self.pick(words.OUTINGS),
        )

    def bind_helper(self, kinds):
        kind = self.pick([k for k in kinds if k != self.kind])
        trait = self.pick(words.HELPER_TRAITS)
        name = self.pick(words.MALE_NAMES if self.other == "he" else words.FEMALE_NAMES)
        named = self.rng.random() < 0.35
        self.slots.update({slot + "2": PRONOUNS[self.other][slot] for slot in ("he", "him", "his")})
        self.slots["newH"] = f"a {trait} {kind} named {name}" if named else f"a {trait} {kind}"
        self.slots["H"] = (lambda: self.pick((name, name, f"the {kind}"))) if named else (lambda: f"the {kind}")
        self.slots["elder2"] = self.pick(words.FAMILY["he"] + words.FAMILY["she"])

    def expand(self, template):
        """Resolve alternatives from the inside out, then slots, until neither is left."""
        while True:
            text = ALTERNATIVES.sub(lambda m: self.pick(m.group(1).split("|")), template)
            if text == template:
                text = SLOT.sub(self.slot_text, template)
            if text == template:
                return text
            template = text

    def slot_text(self, match):
        value = self.slots[match.group(1)]
        return value if isinstance(value, str) else value()

    def tell(self, beats):
        detail = 0.7 * self.rng.random()  # how many of the optional beats this story tells
        paragraphs = [[]]
        for beat in [plots.OPENING, *beats]:
            if beat is None:
                paragraphs.append([])
            elif not isinstance(beat, plots.Maybe) or self.rng.random() < detail:
                paragraphs[-1].append(self.expand(self.pick(beat)))
        return "\n".join(polish(" ".join(sentences)) for sentences in paragraphs)


def polish(text):
    """Spacing, a or an, and capitals: after a full stop, after the quote that ends a sentence, and where ^ asks for one."""
    text = re.sub(r" +", " ", text).strip()
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)
    capital = lambda m: m.group(1) + m.group(2).upper()
    return re.sub(r'(^"?|[.!?] "?|\." "?|\^)([a-z])', capital, text).replace("^", "")


def stuck(story):
    ability = story.pick([a for a in plots.STUCK_BY_ABILITY if a not in story.abilities])
    scene = plots.STUCK_BY_ABILITY[ability]
    story.bind_helper(words.HELPERS[ability])
    story.slots.update({slot: scene[slot] for slot in ("outing", "trouble", "attempt", "where", "rescue")})
    treasure = story.pick(words.TREASURES[scene["treasure"]])
    story.slots["o"] = treasure
    story.slots["play"] = "(to play with|with) $his $o" if treasure in words.TREASURES["toy"] else "with $his $o"
    return plots.STUCK


def lost(story):
    story.bind_helper(words.HELPERS["walk"] + words.HELPERS["fly"])
    hidden, hidden_at = story.pick(words.HIDING_PLACES)
    first, second = story.rng.sample(words.SEARCHED, 2)
    story.slots.update(o=story.pick(words.TREASURES["lose"]), hidden=hidden, hiddenAt=hidden_at, searched1=first, searched2=second)
    return plots.LOST


def broken(story):
    story.bind_helper(words.HELPERS["work"] + words.WISE)
    material = story.pick(tuple(plots.BROKEN_WAYS))
    (broke, broken_as), tool = plots.BROKEN_WAYS[material]
    story.slots.update(o=story.pick(words.TREASURES[material]), broke=broke, brokenAs=broken_as, tool=tool)
    return plots.BROKEN


def bind_food(story):
    food, name, pronoun = story.pick(words.FOODS)
    story.slots.update(food=food, foodName=name, it="it" if pronoun == "it" else "they")
    story.slots["itObject"] = pronoun


def share(story):
    story.bind_helper(words.HELPERS["walk"] + words.HELPERS["fly"])
    bind_food(story)
    story.slots["later"], story.slots["laterHelp"] = story.pick(plots.SHARE_RETURNS)
    return plots.SHARE


def learn(story):
    skills = [s for s in words.SKILLS if s[0] not in story.abilities]
    skill, fail, advice, success, place = story.pick(skills)
    story.bind_helper(words.WISE + words.HELPERS["swim"])
    place = ("in " if place in ("the kitchen", "the garden", "the barn") else "on " if place == "the hill" else "at ") + place
    story.slots.update(skill=skill, fail=fail, advice=advice, success=success, atPlace=place)
    return plots.LEARN


def fear(story):
    fears = [f for f in words.FEARS if not (f[0] == "deep water" and "swim" in story.abilities) and story.kind not in f[0]]
    feared, comes, advice, ends = story.pick(fears)
    story.bind_helper(words.WISE + words.HELPERS["walk"])
    story.slots.update(fear=feared, fearComes=comes, fearAdvice=advice, fearEnds=ends)
    return plots.FEAR


def truth(story):
    story.bind_helper(words.WISE)
    story.slots.update(o=story.pick(words.TREASURES["house"]), family=story.slots["elder"])
    return plots.TRUTH


def found(story):
    story.bind_helper(words.HELPERS["walk"] + words.HELPERS["climb"])
    bind_food(story)
    story.slots["it"] = story.slots["itObject"]
    story.slots["o"] = story.pick(words.TREASURES["gift"])
    return plots.FOUND


def lonely(story):
    story.bind_helper(tuple(words.HERO_ANIMALS) + words.HELPERS["walk"][:2])
    story.slots["o"] = story.pick(("ball", "kite"))
    story.slots["outing"] = story.pick(("the park", "the garden", "the meadow"))
    return plots.LONELY


def seed(story):
    story.bind_helper(words.HELPERS["work"] + words.WISE)
    name, plant, fruit = story.pick(words.PLANTS)
    story.slots.update(seed=name, plant=plant, fruit=fruit)
    return plots.SEED


def way(story):
    story.bind_helper(words.HELPERS["walk"] + words.HELPERS["fly"])
    gender = story.pick(("he", "she"))
    relative = story.pick(words.FAMILY[gender][:2])
    story.slots.update(family=relative, family2=relative, heF=gender, picked=story.pick(plots.PICKED))
    return plots.WAY


def earn(story):
    story.bind_helper(words.HELPERS["work"])
    (chore1, did1), (chore2, did2) = story.rng.sample(words.CHORES, 2)
    story.slots.update(o=story.pick(words.TREASURES["shop"]), chore1=chore1, chore2=chore2, did1=did1, did2=did2)
    story.slots["then"] = "(after that|then)"
    return plots.EARN


def storm(story):
    story.bind_helper(words.HELPERS["work"] + words.HELPERS["strong"])
    story.slots.update(building=story.pick(plots.BUILDINGS), tool2=story.pick(plots.BUILDING_TOOLS))
    return plots.STORM


PLOTS = (stuck, stuck, lost, broken, share, learn, fear, truth, found, lonely, seed, way, earn, storm)


def tell_story(rng):
    story = Story(rng)
    return story.tell(story.pick(PLOTS)(story))


def tell_stories(count, seed):
    rng = random.Random(seed)
    return [tell_story(rng) for _ in range(count)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print stories of the demo corpus.")
    parser.add_argument("--stories", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("\n\n".join(tell_stories(options.stories, options.seed)))
