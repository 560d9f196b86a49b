"""The training text, made from the seed alone: every document is a list of (text, weight) pieces.

The weight says how much predicting that piece counts: answers fully, questions a little, the frame not at all.
"""

import hashlib
import random
import re

import stories
import tables
import talk
import tasks
import tools

QUESTION_WEIGHT = 0.1

# Shares of turns, not of tokens: the long answers are rare and long.
RECIPE = [
    (290, talk.product_turn),
    (15, talk.difference_turn),
    (120, talk.smalltalk_turn),
    (25, talk.fact_turn),
    (80, tasks.counting_turn),
    (120, tasks.sum_turn),
    (3, tasks.table_turn),
    (100, tasks.copy_turn),
    (36, tasks.list_turn),
    (25, tasks.table_fact_turn),
    (25, tasks.language_turn),
    (14, tasks.json_turn),
    (65, tasks.unknown_turn),
    (25, stories.poem_turn),
    (14, stories.story_turn),
]
# Conversations of their own shape; the rest are turns of the recipe, one after another.
SPECIAL_SHAPES = [
    (18, talk.follow_up_turns),
    (30, lambda rng: tasks.name_turns(rng, recipe_turn)),
    (14, tasks.persona_turns),
    (50, tools.tool_turns),
    (7, talk.essay_turn),
    (7, stories.long_story_turn),
    (9, tasks.long_counting_turn),
    (2, tasks.endless_counting_turn),
    (2, tasks.endless_copy_turn),
    (3, tasks.long_list_turn),
]
SPECIAL_CHANCE = 0.14
MORE_TURNS_CHANCE = 0.3
SYSTEM_CHANCE = 0.15
PROSE_CHANCE = 0.03
DRILL_CHANCE = 0.03


def pick(rng, shares):
    return rng.choices([maker for _, maker in shares], [share for share, _ in shares])[0](rng)


def recipe_turn(rng) -> list:
    return pick(rng, RECIPE)


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


def make_conversation(rng) -> list:
    if rng.random() < SPECIAL_CHANCE:
        turns = pick(rng, SPECIAL_SHAPES)
    else:
        turns = recipe_turn(rng)
    while rng.random() < MORE_TURNS_CHANCE:
        turns = turns + recipe_turn(rng)
    if turns[0][0] != "system" and rng.random() < SYSTEM_CHANCE:
        system = tools.unused_tools(rng) if rng.random() < 0.25 else ("system", rng.choice(tables.SYSTEM_PROMPTS))
        turns = [system] + turns
    return turns


def make_prose(rng) -> list:
    """Text without a conversation around it, for plain completions."""
    maker = rng.choice([stories.story_turn, stories.poem_turn, tasks.counting_turn, talk.product_turn, talk.product_turn])
    return [("<|bos|>", 0.0), (maker(rng)[-1][1] + "<|im_end|>", 1.0)]


def make_drill(rng) -> list:
    """Random words, then the same words again: nothing but copying helps, so the model learns to copy early."""
    words = tasks.random_words(rng, rng.randint(8, 30))
    return [("<|bos|>" + words, 0.0), (f" {words} {words}", 1.0), ("<|im_end|>", 0.0)]


def make_document(rng) -> list:
    chance = rng.random()
    if chance < DRILL_CHANCE:
        return make_drill(rng)
    if chance < DRILL_CHANCE + PROSE_CHANCE:
        return make_prose(rng)
    return render(make_conversation(rng))


def generate(seed: int, count: int) -> list:
    rng = random.Random(seed)
    return [make_document(rng) for _ in range(count)]


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
