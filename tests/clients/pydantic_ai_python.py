"""The unmodified pydantic-ai package against a running cloud.

Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Reads what `checks.py` reads.
"""

import asyncio
from typing import Literal

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput, ToolOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelAuthenticationError, ModelContextWindowExceededError, ModelNotFoundError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from checks import BASE, KEY, MODEL, ROOT, Upstream, cancelled, charged, check, main, raises, same

upstream = Upstream()
# One loop for all: clients keep their connections, which belong to a loop.
run = asyncio.Runner().run
QUESTION = "Name three colours."


def openai(**settings):
    # Without retries a failure is seen as it is.
    return OpenAIProvider(openai_client=AsyncOpenAI(**{"base_url": BASE, "api_key": KEY, "max_retries": 0, "timeout": 60, **settings}))


def chat(model=MODEL, **settings):
    return OpenAIChatModel(model, provider=openai(**settings))


def responses(model=MODEL, **settings):
    return OpenAIResponsesModel(model, provider=openai(**settings))


def messages(model=MODEL, **settings):
    client = AsyncAnthropic(**{"base_url": ROOT, "api_key": KEY, "max_retries": 0, "timeout": 60, **settings})
    return AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client))


APIS = [chat, responses, messages]


def agent(model, **more):
    # The package of Anthropic takes no temperature any more; the wire does.
    greedy = {"extra_body": {"temperature": 0}} if isinstance(model, AnthropicModel) else {"temperature": 0}
    return Agent(model, model_settings={"max_tokens": 100, **greedy}, **more)


def ask(model, question=QUESTION, **more):
    return run(agent(model, **more).run(question))


async def streamed(model, **more):
    async with agent(model, **more).run_stream(QUESTION) as result:
        text = "".join([piece async for piece in result.stream_text(delta=True)])
        return text, result.usage


def counts(usage):
    return usage.input_tokens, usage.output_tokens


@check
def an_answer_has_text_and_the_usage_that_is_charged():
    for api in APIS:
        result = ask(api())
        assert result.output, result
        answer = result.all_messages()[-1]
        record = charged(answer.provider_response_id, *counts(answer.usage))
        same((record["model"], counts(result.usage)), (MODEL, counts(answer.usage)), "the record")


@check
def a_stream_says_the_same_as_a_whole_answer():
    for api in APIS:
        whole = ask(api())
        text, usage = run(streamed(api()))
        same(text, whole.output, "the text")
        same(counts(usage), counts(whole.usage), "usage")


@check
def many_at_once_are_answered_each_for_itself():
    async def all_of(api):
        return await asyncio.gather(*(agent(api()).run(QUESTION) for _ in range(4)))

    for api in APIS:
        same(len({result.output for result in run(all_of(api))}), 1, "different answers")


class City(BaseModel):
    """A city, in the way in which people describe their data."""

    name: Literal["Rome", "Oslo"]
    capital: bool


class River(BaseModel):
    """A river."""

    through: Literal["Rome"]


@check
def an_answer_has_the_form_of_a_class_or_of_one_of_two():
    for api in APIS:
        # A class is a tool whose call is demanded; one of two is a choice among tools.
        assert isinstance(ask(api(), output_type=ToolOutput(City)).output, City)
        assert isinstance(ask(api(), output_type=[City, River]).output, City | River)
        if api is not messages:
            assert isinstance(ask(api(), output_type=NativeOutput(City)).output, City)


@check
def a_model_that_is_free_calls_tools_and_goes_on():
    asked = []

    def get_weather(city: str) -> str:
        """The weather."""
        asked.append(city)
        return f"7 degrees in {city}"

    called = {"calls": [{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")]}
    for api in APIS:
        for way in (lambda model: ask(model, tools=[get_weather]).output, lambda model: run(streamed(model, tools=[get_weather]))[0]):
            asked.clear()
            upstream.script(called, {"text": "It is 7 degrees."})
            same(way(api(upstream.model)).strip(), "It is 7 degrees.", "the answer")
            same(sorted(asked), ["Oslo", "Rome"], "what the tool was asked")
            first, second = upstream.bodies()
            same(first.get("tool_choice", "auto"), "auto", "the choice")
            _, call, *answered = second["messages"]
            same([one["tool_call_id"] for one in answered], [one["id"] for one in call["tool_calls"]], "the answered calls")
            same([one["content"] for one in answered], ["7 degrees in Rome", "7 degrees in Oslo"], "the results")
    upstream.is_charged()


@check
def an_answer_of_a_wrong_form_is_asked_for_again():
    wrong, right = ({"calls": [{"name": "final_result", "arguments": {"name": name, "capital": True}}]} for name in ("Bonn", "Rome"))
    for api in APIS:
        upstream.script(wrong, right)
        result = ask(api(upstream.model), output_type=ToolOutput(City, name="final_result"))
        same((result.output, counts(result.usage)), (City(name="Rome", capital=True), (22, 14)), "the answer and both counts")
    upstream.is_charged()


@check
def texts_become_vectors():
    texts = ["Name three colours.", "two"]
    embedder = Embedder(OpenAIEmbeddingModel(upstream.model, provider=openai()))
    for form in ("base64", "float"):
        upstream.script()
        more = {"settings": {"extra_body": {"encoding_format": form}}} if form == "float" else {}
        result = run(embedder.embed_documents(texts, **more))
        same([list(one) for one in result.embeddings], [[float(len(one)), float(place), 0.5, -2.0] for place, one in enumerate(texts)], "the vectors")
        same(result.usage.input_tokens, sum(map(len, texts)), "usage")
        [body] = upstream.bodies()
        same((body["input"], body["encoding_format"]), (texts, form), "what was sent on")
    upstream.is_charged()


@check
def errors_have_the_types_of_the_library():
    for api in APIS:
        raises(ModelAuthenticationError, lambda: ask(api(api_key="sk-sub-unknown")), "invalid_api_key")
        raises(ModelNotFoundError, lambda: ask(api("no-such-model")), "model_not_found")
        raises(ModelNotFoundError, lambda: run(streamed(api("no-such-model"))), "model_not_found")
        raises(ModelContextWindowExceededError, lambda: ask(api(), "word " * 50_000), "context_length_exceeded")


@check
def a_stream_that_is_left_is_charged_for_what_was_delivered():
    async def leave(api):
        async with agent(api(upstream.model)).run_stream(QUESTION) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                if text:
                    return

    async def leave_waiting(api):
        async def texts():
            async with agent(api(upstream.model)).run_stream(QUESTION) as result:
                async for text in result.stream_text(delta=True, debounce_by=None):
                    yield text

        await cancelled(texts())

    for api in APIS:
        upstream.is_left(lambda: run(leave(api)))
        upstream.is_left(lambda: run(leave_waiting(api)))


@check
def a_busy_server_is_asked_again_when_it_said():
    for api in (chat, messages):
        upstream.is_asked_again(lambda key: ask(api(upstream.model, max_retries=2, api_key=key)).output)


main()
