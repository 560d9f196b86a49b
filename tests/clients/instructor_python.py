"""The unmodified instructor package against a running cloud.

Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Reads what `checks.py` reads.
"""

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Literal

import anthropic
import instructor
import openai
from instructor.core.exceptions import InstructorRetryException
from pydantic import BaseModel

from checks import BASE, KEY, MODEL, ROOT, Upstream, cancelled, charged, check, main, raises, same

# It logs each failure that a check expects.
logging.getLogger("instructor").setLevel(logging.CRITICAL)
upstream = Upstream()
# One loop for all: clients keep their connections, which belong to a loop.
run = asyncio.Runner().run
Mode = instructor.Mode
QUESTION = [{"role": "user", "content": "Name three colours."}]
# Without retries a failure is seen as it is.
SERVER = {"base_url": BASE, "api_key": KEY, "max_retries": 0, "timeout": 60}


class City(BaseModel):
    """A city, in the way in which people describe their data."""

    name: Literal["Rome", "Oslo"]
    capital: bool


ROME = {"name": "Rome", "capital": True}


def client(mode=Mode.TOOLS, **settings):
    return instructor.from_openai(openai.OpenAI(**{**SERVER, **settings}), mode=mode)


def messages(**settings):
    return instructor.from_anthropic(anthropic.Anthropic(**{**SERVER, "base_url": ROOT, **settings}))


def settings(**more):
    return {"model": MODEL, "messages": QUESTION, "response_model": City, "max_tokens": 100, "max_retries": 0, **more}


@check
def an_answer_is_a_class_and_has_the_usage_that_is_charged():
    for mode in (Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON_SCHEMA):
        city, answer = client(mode).chat.completions.create_with_completion(**settings())
        assert isinstance(city, City), city
        charged(answer.id, answer.usage.prompt_tokens, answer.usage.completion_tokens)
    for ask in (client(Mode.RESPONSES_TOOLS).create_with_completion, messages().create_with_completion):
        city, answer = ask(**settings())
        assert isinstance(city, City), city
        charged(answer.id, answer.usage.input_tokens, answer.usage.output_tokens)


@check
def the_library_finds_its_way_by_a_name():
    city = instructor.from_provider(f"openai/{MODEL}", **SERVER).create(**{**settings(), "model": MODEL})
    assert isinstance(city, City), city


@check
def a_class_comes_in_parts():
    for mode in (Mode.TOOLS, Mode.JSON_SCHEMA):
        *_, last = client(mode).create_partial(**settings())
        assert last.name in ("Rome", "Oslo") and last.capital in (True, False), last


@check
def several_come_one_after_the_other():
    given = {"tasks": [ROME, {"name": "Oslo", "capital": True}]}
    upstream.script({"calls": [{"name": "IterableCity", "arguments": given}]})
    cities = list(client().create_iterable(**settings(model=upstream.model)))
    same([city.name for city in cities], ["Rome", "Oslo"], "the cities")
    upstream.script({"calls": [{"name": "City", "arguments": one} for one in given["tasks"]]})
    cities = client(Mode.PARALLEL_TOOLS).create(**settings(model=upstream.model, response_model=Iterable[City]))
    same([city.name for city in cities], ["Rome", "Oslo"], "the cities of calls side by side")
    same(upstream.bodies()[0].get("tool_choice", "auto"), "auto", "the choice")
    upstream.is_charged()


@check
def many_at_once_are_answered_each_for_itself():
    async def ask_all():
        asynchronous = instructor.from_openai(openai.AsyncOpenAI(**SERVER))
        return await asyncio.gather(*(asynchronous.create(**settings(temperature=0)) for _ in range(4)))

    cities = run(ask_all())
    same(len({city.model_dump_json() for city in cities}), 1, "different answers")


@check
def an_answer_of_a_wrong_form_is_asked_for_again():
    wrong = {"name": "Bonn", "capital": True}
    for mode, say in [
        (Mode.TOOLS, lambda fields: {"calls": [{"name": "City", "arguments": fields}]}),
        (Mode.JSON, lambda fields: {"text": json.dumps(fields)}),
        (Mode.RESPONSES_TOOLS, lambda fields: {"calls": [{"name": "City", "arguments": fields}]}),
    ]:
        upstream.script(say(wrong), say(ROME))
        city = client(mode).create(**settings(model=upstream.model, max_retries=2))
        same((city.model_dump(), len(upstream.bodies())), (ROME, 2), "the answer")
        upstream.script(say(wrong), say(wrong))
        raises(InstructorRetryException, lambda: client(mode).create(**settings(model=upstream.model, max_retries=1)), "Bonn")
    upstream.is_charged()


@check
def errors_have_the_types_of_the_library():
    def cause(kind, ask, word):
        """The library wraps what happened."""
        error = raises(InstructorRetryException, ask, word)
        assert isinstance(error.__cause__, kind) or type(error.failed_attempts[-1].exception) is kind, repr(error.__cause__)

    cause(openai.AuthenticationError, lambda: client(api_key="sk-sub-unknown").create(**settings()), "invalid_api_key")
    cause(anthropic.AuthenticationError, lambda: messages(api_key="sk-sub-unknown").create(**settings()), "invalid_api_key")
    long = [{"role": "user", "content": "word " * 50_000}]
    for ask, kinds in [(client().create, openai), (messages().create, anthropic)]:
        cause(kinds.NotFoundError, lambda: ask(**settings(model="no-such-model")), "model_not_found")
        cause(kinds.BadRequestError, lambda: ask(**settings(messages=long)), "context_length_exceeded")


@check
def a_stream_that_is_left_is_charged_for_what_was_delivered():
    async def leave_waiting():
        asynchronous = instructor.from_openai(openai.AsyncOpenAI(**SERVER))
        stream = await asynchronous.create(**settings(model=upstream.model, response_model=None, stream=True))
        await cancelled(chunk.choices[0].delta.content async for chunk in stream)

    upstream.is_left(lambda: run(leave_waiting()))


@check
def a_busy_server_is_asked_again_when_it_said():
    ask = lambda key: client(max_retries=2, api_key=key).create(**settings(model=upstream.model, response_model=None))
    upstream.is_asked_again(lambda key: ask(key).choices[0].message.content)


main()
