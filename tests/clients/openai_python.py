"""The unmodified openai package against a running cloud.

Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed.
Reads what `checks.py` reads.
"""

import array
import base64
import json
import os
import struct
import time
from typing import Literal

import openai
import pydantic

from checks import BASE, KEY, MODEL, Upstream, charged, check, main, same, settled

upstream = Upstream()
QUESTION = [{"role": "user", "content": "Name three colours."}]

# Without retries a failure is seen as it is.
client = openai.OpenAI(api_key=KEY, base_url=BASE, max_retries=0, timeout=60)


def raises(kind, call, **fields):
    """Expects an error of a class, with these fields in its body, and a request id."""
    try:
        call()
    except openai.APIStatusError as error:
        assert type(error) is kind, f"got {type(error).__name__} ({error}), want {kind.__name__}"
        assert error.request_id and error.request_id.startswith("req_"), f"request id {error.request_id!r}"
        body = error.body or {}
        for name in ("message", "type", "param", "code"):
            assert name in body, f"the error body has no {name}: {body}"
        for name, value in fields.items():
            same(body[name], value, f"error.{name}")
        return error
    raise AssertionError(f"no error, want {kind.__name__}")


def ask(**settings):
    settings = {"model": MODEL, "messages": QUESTION, "max_tokens": 24, **settings}
    return client.chat.completions.create(**settings)


@check
def models_are_listed_and_found_by_name():
    names = [model.id for model in client.models.list()]
    assert MODEL in names, f"{MODEL} is not among {names}"
    model = client.models.retrieve(MODEL)
    same((model.id, model.object), (MODEL, "model"), "the model")
    raises(openai.NotFoundError, lambda: client.models.retrieve("no-such/model"), code="model_not_found")


@check
def an_answer_has_text_usage_and_a_request_id():
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=24, temperature=0)
    answer = raw.parse()
    assert raw.headers["x-request-id"].startswith("req_"), raw.headers
    assert answer.choices[0].message.content, "no text"
    same(answer.choices[0].message.role, "assistant", "role")
    assert answer.choices[0].finish_reason in ("stop", "length"), answer.choices[0].finish_reason
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24, usage
    same(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total tokens")
    charged(answer.id, usage.prompt_tokens, usage.completion_tokens)


@check
def a_stream_says_the_same_as_a_whole_answer():
    whole = ask(temperature=0)
    chunks = list(ask(temperature=0, stream=True, stream_options={"include_usage": True}))
    same(chunks[0].choices[0].delta.role, "assistant", "the first chunk's role")
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    same(text, whole.choices[0].message.content, "the text")
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    same(reasons, [whole.choices[0].finish_reason], "the reason of the end")
    with_usage = [chunk for chunk in chunks if chunk.usage]
    assert with_usage == [chunks[-1]] and chunks[-1].choices == [], "usage comes once, last, without choices"
    counts = lambda usage: (usage.prompt_tokens, usage.completion_tokens)
    same(counts(chunks[-1].usage), counts(whole.usage), "usage")


@check
def a_stream_without_the_option_carries_no_usage():
    assert all(chunk.usage is None for chunk in ask(stream=True, max_tokens=4))


@check
def a_seed_repeats_an_answer():
    texts = {ask(temperature=1.0, seed=7).choices[0].message.content for _ in range(3)}
    same(len(texts), 1, "different texts of one seed")
    others = {ask(temperature=1.5, seed=seed).choices[0].message.content for seed in range(8)}
    assert len(others) > 1, "eight seeds, one text"


@check
def the_maximum_is_kept_exactly():
    for limit in (1, 5):
        # The model may end by itself before the maximum, never after it.
        answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_completion_tokens=limit)
        count, reason = answer.usage.completion_tokens, answer.choices[0].finish_reason
        assert count == limit if reason == "length" else count <= limit, (count, reason)


