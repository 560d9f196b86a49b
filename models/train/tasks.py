"""Small exercises: counting, sums."""

NUMBER_WORDS = "zero one two three four five six seven eight nine ten".split()


def counting_turn(rng) -> list:
    last = rng.choice([5, 10, 12, 15, 20, 20, 25, 30, 50, 100])
    first = 1
    numbers = ", ".join(str(n) for n in range(first, last + 1)) + "."
    return [("user", f"Count from {first} to {last}."), ("assistant", numbers)]


def sum_turn(rng) -> list:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return [("user", f"What is {a} + {b}?"), ("assistant", f"{a} + {b} = {a + b}.")]
