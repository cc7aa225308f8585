"""The plots of the story grammar: what happens, beat by beat.

A plot is a list of beats; a beat is a list of ways to say the same thing; `None` starts a new paragraph. Text is written in
a small template language that `corpus.py` expands:

    (a|b|c)    one of these, may nest, may be empty: (very|)
    $slot      a value of the story; $N hero, $he $him $his $himself; $H helper, $he2 $him2 $his2
    ^          the next letter becomes a capital (needed only after a closing quote)

Capitals at the start of a sentence and the choice of a or an are made by the expander.
"""


class Maybe(tuple):
    """A beat that a short story leaves out."""


def maybe(*forms):
    return Maybe(forms)


OPENING = (
    "(Once upon a time|Once upon a time|Long ago|Many years ago), there (was|lived) a $trait $kind (named|called) $N. $he lived $home(| with $his $family).",
    "(Once upon a time|Once upon a time|Long ago), $home, there lived a $trait $kind (named|called) $N.",
    "Once upon a time, a $trait $kind (named|called) $N lived $home(| with $his $family).",
    "There (was once|once was) a $trait $kind (named|called) $N. $he lived $home.",
    "$N was a $trait $kind who lived $home(| with $his $family).",
    "This is the story of $N, a $trait $kind who lived $home.",
)

GREETING = ('"(Why are you so sad|What is wrong|Why are you crying|What happened)?" (asked $H|$he2 asked(| softly| kindly)).',)

ARRIVAL = (
    "(Just then|At that moment|Then|Soon), $newH (came by|came along|walked by|came down the path).",
    "$newH (heard $him|saw $him) and came (closer|near|over).",
    "After a while, $newH (came by|stopped beside $him).",
)

COMFORT = ('"(Do not worry|Do not cry|Do not be sad)," said $H. ', '"(Do not worry|Do not cry|Cheer up)," $he2 said. ')

THANKS = (
    '"Thank you(| so much| very much)!" (said|cried) $N(|, and $he hugged $H).',
    '"Oh, thank you(|, thank you)!" said $N with a big smile.',
    "$N (thanked $H and smiled|was so happy that $he hugged $H|jumped up and down with joy).",
)

TOGETHER = maybe(
    "From that day on, $N and $H were (good|best) friends.",
    "$N and $H (played together|sat in the sun and talked) until (the sun went down|it was time to go home).",
    "After that, $N and $H (met every day|were always together).",
    "That evening, they (ate supper together|sang songs together) under the stars.",
)


def moral(*lessons):
    """The closing beat: one of `lessons`, each a clause such as "it is good to share"."""
    lesson = "(" + "|".join(lessons) + ")"
    return (
        f"$N (learned|knew now) that {lesson}.",
        f"And so $N learned that {lesson}.",
        f"That (day|night), $N learned that {lesson}.",
        f"From then on, $N (always remembered|never forgot) that {lesson}.",
    )


HELP_MORAL = moral("it is good to ask for help", "friends help each other", "a good friend is the best treasure", "nobody has to do everything alone")

# $trouble (what happens), $attempt (why it fails alone), $where (where the thing is now) and $rescue come with the ability asked for.
STUCK = [
    ("$N had a $color $o(| that $he loved very much).", "$his $giver had given $him a $color $o.", "More than anything, $N loved $his $color $o."),
    ("(One day|One morning|One sunny day), $he (went|walked|ran) to $outing $play.",),
    ("$trouble",),
    None,
    ("$attempt",),
    maybe("$N (sat down and began to cry|was very sad|did not know what to do|felt very sad)."),
    ARRIVAL,
    maybe(*GREETING),
    ('"My $o is $where, and I cannot (get|reach) it," (said $N|$N said|$he answered).',),
    COMFORT,
    ('"(I can|Let me) help you."', '"I know what to do."', '"I will get your $o."'),
    None,
    ("$rescue",),
    THANKS,
    TOGETHER,
    HELP_MORAL,
]