@check
def a_stop_string_ends_the_text_before_it():
    whole = ask(temperature=0).choices[0].message.content
    stop = whole[len(whole) // 2:][:3]
    answer = ask(temperature=0, stop=[stop])
    same(answer.choices[0].message.content, whole[: whole.index(stop)], "the text")
    same(answer.choices[0].finish_reason, "stop", "the reason")


@check
def several_answers_are_counted_together():
    answer = ask(n=3, max_tokens=6, temperature=1.0, seed=3)
    same([choice.index for choice in answer.choices], [0, 1, 2], "indexes")
    assert 3 <= answer.usage.completion_tokens <= 18, answer.usage
    finished = set()
    for chunk in ask(n=3, max_tokens=6, temperature=1.0, stream=True):
        for choice in chunk.choices:
            if choice.finish_reason:
                finished.add(choice.index)
    same(finished, {0, 1, 2}, "streamed answers that finished")


@check
def a_text_is_continued():
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0)
    assert answer.choices[0].text, "no text"
    chunks = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0,
        stream=True, stream_options={"include_usage": True},
    )
    text, usage = "", None
    for chunk in chunks:
        text += chunk.choices[0].text if chunk.choices else ""
        usage = chunk.usage or usage
    same(text, answer.choices[0].text, "the streamed text")
    same(usage.completion_tokens, answer.usage.completion_tokens, "completion tokens")


@check
def a_response_says_the_same_whole_and_streamed():
    settings = {"model": MODEL, "input": "Name three colours.", "max_output_tokens": 24, "temperature": 0}
    whole = client.responses.create(**settings)
    same((whole.object, whole.store, whole.model), ("response", False, MODEL), "the response")
    assert whole.output_text and whole.status in ("completed", "incomplete"), whole
    with client.responses.stream(**settings) as stream:
        events = list(stream)
        final = stream.get_final_response()
    same(final.output_text, whole.output_text, "the text")
    same("".join(event.delta for event in events if event.type == "response.output_text.delta"), whole.output_text, "deltas")
    same([event.sequence_number for event in events], list(range(len(events))), "numbers")
    counts = lambda usage: (usage.input_tokens, usage.output_tokens, usage.total_tokens)
    same(counts(final.usage), counts(whole.usage), "usage")
    chat = ask(messages=[{"role": "user", "content": "Name three colours."}], temperature=0)
    same(chat.choices[0].message.content, whole.output_text, "the same answer in chat")


@check
def a_conversation_goes_on_without_a_store():
    first = client.responses.create(model=MODEL, input="Hello", instructions="You are brief.", max_output_tokens=8, store=False)
    items = [{"role": "user", "content": "Hello"}, *first.output, {"role": "user", "content": "And now?"}]
    assert client.responses.create(model=MODEL, input=items, max_output_tokens=8).output_text
    follow = lambda: client.responses.create(model=MODEL, input="More", previous_response_id=first.id)
    raises(openai.BadRequestError, follow, param="previous_response_id", code="previous_response_not_found")
    raises(openai.NotFoundError, lambda: client.responses.retrieve(first.id), code="not_found")


def streamed(**settings):
    """The response that a stream ends with, cut by its maximum or not."""
    *_, last = client.responses.create(**settings, stream=True)
    assert last.type in ("response.completed", "response.incomplete"), last
    return last.response


@check
def a_response_is_kept_on_request_read_and_forgotten():
    settings = {"model": MODEL, "max_output_tokens": 12, "temperature": 0, "store": True, "metadata": {"case": "7"}}
    question = [{"role": "user", "content": [{"type": "input_text", "text": "Name three colours."}]}, {"role": "assistant", "content": "Red."}, {"role": "user", "content": "Go on."}]
    whole = client.responses.create(**settings, input=question)
    for kept in (whole, streamed(**settings, input=question)):
        again = client.responses.retrieve(kept.id)
        same((again.output, again.usage, again.metadata), (kept.output, kept.usage, {"case": "7"}), "the response")
        same((again.store, again.status, again.created_at), (True, kept.status, kept.created_at), "the response")
        items = list(client.responses.input_items.list(kept.id, order="asc", limit=2))
        same([item.role for item in items], ["user", "assistant", "user"], "roles")
        same([item.content[0].text for item in items], ["Name three colours.", "Red.", "Go on."], "texts")
        same([item.content[0].type for item in items], ["input_text", "output_text", "input_text"], "types")
        newest = client.responses.input_items.list(kept.id, limit=1)
        same((newest.data[0].id, newest.has_more), (items[-1].id, True), "newest first")
        raises(openai.BadRequestError, lambda: client.responses.retrieve(kept.id, stream=True), param="stream")
        raises(openai.NotFoundError, lambda: client.responses.cancel(kept.id), code="not_offered")
        same(client.responses.delete(kept.id), None, "nothing is said of what is deleted")
        raises(openai.NotFoundError, lambda: client.responses.retrieve(kept.id), code="not_found")
        raises(openai.NotFoundError, lambda: client.responses.input_items.list(kept.id), code="not_found")
    raises(openai.BadRequestError, lambda: client.responses.create(model=MODEL, input="Later", background=True), param="background")


