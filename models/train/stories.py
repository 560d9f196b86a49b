"""Stories from a small grammar, and poems."""

import tables
from phrasing import phrase, upper_first
from talk import TEXT

HEROES = {
    "a robot": "robot", "a fox": "fox", "a GPU": "GPU", "a cat": "cat", "a dragon": "dragon", "a girl": "girl", "a boy": "boy", "an owl": "owl",
    "a mouse": "mouse", "a lighthouse keeper": "lighthouse keeper", "a king": "king", "a bear": "bear", "a dog": "dog", "an engineer": "engineer",
    "a train": "train", "a small model": "model", "a turtle": "turtle", "a baker": "baker", "a sailor": "sailor", "a rabbit": "rabbit",
}
ADJECTIVES = "small old brave quiet curious kind clever shy patient merry".split()
HERO_NAMES = "Pim Lumi Tok Nell Bruno Fenn Mara Ollo Rua Tibo Wim Zara Koda Elli Moss Juna".split()
PLACES = [
    "a town by the sea", "a warm data center", "a house in the forest", "a valley behind the hills", "an old mill", "a city of towers",
    "a village with one street", "a harbor full of ships", "a castle on a rock", "a garden behind a wall",
]
FRIENDS = "a crow,a snail,an old lamp,a hedgehog,a little cloud,a clock without hands,a goose,a paper boat,a moth,a watchman".split(",")
THINGS = "a silver key,a map,a red scarf,a bell,a lantern,a letter,a bag of seeds,a blue stone,a broken watch,a song".split(",")
TROUBLES = [
    "one morning the lights went out", "one day the river rose", "one evening a storm came", "one night the bridge was gone",
    "one winter the snow did not stop", "one day nobody came", "one morning the well was dry", "one night the big clock stood still",
]
ENDINGS = [
    "From that day on nobody in {place} was ever alone again.", "And when the work was done, {name} slept well.",
    "They told the story for many years, and each time it grew a little longer.", "And if nobody has taken the lease, {name} is still there today.",
    "So everything came back to its owner, and all were glad.",
]
EPISODES = [
    "{name} walked until the path ended at a gate. The gate was closed, and {friend} sat on it. \"Who are you?\" asked {friend_the}. \"I am {name},\" said the {kind}, \"and I need to pass.\" The gate opened with a long sigh.",
    "In the evening it began to rain. {name} found a dry place under a stone and waited. There lay {thing}, as if somebody had left it there on purpose. {name} took it along and promised to bring it back.",
    "The next day brought a wide river. There was no bridge and no boat. {name} thought for a long time, then laid one branch on another until there was a raft. It was slow, but it held.",
    "Behind the hill stood a tower with one window. In the window burned a lamp. \"Come up,\" called a voice, \"there are only a hundred steps.\" {name} counted them all, and there were a hundred and one.",
    "At noon {name} met {friend}. They shared a piece of bread and did not talk much. Before they parted, {friend_the} said: \"Give early notice, and nobody will be angry.\" {name} remembered that.",
    "Then came a market where everything was for lease: chairs, hats, and even the shade of a tree. {name} took the shade for one hour. When the hour was over the tree said thank you, and the sun came back.",
    "At night the stars were very near. {name} tried to count them, one, two, three, and fell asleep at nine. In a dream somebody added them all up, and the sum was right.",
    "The road led through a forest where it was always autumn. The leaves whispered numbers. {name} listened, and after a while the numbers made sense: they were the steps that were still to go.",
    "A thief had taken the bell of the village. {name} followed the tracks through the mud to an old barn. There sat the thief and cried, because the bell was far too heavy to carry any further. They carried it back together.",
    "There was a door without a house. {name} knocked, for one should always knock. \"Please wait,\" said the door. They both waited, and it was a good wait, with wind and a little sun.",
    "The mountain was steep. {name} slipped twice and laughed once. From the top one could see the whole land, with {place} far below, no bigger than a coin.",
    "In a cave lived an echo that had not spoken for years. \"Hello,\" said {name}. \"Hello,\" said the echo, very carefully. They practised until the echo could say the whole alphabet.",
    "{name} came to a bridge, and the keeper asked for a fee. \"I have only {thing},\" said the {kind}. The keeper looked at it for a long time. \"Keep it,\" he said at last. \"You will pay when you come back.\"",
    "The wind turned and blew from the north. Everything that was not tied down flew away: hats, papers, a whole washing line. {name} held on to a tree, and the tree held on to the ground.",
    "A child had lost its way. {name} took it by the hand and followed the sound of the sea. When they saw the first house, the child ran ahead, and the door opened before it could knock.",
    "One machine in the hall made a strange noise. {name} listened at each of them, from the first to the last. It was only a leaf in a fan. When it was gone, the whole hall sounded like a choir.",
    "An old woman sold soup at the crossroads. \"It costs one story,\" she said. {name} told the story of the silent clock. She laughed so much that she gave a second bowl for nothing.",
    "The ice on the lake was thin. {name} went on all fours, slowly, and spread out the weight. In the middle of the lake the moon lay on the ice like a plate. Then came the other shore.",
]
STORY_QUESTIONS = ["tell me a story", "tell me a story", "tell me a short story", "write a story", "a story please", "can you tell a story", "I want to hear a story", "write a short story", "tell a tale", "make up a story"]
LONG_QUESTIONS = ["tell me a long story", "tell me a long story", "write a long story", "tell me a very long story", "a long story please", "write a long tale", "write a novel", "tell me a bedtime story", "write a story with many chapters", "tell me a long fairy tale"]


