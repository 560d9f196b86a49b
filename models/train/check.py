"""Asks the shipped model questions that it must answer, and measures what it can do: check.py FOLDER.

Two parts: named prompts with words that the answer must contain (at least NAMED_MIN of them), and shares of right answers on made exercises,
most of which were in the training text in another wording. Greedy decoding. The exit status is 1 if too few named prompts are
answered.
"""

import pathlib
import random
import sys

import corpus
import tasks
import talk
from sample import Decoder

COUNT_TO_200 = ", ".join(map(str, range(1, 201)))
NAMED = [
    ("Hello", ["help"]),
    ("Who are you?", ["sublet-mini"]),
    ("What is Sublet?", ["idle"]),
    ("Explain notice classes", ["notice", "n0"]),
    ("What is a lease?", ["right to use capacity"]),
    ("What is a hold?", ["before"]),
    ("What is a charge?", ["meter"]),
    ("What is an invoice?", ["charges"]),
    ("Write a haiku about idle GPUs.", ["\n"]),
    ("Count from 1 to 20.", [", ".join(map(str, range(1, 21)))]),
    ("count from 1 to 200", [COUNT_TO_200]),
    ("Say hello in French.", ["Bonjour"]),
    ("Say hello in Japanese.", ["こんにちは"]),
    ("What is 7 + 5?", ["12"]),
    ("what is 9 minus 4", ["5"]),
    ("Repeat after me: the silver bridge", ["the silver bridge"]),
    ("List the days of the week.", ["Monday", "Sunday"]),
    ("What is the capital of France?", ["Paris"]),
    ("Who won the football match in Brazil last night?", ["small"]),
    ("How do I start Sublet?", ["sublet up"]),
]
LONG = [("Tell me a long story.", 300), ("Write a long essay about Sublet.", 300), ("count forever", 1000)]
EXERCISES = [
    ("sums", tasks.sum_turn, 40), ("counting", tasks.counting_turn, 20), ("copying", tasks.copy_turn, 40),
    ("plain facts", tasks.table_fact_turn, 20),
]
SEED = 77
# Of the prompts in NAMED and LONG. The committed weights answer 20.
NAMED_MIN = 20


def user(text: str) -> list:
    return [{"role": "user", "content": text}]


def check_named(decoder: Decoder) -> int:
    failures = 0
    for prompt, wanted in NAMED:
        text, tokens = decoder.answer(user(prompt), 1200)
        right = all(part.lower() in text.lower() for part in wanted)
        failures += not right
        print(f"{'ok  ' if right else 'FAIL'} [{tokens:4} tokens] {prompt} -> {text[:150]!r}")
    for prompt, tokens_min in LONG:
        text, tokens = decoder.answer(user(prompt), 2000)
        failures += tokens < tokens_min
        print(f"{'ok  ' if tokens >= tokens_min else 'FAIL'} [{tokens:4} tokens] {prompt} -> {text[:60]!r} ... {text[-60:]!r}")
    return failures


def measure(decoder: Decoder) -> None:
    for name, maker, count in EXERCISES:
        rng, right = random.Random(SEED), 0
        for _ in range(count):
            (_, question), (_, wanted) = maker(rng)
            right += decoder.answer(user(question), 300)[0] == wanted
        print(f"{name}: {right} of {count} right")
    rng, right = random.Random(SEED), 0
    for block in rng.sample(talk.PRODUCT, 40):
        text, _ = decoder.answer(user(talk.topic_question(rng, block)), 200)
        right += text in block["say"] + block.get("long", [])
    print(f"product questions: {right} of 40 answered with an answer of their topic, word for word")


def main() -> None:
    decoder = Decoder(pathlib.Path(sys.argv[1]))
    failures = check_named(decoder)
    measure(decoder)
    answered = len(NAMED) + len(LONG) - failures
    print(f"{answered} of {len(NAMED) + len(LONG)} named prompts answered; corpus rule set {corpus.digest(corpus.generate(1, 200))[:12]}")
    sys.exit(1 if answered < NAMED_MIN else 0)


if __name__ == "__main__":
    main()
