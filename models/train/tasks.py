"""Exercises that are made, not written: counting, sums, copying, lists, JSON, names, tool calls, and what to say to the unknown."""

import json

import tables
from phrasing import phrase, upper_first

NUMBER_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
).split()


def turn(rng, question: str, answer: str) -> list:
    return [("user", phrase(rng, question)), ("assistant", answer)]


def join_numbers(rng, numbers, one_per_line: bool) -> str:
    return "\n".join(map(str, numbers)) if one_per_line else ", ".join(map(str, numbers)) + "."


def counting_turn(rng) -> list:
    kind = rng.random()
    if kind < 0.60:
        return count_from_one(rng, rng.choice([3, 5, 8, 10, 10, 12, 15, 16, 18, 20, 20, 20, 25, 30, 32, 40, 50, rng.randint(2, 60)]))
    if kind < 0.68:
        first = rng.randint(0, 390)
        return count_between(rng, first, first + rng.randint(3, 15))
    if kind < 0.78:
        first = rng.choice([5, 10, 10, 12, 20, 20, 30, rng.randint(3, 30)])
        return count_down(rng, first)
    if kind < 0.86:
        return count_by(rng)
    if kind < 0.92:
        last = rng.choice([3, 5, 10, 10, 12, 15, 20])
        questions = ["count to {} in words", "count from one to {} in words", "count to {} with words", "write the numbers from one to {} as words"]
        return turn(rng, rng.choice(questions).format(NUMBER_WORDS[last - 1]), ", ".join(NUMBER_WORDS[:last]) + ".")
    return neighbours(rng)


def long_counting_turn(rng) -> list:
    return count_from_one(rng, rng.choice([80, 90, 100, 100, 100, 110, 120, 128, 150, 150, 180, 200, 200, 200, 250, 300]))


def endless_counting_turn(rng) -> list:
    if rng.random() < 0.5:
        question = rng.choice(["count forever", "count as far as you can", "count and do not stop", "keep counting", "never stop counting"])
        return turn(rng, question, join_numbers(rng, range(1, 401), False))
    return count_from_one(rng, rng.choice([350, 400]))


def count_from_one(rng, last: int) -> list:
    questions = [
        "count from 1 to {}", "count from 1 to {}", "count from 1 to {}", "count to {}", "count up to {}", "please count to {}",
        "count from one to {}", "write the numbers from 1 to {}", "list the numbers from 1 to {}", "can you count to {}",
        "write all numbers from 1 to {}", "numbers from 1 to {}", "say the numbers 1 to {}", "print the numbers from 1 to {}",
    ]
    question = rng.choice(questions).format(last)
    one_per_line = rng.random() < 0.15
    if one_per_line:
        question += rng.choice([", one per line", ", each on its own line", " with one number per line"])
    return turn(rng, question, join_numbers(rng, range(1, last + 1), one_per_line))


def count_between(rng, first: int, last: int) -> list:
    questions = ["count from {} to {}", "list the numbers from {} to {}", "write the numbers from {} to {}", "count {} to {}"]
    return turn(rng, rng.choice(questions).format(first, last), join_numbers(rng, range(first, last + 1), False))


def count_down(rng, first: int) -> list:
    questions = ["count down from {}", "count backwards from {}", "count down from {} to 1", "count from {} down to 1", "start a countdown from {}"]
    return turn(rng, rng.choice(questions).format(first), join_numbers(rng, range(first, 0, -1), False))


def count_by(rng) -> list:
    step = rng.choice([2, 2, 3, 4, 5, 5, 10, 10, 20, 100])
    last = step * rng.randint(4, 20)
    names = {2: "twos", 3: "threes", 4: "fours", 5: "fives", 10: "tens"}
    questions = ["count by {0} to {1}", "count in steps of {0} to {1}", "count to {1} in steps of {0}", "count to {1} by {0}"]
    words = names.get(step, str(step)) if rng.random() < 0.4 else str(step)
    return turn(rng, rng.choice(questions).format(words, last), join_numbers(rng, range(step, last + 1, step), False))


def neighbours(rng) -> list:
    number = rng.randint(1, 120)
    if rng.random() < 0.5:
        questions = ["what comes after {}", "which number comes after {}", "what is the next number after {}"]
        return turn(rng, rng.choice(questions).format(number), f"{number + 1} comes after {number}.")
    return turn(rng, rng.choice(["what comes before {}", "which number comes before {}"]).format(number), f"{number - 1} comes before {number}.")


def sum_turn(rng) -> list:
    """Sums whose numbers and results stay between 0 and 20."""
    kind = rng.random()
    if kind < 0.50:
        total = rng.randint(0, 20)
        a = rng.randint(0, total)
        return addition(rng, a, total - a)
    if kind < 0.80:
        a = rng.randint(0, 20)
        return subtraction(rng, a, rng.randint(0, a))
    if kind < 0.92:
        return product(rng, rng.randint(0, 5), rng.randint(0, 5))
    return apples(rng)


