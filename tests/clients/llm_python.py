"""The unmodified llm package against a running cloud: its commands, and what they stand on.

Prints `ok NAME` or `FAIL NAME: why` per check; exit status 0 only if all passed. Reads what `checks.py` reads.
"""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import openai

from checks import BASE, KEY, MODEL, Upstream, cancelled, charged, check, main, raises, record_of, same

upstream = Upstream()
# Its models for vectors have the names that OpenAI's have.
vectors = Upstream("llm_vectors", "text-embedding-3-small")
run = asyncio.Runner().run
home = tempfile.TemporaryDirectory()
os.environ["LLM_USER_PATH"] = home.name
# Whoever is started in the background may ignore interrupts, and its children with it: these are to hear of one.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Where its models for vectors look for a server.
os.environ["OPENAI_BASE_URL"] = BASE
QUESTION = "Name three colours."
GREEDY = {"temperature": 0, "max_tokens": 60}


def entry(name, model, **more):
    """A model in the library's own file of OpenAI-compatible models; YAML reads JSON."""
    return {"model_id": name, "model_name": model, "api_base": BASE, "api_key_name": "sublet", **more}


BOTH = {"supports_schema": True, "supports_tools": True}
MODELS = [
    entry("sublet", MODEL, **BOTH),
    entry("sublet-responses", MODEL, responses=True, **BOTH),
    entry("sublet-text", MODEL, completion=True),
    entry("scripted", upstream.model, **BOTH),
    entry("scripted-responses", upstream.model, responses=True, **BOTH),
    entry("missing", "no-such-model"),
]
pathlib.Path(home.name, "extra-openai-models.yaml").write_text(json.dumps(MODELS))

import llm


def command(*arguments, status=0, **more):
    """Runs `llm`; answers what it wrote to its output, and to its errors."""
    program = pathlib.Path(sys.executable).with_name("llm")
    done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, **more)
    same(done.returncode, status, f"the status of llm, which says {done.stderr!r}")
    return done.stdout.rstrip("\n"), done.stderr


def ask(name, question=QUESTION, **more):
    options = {"max_tokens": 60} if "responses" in name else GREEDY
    response = llm.get_model(name).prompt(question, **{**options, **more})
    return response.text(), response


@check
def a_key_is_kept_and_a_question_is_answered_on_the_command_line():
    command("keys", "set", "sublet", "--value", KEY)
    text, usage = command("-m", "sublet", QUESTION, "-o", "temperature", "0", "-o", "max_tokens", "60", "--usage")
    answer, response = ask("sublet", stream=False)
    same(text, answer, "the text")
    counts = response.usage()
    same(usage.strip(), f"Token usage: {counts.input} input, {counts.output} output", "the usage")
    last, _ = command("logs", "list", "-n", "1", "--json")
    charged(json.loads(last)[0]["response_json"]["id"], counts.input, counts.output)


@check
def an_answer_has_text_and_the_usage_that_is_charged():
    whole, response = ask("sublet", stream=False)
    charged(response.response_json["id"], response.usage().input, response.usage().output)
    text, streamed = ask("sublet", stream=True)
    same(text, whole, "the streamed text")
    same((streamed.usage().input, streamed.usage().output), (response.usage().input, response.usage().output), "usage")
    for stream in (True, False):
        text, response = ask("sublet-responses", stream=stream)
        assert text, response
        charged(response.response_json["id"], response.usage().input, response.usage().output)
    text, response = ask("sublet-text", "The capital of France is", max_tokens=6)
    usage = response.response_json["usage"]
    assert text, response
    charged(response.response_json["id"], usage["prompt_tokens"], usage["completion_tokens"])


@check
def an_answer_has_the_form_of_a_schema():
    for name in ("sublet", "sublet-responses"):
        text, _ = ask(name, schema=llm.schema_dsl("name str, capital bool"))
        fields = json.loads(text)
        same({name: type(value) for name, value in fields.items()}, {"name": str, "capital": bool}, "the fields")


@check
def a_model_that_is_free_calls_tools_and_goes_on():
    asked = []

    def get_weather(city: str) -> str:
        """The weather."""
        asked.append(city)
        return f"7 degrees in {city}"

    called = {"calls": [{"name": "get_weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")]}
    for name in ("scripted", "scripted-responses"):
        for stream in (True, False):
            asked.clear()
            upstream.script(called, {"text": "It is 7 degrees."})
            chain = llm.get_model(name).chain("What is the weather?", tools=[get_weather], stream=stream)
            same(chain.text().strip(), "It is 7 degrees.", "the answer")
            same(asked, ["Rome", "Oslo"], "what the tool was asked")
            first, second = upstream.bodies()
            same(first.get("tool_choice", "auto"), "auto", "the choice")
            _, call, *answered = second["messages"]
            same([one["tool_call_id"] for one in answered], [one["id"] for one in call["tool_calls"]], "the answered calls")
    upstream.script({"calls": [{"name": "shout", "arguments": {"word": "hi"}}]}, {"text": "Done."})
    text, _ = command("-m", "scripted", "Shout.", "--functions", "def shout(word: str): return word.upper()")
    same((text.strip(), upstream.bodies()[1]["messages"][-1]["content"]), ("Done.", "HI"), "a tool of the command line")
    upstream.is_charged()


@check
def a_conversation_goes_on():
    upstream.script({"text": "One."}, {"text": "Two."})
    conversation = llm.get_model("scripted").conversation()
    same([conversation.prompt(text).text().strip() for text in ("First", "Second")], ["One.", "Two."], "the answers")
    turns = [(one["role"], one["content"].strip()) for one in upstream.bodies()[1]["messages"]]
    same(turns, [("user", "First"), ("assistant", "One."), ("user", "Second")], "the turns")


@check
def texts_become_vectors():
    model = llm.get_embedding_model("text-embedding-3-small")
    model.key = KEY
    texts = ["Name three colours.", "two"]
    vectors.script()
    same(list(model.embed_multi(texts)), [[float(len(one)), float(place), 0.5, -2.0] for place, one in enumerate(texts)], "the vectors")
    [body] = vectors.bodies()
    same(body["input"], texts, "what was sent on")
    text, _ = command("embed", "-m", "text-embedding-3-small", "-c", "two", "--key", KEY)
    same(json.loads(text), [3.0, 0.0, 0.5, -2.0], "a vector on the command line")
    vectors.is_charged()


@check
def errors_are_said():
    raises(openai.NotFoundError, lambda: ask("missing"), "no-such-model")
    raises(openai.BadRequestError, lambda: ask("sublet", "word " * 50_000), "maximum context length")
    raises(openai.AuthenticationError, lambda: ask("sublet", key="sk-sub-unknown"), "key")
    _, error = command("-m", "missing", QUESTION, status=1)
    assert "there is no model 'no-such-model'" in error, error


@check
def a_stream_that_is_left_is_charged_for_what_was_delivered():
    def interrupt():
        program = pathlib.Path(sys.executable).with_name("llm")
        process = subprocess.Popen([program, "-m", "scripted", QUESTION], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with process:
            assert process.stdout.read(3) == b"one", "no text"
            process.send_signal(signal.SIGINT)
            process.stdout.read()

    async def leave_waiting():
        await cancelled(llm.get_async_model("scripted").prompt(QUESTION))

    upstream.is_left(interrupt)
    upstream.is_left(lambda: run(leave_waiting()))


@check
def a_busy_server_is_asked_again_when_it_said():
    upstream.is_asked_again(lambda key: ask("scripted", key=key)[0])


main()
