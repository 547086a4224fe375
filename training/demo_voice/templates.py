"""Everyday sentences drawn from patterns: greetings, names, numbers, dates, times, money, weather, questions."""

import random

from barkfast.normalize.numbers import (
    MONTHS,
    UNITS,
    spell_digits,
    spell_number,
    spell_ordinal,
    spell_time,
    spell_year,
)

from .work import words


def listed(text: str) -> list[str]:
    """Split a text into phrases at its bars."""
    return text.split("|")


NAMES = words(
    "alice bob anna peter mary john tom sarah david laura mark emma james robert linda michael susan thomas karen "
    "daniel nancy paul lisa george helen kevin julia brian kate edward ruth jack sophia henry grace frank lucy simon "
    "rachel adam martin olivia william elizabeth richard jennifer charles maria joseph margaret steven claire"
)
LAST_NAMES = words("smith brown miller jones wilson taylor clark lewis walker young king wright baker green hill")
TITLES = words("mister miss doctor professor captain")
PLACES = listed(
    "london|paris|boston|chicago|new york|san francisco|berlin|tokyo|rome|texas|california|canada|england|france|"
    "germany|india|china|australia|the airport|the station|the office|the library|the market|the park|the beach|"
    "the museum|the hospital|the hotel|the school|the city|the garden|the post office"
)
THINGS = listed(
    "the cat|the dog|my friend|the teacher|a small bird|the old man|our neighbor|the computer|this program|the car|"
    "the train|the morning news|a glass of water|the red door|the kitchen|my brother|her sister|the new book|the bus|"
    "the river|the picture|his letter|the music|that story|the machine|the window|your phone|the first page|the sun|"
    "the moon|the baby|the doctor|the game|their house|the answer|the question|the model|the voice|the sound|dinner|"
    "the file|the screen|the network|the message|the report|the meeting|the plane|the road|the bridge|the money|"
    "the coffee|the cake|my bag|the key|the light|the table|the chair|the shop|the street|everybody|nobody|it|she|he"
)
STATES = listed(
    "is here|is ready|was late|looks good|sounds great|will be fine|is not working|has arrived|came back home|is gone|"
    "is very quiet|can wait|went away|is on the left|is over there|is too small|was very old|is almost done|is open|"
    "is closed|has changed|doesn't matter|isn't here|won't stop|can't be right|should be better|would be nice|is lost|"
    "was really good|is broken again|starts tomorrow|ended yesterday|is much faster now|is right behind you|is clean|"
    "is not far from here|will come soon|must be ready by monday|was not there|has a problem|is easy to use|is free"
)
PRONOUNS = listed(
    "i am|you are|he is|she is|it is|we are|they are|i'm|you're|he's|she's|it's|we're|they're|i was|you were|we were"
)
ADJECTIVES = listed(
    "happy|tired|ready|sorry|late|busy|hungry|sure|fine|glad|afraid|very well|at home|on the way|not alone|all right|"
    "almost there|out of time|in the kitchen|at work|good friends|twenty years old|not so sure|really surprised|cold|"
    "warm enough|still here|never bored|always right|a little nervous|quite serious|excited about it|too young|done"
)
ACTIONS = listed(
    "open the window|close the door|turn on the light|call me back|read the book|write a letter|go home|take a break|"
    "drink some water|play the piano|learn a new language|watch the news|listen to this|start again|wait for me|"
    "make some tea|buy some bread|send the message|find the answer|speak more slowly|help me|come with us|look at that|"
    "save the file|stop the music|try once more|wash the dishes|walk the dog|catch the train|pay the bill|sing a song|"
    "say that again|tell me a story|sit down|stand up|change the subject|check the weather|count to ten|leave early"
)
WEATHER = listed(
    "sunny|cloudy|rainy|windy|foggy|cold|warm|hot|dry|very cold|quite warm|stormy|snowy|partly cloudy|mostly sunny|"
    "clear and cold|wet and windy|cool|humid|bright"
)
DAYS = words("monday tuesday wednesday thursday friday saturday sunday")
WHEN = listed(
    "today|tomorrow|tonight|this morning|this afternoon|this evening|next week|last night|yesterday|on the weekend|"
    "next year|every day|in the morning|after lunch|before dinner|at night|right now|in a moment|soon|later"
)
QUESTIONS = listed(
    "where is|when is|how is|what about|who saw|have you seen|do you know|did you hear about|what is wrong with|"
    "why is it not|can you see|how much is|do you like|who needs|is that really|are you sure about|do you remember"
)
OPENERS = listed(
    "i think|i hope|i know|i guess|maybe|he said that|she told me that|of course|you know that|we believe that|so|"
    "but|and then|because|it seems that|as you can see,|don't worry,|in fact,|at last|well,|sometimes|they say that"
)
CURRENCY = (("dollar", "cent"), ("pound", "penny"), ("euro", "cent"))
MEASURES = listed(
    "miles|meters|kilometers|minutes|hours|days|weeks|months|years|people|books|percent|degrees|pages|words|seconds|"
    "points|times|feet|inches|pounds|gallons|steps|questions|children|cars|tokens"
)
PHRASES = listed(
    "hello|hello world|hi there|hi|hey|good morning|good evening|good afternoon|good night|thank you|thanks a lot|"
    "thank you very much|welcome|you're welcome|goodbye|bye bye|see you tomorrow|see you later|see you soon|yes|no|"
    "how are you|how do you do|nice to meet you|please wait|this is a test|testing, one two three|okay|yes, please|"
    "no, thanks|excuse me|i'm sorry|i don't know|i don't understand|what did you say|could you repeat that|never mind|"
    "that's all right|what a surprise|congratulations|happy birthday|merry christmas|happy new year|good luck|"
    "take care|have a nice day|have a good time|what time is it|where are you going|how old are you|what is your name|"
    "my name is bark|hello, my name is bark|welcome to bark fast|i am a demo voice|this is the demo voice|"
    "this speech was made by a very small model|i am bark fast|every step ran on your own machine|"
    "every step of speaking this sentence ran on your own machine|the model is very small, but it can speak|"
    "the quick brown fox jumps over the lazy dog|pack my box with five dozen liquor jugs|"
    "how vexingly quick daft zebras jump|the five boxing wizards jump quickly|jackdaws love my big sphinx of quartz|"
    "waltz, bad nymph, for quick jigs vex|bright vixens jump, dozy fowl quack|sphinx of black quartz, judge my vow|"
    "she sells sea shells by the sea shore|peter piper picked a peck of pickled peppers|"
    "how much wood would a woodchuck chuck|the rain in spain stays mainly in the plain|"
    "to be or not to be, that is the question|once upon a time there was a king|all good things come to an end|"
    "an apple a day keeps the doctor away|actions speak louder than words|better late than never|time flies|"
    "the early bird catches the worm|practice makes perfect|where there is smoke, there is fire|"
    "the weather is nice today|it is raining again|the train leaves in ten minutes|i would like a cup of coffee|"
    "can i help you|let me think about it|that sounds like a good idea|it doesn't matter|i can't believe it|"
    "we will see|you never know|i'll be right back|let's go|come on|wait a minute|just a moment|here you are|"
    "there you go|it's up to you|what do you mean|what happened|who are you|why not|how does it work|is it far"
)