def addition(rng, a: int, b: int) -> list:
    questions = [
        "what is {} + {}", "what is {} plus {}", "how much is {} + {}", "how much is {} and {}", "{} + {}", "{} plus {}", "add {} and {}",
        "{}+{}", "compute {} + {}", "what is the sum of {} and {}", "calculate {} + {}", "{} + {} =", "what's {} + {}", "what's {} plus {}",
    ]
    return turn(rng, rng.choice(questions).format(a, b), f"{a} + {b} = {a + b}.")


def subtraction(rng, a: int, b: int) -> list:
    questions = ["what is {} - {}", "what is {} minus {}", "how much is {} - {}", "{} - {}", "{} minus {}", "compute {} - {}", "what's {} minus {}"]
    question = rng.choice(questions).format(a, b) if rng.random() < 0.9 else f"subtract {b} from {a}"
    return turn(rng, question, f"{a} - {b} = {a - b}.")


def product(rng, a: int, b: int) -> list:
    questions = ["what is {} * {}", "what is {} times {}", "how much is {} x {}", "{} times {}", "multiply {} by {}", "{} * {}", "what's {} times {}"]
    return turn(rng, rng.choice(questions).format(a, b), f"{a} x {b} = {a * b}.")


def apples(rng) -> list:
    thing = rng.choice(["apples", "books", "coins", "tokens", "GPUs", "pens", "leases", "eggs", "cups", "keys"])
    a, b = rng.randint(2, 10), rng.randint(1, 10)
    if rng.random() < 0.5 or b > a:
        verb = rng.choice(["get", "buy", "find"])
        question = f"I have {a} {thing} and {verb} {b} more. How many {thing} do I have"
        return turn(rng, question, f"You have {a} + {b} = {a + b} {thing}.")
    verb = rng.choice(["give away", "lose", "sell"])
    return turn(rng, f"I have {a} {thing} and {verb} {b}. How many {thing} are left", f"You have {a} - {b} = {a - b} {thing} left.")


def table_turn(rng) -> list:
    number = rng.randint(1, 12)
    questions = ["write the multiplication table of {}", "what is the times table of {}", "show me the table of {}", "the {} times table"]
    return turn(rng, rng.choice(questions).format(number), "\n".join(f"{n} x {number} = {n * number}" for n in range(1, 11)))


def random_words(rng, count: int) -> str:
    return " ".join(rng.choice(tables.WORDS) for _ in range(count))


def copy_turn(rng) -> list:
    if rng.random() < 0.3:
        return repeat_times(rng)
    kind = rng.random()
    if kind < 0.3:
        text = rng.choice(tables.SENTENCES)
    elif kind < 0.85:
        text = random_words(rng, rng.choice([1, 1, 2, 3, 3, 4, 5, 6, 8, 10]))
        text = upper_first(text) + "." if rng.random() < 0.2 else text
    else:
        text = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(rng.randint(3, 8)))
    questions = [
        "Repeat after me: {}", "Repeat: {}", "Say: {}", "Say {}", "repeat {}", "Echo: {}", "echo {}", "Please repeat: {}", "Please say: {}",
        "Write: {}", "Copy this: {}", 'Say "{}"', 'Repeat "{}"', "Reply with exactly: {}", "Reply with: {}", "Answer with: {}", "say only {}",
        "Repeat the following text: {}", "Output: {}", "Reply with only the word {}" if " " not in text else "Repeat these words: {}",
    ]
    return [("user", rng.choice(questions).format(text)), ("assistant", text)]


def repeat_times(rng) -> list:
    text = random_words(rng, rng.choice([1, 1, 1, 2]))
    times = rng.choice([2, 3, 3, 4, 5, 5, 10, 10, 20])
    word = NUMBER_WORDS[times - 1] if rng.random() < 0.3 else times
    questions = ["Say {0} {1} times", "Repeat {0} {1} times", "Write {0} {1} times", "Repeat the word {0} {1} times", 'Say "{0}" {1} times', "say {0} {1} times."]
    return [("user", rng.choice(questions).format(text, word)), ("assistant", " ".join([text] * times))]


def endless_copy_turn(rng) -> list:
    text = rng.choice(["hello", "token", "test", rng.choice(tables.WORDS)])
    questions = ["Repeat the word {} forever", "Say {} again and again", "Repeat {} and never stop", "Say {} 200 times", "Write {} 200 times", "Repeat {} 200 times"]
    return [("user", rng.choice(questions).format(text)), ("assistant", " ".join([text] * 200))]