STUCK_BY_ABILITY = {
    "fly": {
        "treasure": "wind",
        "outing": "(the meadow|the park|the forest)",
        "trouble": "(Suddenly|But then), a strong wind came and (blew|carried) the $o into (a tall tree|the top of a tree).",
        "attempt": "$N tried to (climb the tree|reach the $o with a stick), but the branch was too high.",
        "where": "(up in the tree|at the top of the tree)",
        "rescue": "$H flew up (to the branch|into the tree), took the $o in $his2 beak, and brought it (back to $N|down).",
    },
    "climb": {
        "treasure": "wind",
        "outing": "(the farm|the village|the meadow)",
        "trouble": "(Suddenly|But then), the wind took the $o and (blew|dropped) it (onto the roof of the barn|onto a high roof).",
        "attempt": "$N jumped (again and again|as high as $he could), but the roof was too high.",
        "where": "(on the roof|up on the roof)",
        "rescue": "$H climbed up the wall, (ran|walked) across the roof, and (threw the $o down to $N|came down with the $o).",
    },
    "swim": {
        "treasure": "water",
        "outing": "(the river|the lake|the pond)",
        "trouble": "(Suddenly|But then), the $o (fell|rolled) into the (deep|cold) water and floated away.",
        "attempt": "$N (ran along the water|tried to catch it with a long stick), but the $o was too far away.",
        "where": "in the (deep|cold) water",
        "rescue": "$H (jumped into the water, swam|dived in, swam) to the $o, and (pushed|brought) it back to $N.",
    },
    "dig": {
        "treasure": "roll",
        "outing": "(the garden|the meadow|the forest)",
        "trouble": "(Suddenly|But then), the $o fell out of $his $hands and rolled into a (deep|small|dark) hole.",
        "attempt": "$N put $his (arm|$hand) into the hole, but the hole was too (deep|small).",
        "where": "in (that|the) hole",
        "rescue": "$H dug and dug until the hole was (big|wide), and then $he2 (pulled|brought) out the $o.",
    },
    "strong": {
        "treasure": "heavy",
        "outing": "(the hill|the old wall)",
        "trouble": "(Suddenly|But then), a (big|heavy) rock rolled down and the $o was (trapped|stuck) under it.",
        "attempt": "$N pushed the rock with all $his might, but it was too heavy.",
        "where": "under (that|the) (big|heavy) rock",
        "rescue": "$H pushed (hard|once), and the rock rolled away. The $o was not even (broken|bent).",
    },
}

LOST = [
    ("$N had a $color $o(| that $he loved very much).", "$his $giver had given $him a $color $o.", "$he took $his $color $o with $him everywhere."),
    ("(One day|One morning), $he could not find the $o.", "But (one day|one morning), the $o was gone."),
    maybe("$he looked $searched1 and $searched2, but (it was not there|the $o was not there).", "$he looked $searched1. $he looked $searched2. ^(it was nowhere|the $o was not there)."),
    None,
    ("$N went outside (and asked everyone|to look for it). $newH was sitting (by the road|in front of the house|in the sun).", "$N sat down and (cried|was sad). ^(just then|soon), $newH came by."),
    ('"Have you seen my $color $o?" asked $N.',),
    ('"Yes," said $H. "I saw a $color $o (this morning|yesterday). It was $hidden."', '"I think so," $he2 said. "There is a $color $o $hidden."'),
    ("They (went|walked|ran) to $hiddenAt together.", "$H went to $hiddenAt with $him."),
    None,
    ("And there it was! The $o was lying $hidden.", "(There|And there), $hidden, was the $color $o!"),
    maybe("$N (picked it up and|took the $o and) held it (tight|in both $hands).", "$N laughed and danced."),
    maybe(*THANKS),
    TOGETHER,
    moral("it is good to ask for help", "lost things can be found again", "two can look better than one", "it is wise to take care of your things"),
]

