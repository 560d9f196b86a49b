//! `sublet chat`: one answer, or a conversation line by line.

use std::io::{BufRead as _, Read as _};

use clap::Args;
use sublet_api::client::Client;
use sublet_api::openai::{ChatChunk, ChatMessage, ChatRequest, CostNote, StreamOptions, Usage};
use sublet_core::engine::Role;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::Context;
use crate::render::{self, Tone, paint};

/// Longest message read from standard input, in bytes.
const MESSAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most messages of a conversation that are sent again with the next line.
const HISTORY_MESSAGES_MAX: usize = 64;

/// Whom to ask and what.
#[derive(Args, Debug)]
pub struct ChatArgs {
    /// Model, then message; a single word that names no model is the message. Without a message,
    /// standard input is read
    #[arg(value_names = ["MODEL", "MESSAGE"], num_args = 0..=2)]
    pub words: Vec<String>,
    /// Output tokens at most
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<i64>,
    /// The same seed gives the same answer
    #[arg(long)]
    pub seed: Option<u64>,
    /// What the model is told first
    #[arg(long)]
    pub system: Option<String>,
}

/// What is the same for every line of a conversation.
struct Conversation {
    request: ChatRequest,
}

/// What one answer brought besides its text.
#[derive(Default)]
struct Answer {
    text: String,
    request: String,
    usage: Option<Usage>,
    cost: Option<CostNote>,
    finish: Option<String>,
    stop: Option<String>,
}

impl ChatArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let (model, message) = choose(&self.words, &client, context)?;
        let system = self.system.map(|content| ChatMessage { role: Role::System, content });
        let request = ChatRequest {
            model,
            messages: system.into_iter().collect(),
            max_completion_tokens: self.max_tokens,
            seed: self.seed,
            stream: !context.json,
            stream_options: (!context.json).then_some(StreamOptions { include_usage: true }),
        };
        let mut conversation = Conversation { request };
        match message {
            Some(message) => conversation.say(message, &client, context),
            None if context.style.interactive => conversation.hold(&client, context),
            None => {
                let message = read_all(context)?;
                conversation.say(message, &client, context)
            }
        }
    }
}

/// Sorts out model and message; a model that was not named is the data directory's or the only one.
fn choose(words: &[String], client: &Client, context: &Context<'_>) -> Result<(String, Option<String>)> {
    if let [model, message] = words {
        return Ok((model.clone(), Some(message.clone())));
    }
    let names: Vec<String> = client.models()?.data.into_iter().map(|model| model.id).collect();
    if let [word] = words
        && names.contains(word)
    {
        return Ok((word.clone(), None));
    }
    let recommended = context.default_model()?.filter(|model| names.contains(model));
    let model = recommended.or_else(|| names.first().cloned()).ok_or_else(|| {
        Error::new(ErrorCode::ModelNotFound, "no model is served to this key").alternative("sublet models import PATH (operator)")
    })?;
    Ok((model, words.first().cloned()))
}

impl Conversation {
    /// Line by line until the input ends; an answer that fails ends it too.
    fn hold(&mut self, client: &Client, context: &mut Context<'_>) -> Result<()> {
        context.note(&paint(
            &format!("talking to {}; an empty line or Ctrl-D ends it", render::plain(&self.request.model)),
            Tone::Quiet,
            context.style,
        ))?;
        loop {
            context.note_bytes(b"> ")?;
            let mut line = String::new();
            (&mut *context.input).take(MESSAGE_BYTES_MAX).read_line(&mut line).map_err(|error| unreadable(&error))?;
            if line.trim().is_empty() {
                return Ok(());
            }
            self.say(line.trim().to_owned(), client, context)?;
        }
    }

    fn say(&mut self, message: String, client: &Client, context: &mut Context<'_>) -> Result<()> {
        self.request.messages.push(ChatMessage { role: Role::User, content: message });
        if context.json {
            let answer = client.chat(&self.request)?;
            return context.print_json(&answer);
        }
        let mut answer = Answer::default();
        for chunk in client.chat_stream(&self.request)? {
            let fresh = answer.add(chunk?);
            context.write_data(fresh.as_bytes())?;
        }
        context.print("\n")?;
        context.note(&paint(&answer.summary(), Tone::Quiet, context.style))?;
        self.request.messages.push(ChatMessage { role: Role::Assistant, content: answer.text });
        let surplus = self.request.messages.len().saturating_sub(HISTORY_MESSAGES_MAX);
        // A system message stays in front; the oldest lines behind it go.
        let first = usize::from(self.request.messages.first().is_some_and(|first| first.role == Role::System));
        self.request.messages.drain(first..first + surplus);
        Ok(())
    }
}

impl Answer {
    /// Takes a chunk in; what it adds to the text is returned.
    fn add(&mut self, chunk: ChatChunk) -> String {
        self.request = chunk.id;
        self.usage = chunk.usage.or(self.usage);
        self.cost = chunk.sublet.or(self.cost.take());
        self.stop = chunk.sublet_stop.or(self.stop.take());
        let Some(choice) = chunk.choices.into_iter().next() else { return String::new() };
        self.finish = choice.finish_reason.or(self.finish.take());
        let fresh = choice.delta.content.unwrap_or_default();
        self.text.push_str(&fresh);
        // A model's output may not steer the terminal, but its lines are lines.
        fresh.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
    }

    fn summary(&self) -> String {
        let mut parts = Vec::new();
        if let Some(usage) = &self.usage {
            parts.push(format!("{} tokens in, {} out", usage.prompt_tokens, usage.completion_tokens));
        }
        if let Some(note) = &self.cost {
            parts.push(format!("cost {}", render::money(&note.cost)));
        }
        match (self.stop.as_deref(), self.finish.as_deref()) {
            (Some(stop), _) => parts.push(format!("stopped: {}", render::plain(stop))),
            (None, Some("length")) => parts.push("cut at the maximum length".to_owned()),
            (None, _) => {}
        }
        parts.push(render::plain(&self.request));
        parts.join(" · ")
    }
}

fn read_all(context: &mut Context<'_>) -> Result<String> {
    let mut text = String::new();
    (&mut *context.input).take(MESSAGE_BYTES_MAX).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    if text.trim().is_empty() {
        return Err(Error::new(ErrorCode::Usage, "there is no message").alternative("sublet chat \"your question\""));
    }
    Ok(text)
}

fn unreadable(error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Usage, format!("the message could not be read: {error}"))
}