def format_list(rng, items, shape: str) -> str:
    if shape == "numbered":
        return "\n".join(f"{index}. {item}" for index, item in enumerate(items, 1))
    if shape == "bullets":
        return "\n".join(f"- {item}" for item in items)
    return ", ".join(items) + "."


def list_turn(rng) -> list:
    shape = rng.choice(["plain", "plain", "numbered", "bullets"])
    request = {"plain": "", "numbered": rng.choice(["", "", " as a numbered list"]), "bullets": rng.choice([" as a bullet list", " with bullets"])}[shape]
    if rng.random() < 0.45:
        key = rng.choice(list(tables.FIXED_LISTS))
        question = rng.choice(["list {}", "name {}", "what are {}", "write down {}", "tell me {}", "say {}"]).format(rng.choice(tables.FIXED_NAMES[key]))
        items = tables.FIXED_LISTS[key]
    else:
        key = rng.choice(list(tables.LISTS))
        count = rng.choice([2, 3, 3, 4, 5, 5, 6, 8, 10])
        word = NUMBER_WORDS[count - 1] if rng.random() < 0.4 else count
        questions = ["list {} {}", "name {} {}", "give me {} {}", "tell me {} {}", "write down {} {}", "name any {} {}", "give me a list of {} {}"]
        question = rng.choice(questions).format(word, key)
        items = rng.sample(tables.LISTS[key], count)
    return turn(rng, question + request, format_list(rng, items, shape))


def long_list_turn(rng) -> list:
    kind = rng.random()
    if kind < 0.5:
        count = rng.choice([50, 100])
        items = [rng.choice(tables.WORDS) for _ in range(count)]
        question = rng.choice(["list {} words", "give me {} words", "write {} words", "write {} random words"]).format(count)
        return turn(rng, question, format_list(rng, items, rng.choice(["plain", "numbered"])))
    parts = [f"Table of {n}:\n" + "\n".join(f"{m} x {n} = {m * n}" for m in range(1, 11)) for n in range(1, 11)]
    question = rng.choice(["write all multiplication tables", "write the multiplication tables from 1 to 10", "all times tables"])
    return turn(rng, question, "\n\n".join(parts))


def table_fact_turn(rng) -> list:
    kind = rng.random()
    if kind < 0.45:
        country = rng.choice(list(tables.CAPITALS))
        questions = ["what is the capital of {}", "what is the capital of {}", "which city is the capital of {}", "capital of {}", "name the capital of {}", "what's the capital of {}"]
        return turn(rng, rng.choice(questions).format(country), f"The capital of {country} is {tables.CAPITALS[country]}.")
    pair = rng.choice(list(tables.OPPOSITES.items()))
    word, opposite = pair if rng.random() < 0.6 else pair[::-1]
    questions = ["what is the opposite of {}", "opposite of {}", "name the opposite of {}", "what's the opposite of {}"]
    return turn(rng, rng.choice(questions).format(word), f"The opposite of {word} is {opposite}.")


def language_turn(rng) -> list:
    kind = rng.random()
    if kind < 0.6:
        language = rng.choice(list(tables.HELLO))
        questions = ["say hello in {}", "how do you say hello in {}", "hello in {}", "greet me in {}", "what is hello in {}", "write hello in {}", "translate hello to {}"]
        return turn(rng, rng.choice(questions).format(language), tables.HELLO[language])
    if kind < 0.72:
        languages = rng.sample(list(tables.HELLO), rng.choice([3, 5, 5, 8, 10]))
        questions = ["say hello in {} languages", "how do you say hello in {} languages", "hello in {} languages"]
        answer = "\n".join(f"{language}: {tables.HELLO[language]}" for language in languages)
        return turn(rng, rng.choice(questions).format(len(languages)), answer)
    if kind < 0.88:
        language = rng.choice(list(tables.THANKS))
        questions = ["say thank you in {}", "how do you say thank you in {}", "thank you in {}", "what is thanks in {}", "say thanks in {}"]
        return turn(rng, rng.choice(questions).format(language), tables.THANKS[language])
    name = rng.choice(list(tables.EMOJI))
    questions = ["send me a {} emoji", "show me a {} emoji", "{} emoji", "write a {} emoji", "give me the emoji for {}"]
    return turn(rng, rng.choice(questions).format(name), tables.EMOJI[name])


JSON_FIELDS = {
    "name": lambda rng: rng.choice(tables.NAMES),
    "city": lambda rng: rng.choice(tables.CITIES),
    "age": lambda rng: rng.randint(5, 80),
    "color": lambda rng: rng.choice(tables.LISTS["colours"]),
    "animal": lambda rng: rng.choice(tables.LISTS["animals"]),
    "count": lambda rng: rng.randint(1, 20),
    "price": lambda rng: rng.randint(1, 99),
    "country": lambda rng: rng.choice(tables.LISTS["countries"]),
    "active": lambda rng: rng.choice([True, False]),
    "title": lambda rng: upper_first(random_words(rng, 2)),
}