BROKEN = [
    ("$N had a $color $o(| that $he used every day| that was very old).", "$his $giver had made a $color $o for $him."),
    ("(One day|One morning|One evening), the $o $broke.",),
    maybe("$N tried to (fix|mend) it, but it only got worse.", "$N wanted to (fix|mend) the $o, but $he did not know how."),
    None,
    ("$he (took|carried) the $o to $newH who lived (next door|down the road|by the mill).",),
    ('"Can you help me? My $o is $brokenAs," said $N.', '"My $o is $brokenAs," said $N(| sadly). "Can you (fix|mend) it?"'),
    ('"We can (fix|mend) it together," said $H.', '"I will show you how to (fix|mend) it," said $H.'),
    ("$H (took|found|brought) $tool, and $N (held the $o still|helped as well as $he could).",),
    maybe("They worked (all day|all afternoon|for a long time), and $he2 was very patient.", "It took a long time, but they did not stop."),
    None,
    ("At last, the $o was (whole again|as good as new).", "When they were done, the $o looked (better than before|like new)."),
    maybe(*THANKS),
    TOGETHER,
    moral("broken things can be mended", "it is good to be patient", "work is easier when two do it together", "it is better to mend a thing than to throw it away"),
]

SHARE = [
    ("(One day|One morning), $N (packed|took) $food and (went for a walk|set out for $outing).", "(One day|One morning), $his $giver gave $him $food to take to $outing."),
    ("On the way, $he met $newH.", "Under a tree, $he saw $newH."),
    ('"I am so hungry," said $H. "I have not eaten (all day|since yesterday)."', '"Please, can you give me something to eat?" asked $H. "I am so hungry."'),
    maybe("$N looked at the $foodName. $he was hungry, too, but $he (felt sorry for $H|did not want to eat alone).", "$N thought about it for a moment."),
    ('"(Come and sit|Sit down) with me," $he said. "We can share."', '"Here, take half," said $N. "There is enough for two."'),
    ("They ate the $foodName together, and $it tasted (wonderful|very good).", "So they shared the $foodName, and (soon|at last) nobody was hungry."),
    None,
    ("$later",),
    ("Then $H (came|came running). ^$laterHelp",),
    maybe('"You were kind to me," said $H, "and now I (am|can be) kind to you."', '"You shared with me," said $H. "Now it is my turn to help."'),
    maybe(*THANKS),
    TOGETHER,
    moral("kindness always comes back", "it is good to share", "food tastes better when it is shared", "a kind heart makes many friends"),
]

SHARE_RETURNS = (
    ("On the way home, it (began to rain|started to rain hard), and $N had no (coat|place to hide).", '$he2 brought a big leaf to keep $him dry.'),
    ("On the way home, $N lost the path, and it (grew|was getting) dark.", "$he2 knew the way and walked home with $him."),
    ("The next day, $N fell into a hole and could not get out.", "$he2 found a long rope and pulled $him out."),
    ("Some days later, $N was ill and had to stay in bed.", "$he2 brought hot soup and told funny stories."),
    ("A week later, $N had no wood for the fire, and the house was cold.", "$he2 brought wood and made a warm fire."),
)

LEARN = [
    ("More than anything, $N wanted to (learn to|) $skill.", "$N had one big dream. $he wanted to $skill."),
    ("$he tried (every day|again and again), but $fail.", "The first time $he tried, $fail."),
    maybe("The others laughed at $him. ^$N felt (very sad|ashamed) and wanted to give up.", '"I will never learn it," (said $N|$he said), and $he sat down sadly.'),
    None,
    ("$newH (saw this|heard this|had seen it all) and came (over|closer).",),
    ('"(Do not give up|Try again|Everybody falls at first)," said $H. "$advice."',),
    maybe("$N (listened and tried|tried it) again. This time, it (was|went) a little better.", "$N did what $H said, and it was a little better."),
    maybe("(After that, they|They) (met|practiced) every (day|morning) $atPlace, and $H (never laughed|was always patient).",),
    None,
    ("(After many days|When summer came|At last), $success.",),
    maybe("Everyone (clapped and cheered|was surprised and clapped).", '"(Well done|Look at that)!" cried $H.', "$H was very proud of $him."),
    TOGETHER,
    moral("you must try again and again", "it takes time to learn something new", "nobody is good at everything on the first day", "you should never give up"),
]

