"""The unmodified llama-index packages for OpenAI-like servers against a running cloud.

Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Reads what `checks.py` reads.
"""

import asyncio
import gc
from typing import Literal

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from pydantic import BaseModel

from checks import BASE, KEY, MODEL, Upstream, cancelled, charged, check, main, raises, same

upstream = Upstream()
# One loop for all: clients keep their connections, which belong to a loop.
run = asyncio.Runner().run
# Without retries a failure is seen as it is.
SERVER = {"api_base": BASE, "api_key": KEY, "max_retries": 0, "timeout": 60}
KIND = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 2048}


def model(name=MODEL, **settings):
    return OpenAILike(**{**SERVER, **KIND, "model": name, "max_tokens": 24, "temperature": 0, **settings})


def asked(text="Name three colours."):
    return [ChatMessage(role="user", content=text)]


def text_of(chunks):
    return "".join(chunk.delta or "" for chunk in chunks)


@check
def an_answer_has_text_and_the_usage_that_is_charged():
    answer = model().chat(asked())
    assert answer.message.content, answer
    usage = answer.raw.usage
    charged(answer.raw.id, usage.prompt_tokens, usage.completion_tokens)
    same(answer.additional_kwargs["total_tokens"], usage.prompt_tokens + usage.completion_tokens, "the library's own sum")


@check
def a_stream_says_the_same_as_a_whole_answer():
    whole = model().chat(asked())
    chunks = list(model(additional_kwargs={"stream_options": {"include_usage": True}}).stream_chat(asked()))
    same(text_of(chunks), whole.message.content, "the text")
    same(chunks[-1].message.content, whole.message.content, "the assembled text")
    counts = lambda usage: (usage.prompt_tokens, usage.completion_tokens)
    same(counts(chunks[-1].raw.usage), counts(whole.raw.usage), "usage")
    same(model().complete("Name three colours.").text, whole.message.content, "the text of a completion")


@check
def many_at_once_are_answered_each_for_itself():
    async def ask():
        answers = await asyncio.gather(*(model().achat(asked()) for _ in range(4)))
        same(len({answer.message.content for answer in answers}), 1, "different answers")
        chunks = [chunk async for chunk in await model().astream_chat(asked())]
        same(text_of(chunks), answers[0].message.content, "the streamed text")

    run(ask())


@check
def a_response_says_what_a_chat_says():
    responses = OpenAILikeResponses(**{**SERVER, **KIND, "model": MODEL, "max_output_tokens": 24, "temperature": 0})
    whole = responses.chat(asked())
    same(whole.message.content, model().chat(asked()).message.content, "the text")
    usage = whole.raw.usage
    charged(whole.raw.id, usage.input_tokens, usage.output_tokens)
    same(text_of(responses.stream_chat(asked())), whole.message.content, "the streamed text")


def get_weather(city: str) -> str:
    """The weather."""
    return f"7 degrees in {city}"


def get_time() -> str:
    """The time."""
    return "noon"


class City(BaseModel):
    """A city, in the way in which people describe their data."""

    name: Literal["Rome", "Oslo"]
    capital: bool


TOOLS = [FunctionTool.from_defaults(get_weather), FunctionTool.from_defaults(get_time)]


@check
def a_demanded_tool_is_called():
    ask = {"tools": TOOLS, "user_msg": "What is the weather in Rome?"}
    llm = model(max_tokens=200)
    answer = llm.chat_with_tools(**ask, tool_required=True)
    [call] = llm.get_tool_calls_from_response(answer)
    assert call.tool_name in ("get_weather", "get_time"), call
    for name, arguments in [("get_weather", {"city"}), ("get_time", set())]:
        [call] = llm.get_tool_calls_from_response(llm.chat_with_tools(**ask, tool_choice=name))
        same((call.tool_name, set(call.tool_kwargs)), (name, arguments), "the call")
        *_, last = llm.stream_chat_with_tools(**ask, tool_choice=name)
        [again] = llm.get_tool_calls_from_response(last)
        same((again.tool_name, again.tool_kwargs), (name, call.tool_kwargs), "the streamed call")


