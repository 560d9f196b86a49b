"""The unmodified langchain-openai and langchain-anthropic packages against a running cloud.

Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed.
Reads what `checks.py` reads, and TIKTOKEN_CACHE_DIR: where the vocabulary lies that LangChain cuts texts with.
"""

import asyncio
from functools import reduce
from operator import add
from typing import Literal

import openai
import tiktoken
from langchain_anthropic import ChatAnthropic
from langchain_core.exceptions import ContextOverflowError, ModelAuthenticationError, ModelNotFoundError
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

from checks import BASE, KEY, MODEL, ROOT, Upstream, cancelled, charged, check, main, raises, record_of, same

upstream = Upstream()
# One loop for all: clients keep their connections, which belong to a loop.
run = asyncio.Runner().run
QUESTION = "Name three colours."
# Without retries a failure is seen as it is.
OPENAI = {"base_url": BASE, "api_key": KEY, "max_retries": 0, "timeout": 60}
ANTHROPIC = {**OPENAI, "base_url": ROOT}


def chat(model=MODEL, **settings):
    return ChatOpenAI(**{**OPENAI, "model": model, "temperature": 0, "max_tokens": 24, "stream_usage": True, **settings})


def responses(model=MODEL, **settings):
    return chat(model, use_responses_api=True, **settings)


def messages(model=MODEL, **settings):
    # The package of Anthropic takes no temperature any more; the wire does.
    return ChatAnthropic(**{**ANTHROPIC, "model": model, "max_tokens": 24, "model_kwargs": {"extra_body": {"temperature": 0}}, **settings})


APIS = [chat, responses, messages]


def streamed(model, question=QUESTION):
    return reduce(add, model.stream(question))


@check
def an_answer_has_text_and_the_usage_that_is_charged():
    for api in APIS:
        answer = api().invoke(QUESTION)
        assert answer.text, answer
        usage = answer.usage_metadata
        record = charged(answer.response_metadata["id"], usage["input_tokens"], usage["output_tokens"])
        same((record["model"], usage["total_tokens"]), (MODEL, usage["input_tokens"] + usage["output_tokens"]), "the record")


