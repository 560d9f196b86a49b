"""Questions and answers from the text folder."""

import pathlib

from phrasing import phrase, upper_first

TEXT = pathlib.Path(__file__).parent / "text"

NAME_QUESTIONS = [
    "what is {}", "what is {}", "what is {}", "what does {} mean", "explain {}", "can you explain {}", "define {}",
    "tell me about {}", "how does {} work", "what's {}", "what do you know about {}", "describe {}", "{}",
    "what is {} in Sublet", "what does {} mean in Sublet", "what is meant by {}", "explain {} to me",
    "give me a definition of {}", "explain {} in simple words", "I want to know about {}", "why is there {}",
    "what is the meaning of {}", "could you tell me about {}", "what are {}", "please explain {}", "tell me more about {}",
    "I do not understand {}", "can you tell me what {} is", "do you know what {} is", "what exactly is {}", "help me understand {}",
    "explain {} in one sentence", "explain {} briefly", "what is {} and why does it matter", "explain what {} is",
]
LONG_QUESTIONS = [
    "explain {} in detail", "tell me everything about {}", "write a paragraph about {}", "give me a long explanation of {}",
    "describe {} in detail", "explain {} with all details", "how does {} work in detail", "tell me a lot about {}",
]
DIFFERENCE_QUESTIONS = [
    "what is the difference between {} and {}", "compare {} and {}", "what is {} and what is {}", "explain {} and {}", "how do {} and {} differ",
]
ESSAY_QUESTIONS = [
    "write a long essay about Sublet", "tell me everything you know", "write an essay about idle GPUs",
    "tell me everything you know about Sublet", "explain everything", "write a very long answer", "give me a long answer",
    "write a long text", "write a report about Sublet", "explain all of Sublet in detail", "write as much as you can",
    "write a manual for Sublet", "write a long article about Sublet", "write a long essay", "talk for a long time",
    "give me a glossary of Sublet", "explain all the words of Sublet", "generate a lot of text", "write 500 words about Sublet",
    "write 1000 words", "write a blog post about Sublet", "write a detailed essay about AI infrastructure",
]

def read_blocks(name: str) -> list:
    """Each block is a dict from key to its list of values."""
    blocks = []
    for chunk in (TEXT / name).read_text().split("\n\n"):
        block = {}
        for line in chunk.splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            key, _, value = line.partition(":")
            values = [value.strip()] if key in ("say", "long") else [part.strip() for part in value.split(" | ")]
            block.setdefault(key, []).extend(values)
        if block:
            blocks.append(block)
    return blocks


PRODUCT = read_blocks("product.txt") + read_blocks("operations.txt")
SMALLTALK = read_blocks("smalltalk.txt")
FACTS = read_blocks("facts.txt")


def topic_question(rng, block) -> str:
    if "ask" in block and rng.random() < 0.42:
        return phrase(rng, rng.choice(block["ask"]))
    names = block["name"]
    name = names[0] if rng.random() < 0.5 else rng.choice(names)
    return phrase(rng, rng.choice(NAME_QUESTIONS).format(name))


def product_turn(rng) -> list:
    block = PRODUCT[0] if rng.random() < 0.07 else rng.choice(PRODUCT)
    if "long" in block and rng.random() < 0.3:
        return [("user", phrase(rng, rng.choice(LONG_QUESTIONS).format(rng.choice(block["name"])))), ("assistant", block["long"][0])]
    return [("user", topic_question(rng, block)), ("assistant", rng.choice(block["say"]))]


def follow_up_turns(rng) -> list:
    """A question, then "tell me more"."""
    block = rng.choice(PRODUCT)
    answers = block["say"][:]
    rng.shuffle(answers)
    more = rng.choice(["tell me more", "more", "go on", "can you say more", "please continue", "what else", "and", "explain it again"])
    last = block["long"][0] if "long" in block and rng.random() < 0.6 else answers[1]
    return [("user", topic_question(rng, block)), ("assistant", answers[0]), ("user", phrase(rng, more)), ("assistant", last)]


def first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".") + "."


def difference_turn(rng) -> list:
    """The first sentence about one thing, then the first sentence about the other."""
    one, two = rng.sample(PRODUCT, 2)
    question = rng.choice(DIFFERENCE_QUESTIONS).format(one["name"][0], two["name"][0])
    return [("user", phrase(rng, question)), ("assistant", f"{first_sentence(one['say'][0])} {first_sentence(two['say'][0])}")]


def essay_turn(rng) -> list:
    paragraphs = rng.choice([5, 6, 8, 10, 12, 16])
    blocks = rng.sample(PRODUCT[1:], paragraphs)
    parts = [rng.choice(PRODUCT[0]["say"])]
    parts += [rng.choice(block.get("long", block["say"])) if rng.random() < 0.7 else rng.choice(block["say"]) for block in blocks]
    return [("user", phrase(rng, rng.choice(ESSAY_QUESTIONS))), ("assistant", "\n\n".join(parts))]


def smalltalk_turn(rng) -> list:
    block = rng.choice(SMALLTALK[:1] if rng.random() < 0.06 else SMALLTALK[:20] if rng.random() < 0.4 else SMALLTALK)
    return [("user", phrase(rng, rng.choice(block["ask"]))), ("assistant", rng.choice(block["say"]))]


def fact_turn(rng) -> list:
    block = rng.choice(FACTS)
    return [("user", phrase(rng, rng.choice(block["ask"]))), ("assistant", rng.choice(block["say"]))]
