"""The unmodified anthropic package against a running cloud.

Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed.
Reads what `checks.py` reads.
"""

import anthropic

from checks import KEY, MODEL, Upstream, charged, check, main, same, settled
from checks import ROOT as BASE

upstream = Upstream()
QUESTION = [{"role": "user", "content": "Name three colours."}]

# Without retries a failure is seen as it is.
client = anthropic.Anthropic(api_key=KEY, base_url=BASE, max_retries=0, timeout=60)


# The package has no argument for it any more; the wire has.
GREEDY = {"temperature": 0}


def ask(**settings):
    settings = {"model": MODEL, "messages": QUESTION, "max_tokens": 24, "extra_body": GREEDY, **settings}
    return client.messages.create(**settings)


def raises(kind, call, error_type, **fields):
    """Expects an error of a class, with this type and these fields, and a request id."""
    try:
        call()
    except anthropic.APIStatusError as error:
        assert type(error) is kind, f"got {type(error).__name__} ({error}), want {kind.__name__}"
        assert error.request_id and error.request_id.startswith("req_"), f"request id {error.request_id!r}"
        same(error.body["type"], "error", "type of the body")
        same(error.body["error"]["type"], error_type, "type of the error")
        for name, value in fields.items():
            same(error.body["error"].get(name), value, f"error.{name}")
        return
    raise AssertionError(f"no error, want {kind.__name__}")


@check
def a_message_has_text_usage_and_a_request_id():
    answer = ask()
    same((answer.type, answer.role, answer.model), ("message", "assistant", MODEL), "the message")
    same([block.type for block in answer.content], ["text"], "blocks")
    assert answer.content[0].text and answer.stop_reason in ("end_turn", "max_tokens"), answer
    assert answer.usage.input_tokens > 0 and 0 < answer.usage.output_tokens <= 24, answer.usage
    assert answer._request_id.startswith("req_"), answer._request_id
    charged(answer.id, answer.usage.input_tokens, answer.usage.output_tokens)