def _plural(n: int, word: str) -> str:
    if n == 1:
        return word
    return "pence" if word == "penny" else f"{word}s"


def _number(rng: random.Random) -> int:
    """0 to 999,999, below a random power of ten."""
    return rng.randrange(10 ** rng.randint(1, 6))


def _date(rng: random.Random) -> str:
    month, day = rng.choice(MONTHS), spell_ordinal(rng.randint(1, 31))
    date = f"{month} {day}" if rng.random() < 0.5 else f"the {day} of {month}"
    return f"{date}, {spell_year(rng.randint(1100, 2099))}" if rng.random() < 0.5 else date


def _time(rng: random.Random) -> str:
    hour = rng.randint(1, 12)
    kind = rng.randrange(4)
    if kind == 0:
        past = rng.choice(["half past", "a quarter past", "a quarter to", "ten past", "five to", "twenty to"])
        return f"{past} {UNITS[hour]}"
    return spell_time(hour, rng.choice([0, rng.randrange(60)])) + (rng.choice([" a m", " p m"]) if kind == 1 else "")


def _money(rng: random.Random) -> str:
    whole, part = rng.choice(CURRENCY)
    n, m = rng.randrange(1, 10 ** rng.randint(1, 5)), rng.randrange(1, 100)
    money = f"{spell_number(n)} {_plural(n, whole)}"
    return f"{money} and {spell_number(m)} {_plural(m, part)}" if rng.random() < 0.4 else money