@check
def a_conversation_goes_on_from_what_was_kept():
    settings = {"model": MODEL, "max_output_tokens": 8, "temperature": 0}
    first = client.responses.create(**settings, input="Hello", instructions="You are brief.", store=True)
    second = streamed(**settings, input="And now?", previous_response_id=first.id, store=True)
    third = client.responses.create(**settings, input="More?", previous_response_id=second.id)
    same((second.previous_response_id, third.previous_response_id), (first.id, second.id), "what came before")
    user = lambda text: {"role": "user", "content": text}
    items = [user("Hello"), *first.output, user("And now?"), *second.output, user("More?")]
    by_hand = client.responses.create(**settings, input=items)
    same((third.output_text, third.usage.input_tokens), (by_hand.output_text, by_hand.usage.input_tokens), "without the instructions")
    counted = client.responses.input_tokens.count(model=MODEL, input="More?", previous_response_id=second.id)
    same(counted.input_tokens, third.usage.input_tokens, "counted")
    named = [user("Hello"), {"type": "item_reference", "id": first.output[0].id}, user("And now?")]
    same(client.responses.create(**settings, input=named).output_text, second.output_text, "by reference")
    client.responses.delete(first.id)
    again = lambda: client.responses.create(**settings, input="More?", previous_response_id=second.id)
    raises(openai.BadRequestError, again, param="previous_response_id", code="previous_response_not_found")


@check
def input_tokens_are_counted_as_they_are_charged():
    counted = client.responses.input_tokens.count(model=MODEL, input="Name three colours.").input_tokens
    same(client.responses.create(model=MODEL, input="Name three colours.", max_output_tokens=4).usage.input_tokens, counted, "tokens")


@check
def wrong_requests_are_refused_by_class_and_field():
    stranger = openai.OpenAI(api_key="sk-sub-unknown", base_url=BASE, max_retries=0)
    raises(openai.AuthenticationError, lambda: stranger.models.list(), code="invalid_api_key")
    raises(openai.NotFoundError, lambda: ask(model="no-such-model"), code="model_not_found")
    raises(openai.NotFoundError, lambda: ask(model="no-such-model", stream=True), code="model_not_found")
    raises(openai.BadRequestError, lambda: ask(temperature=9), param="temperature")
    raises(openai.BadRequestError, lambda: ask(n=1_000_000_000), param="n")
    raises(openai.BadRequestError, lambda: ask(messages=[]), param="messages")
    raises(openai.BadRequestError, lambda: ask(messages=[{"role": "nobody", "content": "x"}]))
    raises(openai.NotFoundError, lambda: client.post("/nope", cast_to=object), code="unknown_url")


@check
def a_prompt_over_the_context_is_refused():
    long = [{"role": "user", "content": "word " * 50_000}]
    raises(openai.BadRequestError, lambda: ask(messages=long), code="context_length_exceeded")


@check
def a_field_that_would_change_the_answer_is_refused_not_ignored():
    raises(openai.BadRequestError, lambda: ask(functions=[{"name": "f"}]), param="functions")
    raises(openai.BadRequestError, lambda: ask(modalities=["text", "audio"]), param="modalities")
    raises(openai.BadRequestError, lambda: ask(tools=[{**WEATHER, "type": "custom"}]), param="tools[0].type")
    raises(openai.BadRequestError, lambda: ask(tool_choice="required"), param="tool_choice")
    schema = {"name": "s", "schema": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}
    unkeepable = {"type": "json_schema", "json_schema": schema}
    raises(openai.BadRequestError, lambda: ask(response_format=unkeepable), param="response_format")


class Place(pydantic.BaseModel):
    """A place, in the way in which people describe their data."""

    city: str = pydantic.Field(max_length=20, description="Its name.")
    country: str | None = pydantic.Field(max_length=20)


class Trip(pydantic.BaseModel):
    kind: Literal["train", "boat"]
    days: int = pydantic.Field(ge=1, le=30)
    places: list[Place] = pydantic.Field(max_length=2)


CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": False}
NOTHING = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY, "strict": True}}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": NOTHING}}
WEATHER_QUESTION = [{"role": "user", "content": "What is the weather in Rome?"}]


@check
def an_answer_has_the_form_of_a_class():
    for seed in range(5):
        answer = client.chat.completions.parse(
            model=MODEL, messages=QUESTION, response_format=Trip, max_tokens=200, temperature=1.0, seed=seed
        )
        assert isinstance(answer.choices[0].message.parsed, Trip), answer
        same(answer.choices[0].finish_reason, "stop", "the reason")
    parsed = client.responses.parse(model=MODEL, input="Name three colours.", text_format=Trip, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, Trip), parsed


@check
def an_answer_is_any_object_a_choice_or_an_expression():
    extra = lambda **fields: ask(extra_body=fields, max_tokens=60).choices[0].message.content
    assert extra(guided_choice=["red.", "blue (dark)"]) in ("red.", "blue (dark)")
    digits = extra(guided_regex="[0-9]{3}-[0-9]{2}")
    assert len(digits) == 6 and digits.replace("-", "").isdigit(), digits
    assert json.loads(extra(structured_outputs={"json": {"enum": ["a", 1]}})) in ("a", 1)
    plain = ask(response_format={"type": "json_object"}, max_tokens=60)
    assert plain.choices[0].message.content.startswith("{"), plain
    if plain.choices[0].finish_reason == "stop":
        json.loads(plain.choices[0].message.content)


@check
def a_named_tool_is_called_whole_and_streamed():
    settings = {"messages": QUESTION, "tools": [WEATHER, CLOCK], "temperature": 0, "max_tokens": 60}
    choice = {"type": "function", "function": {"name": "get_weather"}}
    whole = ask(**settings, tool_choice=choice).choices[0]
    [call] = whole.message.tool_calls
    same((call.type, call.function.name, whole.finish_reason), ("function", "get_weather", "tool_calls"), "the call")
    assert isinstance(json.loads(call.function.arguments)["city"], str), call
    same(whole.message.content, None, "the text beside it")
    parts = [c.delta.tool_calls[0] for chunk in ask(**settings, tool_choice=choice, stream=True) for c in chunk.choices if c.delta.tool_calls]
    same("".join(part.function.arguments for part in parts), call.function.arguments, "the streamed arguments")
    same([part.function.name for part in parts][:1] + [part.id for part in parts[1:]], ["get_weather", *[None] * (len(parts) - 1)], "the start")
    assert len(parts) > 2 and all(part.index == 0 for part in parts), parts


@check
def one_of_several_tools_is_called_when_a_call_is_required():
    for seed in range(5):
        choice = ask(tools=[WEATHER, CLOCK], tool_choice="required", max_tokens=80, temperature=1.0, seed=seed).choices[0]
        [call] = choice.message.tool_calls
        assert call.function.name in ("get_weather", "get_time"), call
        arguments = json.loads(call.function.arguments)
        same(set(arguments), {"city"} if call.function.name == "get_weather" else set(), "the arguments")


@check
def a_conversation_with_a_tool_comes_to_an_answer():
    helper = {"model": MODEL, "tools": [WEATHER, CLOCK], "temperature": 0, "max_tokens": 60}
    with client.chat.completions.stream(**helper, messages=WEATHER_QUESTION) as stream:
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls
    same((call.function.name, final.choices[0].finish_reason), ("get_weather", "tool_calls"), "the model's own call")
    assert "Rome" in json.loads(call.function.arguments).values(), call
    turns = [*WEATHER_QUESTION, final.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 7, "sky": "cloudy"}'}]
    answer = client.chat.completions.create(**helper, messages=turns)
    assert "7" in answer.choices[0].message.content, answer


@check
def a_response_calls_a_function_and_goes_on():
    tool = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": True}
    settings = {"model": MODEL, "tools": [tool, {"type": "web_search"}], "temperature": 0, "max_output_tokens": 60}
    choice = {"type": "function", "name": "get_weather"}
    question = "What is the weather in Rome?"
    whole = client.responses.create(**settings, input=question, tool_choice=choice)
    [call] = whole.output
    same((call.type, call.name, call.status), ("function_call", "get_weather", "completed"), "the call")
    with client.responses.stream(**settings, input=question, tool_choice=choice) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.function_call_arguments.delta")
        final = stream.get_final_response()
    same((deltas, final.output[0].arguments), (call.arguments, call.arguments), "the streamed arguments")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"temperature": 7, "sky": "cloudy"}'}
    items = [{"role": "user", "content": question}, call, result]
    assert client.responses.create(**settings, input=items).output_text


