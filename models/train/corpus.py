"""The training text, made from the seed alone: every document is a list of (text, weight) pieces.

The weight says how much predicting that piece counts: answers fully, questions a little, the frame not at all.
"""

import hashlib
import random
import re

import tasks
import talk

QUESTION_WEIGHT = 0.1

RECIPE = [
    (30, talk.product_turn),
    (12, talk.smalltalk_turn),
    (4, talk.follow_up_turns),
    (8, tasks.counting_turn),
    (8, tasks.sum_turn),
]


def render(turns) -> list:
    """The same text that the chat template writes, in pieces with their weights."""
    pieces, frame = [], "<|bos|>"
    for role, content in turns:
        pieces.append((f"{frame}<|im_start|>{role}\n", 0.0))
        if role == "assistant":
            pieces.append((content + "<|im_end|>", 1.0))
            frame = "\n"
        else:
            pieces.append((content, QUESTION_WEIGHT))
            frame = "<|im_end|>\n"
    return pieces


def make_turns(rng) -> list:
    makers = [maker for _, maker in RECIPE]
    shares = [share for share, _ in RECIPE]
    turns = list(rng.choices(makers, shares)[0](rng))
    while rng.random() < 0.25:
        turns += rng.choices(makers, shares)[0](rng)
    return turns


def generate(seed: int, count: int) -> list:
    rng = random.Random(seed)
    return [render(make_turns(rng)) for _ in range(count)]


def digest(documents) -> str:
    state = hashlib.sha256()
    for document in documents:
        for text, weight in document:
            state.update(f"{weight} {text}\0".encode())
        state.update(b"\n")
    return state.hexdigest()


def plain_texts(documents):
    """The pieces without the special tokens, to train the tokenizer on."""
    for document in documents:
        for text, _ in document:
            for part in re.split(r"<\|\w+\|>", text):
                if part:
                    yield part