FEAR = [
    ("$N was (happy|brave) most of the time, but $he was afraid of $fear.", "There was only one thing that $N (did not like|was afraid of). It was $fear."),
    ("$fearComes.",),
    ("$N (hid behind a tree|closed $his eyes|shook all over) and (did not move|could not move).", '"I am so afraid," (said $N|$N whispered).'),
    None,
    ("$newH (saw $him|heard $him) and (sat down beside $him|took $him by the $hand).",),
    ('"(It is all right|Do not be ashamed)," said $H. "(I was afraid of $fear, too|Everybody is afraid sometimes)."',),
    ('"What can I do?" asked $N.', '"How can I be brave?" asked $N.'),
    ('"$fearAdvice," (said $H|$he2 said).',),
    maybe("$N took a deep breath and tried it. ^$his heart beat fast, but $H stayed (with $him|close).", "$N was still a little afraid, but $he did it. ^$H stayed with $him the whole time."),
    None,
    ("(In the end|After a while|A week later), $fearEnds.",),
    maybe('"(You did it|I knew you could do it)!" (said|cried) $H.', "$H smiled and was proud of $him.", THANKS[0]),
    TOGETHER,
    moral("it is all right to be afraid", "being brave means to try even when you are afraid", "fear gets smaller when you share it", "a friend can make you brave"),
]

TRUTH = [
    ("$his $elder had a $color $o that was very old.", "In $his house, there was a $color $o. It belonged to $his $elder."),
    ("(One day|One afternoon), $N was playing inside(| with a ball) and (ran into the table|was not careful).",),
    ("The $o fell (down|to the floor) and broke.", "The $o fell down. Crash! It was broken."),
    ("$N was (afraid|scared). $he hid the pieces (under the bed|in a box|behind the door).",),
    None,
    ('(In the evening|Soon), $his $elder came home. "Where is my $o?" $he2 asked.',),
    ('"I do not know," said $N, but $he felt (very bad|bad inside).', '"I have not seen it," said $N, but $he felt bad.', "$N said nothing. ^$his face was hot, and $he looked at the floor."),
    ("(That night, $N could not sleep|$N could not eat $his supper). ^(at last|then), $he (brought|went and got) the pieces.",),
    ('"I broke your $o," $he said(| quietly). "I am (so|very) sorry."',),
    None,
    ('$his $elder (looked at $him|sat down beside $him). "(I am sad about the $o|It was only a $o), but I am (glad|proud) that you told me the truth," $he2 said.',),
    maybe("(Then|The next day), they (sat down and glued|put) the pieces (|back )together.", "$he2 gave $him a hug, and they (fixed|glued) the $o together."),
    maybe("The $o was (not perfect|a little crooked), but they both liked it (even more|very much).", "$N felt (light and happy|much better) again."),
    moral("it is best to tell the truth", "the truth makes the heart light", "everybody makes mistakes", "a lie is heavier than the truth"),
]

FOUND = [
    ("(One day|One morning), $N was walking to $outing when $he saw (something in the grass|something on the path).",),
    ("It was a (beautiful|shiny|pretty) $color $o.", "There lay a $color $o!"),
    maybe('"(How lucky I am|What a nice $o)!" (said $N|$he said). "(I will keep it|Now it is mine)."'),
    maybe("$he put the $o in $his bag and walked on.", "$he picked up the $o and (ran home|walked on) happily."),
    None,
    ("(Soon|A little later|Near the well), $he met $newH, who was (crying|looking for something|looking very sad).",),
    ('"(I have lost|I lost) my $color $o," said $H. "(My $elder2 gave it to me|It was a gift from my $elder2)."',),
    maybe("$N (thought about|looked down at) the $o in $his bag. $he (wanted|liked) it very much, but it was not $hers.", "For a moment, $N said nothing. $he wanted to keep the $o, but $he saw how sad $H was."),
    ('$he (held out|took out) the $o. "(Here it is|Here is your $o)," (said $N|$he said).', '"Is this your $o?" asked $N, and $he held it out.'),
    None,
    ('"(My $o|Yes, that is it)!" cried $H. "(Thank you|You are very kind)."',),
    maybe("$he2 was so happy that $he2 gave $him $food.", "To thank $him, $H gave $him $food, and they ate $it together.", "$H hugged $him and danced with joy."),
    TOGETHER,
    moral("it is right to give back what is not yours", "being honest makes everybody happy", "a friend is worth more than a $o", "it is better to be honest than to be rich"),
]