CALLED = {"calls": [{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")]}


@check
def a_model_that_is_free_calls_several_tools_and_goes_on():
    settings = {"model": upstream.model, "tools": [WEATHER, CLOCK]}
    for streamed in (False, True):
        upstream.script(CALLED, {"text": "It is 7 degrees."})
        if streamed:
            with client.chat.completions.stream(**settings, messages=WEATHER_QUESTION) as stream:
                first = stream.get_final_completion()
        else:
            first = client.chat.completions.create(**settings, messages=WEATHER_QUESTION)
        [choice] = first.choices
        same([json.loads(call.function.arguments)["city"] for call in choice.message.tool_calls], ["Rome", "Oslo"], "the calls")
        same(choice.finish_reason, "tool_calls", "the reason")
        results = [{"role": "tool", "tool_call_id": call.id, "content": "7 degrees"} for call in choice.message.tool_calls]
        second = client.chat.completions.create(**settings, messages=[*WEATHER_QUESTION, choice.message, *results])
        same(second.choices[0].message.content, "It is 7 degrees.", "the answer")
        charged(second.id, 11, 7)
    upstream.is_charged()


@check
def a_response_of_a_model_that_is_free_calls_several_functions_and_goes_on():
    tool = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": True}
    settings = {"model": upstream.model, "tools": [tool]}
    for streamed in (False, True):
        upstream.script(CALLED, {"text": "It is 7 degrees."})
        if streamed:
            with client.responses.stream(**settings, input="The weather?") as stream:
                first = stream.get_final_response()
        else:
            first = client.responses.create(**settings, input="The weather?")
        same([json.loads(call.arguments)["city"] for call in first.output], ["Rome", "Oslo"], "the calls")
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": "7 degrees"} for call in first.output]
        second = client.responses.create(**settings, input=[{"role": "user", "content": "The weather?"}, *first.output, *results])
        same(second.output_text, "It is 7 degrees.", "the answer")
        _, call, *answered = upstream.bodies()[1]["messages"]
        same([one["tool_call_id"] for one in answered], [one["id"] for one in call["tool_calls"]], "the answered calls")
    upstream.is_charged()


@check
def texts_and_tokens_become_vectors_in_both_forms():
    for given in ("two", ["Name three colours.", "two"], [1, 2, 3], [[1, 2, 3], [4]]):
        several = given if isinstance(given[0], (str, list)) and not isinstance(given, str) else [given]
        for form in (openai.NOT_GIVEN, "base64", "float"):
            upstream.script()
            answer = client.embeddings.create(model=upstream.model, input=given, encoding_format=form)
            [body] = upstream.bodies()
            same((body["input"], body["encoding_format"]), (given, form or "base64"), "what was sent on")
            same((answer.model, answer.usage.total_tokens), (upstream.model, sum(map(len, several))), "the answer")
            for place, (item, one) in enumerate(zip(answer.data, several, strict=True)):
                vector = item.embedding
                if form == "base64":
                    # Who asks for it by name decodes it too.
                    vector = list(struct.unpack("<4f", base64.b64decode(vector)))
                same(vector, [float(len(one)), float(place), 0.5, -2.0], "a vector")
    upstream.is_charged()


@check
def the_shipped_model_makes_vectors_of_texts_and_of_their_tokens():
    texts = ["What is Sublet?", "Once upon a time"]
    ask = lambda **settings: client.embeddings.create(model=MODEL, input=texts, **settings).data
    # Numbers in text are as short as they can be: the same once they are 32 bits again.
    plain, numbers = ([array.array("f", item.embedding) for item in ask(**form)] for form in ({}, {"encoding_format": "float"}))
    assert plain == numbers and plain[0] != plain[1], "what is made of the bytes is not what the numbers say"
    assert all(abs(sum(value * value for value in one) - 1) < 1e-5 for one in plain), "a vector has another length than 1"
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=texts)
    usage = raw.parse().usage
    charged(raw.headers["x-request-id"], usage.prompt_tokens, 0)
    raises(openai.BadRequestError, lambda: client.embeddings.create(model=MODEL, input="word " * 50_000), code="context_length_exceeded")


@check
def a_busy_server_is_asked_again_when_it_said():
    patient = lambda key: client.with_options(max_retries=2, api_key=key).chat.completions
    upstream.is_asked_again(lambda key: patient(key).create(model=upstream.model, messages=QUESTION).choices[0].message.content)


def lines(count, **settings):
    """Input lines of a batch, the n-th with the seed n."""
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 8, **settings}
    url = "/v1/chat/completions"
    wire = [{"custom_id": f"line-{n}", "method": "POST", "url": url, "body": {**body, "seed": n}} for n in range(count)]
    return "".join(json.dumps(line) + "\n" for line in wire).encode()


def ended(batch):
    deadline = time.monotonic() + 60
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < deadline, f"{batch.id} is still {batch.status}"
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


@check
def files_go_up_and_come_down():
    content = bytes(range(256)) * 2_000
    life = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("numbers.bin", content), purpose="user_data", expires_after=life)
    same((file.object, file.bytes, file.filename, file.status), ("file", len(content), "numbers.bin", "processed"), "the file")
    same(file.expires_at - file.created_at, 3600, "its life")
    same(client.files.content(file.id).read(), content, "the content")
    assert file.id in [one.id for one in client.files.list(purpose="user_data")], "it is not listed"
    same(client.files.delete(file.id).deleted, True, "deleted")
    raises(openai.NotFoundError, lambda: client.files.retrieve(file.id), code="not_found")