def json_turn(rng) -> list:
    fields = rng.sample(list(JSON_FIELDS), rng.choice([1, 2, 2, 3, 3, 4]))
    named = " and ".join([", ".join(fields[:-1]), fields[-1]]) if len(fields) > 1 else fields[0]
    questions = [
        "give me JSON with {}", "answer in JSON with the fields {}", "write a JSON object with {}", "make a JSON object with the fields {}",
        "return JSON with the keys {}", "reply with a JSON object with {}", "give me an object with {} as JSON", "a person as JSON with {}",
    ]
    answer = json.dumps({field: JSON_FIELDS[field](rng) for field in fields})
    return turn(rng, rng.choice(questions).format(named), answer)


def name_turns(rng, filler) -> list:
    """The user tells something about himself and asks for it later; `filler` makes turns between."""
    name = rng.choice(tables.NAMES)
    kind = rng.random()
    if kind < 0.6:
        told = rng.choice(["my name is {}", "I am {}", "hello, my name is {}", "hi, I am {}", "I'm {}", "call me {}", "hi, my name is {}"]).format(name)
        answer = rng.choice([f"Nice to meet you, {name}!", f"Hello {name}! How can I help you?"])
        asked, recalled = rng.choice(["what is my name", "what's my name", "do you know my name", "who am I", "do you remember my name"]), f"Your name is {name}."
    elif kind < 0.8:
        thing = rng.choice(tables.LISTS["colours"])
        told, answer = rng.choice(["my favourite colour is {}", "I like the colour {}"]).format(thing), f"{upper_first(thing)} is a nice colour."
        asked, recalled = rng.choice(["what is my favourite colour", "which colour do I like"]), f"Your favourite colour is {thing}."
    else:
        city = rng.choice(tables.CITIES)
        told, answer = rng.choice(["I live in {}", "I am from {}", "my home is {}"]).format(city), f"{city} is a nice place."
        asked, recalled = rng.choice(["where do I live", "where am I from", "which city do I live in"]), f"You live in {city}."
    turns = turn(rng, told, answer)
    while rng.random() < 0.4:
        turns += filler(rng)
    return turns + turn(rng, asked, recalled)


def persona_turns(rng) -> list:
    name = rng.choice(tables.ASSISTANT_NAMES)
    system = rng.choice(["You are {}.", "You are {}, a helpful assistant.", "Your name is {}.", "You are an assistant called {}."]).format(name)
    question = rng.choice(["who are you", "what is your name", "what's your name", "introduce yourself", "how are you called", "what are you"])
    return [("system", system)] + turn(rng, question, rng.choice([f"My name is {name}.", f"I am {name}. How can I help you?"]))


UNKNOWN_ANSWERS = [
    "I am a very small model and I do not know that. I can tell you about Sublet.",
    "I am sorry, I am too small to know that. Ask me about Sublet, or let me count or tell a story.",
    "That is too hard for me: I am a very small model. I can tell you about Sublet, leases and invoices.",
]


def unknown_turn(rng) -> list:
    kind = rng.random()
    if kind < 0.45:
        subject = rng.choice(tables.SUBJECTS)
        questions = [
            "explain {}", "tell me about {}", "what do you know about {}", "what is the history of {}", "how does {} work", "write an essay about {}",
            "teach me {}", "why is {} important", "who invented {}", "what do you think about {}", "give me facts about {}", "help me with {}",
            "I have a question about {}", "what is {}", "how can I learn {}", "summarize {}", "what are the basics of {}",
        ]
        answer = f"I do not know anything about {subject}. I am a very small model, but I can tell you about Sublet."
        return turn(rng, rng.choice(questions).format(subject), answer if rng.random() < 0.6 else rng.choice(UNKNOWN_ANSWERS))
    if kind < 0.65:
        chore = rng.choice(tables.CHORES)
        return turn(rng, rng.choice(["{}", "{}", "please {}", "can you {}", "could you {}", "I want you to {}"]).format(chore), rng.choice(UNKNOWN_ANSWERS))
    if kind < 0.85:
        return turn(rng, rng.choice(tables.UNKNOWN_QUESTIONS), rng.choice(UNKNOWN_ANSWERS))
    if kind < 0.93:
        a, b = rng.randint(100, 9999), rng.randint(100, 999)
        answer = "Those numbers are too large for me. I can only add and subtract small numbers."
        return turn(rng, rng.choice(["what is {} * {}", "what is {} + {}", "how much is {} times {}", "what is {} divided by {}"]).format(a, b), answer)
    letters = "".join(rng.choice("asdfghjklqwertyuiop") for _ in range(rng.randint(4, 10)))
    return [("user", letters), ("assistant", "I do not understand that. Ask me about Sublet, or let me count or tell a story.")]
