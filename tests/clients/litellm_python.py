"""The unmodified litellm package, as a client, against a running cloud.

Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Reads what `checks.py` reads.
"""

import asyncio
import json
import os
from typing import Literal

# Otherwise it asks the net for prices as it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from pydantic import BaseModel

from checks import BASE, KEY, MODEL, ROOT, Upstream, cancelled, charged, check, main, raises, same

litellm.suppress_debug_info = True
upstream = Upstream()
# One loop for all: clients keep their connections, which belong to a loop.
run = asyncio.Runner().run
QUESTION = [{"role": "user", "content": "Name three colours."}]
# Without retries a failure is seen as it is.
SERVER = {"api_base": BASE, "api_key": KEY, "max_retries": 0, "timeout": 60}


def settings(provider, model=MODEL, **more):
    base = BASE if provider == "openai" else ROOT
    ask = {**SERVER, "api_base": base, "model": f"{provider}/{model}", "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    return {**ask, **more}


def ask(provider, **more):
    return litellm.completion(**settings(provider, **more))


def whole(provider, **more):
    """A streamed answer, as the library puts it together."""
    return litellm.stream_chunk_builder(list(ask(provider, stream=True, stream_options={"include_usage": True}, **more)))


def counts(answer):
    return answer.usage.prompt_tokens, answer.usage.completion_tokens


def call_of(answer):
    [call] = answer.choices[0].message.tool_calls
    return call.function.name, json.loads(call.function.arguments)


PROVIDERS = ["openai", "anthropic"]


@check
def an_answer_has_text_and_the_usage_that_is_charged():
    answer = ask("openai")
    assert answer.choices[0].message.content, answer
    record = charged(answer.id, *counts(answer))
    same((record["model"], answer.usage.total_tokens), (MODEL, sum(counts(answer))), "the record")
    other = ask("anthropic")
    same((other.choices[0].message.content, counts(other)), (answer.choices[0].message.content, counts(answer)), "in Messages")
    response = litellm.responses(**SERVER, model=f"openai/{MODEL}", input="Name three colours.", max_output_tokens=24, temperature=0)
    same(response.output[0].content[0].text, answer.choices[0].message.content, "the text of a response")
    same((response.usage.input_tokens, response.usage.output_tokens), counts(answer), "usage of a response")
    text = litellm.text_completion(**SERVER, model=f"text-completion-openai/{MODEL}", prompt="The capital of France is", max_tokens=4)
    same(text.usage.completion_tokens, 4, "tokens of a text")


@check
def a_stream_says_the_same_as_a_whole_answer():
    for provider in PROVIDERS:
        first, again = ask(provider), whole(provider)
        same(again.choices[0].message.content, first.choices[0].message.content, "the text")
        same(counts(again), counts(first), "usage")


@check
def many_at_once_are_answered_each_for_itself():
    async def ask_all(provider):
        answers = await asyncio.gather(*(litellm.acompletion(**settings(provider)) for _ in range(4)))
        same(len({answer.choices[0].message.content for answer in answers}), 1, "different answers")

    for provider in PROVIDERS:
        run(ask_all(provider))


CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": False}
NOTHING = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY}},
    {"type": "function", "function": {"name": "get_time", "description": "The time.", "parameters": NOTHING}},
]


class City(BaseModel):
    """A city, in the way in which people describe their data."""

    name: Literal["Rome", "Oslo"]
    capital: bool


@check
def a_demanded_tool_is_called_whole_and_streamed():
    for provider in PROVIDERS:
        for name, arguments in [("get_weather", {"city"}), ("get_time", set())]:
            more = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": name}}, "max_tokens": 100}
            first = ask(provider, **more)
            same((call_of(first)[0], set(call_of(first)[1])), (name, arguments), "the call")
            same(call_of(whole(provider, **more)), call_of(first), "the streamed call")
        name, _ = call_of(ask(provider, tools=TOOLS, tool_choice="required", max_tokens=100))
        assert name in ("get_weather", "get_time"), name


@check
def an_answer_has_the_form_of_a_class():
    for provider in PROVIDERS:
        answer = ask(provider, response_format=City, max_tokens=100)
        City.model_validate_json(answer.choices[0].message.content)


@check
def a_model_that_is_free_calls_tools_and_goes_on():
    called = {"calls": [{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")]}
    for provider in PROVIDERS:
        for way in (ask, whole):
            upstream.script(called, {"text": "It is 7 degrees."})
            first = way(provider, model=upstream.model, tools=TOOLS)
            calls = first.choices[0].message.tool_calls
            same([json.loads(call.function.arguments)["city"] for call in calls], ["Rome", "Oslo"], "the calls")
            same(first.choices[0].finish_reason, "tool_calls", "the end")
            results = [{"role": "tool", "tool_call_id": call.id, "content": "7 degrees"} for call in calls]
            turns = [*QUESTION, first.choices[0].message, *results]
            same(way(provider, model=upstream.model, tools=TOOLS, messages=turns).choices[0].message.content.strip(), "It is 7 degrees.", "the answer")
            sent, second = upstream.bodies()
            same(sent.get("tool_choice", "auto"), "auto", "the choice")
            _, call, *answered = second["messages"]
            same([one["tool_call_id"] for one in answered], [one["id"] for one in call["tool_calls"]], "the answered calls")


@check
def texts_and_tokens_become_vectors():
    settings = {**SERVER, "model": f"openai/{upstream.model}"}
    for given in (["Name three colours.", "two"], [[1, 2, 3], [4]]):
        upstream.script()
        answer = litellm.embedding(**settings, input=given)
        vectors = [[float(len(one)), float(place), 0.5, -2.0] for place, one in enumerate(given)]
        same([item["embedding"] for item in answer.data], vectors, "the vectors")
        same(answer.usage.prompt_tokens, sum(map(len, given)), "usage")
        same(upstream.bodies()[0]["input"], given, "what was sent on")
    answer = litellm.embedding(**settings, input="two", encoding_format="base64")
    same(answer.data[0]["embedding"], "AABAQAAAAAAAAAA/AAAAwA==", "a vector as it travels")
    upstream.is_charged()


@check
def errors_have_the_types_of_the_library():
    for provider in PROVIDERS:
        raises(litellm.AuthenticationError, lambda: ask(provider, api_key="sk-sub-unknown"), "key")
        raises(litellm.NotFoundError, lambda: ask(provider, model="no-such-model"), "no-such-model")
        long = [{"role": "user", "content": "word " * 50_000}]
        raises(litellm.ContextWindowExceededError, lambda: ask(provider, messages=long), "2048")
    embed = {**SERVER, "model": "openai/no-such-model", "input": "two"}
    raises(litellm.NotFoundError, lambda: litellm.embedding(**embed), "no-such-model")


@check
def a_stream_that_is_left_is_charged_for_what_was_delivered():
    async def leave_waiting(provider):
        stream = await litellm.acompletion(**settings(provider, model=upstream.model, stream=True))
        await cancelled(chunk.choices[0].delta.content async for chunk in stream)

    for provider in PROVIDERS:
        upstream.is_left(lambda: run(leave_waiting(provider)))


@check
def a_busy_server_is_asked_again_when_it_said():
    again = lambda key: ask("openai", model=upstream.model, max_retries=2, api_key=key)
    upstream.is_asked_again(lambda key: again(key).choices[0].message.content)


main()