LONELY = [
    ("$N was new there and had no friends. Every day, $he (sat alone by the window|played alone).", "$N had nobody to play with, and $he (often felt|was) lonely."),
    ("(One day|One morning), $he saw $newH who was playing with a $color $o in $outing.",),
    ("$he wanted to play, too, but $he was too shy to ask.", "$N hid behind a tree and watched. $he did not dare to say a word."),
    None,
    ("Then the $o (rolled|flew|came) (right|) to $his feet. ^$N picked it up.", "Suddenly, the $o fell (right|) in front of $him. ^$N picked it up."),
    ('"Here is your $o," (said $N|$he said) quietly.', '"Is this your $o?" (asked $N|$he asked).'),
    ('"(Yes|Oh), thank you!" said $H. "(What is your name|Who are you)?"',),
    ('"(I am|My name is) $N," (said $N|$he answered). "May I play with you?"',),
    ('"(Of course|Yes, please)!" said $H. "(It is no fun to play alone|The $o is more fun with two)."',),
    None,
    ("So they played with the $color $o (all day|until the sun went down|until it was dark).", "They laughed and played with the $o (all day|all afternoon)."),
    maybe("The next day, $H (came to the house|was there again), and $he2 brought the $o.", "When it was time to go home, $H said, \"(Come back|See you) tomorrow!\"",),
    maybe("$N was never lonely again.", "Now $N had a friend, and $he was (very|) happy."),
    moral("it only takes a few words to make a friend", "it is good to be brave and say hello", "everything is more fun with a friend", "a new friend may be very near"),
]

SEED = [
    ("(One spring day|One day in spring), $newH gave $him a $seed.", "(One day in spring|In spring), $N met $newH, who gave $him a $seed."),
    ('"(Put it in the ground|Plant it) and give it water every day," said $H. "(Then you must wait|But you must be patient)."',),
    ("$N (dug|made) a hole in the garden and put the seed in it.", "So $N planted the seed behind the house."),
    maybe("The next morning, $he ran outside, but there was nothing to see.", "$he looked every morning, but nothing happened."),
    None,
    ('"(Nothing grows|It does not grow)," (said $N|$N told $H)(| sadly). "Maybe the seed is (bad|dead)."',),
    ('"(Wait a little longer|Be patient)," said $H. "(Good things take time|A seed needs time)."',),
    maybe("So $N gave it water (every day|every morning), (in sun and in wind|and $he sang to it).", "(So $N|$N) did not give up. Every (day|morning), $he brought water for the seed."),
    None,
    ("(One morning|Then, one day), a small green leaf (came|looked) out of the ground!",),
    ("It grew and grew, and in summer there was a $plant. $fruit.", "By the end of summer, it was a $plant. $fruit."),
    maybe("$N (called|ran to) $H(| and showed $him2 the $plant), and $he2 smiled.", '"Look!" cried $N, and $H came to see it. $he2 was very proud.'),
    moral("good things take time", "it is good to be patient", "small things can grow big", "you must wait for the best things"),
]

WAY = [
    ("(One day|One afternoon), $his $family2 sent $him to (pick|look for) $picked in the forest.", "(One day|One afternoon), $N went into the forest to (pick|look for) $picked."),
    maybe('"Do not go too far," said $his $family2. "(It gets dark early|Come home before dark)."', "$he had a basket and walked from tree to tree."),
    ("$he found so many $picked that $he (did not look where $he went|forgot the time).", "$N went deeper and deeper into the forest(| and sang a song)."),
    ("When the sun went down, all the trees looked the same. ^$N was lost.", "Then it was dark, and $N could not find the path."),
    None,
    ('"Help! (Is anybody there|Can anybody hear me)?" (called|cried) $N.', "$N (sat down under a tree|sat down on a stone) and cried."),
    ("$newH (heard $him|heard it) and came (down the path|through the trees|out of the dark).",),
    maybe(*GREETING),
    ('"I cannot find my way home," (said $N|$N answered|$he said). "I live $home."',),
    ('"I know the way," said $H. "(Come with me|Stay close to me)."', '"That is not far," said $H. "(Follow me|Come with me)."'),
    None,
    ("They walked (past the big rock|over the bridge|along the river) until they saw (a light|the lights) in the window.",),
    ('$his $family2 (ran out|was waiting at the door). "I am so glad that you are back!" $heF said, and hugged $him.',),
    maybe("$N gave $H (half of the $picked|some of the $picked) to thank $him2.", "They all sat down at the table, and $H (stayed for supper|told a story)."),
    moral("you should not go too far alone", "it is good to listen to those who love you", "kind people can be found everywhere", "home is the best place of all"),
]