def _person(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return f"{rng.choice(TITLES)} {rng.choice(LAST_NAMES)}"
    return f"{rng.choice(NAMES)} {rng.choice(LAST_NAMES)}" if kind == 1 else rng.choice(NAMES)


def _statement(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return f"{rng.choice(PRONOUNS)} {rng.choice(ADJECTIVES)}"
    if kind == 1:
        who = rng.choice(["i want to", "we have to", "you can", "let's", "please", "i'd like to", "they will", "don't"])
        return f"{who} {rng.choice(ACTIONS)}"
    return f"{rng.choice(THINGS)} {rng.choice(STATES)}"


def draw_sentence(rng: random.Random) -> str:
    """One sentence of a random pattern, lower case, `,` `.` `?` `!` and `'` its only marks."""
    kind = rng.randrange(24)
    if kind == 0:
        return f"{rng.choice(PHRASES[:26])}, {_person(rng)}."
    if kind == 1:
        return f"{rng.choice(['my name is', 'this is', 'i am', 'have you met', 'ask'])} {_person(rng)}."
    if kind == 2:
        return f"{spell_number(_number(rng))}."
    if kind == 3:
        return f"{spell_digits(''.join(rng.choice('0123456789') for _ in range(rng.randint(2, 7))))}."
    if kind == 4:
        what = rng.choice(["about", "there are", "we need", "more than", "it took", "only", "at least"])
        return f"{what} {spell_number(_number(rng))} {rng.choice(MEASURES)}."
    if kind == 5:
        return f"{rng.choice(['today is', 'it was on', 'we met on', 'the date is', 'born on'])} {_date(rng)}."
    if kind == 6:
        return f"{rng.choice(['see you at', 'it is', 'the train leaves at', 'come at', 'now it is'])} {_time(rng)}."
    if kind == 7:
        return f"{rng.choice(['it costs', 'that makes', 'i paid', 'you owe me', 'the price is'])} {_money(rng)}."
    if kind == 8:
        return (
            f"{rng.choice(['see you on', 'it starts on', 'the shop is closed on', 'call me on'])} {rng.choice(DAYS)}."
        )
    if kind == 9:
        return f"{rng.choice(['in', 'since', 'the year is', 'it happened in'])} {spell_year(rng.randint(1100, 2099))}."
    if kind == 10:
        place, day = rng.choice(PLACES[:18]), rng.choice(WHEN + DAYS)
        return f"the weather in {place} is {rng.choice(WEATHER)} {day}."
    if kind == 11:
        return f"it will be {rng.choice(WEATHER)} {rng.choice(WHEN)}, {spell_number(rng.randrange(100))} degrees."
    if kind == 12:
        return f"{rng.choice(QUESTIONS)} {rng.choice(THINGS[:-5])}?"
    if kind == 13:
        start = rng.choice(["can you", "will you", "why don't you", "could you please", "should we", "do you want to"])
        return f"{start} {rng.choice(ACTIONS)}?"
    if kind == 14:
        who = rng.choice(["we went", "he drove", "they moved", "i am going", "she flew", "let's walk"])
        return f"{who} to {rng.choice(PLACES)} {rng.choice(WHEN)}."
    if kind == 15:
        return f"{_person(rng)} said that {_statement(rng)}."
    if kind == 16:
        return f"{rng.choice(OPENERS)} {_statement(rng)}{rng.choice(['.', '!'])}"
    if kind == 17:
        return f"{_statement(rng)}, {rng.choice(['and', 'but', 'so', 'because', 'or'])} {_statement(rng)}."
    if kind == 18:
        return f"{_statement(rng)} {rng.choice(WHEN)}."
    if kind == 19:
        return f"{rng.choice(PHRASES)}{rng.choice(['.', '!', '?', ''])}"
    if kind == 20:
        letters = " ".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 5)))
        return f"{letters}."
    if kind == 21:
        n = spell_ordinal(rng.randint(1, 10 ** rng.randint(1, 3)))
        return f"the {n} {rng.choice(['time', 'day', 'page', 'floor', 'chapter', 'place', 'street', 'question'])}."
    if kind == 22:
        return f"is {_person(rng)} {rng.choice(['here', 'at home', 'ready', 'coming', 'your friend', 'late'])}?"
    return f"{spell_number(rng.randrange(100))} point {spell_digits(str(rng.randrange(100)))} percent."