@check
def a_stream_says_the_same_as_a_whole_answer():
    whole = ask()
    with client.messages.stream(model=MODEL, messages=QUESTION, max_tokens=24, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    same(text, whole.content[0].text, "the text")
    same(final.content[0].text, text, "the accumulated text")
    counts = lambda usage: (usage.input_tokens, usage.output_tokens)
    same((final.stop_reason, counts(final.usage)), (whole.stop_reason, counts(whole.usage)), "the end")


@check
def events_come_in_their_order():
    kinds = [event.type for event in ask(stream=True)]
    same(kinds[:2], ["message_start", "content_block_start"], "the beginning")
    same(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"], "the end")
    same(set(kinds[2:-3]), {"content_block_delta"}, "between")


@check
def tokens_are_counted_as_they_are_charged():
    settings = {"model": MODEL, "system": "You are brief.", "messages": QUESTION}
    counted = client.messages.count_tokens(**settings).input_tokens
    same(ask(system="You are brief.").usage.input_tokens, counted, "input tokens")
    same(client.beta.messages.count_tokens(**settings).input_tokens, counted, "the beta's count")


@check
def a_stop_sequence_ends_the_text_and_is_named():
    whole = ask().content[0].text
    stop = whole[len(whole) // 2:][:3]
    answer = ask(stop_sequences=["never said before", stop])
    same((answer.stop_reason, answer.stop_sequence), ("stop_sequence", stop), "the end")
    same("".join(block.text for block in answer.content), whole[: whole.index(stop)], "the text")


@check
def a_conversation_with_blocks_goes_on():
    first = ask()
    text = lambda words: [{"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}]
    turns = [*QUESTION, {"role": "assistant", "content": first.content}, {"role": "user", "content": text("And one more?")}]
    assert ask(messages=turns, system=text("You are brief."), metadata={"user_id": "u"}).content


@check
def the_maximum_is_kept_exactly():
    answer = ask(max_tokens=5)
    assert answer.usage.output_tokens == 5 if answer.stop_reason == "max_tokens" else answer.usage.output_tokens <= 5, answer


@check
def wrong_requests_are_refused_by_class_and_type():
    stranger = anthropic.Anthropic(api_key="sk-sub-unknown", base_url=BASE, max_retries=0)
    create = lambda client, **more: client.messages.create(model=MODEL, messages=QUESTION, max_tokens=4, **more)
    raises(anthropic.AuthenticationError, lambda: create(stranger), "authentication_error", code="invalid_api_key")
    raises(anthropic.NotFoundError, lambda: ask(model="no-such-model"), "not_found_error", code="model_not_found")
    raises(anthropic.NotFoundError, lambda: list(ask(model="none", stream=True)), "not_found_error", code="model_not_found")
    raises(anthropic.BadRequestError, lambda: ask(messages=[]), "invalid_request_error", param="messages")
    raises(anthropic.BadRequestError, lambda: ask(extra_body={"temperature": 7}), "invalid_request_error", param="temperature")
    raises(anthropic.BadRequestError, lambda: ask(extra_body={"max_tokens": 0}), "invalid_request_error", param="max_tokens")
    long = [{"role": "user", "content": "word " * 50_000}]
    raises(anthropic.BadRequestError, lambda: ask(messages=long), "invalid_request_error", code="context_length_exceeded")
    tools = [{"name": "f g", "input_schema": {"type": "object", "properties": {}}}]
    raises(anthropic.BadRequestError, lambda: ask(tools=tools), "invalid_request_error", param="tools[0].name")


CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
TOOLS = [
    {"name": "get_weather", "description": "The weather.", "input_schema": CITY},
    {"name": "get_time", "input_schema": {"type": "object", "properties": {}}},
]
WEATHER_QUESTION = [{"role": "user", "content": "What is the weather in Rome?"}]


@check
def a_forced_tool_is_used_whole_and_streamed():
    for choice, names in [
        ({"type": "tool", "name": "get_time"}, {"get_time"}),
        ({"type": "tool", "name": "get_weather"}, {"get_weather"}),
        ({"type": "any"}, {"get_time", "get_weather"}),
    ]:
        settings = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 80}
        whole = ask(**settings)
        [block] = whole.content
        assert block.type == "tool_use" and block.name in names and block.id.startswith("toolu_"), block
        same((set(block.input), whole.stop_reason), ({"city"} if block.name == "get_weather" else set(), "tool_use"), "the use")
        with client.messages.stream(model=MODEL, messages=QUESTION, extra_body=GREEDY, **settings) as stream:
            parts = [event.delta.partial_json for event in stream if event.type == "content_block_delta"]
            final = stream.get_final_message()
        same((final.content[0].name, final.content[0].input, final.stop_reason), (block.name, block.input, "tool_use"), "streamed")
        assert "".join(parts).startswith("{"), parts


@check
def a_conversation_with_a_tool_comes_to_an_answer():
    called = ask(messages=WEATHER_QUESTION, tools=TOOLS, max_tokens=80)
    use = called.content[-1]
    same((use.type, use.name, called.stop_reason), ("tool_use", "get_weather", "tool_use"), "the model's own call")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": '{"temperature": 7, "sky": "cloudy"}'}
    turns = [*WEATHER_QUESTION, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    answer = ask(messages=turns, tools=TOOLS, max_tokens=40)
    assert "7" in answer.content[0].text, answer


@check
def a_model_that_is_free_uses_several_tools_and_goes_on():
    settings = {"model": upstream.model, "max_tokens": 80, "tools": TOOLS}
    called = {"calls": [{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")]}
    for streamed in (False, True):
        upstream.script(called, {"text": "It is 7 degrees."})
        if streamed:
            with client.messages.stream(**settings, messages=WEATHER_QUESTION) as stream:
                first = stream.get_final_message()
        else:
            first = client.messages.create(**settings, messages=WEATHER_QUESTION)
        same(([block.input for block in first.content], first.stop_reason), ([{"city": "Rome"}, {"city": "Oslo"}], "tool_use"), "the uses")
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": "7 degrees"} for block in first.content]
        turns = [*WEATHER_QUESTION, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
        second = client.messages.create(**settings, messages=turns)
        same(second.content[0].text, "It is 7 degrees.", "the answer")
        charged(second.id, 11, 7)
        _, call, *answered = upstream.bodies()[1]["messages"]
        same([one["tool_call_id"] for one in answered], [one["id"] for one in call["tool_calls"]], "the answered uses")
    upstream.is_charged()


@check
def a_busy_server_is_asked_again_when_it_said():
    ask = lambda key: client.with_options(max_retries=2, api_key=key).messages.create(model=upstream.model, messages=QUESTION, max_tokens=24)
    upstream.is_asked_again(lambda key: ask(key).content[0].text)


@check
def a_bearer_token_opens_the_same_door():
    bearer = anthropic.Anthropic(auth_token=KEY, api_key=None, base_url=BASE, max_retries=0)
    assert bearer.messages.create(model=MODEL, messages=QUESTION, max_tokens=4).content


@check
def models_are_listed_in_the_shape_of_the_package():
    models = list(client.models.list())
    assert MODEL in [model.id for model in models], models
    model = client.models.retrieve(MODEL)
    same((model.id, model.type), (MODEL, "model"), "the model")
    assert model.created_at.year >= 2026, model


@check
def a_stream_that_is_left_is_charged_for_what_was_delivered():
    for _ in range(10):
        with client.messages.stream(model=MODEL, messages=QUESTION, max_tokens=400, extra_body={"temperature": 1}) as stream:
            request = stream.response.headers["request-id"]
            for count, _ in enumerate(stream.text_stream, 1):
                if count == 3:
                    break
        record = settled_request(request)
        if record["outcome"] == "client_cancelled":
            assert 3 <= record["usage"]["output_tokens"] < 200, record
            return
    raise AssertionError("ten answers were over before they could be left")


def settled_request(request):
    return settled(lambda: client.get(f"/v1/requests/{request}", cast_to=object), anthropic.NotFoundError, request)


main()
