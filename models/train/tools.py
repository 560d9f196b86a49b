"""Tool calls in the form of the chat template: names with their arguments, `<tool_call>` with JSON, a tool's result, an answer."""

import json

import tables
from phrasing import phrase

VERBS = "get find list make start stop check send count open close read show move sell book rent pause".split()
NOUNS = "item user order price file note task lease quote room ticket report device node message table lamp job key pool".split()
ARGUMENTS = "name id city count hours text title sku site query color amount".split()
CLOCK_NAMES = ["get_time", "get_current_time", "current_time"]
WEATHER_NAMES = ["get_weather", "get_weather", "get_current_weather", "weather", "fetch_weather", "lookup_weather"]
SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear"]


def tool_text(tools: dict) -> str:
    return "Tools:\n" + "".join(f"{name}({', '.join(arguments)})\n" for name, arguments in tools.items())


def call_text(name: str, arguments: dict) -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {json.dumps(arguments, ensure_ascii=False)}}}</tool_call>'


def random_tool(rng):
    return f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}", rng.sample(ARGUMENTS, rng.choice([0, 1, 1, 2, 2, 3]))


def with_distractors(rng, name: str, arguments: list) -> dict:
    tools = [random_tool(rng) for _ in range(rng.choice([0, 0, 1, 1, 2, 3]))] + [(name, arguments)]
    rng.shuffle(tools)
    return dict(tools) | {name: arguments}


def weather_turns(rng) -> list:
    city = rng.choice(tables.CITIES)
    place = rng.choice(["city", "location", "location", "place"])
    arguments = [place] + rng.choice([[], [], ["unit"], ["date"], ["units"]])
    name = rng.choice(WEATHER_NAMES)
    asked = ["what is the weather in {}", "how is the weather in {}", "what's the weather like in {}", "is it cold in {}", "weather in {}", "will it rain in {}"]
    turns = [
        ("system", tool_text(with_distractors(rng, name, arguments))),
        ("user", phrase(rng, rng.choice(asked).format(city))),
        ("assistant", call_text(name, {place: city})),
    ]
    if rng.random() < 0.5:
        degrees, sky = rng.randint(0, 35), rng.choice(SKIES)
        key = rng.choice(["temperature", "temp", "degrees"])
        result = json.dumps({key: degrees, rng.choice(["sky", "condition", "conditions"]): sky}) if rng.random() < 0.7 else f"{degrees} degrees, {sky}"
        turns += [("tool", result), ("assistant", f"It is {degrees} degrees and {sky} in {city}.")]
    return turns


def clock_turns(rng) -> list:
    name, zone = rng.choice(CLOCK_NAMES), rng.random() < 0.3
    turns = [
        ("system", tool_text(with_distractors(rng, name, ["city"] if zone else []))),
    ]
    city = rng.choice(tables.CITIES)
    question = f"what time is it in {city}" if zone else rng.choice(["what time is it", "what is the time", "tell me the time"])
    turns += [("user", phrase(rng, question)), ("assistant", call_text(name, {"city": city} if zone else {}))]
    if rng.random() < 0.6:
        time = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
        result = json.dumps({"time": time}) if rng.random() < 0.6 else time
        turns += [("tool", result), ("assistant", f"It is {time}.")]
    return turns


def named_call_turns(rng) -> list:
    """The user names the tool and the values."""
    name, arguments = random_tool(rng)
    values = {
        argument: rng.randint(1, 99) if argument in ("count", "hours", "amount", "id") else rng.choice(tables.WORDS) for argument in arguments
    }
    said = " and ".join(f"{argument} {value}" for argument, value in values.items())
    question = rng.choice(["call {}", "use {}", "use the tool {}", "call the function {}", "run {}"]).format(name)
    if said:
        question += rng.choice([" with ", " with the "]) + said
    turns = [
        ("system", tool_text(with_distractors(rng, name, arguments))),
        ("user", phrase(rng, question)),
        ("assistant", call_text(name, values)),
    ]
    if rng.random() < 0.5:
        result = rng.choice(["ok", "done", '{"ok": true}', '{"status": "ok"}', '{"status": "done"}'])
        turns += [("tool", result), ("assistant", "Done.")]
    return turns


def tool_turns(rng) -> list:
    turns = rng.choices([weather_turns, clock_turns, named_call_turns], [5, 1, 4])[0](rng)
    if rng.random() < 0.25:
        turns.insert(1, ("system", rng.choice(tables.SYSTEM_PROMPTS)))
    return turns


def unused_tools(rng) -> tuple:
    """Tools that the conversation does not need."""
    name, arguments = random_tool(rng)
    if rng.random() < 0.5:
        name, arguments = rng.choice(WEATHER_NAMES), ["location", "unit"]
    return ("system", tool_text(with_distractors(rng, name, arguments)))
