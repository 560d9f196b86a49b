// Makes pages nicer that work without it: streams the playground, follows logs, asks before what
// cannot be undone, copies a secret. Keeps nothing and loads nothing from elsewhere.
"use strict";

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

const LOG_PAUSE_MS = 1000;
const log = document.querySelector("[data-follow]");
if (log) followLog(log);

async function followLog(log) {
  const state = document.getElementById("log-state");
  state.textContent = "Following the log while the job runs.";
  log.scrollTop = log.scrollHeight;
  for (let offset = log.dataset.offset, complete = false; !complete;) {
    await new Promise((resolve) => setTimeout(resolve, LOG_PAUSE_MS));
    let answer;
    try {
      answer = await fetch(`${log.dataset.follow}?offset=${offset}`, { redirect: "error" });
    } catch {
      state.textContent = "The cloud cannot be reached; trying again.";
      continue;
    }
    if (!answer.ok) {
      state.textContent = "The log cannot be read any more. Reload the page.";
      return;
    }
    const text = await answer.text();
    if (text) {
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      log.append(text);
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
    offset = answer.headers.get("x-next-offset");
    complete = answer.headers.get("x-complete") === "1";
  }
  // The job has ended: the page knows how and what it cost.
  location.reload();
}

const playground = document.getElementById("playground");
if (playground) talk(playground);

function talk(form) {
  const { message, history, model } = form.elements;
  const turns = document.getElementById("turns");
  const statement = document.getElementById("statement");
  const problem = document.getElementById("problem");
  const [send, stop] = [document.getElementById("send"), document.getElementById("stop")];

  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.disabled || !message.value.trim()) return;
    const asked = message.value;
    const body = new URLSearchParams(new FormData(form));
    const past = history.value ? JSON.parse(history.value) : [];
    const mine = say("user", "You", asked);
    const theirs = say("assistant", model.value, "");
    const answer = theirs.querySelector(".said");
    theirs.classList.add("writing");
    problem.replaceChildren();
    message.value = "";
    send.disabled = true;
    stop.hidden = false;
    const cut = new AbortController();
    stop.onclick = () => cut.abort();
    let usage = null;
    let request = "";
    let failure = null;
    try {
      const reply = await fetch(form.action, { method: "POST", body, headers: { accept: "text/event-stream" }, signal: cut.signal, redirect: "error" });
      request = reply.headers.get("x-request-id") ?? "";
      if (!(reply.headers.get("content-type") ?? "").startsWith("text/event-stream")) throw await refusal(reply);
      for await (const chunk of events(reply.body)) {
        if (chunk.error) throw chunk.error;
        answer.append(chunk.choices?.[0]?.delta?.content ?? "");
        usage = chunk.usage ?? usage;
        theirs.scrollIntoView({ block: "nearest" });
      }
    } catch (error) {
      if (error.name !== "AbortError") failure = error;
    }
    theirs.classList.remove("writing");
    send.disabled = false;
    stop.hidden = true;
    message.focus();
    if (failure && !answer.textContent) {
      mine.remove();
      theirs.remove();
      message.value = asked;
    } else {
      past.push({ role: "user", content: asked }, { role: "assistant", content: answer.textContent });
      history.value = JSON.stringify(past);
      settle(statement, usage, request, cut.signal.aborted);
    }
    if (failure) complain(problem, failure);
  });

  function say(who, name, text) {
    const turn = document.createElement("li");
    turn.className = who;
    const [speaker, said] = [document.createElement("span"), document.createElement("div")];
    speaker.className = "speaker";
    speaker.textContent = name;
    said.className = "said";
    said.textContent = text;
    turn.append(speaker, said);
    turns.append(turn);
    return turn;
  }
}

/** The chunks of a stream of server-sent events. */
async function* events(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for (const reader = body.getReader(); ;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith("data:") ? line.slice(5).trim() : "";
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

/** What a refused call says: the API's own error, or a page of the console. */
async function refusal(reply) {
  const text = await reply.text();
  try {
    return JSON.parse(text).error;
  } catch {
    const page = new DOMParser().parseFromString(text, "text/html");
    return { message: page.querySelector(".lead")?.textContent ?? `The cloud answered with status ${reply.status}.` };
  }
}

function complain(place, error) {
  const line = document.createElement("p");
  line.className = "problem";
  line.textContent = error.message;
  place.append(line);
  const list = document.createElement("ul");
  for (const alternative of error.alternatives ?? []) {
    const item = document.createElement("li");
    item.textContent = alternative;
    list.append(item);
  }
  if (list.children.length) place.append(list);
}

function settle(statement, usage, request, wasCut) {
  const words = [];
  if (usage) words.push(`${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out`);
  if (wasCut) words.push("stopped; what was delivered is charged");
  statement.textContent = words.length ? `${words.join(", ")} · ` : "";
  if (!request) return;
  const link = document.createElement("a");
  link.href = `/console/why/${encodeURIComponent(request)}`;
  link.textContent = "what it cost and why";
  statement.append(link, " (once it is settled, in a second)");
}