@check
def a_stream_says_the_same_as_a_whole_answer():
    for api in APIS:
        whole, parts = api().invoke(QUESTION), streamed(api())
        same(parts.text, whole.text, "the text")
        counts = lambda message: (message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"])
        same(counts(parts), counts(whole), "usage")


@check
def many_at_once_are_answered_each_for_itself():
    async def ask(api):
        model = api()
        whole, *rest = await model.abatch([QUESTION] * 4)
        parts = [chunk async for chunk in model.astream(QUESTION)]
        same([answer.text for answer in rest], [whole.text] * 3, "the texts")
        same(reduce(add, parts).text, whole.text, "the streamed text")

    for api in APIS:
        run(ask(api))


@check
def a_text_is_continued():
    model = OpenAI(**OPENAI, model=MODEL, max_tokens=8, temperature=0)
    assert model.invoke("The capital of France is"), "no text"


@tool
def get_weather(city: str) -> str:
    """The weather."""
    return f"7 degrees in {city}"


@tool
def get_time() -> str:
    """The time."""
    return "noon"


class City(BaseModel):
    """A city, in the way in which people describe their data."""

    # Only choices: what is said of lengths and ranges, the package of Anthropic moves to the description.
    name: Literal["Rome", "Oslo"] = Field(description="Its name.")
    capital: bool


TOOLS = [get_weather, get_time]


@check
def a_demanded_tool_is_called_whole_and_streamed():
    for api in APIS:
        model = api(max_tokens=200)
        for choice, names in [("get_time", {"get_time"}), ("get_weather", {"get_weather"}), ("any", {"get_time", "get_weather"})]:
            bound = model.bind_tools(TOOLS, tool_choice=choice)
            [call] = bound.invoke("What is the weather in Rome?").tool_calls
            assert call["name"] in names and set(call["args"]) == ({"city"} if call["name"] == "get_weather" else set()), call
            [again] = streamed(bound, "What is the weather in Rome?").tool_calls
            same((again["name"], again["args"]), (call["name"], call["args"]), "the streamed call")


@check
def an_answer_has_the_form_of_a_class():
    for api in APIS:
        for method in ("json_schema", "function_calling"):
            model = api(max_tokens=200).with_structured_output(City, method=method)
            assert isinstance(model.invoke(QUESTION), City), (api, method)
    answer = chat(max_tokens=200).with_structured_output(None, method="json_mode").invoke(QUESTION)
    assert isinstance(answer, dict), answer


@check
def a_model_that_is_free_calls_tools_and_goes_on():
    question = HumanMessage("What is the weather in Rome and Oslo?")
    called = {"calls": [{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")]}
    for api in APIS:
        for ask in (lambda model, turns: model.invoke(turns), streamed):
            upstream.script(called, {"text": "It is 7 degrees."})
            model = api(upstream.model).bind_tools(TOOLS)
            answer = ask(model, [question])
            same([call["args"] for call in answer.tool_calls], [{"city": "Rome"}, {"city": "Oslo"}], "the calls")
            results = [get_weather.invoke(call) for call in answer.tool_calls]
            same(ask(model, [question, answer, *results]).text.strip(), "It is 7 degrees.", "the answer")
            first, second = upstream.bodies()
            assert first.get("tool_choice", "auto") == "auto", first
            same([one["function"]["name"] for one in first["tools"]], ["get_weather", "get_time"], "the tools")
            _, call, *answered = second["messages"]
            same([one["tool_call_id"] for one in answered], [one["id"] for one in call["tool_calls"]], "the answered calls")
            same([one["content"] for one in answered], ["7 degrees in Rome", "7 degrees in Oslo"], "the results")


@check
def texts_become_vectors_whether_sent_as_text_or_as_tokens():
    texts = ["Name three colours.", "two"]
    vocabulary = tiktoken.get_encoding("cl100k_base")
    tokens = [vocabulary.encode(text) for text in texts]
    for settings, sent in [({}, tokens), ({"check_embedding_ctx_length": False}, texts)]:
        for form in ("base64", "float"):
            upstream.script()
            # A form that is asked for by name is decoded by nobody else.
            more = {"model_kwargs": {"encoding_format": form}} if form == "float" else {}
            vectors = OpenAIEmbeddings(**OPENAI, model=upstream.model, **settings, **more).embed_documents(texts)
            same(vectors, [[float(len(one)), float(place), 0.5, -2.0] for place, one in enumerate(sent)], "the vectors")
            [body] = upstream.bodies()
            same((body["input"], body["encoding_format"]), (sent, form), "what was sent on")
            upstream.is_charged()
    same(OpenAIEmbeddings(**OPENAI, model=upstream.model).embed_query("two"), [1.0, 0.0, 0.5, -2.0], "one vector")
    # The model that ships has another vocabulary, so it is sent text.
    shipped = OpenAIEmbeddings(**OPENAI, model=MODEL, check_embedding_ctx_length=False)
    [one, other] = shipped.embed_documents(texts)
    same(shipped.embed_query(texts[1]), other, "the vector of the second text")
    assert one != other and abs(sum(value * value for value in one) - 1) < 1e-5, one


@check
def errors_have_the_types_of_the_library():
    for api in APIS:
        raises(ModelAuthenticationError, lambda: api(api_key="sk-sub-unknown").invoke(QUESTION), "key")
        raises(ModelNotFoundError, lambda: api("no-such-model").invoke(QUESTION), "no-such-model")
        raises(ModelNotFoundError, lambda: streamed(api("no-such-model")), "no-such-model")
        raises(ContextOverflowError, lambda: api().invoke("word " * 50_000), "2048")
    raises(openai.NotFoundError, lambda: OpenAIEmbeddings(**OPENAI, model="no-such-model").embed_query("x"), "no-such-model")


@check
def a_stream_that_is_left_is_charged_for_what_was_delivered():
    def leave(api):
        stream = api(upstream.model).stream(QUESTION)
        assert any(chunk.text for chunk in stream), "no text"
        stream.close()

    async def leave_waiting(api):
        await cancelled(chunk.text async for chunk in api(upstream.model).astream(QUESTION))

    for api in APIS:
        upstream.is_left(lambda: leave(api))
        upstream.is_left(lambda: run(leave_waiting(api)))


@check
def a_real_answer_that_is_left_is_not_generated_to_its_end():
    for seed in range(10):
        stream = chat(temperature=1.5, seed=seed, max_tokens=400, include_response_headers=True).stream(QUESTION)
        first = next(stream)
        next(stream), next(stream)
        stream.close()
        record = record_of(first.response_metadata["headers"]["x-request-id"])
        if record["outcome"] == "client_cancelled":
            assert 1 <= record["usage"]["output_tokens"] < 200, record
            return
    raise AssertionError("ten answers were over before they could be left")


@check
def a_busy_server_is_asked_again_when_it_said():
    for api in (chat, messages):
        upstream.is_asked_again(lambda key: api(upstream.model, max_retries=2, api_key=key).invoke(QUESTION).text)


main()
