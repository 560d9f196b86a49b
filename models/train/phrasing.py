"""The many ways in which people type the same question."""

OPENINGS = ["", "", "", "", "", "", "", "", "", "", "hi, ", "hello, ", "please, ", "so, ", "hey, ", "ok, ", "well, ", "and "]
QUESTION_WORDS = set("what what's how why when who which where is are do does can could will should".split())


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def is_question(text: str) -> bool:
    return any(sentence.split()[0].lower().strip(",") in QUESTION_WORDS for sentence in text.split(". "))


def with_typo(rng, text: str) -> str:
    """Swaps two neighbouring letters or drops one."""
    position = rng.randrange(1, max(2, len(text) - 1))
    if not text[max(0, position - 1) : position + 2].isalpha():
        return text
    if rng.random() < 0.5:
        return text[:position] + text[position + 1 :]
    return text[: position - 1] + text[position] + text[position - 1] + text[position + 1 :]


def end_mark(rng, text: str, question: bool) -> str:
    chance = rng.random()
    if question:
        return "?" if chance < 0.76 else " please?" if chance < 0.78 else ""
    return "." if chance < 0.5 else "!" if chance < 0.56 else " please" if chance < 0.59 else ""


def phrase(rng, text: str) -> str:
    """Openings, capitals, end marks, a typo now and then; never changes a digit."""
    question = is_question(text)
    text = rng.choice(OPENINGS) + text
    if rng.random() < 0.66:
        text = upper_first(text)
    if rng.random() < 0.04:
        text = with_typo(rng, text)
    if rng.random() < 0.015 and not any(letter.isdigit() for letter in text):
        text = text.upper()
    return text + end_mark(rng, text, question)