def story(rng, hero: str, episodes: int) -> str:
    kind = HEROES[hero]
    friend = rng.choice(FRIENDS)
    words = {
        "name": rng.choice(HERO_NAMES), "kind": kind, "place": rng.choice(PLACES), "friend": friend,
        "friend_the": "the " + friend.split(" ", 1)[1], "thing": rng.choice(THINGS),
    }
    start = f"Once upon a time there was a {rng.choice(ADJECTIVES)} {kind} called {words['name']}, who lived in {words['place']}."
    start = start.replace(" a old ", " an old ")
    trouble = f"All was well, but {rng.choice(TROUBLES)}. \"Somebody must do something,\" said {words['name']}, and set out at once."
    middle = [episode.format(**words) for episode in rng.sample(EPISODES, episodes)]
    end = f"At last {words['name']} came home and put everything right. " + rng.choice(ENDINGS).format(**words)
    if episodes <= 1:
        return " ".join([start, trouble, *middle, end])
    return "\n\n".join([f"{start} {trouble}", *(upper_first(part) for part in middle), end])


def story_turn(rng) -> list:
    hero = rng.choice(list(HEROES))
    if rng.random() < 0.5:
        question = rng.choice(["tell me a story about {}", "write a story about {}", "write a short story about {}", "can you tell me a story about {}", "a story about {}"])
        return [("user", phrase(rng, question.format(hero))), ("assistant", story(rng, hero, 1))]
    return [("user", phrase(rng, rng.choice(STORY_QUESTIONS))), ("assistant", story(rng, hero, 1))]


def long_story_turn(rng) -> list:
    hero = rng.choice(list(HEROES))
    question = rng.choice(LONG_QUESTIONS)
    if rng.random() < 0.4:
        question = rng.choice(["tell me a long story about {}", "write a long story about {}", "write a very long story about {}"]).format(hero)
    return [("user", phrase(rng, question)), ("assistant", story(rng, hero, rng.choice([6, 7, 8, 8, 10, 12])))]


def read_poems() -> list:
    """(kind, topics, text) of each poem."""
    poems = []
    for chunk in (TEXT / "poems.txt").read_text().split("\n\n"):
        head, *lines = [line for line in chunk.splitlines() if not line.startswith("#")] or [""]
        if lines:
            kind, _, topics = head.partition(":")
            poems.append((kind, [topic.strip() for topic in topics.split("|")], "\n".join(lines)))
    return poems


POEMS = read_poems()


def poem_turn(rng) -> list:
    kind, topics, text = rng.choice(POEMS)
    if rng.random() < 0.12:
        question = rng.choice(["write a {}", "a {} please", "can you write a {}", "do you know a {}"]).format(kind)
    elif rng.random() < 0.1:
        question = f"write a {kind} about {rng.choice(tables.WORDS + tables.SUBJECTS)}"
    else:
        question = rng.choice(["write a {} about {}", "write a {} about {}", "a {} about {}", "can you write a {} about {}", "make a {} about {}", "give me a {} about {}"])
        question = question.format(rng.choice(["haiku"] if kind == "haiku" else ["poem", "poem", "short poem", "rhyme"]), rng.choice(topics))
    return [("user", phrase(rng, question)), ("assistant", text)]
