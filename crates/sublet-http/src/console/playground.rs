//! The playground: a conversation with a model, over the very handler that API clients reach.
//!
//! The form works without JavaScript: the whole conversation travels in it, and the answer is a page.
//! The script sends the same form and shows the answer while it streams. Either way the call passes
//! the data plane's gate with a ticket of the session's key, so it is held, metered and charged alike.
//! Nothing of a conversation is kept on this side.

use askama::Template;
use axum::body::Body;
use axum::handler::Handler as _;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use sublet_api::openai::{ChatCompletion, ChatMessage, ChatRequest, StreamOptions, Usage};
use sublet_api::{ErrorBody, parse_body};
use sublet_core::engine::Role;
use sublet_core::{Error, ErrorCode, Result};

use super::figure::Count;
use super::model::{self, ModelRow};
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

/// Largest answer that is rendered as a page, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Output of one answer when nothing else is asked for.
const OUTPUT_TOKENS_DEFAULT: i64 = 256;
/// Messages of one conversation.
const MESSAGES_MAX: usize = 200;

/// One message of the conversation.
#[derive(Clone)]
struct Turn {
    role: Role,
    content: String,
}

impl From<ChatMessage> for Turn {
    fn from(message: ChatMessage) -> Self {
        Self { role: message.role, content: message.content }
    }
}

impl Turn {
    /// The message as requests and the form's hidden field carry it.
    fn message(&self) -> ChatMessage {
        ChatMessage { role: self.role, content: self.content.clone() }
    }
    fn is_user(&self) -> bool {
        self.role == Role::User
    }
}

#[derive(Deserialize)]
struct SendForm {
    model: String,
    message: String,
    #[serde(default)]
    max_tokens: String,
    /// Earlier turns as JSON.
    #[serde(default)]
    history: String,
}

/// What an answer took.
struct Statement {
    request: String,
    usage: Usage,
}

impl Statement {
    fn input(&self) -> Count {
        Count(self.usage.prompt_tokens)
    }
    fn output(&self) -> Count {
        Count(self.usage.completion_tokens)
    }
}

/// Why there is no answer.
struct Problem {
    message: String,
    alternatives: Vec<String>,
}

#[derive(Template)]
#[template(path = "playground.html")]
struct PlaygroundPage {
    shell: Shell,
    models: Vec<ModelRow>,
    model: String,
    max_tokens: i64,
    turns: Vec<Turn>,
    history: String,
    /// The message that could not be answered, to be sent again.
    draft: String,
    statement: Option<Statement>,
    problem: Option<Problem>,
    base_url: String,
}

#[derive(Default, Deserialize)]
struct Choice {
    #[serde(default)]
    model: String,
}

async fn blank(console: &Console, visit: &Visit, chosen: &str) -> Result<PlaygroundPage> {
    let shell = Shell::of(console, &visit.actor, "Playground", "/console/playground").await?;
    let models: Vec<ModelRow> = model::rows(console, &visit.actor).await?.into_iter().filter(|model| model.allowed).collect();
    let known = models.iter().find(|model| model.name == chosen).or(models.first());
    Ok(PlaygroundPage {
        model: known.map_or_else(String::new, |model| model.name.clone()),
        shell,
        models,
        max_tokens: OUTPUT_TOKENS_DEFAULT,
        turns: Vec::new(),
        history: String::new(),
        draft: String::new(),
        statement: None,
        problem: None,
        base_url: visit.guest.base_url(),
    })
}

pub async fn form(console: Console, visit: Visit) -> Result<Response<Body>> {
    let chosen: Choice = visit.guest.query()?;
    shell::html(&blank(&console, &visit, &chosen.model).await?)
}

pub async fn send(console: Console, visit: Visit) -> Result<Response<Body>> {
    let form: SendForm = visit.guest.form()?;
    let streams = visit.guest.wants_events();
    let mut turns = parse_history(&form.history)?;
    turns.push(Turn { role: Role::User, content: form.message.clone() });
    let max_tokens = form.max_tokens.trim().parse().unwrap_or(OUTPUT_TOKENS_DEFAULT);
    let answer = call(&console, &visit, &form.model, (&turns, max_tokens, streams)).await?;
    if streams {
        return Ok(pass_on(answer));
    }
    let mut page = PlaygroundPage { max_tokens, ..blank(&console, &visit, &form.model).await? };
    match read_answer(answer).await? {
        Ok((text, statement)) => {
            turns.push(Turn { role: Role::Assistant, content: text });
            page.statement = Some(statement);
        }
        Err(problem) => {
            turns.pop();
            page.draft = form.message;
            page.problem = Some(problem);
        }
    }
    page.history = history_text(&turns)?;
    page.turns = turns;
    shell::html(&page)
}

fn parse_history(text: &str) -> Result<Vec<Turn>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let turns: Vec<ChatMessage> = serde_json::from_str(text).map_err(|_| {
        Error::new(ErrorCode::InvalidRequest, "the conversation in the form cannot be read").alternative("begin a new one")
    })?;
    if turns.len() >= MESSAGES_MAX {
        return Err(Error::new(ErrorCode::InvalidRequest, format!("a conversation has at most {MESSAGES_MAX} messages"))
            .alternative("begin a new one"));
    }
    Ok(turns.into_iter().map(Turn::from).collect())
}

fn history_text(turns: &[Turn]) -> Result<String> {
    let messages: Vec<ChatMessage> = turns.iter().map(Turn::message).collect();
    serde_json::to_string(&messages).map_err(|error| Error::internal(format!("cannot encode a conversation: {error}")))
}

/// Calls the data plane as the session's key.
async fn call(
    console: &Console,
    visit: &Visit,
    model: &str,
    (turns, max_tokens, stream): (&[Turn], i64, bool),
) -> Result<Response<Body>> {
    let chat = console.chat.clone().ok_or_else(|| Error::new(ErrorCode::NotFound, "this process serves no models"))?;
    let messages = turns.iter().map(Turn::message).collect();
    let request = ChatRequest {
        model: model.to_owned(),
        messages,
        max_completion_tokens: Some(max_tokens),
        seed: None,
        stream,
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
    };
    let body = serde_json::to_vec(&request).map_err(|error| Error::internal(format!("cannot encode a request: {error}")))?;
    let ticket = console.app.cloud.open_ticket(&visit.actor)?;
    let request = Request::post("/v1/chat/completions")
        .header(AUTHORIZATION, format!("Bearer {}", ticket.reveal()))
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .map_err(|error| Error::internal(format!("cannot make a request: {error}")))?;
    Ok(chat.call(request, ()).await)
}

/// The data plane's answer as it is, under the console's headers.
fn pass_on(mut answer: Response<Body>) -> Response<Body> {
    shell::guard(&mut answer);
    shell::set(&mut answer, CACHE_CONTROL, "no-store");
    answer
}

/// The answer's text and what it took, or why there is none.
async fn read_answer(answer: Response<Body>) -> Result<Result<(String, Statement), Problem>> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Error::internal(format!("an answer cannot be read: {error}")))?.to_bytes();
    if parts.status != StatusCode::OK {
        let error = parse_body::<ErrorBody>(&body)?.error;
        return Ok(Err(Problem { message: error.message, alternatives: error.alternatives }));
    }
    let completion: ChatCompletion =
        serde_json::from_slice(&body).map_err(|error| Error::internal(format!("an answer of the data plane: {error}")))?;
    let text = completion.choices.into_iter().next().and_then(|choice| choice.message.content).unwrap_or_default();
    let request = parts.headers.get("x-request-id").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    Ok(Ok((text, Statement { request, usage: completion.usage })))
}