@check
def an_answer_has_the_form_of_a_class():
    for settings in ({}, {"should_use_structured_outputs": True}):
        answer = model(max_tokens=200, **settings).as_structured_llm(City).chat(asked())
        assert isinstance(answer.raw, City), answer


@check
def a_model_that_is_free_calls_tools_and_goes_on():
    called = {"calls": [{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")]}
    upstream.script(called, {"text": "It is 7 degrees."})
    answer = model(upstream.model).predict_and_call(TOOLS, "What is the weather?", allow_parallel_tool_calls=True)
    same([source.content for source in answer.sources], ["7 degrees in Rome", "7 degrees in Oslo"], "what the tools said")
    for ask in ("chat", "stream_chat"):
        upstream.script(called, {"text": "It is 7 degrees."})
        llm = model(upstream.model)
        answer = getattr(llm, f"{ask}_with_tools")(TOOLS, chat_history=asked(), allow_parallel_tool_calls=True)
        answer = list(answer)[-1] if ask == "stream_chat" else answer
        calls = llm.get_tool_calls_from_response(answer)
        same([call.tool_kwargs["city"] for call in calls], ["Rome", "Oslo"], "the calls")
        results = [
            ChatMessage(role="tool", content=get_weather(**call.tool_kwargs), additional_kwargs={"tool_call_id": call.tool_id})
            for call in calls
        ]
        final = llm.chat([*asked(), answer.message, *results])
        same(final.message.content.strip(), "It is 7 degrees.", "the answer")
        first, second = upstream.bodies()
        same(first.get("tool_choice", "auto"), "auto", "the choice")
        _, call, *answered = second["messages"]
        same([one["tool_call_id"] for one in answered], [one["id"] for one in call["tool_calls"]], "the answered calls")


@check
def texts_become_vectors_in_both_forms():
    texts = ["Name three colours.", "two"]
    vectors = [[float(len(text)), float(place), 0.5, -2.0] for place, text in enumerate(texts)]
    for form in ("base64", "float"):
        more = {"additional_kwargs": {"encoding_format": form}} if form == "float" else {}
        embed = OpenAILikeEmbedding(**SERVER, model_name=upstream.model, **more)
        upstream.script()
        same(embed.get_text_embedding_batch(texts), vectors, "the vectors")
        [body] = upstream.bodies()
        same((body["input"], body["encoding_format"]), (texts, form), "what was sent on")
        upstream.is_charged()
    same(embed.get_query_embedding("two"), [3.0, 0.0, 0.5, -2.0], "one vector")


@check
def errors_have_the_types_of_the_library():
    raises(openai.AuthenticationError, lambda: model(api_key="sk-sub-unknown").chat(asked()), "invalid_api_key")
    raises(openai.NotFoundError, lambda: model("no-such-model").chat(asked()), "model_not_found")
    raises(openai.NotFoundError, lambda: list(model("no-such-model").stream_chat(asked())), "model_not_found")
    raises(openai.BadRequestError, lambda: model().chat(asked("word " * 50_000)), "context_length_exceeded")
    embed = OpenAILikeEmbedding(**SERVER, model_name="no-such-model")
    raises(openai.NotFoundError, lambda: embed.get_query_embedding("two"), "model_not_found")


@check
def a_stream_that_is_left_is_charged_for_what_was_delivered():
    def leave():
        stream = model(upstream.model).stream_chat(asked())
        assert any(chunk.delta for chunk in stream), "no text"
        stream.close()
        # The library keeps its stream in a circle, and leaves the connection to whoever collects it.
        gc.collect()

    async def leave_waiting():
        stream = await model(upstream.model).astream_chat(asked())
        await cancelled(chunk.delta async for chunk in stream)

    upstream.is_left(leave)
    upstream.is_left(lambda: run(leave_waiting()))


@check
def a_busy_server_is_asked_again_when_it_said():
    upstream.is_asked_again(lambda key: model(upstream.model, max_retries=2, api_key=key).chat(asked()).message.content)


main()