@check
def a_batch_answers_each_line_as_a_request_would_be():
    file = client.files.create(file=("lines.jsonl", lines(5, temperature=0)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"suite": "python"}
    )
    batch = ended(batch)
    same((batch.status, batch.errors, batch.metadata), ("completed", None, {"suite": "python"}), "the batch")
    counts = batch.request_counts
    same((counts.total, counts.completed, counts.failed), (5, 5, 0), "counts")
    answers = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    same([answer["custom_id"] for answer in answers], [f"line-{n}" for n in range(5)], "the lines, in their order")
    online = ask(temperature=0, max_tokens=8)
    same(answers[0]["response"]["body"]["choices"][0]["message"]["content"], online.choices[0].message.content, "an answer")
    same(batch.usage.output_tokens, sum(answer["response"]["body"]["usage"]["completion_tokens"] for answer in answers), "usage")
    assert batch.id in [one.id for one in client.batches.list(limit=5)], "it is not listed"


@check
def a_batch_with_a_wrong_line_fails_and_says_which():
    file = client.files.create(file=("lines.jsonl", lines(2) + b"{}\n"), purpose="batch")
    batch = ended(client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"))
    same((batch.status, [problem.line for problem in batch.errors.data]), ("failed", [3]), "the batch")
    call = lambda: client.batches.create(input_file_id=file.id, endpoint="/v1/images/generations", completion_window="24h")
    raises(openai.BadRequestError, call, code="unsupported_field", param="endpoint")


@check
def a_cancelled_batch_ends():
    file = client.files.create(file=("lines.jsonl", lines(200, max_tokens=200)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = ended(client.batches.cancel(batch.id))
    same(batch.status, "cancelled", "the batch")


@check
def a_cut_stream_is_charged_for_what_was_delivered():
    limit = 400
    for attempt in range(10):
        request, delivered = cut_after_three_chunks(limit, seed=attempt)
        record = settled_request(request)
        charged = record["usage"]["output_tokens"]
        assert charged >= delivered, f"{delivered} chunks delivered, {charged} tokens charged"
        if record["outcome"] == "client_cancelled":
            assert charged < limit // 2, f"{charged} tokens charged of {limit} after {delivered} chunks"
            return
        # The model was done before the cut arrived, so all of it was delivered. Try a longer answer.
        assert record["outcome"] in ("completed", "length"), record
    raise AssertionError("ten answers were over before they could be cut")


def cut_after_three_chunks(limit, seed):
    """Leaves a stream early; answers the request's id and the number of chunks with text."""
    request = client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=QUESTION, max_tokens=limit, temperature=1.5, seed=seed, stream=True
    )
    with request as response:
        delivered = 0
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                delivered += bool(choices and choices[0]["delta"].get("content"))
            if delivered >= 3:
                break
        return response.headers["x-request-id"], delivered


def settled_request(request):
    return settled(lambda: client.get(f"/requests/{request}", cast_to=object), openai.NotFoundError, request)


main()