EARN = [
    ("(One day|One morning), $N saw a $color $o in the window of a shop.",),
    ('"(How beautiful|What a nice $o)!" (said $N|$he said). But $he had no money.', "$he wanted it very much, but it cost five coins, and $N had (none|only one)."),
    ("$N went to $newH who lived (next door|down the road|by the mill).", "On the way home, $he met $newH."),
    ('"Can I work for you?" asked $N. "I want to buy a $color $o."',),
    ('"(Yes|Gladly)," said $H. "(You can|Please) $chore1 and $chore2."', '"If you $chore1 and $chore2, I will pay you," said $H.'),
    None,
    ("So $N worked hard. $he $did1 and $did2.", "The next day, $N $did1. ^$then, $he $did2."),
    maybe("$he was very tired, but $he thought of the $o and did not stop.", "^$his arms hurt, but $he did not stop."),
    ('"You worked (very well|hard)," said $H, and $he2 gave $him five (shiny|) coins.', "In the evening, $H smiled and gave $him five (shiny|) coins."),
    None,
    ("$N ran to the shop and bought the $o.", "Then $N went back to the shop. The $color $o was still there, and $he bought it."),
    maybe("$he (was so proud that $he showed it to everyone|showed the $o to $H first of all), and (everyone|they both) liked it.", "$N took good care of the $o for many years."),
    moral("work makes a thing worth more", "good things come to those who work for them", "it feels good to earn something", "hard work is worth it"),
]

STORM = [
    ("(One night|One autumn night), a (great|terrible) storm came. The wind (blew hard|was very strong), and the rain fell until morning.",),
    ("When $N went outside, the $building was broken.", "In the morning, the $building had lost its roof."),
    ('"Oh no!" (said|cried) $N. "I cannot build it again alone."', "$N tried to lift the (wood|stones), but $he was too (small|weak)."),
    None,
    ("But $he was not alone for long. $newH came with $tool2.", "Then $newH came down the road with $tool2."),
    ('"(The storm was bad|I saw what happened)," said $H. "(I will help you|Let us build it together)."',),
    maybe("Soon, more neighbors came. Some (carried stones|cut wood), and some (cooked soup|made tea) for everyone.", "$H called the neighbors, and they all came to help."),
    ("$N (carried|brought) the nails, and $H worked (until dark|from morning to night).", "They worked (for three days|until dark), and they sang while they worked."),
    None,
    ("(At last|In the end), the new $building was (ready|finished). It was even stronger than before.", "When it was done, the $building was (bigger|stronger) than before."),
    maybe("They all (ate|sat down) together and $N (made|brought) a (big cake|warm pie) for them.", THANKS[0]),
    maybe("The next storm came, but the $building did not fall."),
    moral("many hands make light work", "together we are strong", "good neighbors are a treasure", "what is broken can be built again"),
]

BROKEN_WAYS = {
    "wood": (("cracked (down the middle|on one side)", "cracked"), "(some glue|a hammer and nails|glue and string)"),
    "cloth": (("got a big hole in it", "torn"), "(a needle and thread|needle and thread)"),
}
BUILDINGS = ("house", "barn", "mill", "hen house", "garden house")
BUILDING_TOOLS = ("a hammer", "a hammer and nails", "a long ladder", "a wagon full of wood", "a big saw")
PICKED = ("berries", "mushrooms", "nuts", "flowers")
