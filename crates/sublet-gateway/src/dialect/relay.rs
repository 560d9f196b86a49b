//! Requests that a server elsewhere answers in the same dialect: read as far as money and routing need
//! it, and otherwise passed on as they are, in both directions.
//!
//! In an answer only what is ours is changed: its id, the model's name, the tier, and the usage.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{FinishReason, Prompt};
use sublet_core::id::RequestId;
use sublet_core::supply::RemoteModel;
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, Result, Timestamp, TokenCount};

use super::body::{TIERS, boolean, include_usage, output_max, service_tier};
use super::field::{Bounded, Field, field, invalid, unsupported};
use super::openai::usage;
use super::{COMMENT, End, Envelope, Subject, Text, Writer, push_json, stop_text};
use super::{embeddings, openai};
use crate::generation::Delta;
use crate::routing::{Block, blocks};
use crate::supply::members::members;
use crate::supply::reply::{BYTES_PER_TOKEN, counts};
use crate::supply::request::{Fields, UpstreamBody};

/// Answers one request can have on a replica: prompts multiplied by the larger of `n` and `best_of`.
const ANSWERS_MAX: i64 = 128;
/// Inputs of one embeddings request.
const INPUTS_MAX: usize = 2_048;
const MESSAGES_MAX: usize = 8_192;
/// Tokens that a chat template may add to what the request says, such as a default system prompt.
const TEMPLATE_TOKENS_MAX: i64 = 1_024;
const DATA: &[u8] = b"data: ";
const DONE: &[u8] = b"data: [DONE]\n\n";

/// Which endpoint, on a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Chat,
    Completion,
    Embedding,
}

impl Kind {
    /// The prompts of a body. An error where more than texts that are known here may be in them.
    pub fn prompts(self, body: &[u8]) -> Result<Vec<Prompt>> {
        check_only_known(&Fields::read(body)?)?;
        match self {
            Self::Chat => openai::prompts(openai::Kind::Chat, body),
            Self::Completion => openai::prompts(openai::Kind::Completion, body),
            Self::Embedding => embeddings::prompts(body),
        }
    }

    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completion => "/completions",
            Self::Embedding => "/embeddings",
        }
    }
}

/// What is known of a request that is passed on.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub kind: Kind,
    pub body: UpstreamBody,
    pub stream: bool,
    /// Answers in all.
    pub answers: i64,
    /// Output tokens of each answer at most: what the caller wants, the model allows and the context has room for.
    pub output_max: TokenCount,
    /// The caller named a maximum.
    pub limited: bool,
    /// What the prompts have at most, and roughly.
    pub input_max: TokenCount,
    pub input_estimate: TokenCount,
    /// How the prompt begins; empty if there is nothing to choose.
    pub blocks: Vec<Block>,
    pub form: Form,
    pub tier: ServiceTier,
}

/// What the form of an answer depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub kind: Kind,
    pub include_usage: bool,
}

/// Reads a body for a model elsewhere.
pub(crate) fn read(kind: Kind, body: &[u8], model: &RemoteModel, salt: &str) -> Result<Relayed> {
    let fields = Fields::read(body)?;
    check_names(&fields)?;
    let prompts = prompts(kind, &fields)?;
    let stream = kind != Kind::Embedding && boolean("stream", fields.get("stream"))?;
    let each = answers_each(kind, &fields)?;
    let answers = each.saturating_mul(prompts);
    if kind != Kind::Embedding && answers > ANSWERS_MAX {
        return Err(invalid("n", format!("a request has at most {ANSWERS_MAX} answers: prompts multiplied by n or best_of")));
    }
    let (input_max, input_estimate) = input(kind, &fields, (body.len(), prompts), model)?;
    let wanted = output_max(fields.get("max_tokens"), fields.get("max_completion_tokens"))?;
    let room = model.context_window.saturating_sub(TokenCount::new(1)).min(model.output_max);
    Ok(Relayed {
        kind,
        body: UpstreamBody::new(&fields, (kind == Kind::Chat, stream), salt)?,
        stream,
        answers: if kind == Kind::Embedding { 0 } else { answers },
        output_max: wanted.map_or(room, |wanted| wanted.min(room)),
        limited: wanted.is_some(),
        input_max,
        input_estimate,
        blocks: if model.replicas.len() > 1 { beginning(kind, &fields, salt) } else { Vec::new() },
        form: Form { kind, include_usage: include_usage(fields.get("stream_options"))? },
        tier: service_tier(fields.get("service_tier"), &TIERS)?,
    })
}

/// Names that mean what ours mean, in the tongues of some engines: they would override what is paid for.
const OTHER_NAMES: [(&str, &str); 5] = [
    ("n_predict", "max_tokens"),
    ("max_new_tokens", "max_tokens"),
    ("max_output_tokens", "max_tokens"),
    ("n_cmpl", "n"),
    ("num_predict", "max_tokens"),
];
/// Fields by which an engine is operated, and not a model asked: among them what other tenants may have in common.
const OPERATING: [&str; 18] = [
    "kv_transfer_params",
    "cache_salt",
    "priority",
    "lora",
    "lora_path",
    "lora_request",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "session_params",
    "rid",
    "custom_logit_processor",
    "id_slot",
    "cache_prompt",
    "models",
    "provider",
    "route",
    "transforms",
];
/// What is read here, and must not be said in a way that only others read.
const READ: [&str; 13] = [
    "model",
    "messages",
    "prompt",
    "input",
    "tools",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "best_of",
    "service_tier",
    "chat_template",
];

/// Fields beside those that put nothing into a prompt. Others may: engines take templates, documents and more.
const HARMLESS: [&str; 30] = [
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "user",
    "metadata",
    "store",
    "reasoning_effort",
    "verbosity",
    "encoding_format",
    "dimensions",
    "safety_identifier",
    "prompt_cache_key",
    "min_tokens",
    "ignore_eos",
    "skip_special_tokens",
    "stop_token_ids",
    "include_stop_str_in_output",
    "logprob_token_ids",
];
/// What is counted of a message.
const COUNTED: [&str; 5] = ["role", "content", "name", "tool_calls", "tool_call_id"];

fn check_only_known(fields: &Fields<'_>) -> Result<()> {
    let uncounted = |name: &str| Err(unsupported(name, "may be in the prompt, and is not counted"));
    let is_known = |name: &str| name != "chat_template" && (READ.contains(&name) || HARMLESS.contains(&name));
    if let Some((name, _)) = fields.iter().find(|(name, value)| !is_known(name) && value.get() != "null") {
        return uncounted(name);
    }
    let Some(field) = field("messages", fields.get("messages")) else { return Ok(()) };
    let Bounded(messages) = field.parse::<Bounded<&RawValue, MESSAGES_MAX>>("a list of messages")?;
    for member in messages.iter().flat_map(|message| members(message.get())) {
        let name = member.name();
        if !COUNTED.contains(&name.as_ref()) && member.value != "null" {
            return uncounted(&name);
        }
    }
    Ok(())
}

fn check_names(fields: &Fields<'_>) -> Result<()> {
    for (name, value) in fields.iter().filter(|(_, value)| value.get() != "null") {
        if let Some((_, ours)) = OTHER_NAMES.iter().find(|(other, _)| name.eq_ignore_ascii_case(other)) {
            return Err(invalid(name, format!("'{name}' is called '{ours}' here")).alternative(*ours));
        }
        if OPERATING.iter().any(|other| name.eq_ignore_ascii_case(other)) && value.get() != "false" {
            return Err(unsupported(name, "is for those who run the server"));
        }
        if let Some(ours) = READ.iter().find(|ours| name.eq_ignore_ascii_case(ours) && name != **ours) {
            return Err(invalid(name, format!("'{name}' is written '{ours}'")).alternative(*ours));
        }
    }
    Ok(())
}

/// What stands at the beginning of a prompt, as it came: templates put tools before the conversation. A list is
/// taken without its end, so that a conversation that goes on begins like before.
fn beginning(kind: Kind, fields: &Fields<'_>, salt: &str) -> Vec<Block> {
    let text = |name: &str| fields.get(name).map_or("", RawValue::get).trim_end_matches(']').as_bytes();
    match kind {
        Kind::Chat => blocks(salt, &[text("tools"), text("messages")]),
        Kind::Completion => blocks(salt, &[text("prompt")]),
        Kind::Embedding => Vec::new(),
    }
}

/// How many prompts there are. What they hold is the replica's to judge.
fn prompts(kind: Kind, fields: &Fields<'_>) -> Result<i64> {
    let (name, required) = match kind {
        Kind::Chat => ("messages", "a list of messages"),
        Kind::Completion => ("prompt", "a string, a list of strings, a list of token ids, or a list of lists of token ids"),
        Kind::Embedding => ("input", "a string, a list of strings, a list of token ids, or a list of lists of token ids"),
    };
    let raw = fields.get(name).ok_or_else(|| invalid(name, format!("'{name}' is missing: send {required}")))?;
    let text = raw.get();
    if kind == Kind::Chat {
        return if text.starts_with('[') { Ok(1) } else { Err(invalid(name, format!("'{name}' must be {required}"))) };
    }
    let first = text.strip_prefix('[').map(|rest| rest.trim_start().bytes().next());
    match (text.as_bytes().first(), first) {
        (Some(b'"'), _) | (_, Some(Some(b'0'..=b'9'))) => Ok(1),
        (_, Some(Some(b'"' | b'['))) => {
            let field = Field { name, raw };
            let list: Bounded<&RawValue, INPUTS_MAX> = field.parse(&format!("a list of at most {INPUTS_MAX} items"))?;
            Ok(i64::try_from(list.0.len()).unwrap_or(i64::MAX))
        }
        _ => Err(invalid(name, format!("'{name}' must be {required}, and not empty"))),
    }
}

/// Answers to each prompt that are generated, whether or not they are given.
fn answers_each(kind: Kind, fields: &Fields<'_>) -> Result<i64> {
    if kind == Kind::Embedding {
        return Ok(1);
    }
    let read = |name: &'static str| field(name, fields.get(name)).map_or(Ok(1), |field| field.integer(1..=ANSWERS_MAX));
    Ok(read("n")?.max(read("best_of")?))
}

/// A bound and the likely size of all prompts together. A token has at least one byte of text, and JSON has no fewer
/// bytes than the text in it; a token id has at least two characters with its comma. What else may be in a prompt,
/// such as a picture, can fill the context.
fn input(
    kind: Kind,
    fields: &Fields<'_>,
    (body_bytes, prompts): (usize, i64),
    model: &RemoteModel,
) -> Result<(TokenCount, TokenCount)> {
    let bytes = i64::try_from(body_bytes).unwrap_or(i64::MAX);
    let context = model.context_window.get().saturating_mul(prompts);
    let is_text = fields.get("chat_template").is_none() && (kind != Kind::Chat || has_only_text(fields)?);
    let most = if is_text { bytes.saturating_add(TEMPLATE_TOKENS_MAX.saturating_mul(prompts)).min(context) } else { context };
    let likely = bytes / i64::try_from(BYTES_PER_TOKEN).unwrap_or(1);
    Ok((TokenCount::new(most), TokenCount::new(likely.clamp(1, most.max(1)))))
}

fn has_only_text(fields: &Fields<'_>) -> Result<bool> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
    }
    let Some(field) = field("messages", fields.get("messages")) else { return Ok(true) };
    let Bounded(messages) =
        field.parse::<Bounded<Message<'_>, MESSAGES_MAX>>(&format!("a list of at most {MESSAGES_MAX} messages"))?;
    let lists = messages.iter().filter_map(|message| message.content).filter(|content| content.get().starts_with('['));
    let is_text = |list: &RawValue| {
        serde_json::from_str::<Vec<Part<'_>>>(list.get())
            .is_ok_and(|parts| parts.iter().all(|part| matches!(part.r#type.as_ref(), "text" | "refusal")))
    };
    Ok(lists.into_iter().all(is_text))
}

/// Fields of an answer in which a replica's words are not passed on: what another cloud charges us, and why it
/// stopped, is nothing that our caller is to take for ours.
pub(crate) const OURS: [&str; 6] = ["id", "model", "usage", "service_tier", "sublet", "sublet_stop"];

/// Writes what a replica said.
pub(crate) struct Relay {
    form: Form,
    /// `{"id":…,"model":…`, with which everything that we say begins.
    head: Vec<u8>,
    /// `,"service_tier":…`
    tier: Vec<u8>,
    created: Timestamp,
    /// The replica's own usage, which may say more than counts.
    usage: Option<Box<RawValue>>,
}

impl Relay {
    pub fn new(form: Form, subject: Subject<'_>) -> Self {
        let (mut head, mut tier) = (b"{\"id\":".to_vec(), b",\"service_tier\":".to_vec());
        push_json(&mut head, subject.request.as_str());
        head.extend_from_slice(b",\"model\":");
        push_json(&mut head, subject.model);
        push_json(&mut tier, subject.tier.as_str());
        Self { form, head, tier, created: subject.created, usage: None }
    }

    /// The fields of one object, with ours in the place of the replica's. `None` is an object without anything for
    /// the caller: the counts of a stream come with its end.
    fn fields(&mut self, out: &mut Vec<u8>, object: &str) -> Option<()> {
        out.extend_from_slice(&self.head);
        let mut is_empty = false;
        for member in members(object) {
            let name = member.name();
            if name == "usage" && member.value != "null" {
                self.usage = serde_json::from_str(member.value).ok();
            }
            is_empty |= name == "choices" && member.value == "[]";
            if !OURS.contains(&name.as_ref()) {
                out.push(b',');
                member.push(out);
            }
        }
        if self.form.kind == Kind::Chat {
            out.extend_from_slice(&self.tier);
        }
        (!is_empty).then_some(())
    }

    /// The replica's usage if it is what is charged, otherwise what is charged.
    fn push_usage(&self, out: &mut Vec<u8>, tokens: &TokenUsage) {
        out.extend_from_slice(b",\"usage\":");
        match &self.usage {
            Some(raw) if counts(raw).is_some_and(|counts| counts.prompt == tokens.prompt() && counts.output == tokens.output) => {
                push_line(out, raw.get().as_bytes());
            }
            _ => push_json(out, &usage(tokens)),
        }
    }

    /// The beginning of an event that the replica did not send.
    fn own(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(DATA);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(match self.form.kind {
            Kind::Completion => b",\"object\":\"text_completion\",\"created\":".as_slice(),
            Kind::Chat | Kind::Embedding => b",\"object\":\"chat.completion.chunk\",\"created\":".as_slice(),
        });
        push_json(out, &self.created.seconds());
        out.extend_from_slice(&self.tier);
        out.extend_from_slice(b",\"choices\":[");
    }
}

impl Writer for Relay {
    fn begin(&mut self, _out: &mut Vec<u8>, _prompt: &TokenUsage) {}

    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        let start = out.len();
        out.extend_from_slice(DATA);
        if self.fields(out, &delta.text).is_none() {
            out.truncate(start);
            return;
        }
        if self.form.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        if out[start..].contains(&b'\r') {
            let object = out.split_off(start + DATA.len());
            push_line(out, &object);
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>) {
        for stop in end.finishes.iter().filter_map(|reason| stop_text(*reason)) {
            self.own(out);
            out.extend_from_slice(match self.form.kind {
                Kind::Completion => b"{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}],\"sublet_stop\":".as_slice(),
                Kind::Chat | Kind::Embedding => {
                    b"{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}],\"sublet_stop\":".as_slice()
                }
            });
            push_json(out, stop);
            out.extend_from_slice(b"}\n\n");
        }
        if self.form.include_usage {
            self.own(out);
            out.push(b']');
            self.push_usage(out, end.tokens);
            out.extend_from_slice(b",\"sublet\":");
            push_json(out, end.cost);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(DONE);
    }

    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&Envelope::OpenAi.body(request, error));
        out.extend_from_slice(b"\n\n");
    }

    fn heartbeat(&self) -> &'static [u8] {
        COMMENT
    }

    fn whole(&mut self, texts: Vec<Text>, end: &End<'_>) -> Vec<u8> {
        let object = texts.into_iter().next().unwrap_or_default().text;
        let mut out = Vec::with_capacity(object.len() + 128);
        if self.fields(&mut out, &object).is_none() {
            // Only a stream has such objects.
            return object.into_bytes();
        }
        self.push_usage(&mut out, end.tokens);
        if end.finishes.contains(&FinishReason::Allowance) {
            out.extend_from_slice(b",\"sublet_stop\":\"budget\"");
        }
        out.push(b'}');
        // Some servers write for people; a line of a batch must be one line.
        if out.contains(&b'\n') { compact(&out) } else { out }
    }
}

/// JSON as one line for every reader of events: between its parts it may have what ends one.
fn push_line(out: &mut Vec<u8>, json: &[u8]) {
    if json.contains(&b'\r') || json.contains(&b'\n') {
        out.extend_from_slice(&compact(json));
    } else {
        out.extend_from_slice(json);
    }
}

/// JSON without the white space between its parts.
fn compact(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for byte in json {
        if quoted {
            quoted = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            quoted = *byte == b'"';
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_core::id::Identifier;

    fn relay(request: &RequestId) -> Relay {
        let form = Form { kind: Kind::Chat, include_usage: false };
        Relay::new(form, Subject { request, model: "m", created: Timestamp::EPOCH, choices: 1, tier: ServiceTier::Default })
    }

    #[test]
    fn an_event_is_one_line_whatever_white_space_a_replica_writes() {
        let request = RequestId::from_trusted("req_1".into());
        let mut out = Vec::new();
        let text = "{\"choices\":\r[ {\"delta\":{\"content\":\"a \\r b\"}}\r]}".to_owned();
        relay(&request).delta(&mut out, &Delta { choice: 0, text, logprobs: Vec::new() });
        let expected = "data: {\"id\":\"req_1\",\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"a \\r b\"}}],\"service_tier\":\"default\"}\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn usage_that_is_passed_on_is_one_line_too() {
        let request = RequestId::from_trusted("req_1".into());
        let mut relay = relay(&request);
        relay.form.include_usage = true;
        let text = "{\"choices\":[],\"usage\":{\"prompt_tokens\":\r3,\"completion_tokens\":5,\"theirs\":1}}".to_owned();
        let mut out = Vec::new();
        relay.delta(&mut out, &Delta { choice: 0, text, logprobs: Vec::new() });
        let tokens = TokenUsage { input: TokenCount::new(3), cached_input: TokenCount::ZERO, output: TokenCount::new(5) };
        relay.push_usage(&mut out, &tokens);
        assert_eq!(String::from_utf8(out).unwrap(), r#","usage":{"prompt_tokens":3,"completion_tokens":5,"theirs":1}"#);
    }

    #[test]
    fn what_another_cloud_says_of_money_is_not_passed_on() {
        let request = RequestId::from_trusted("req_1".into());
        let mut out = Vec::new();
        let text = r#"{"choices":[{"text":"a"}],"sublet_stop":"budget","sublet":{"cost":"9"},"theirs":1}"#.to_owned();
        relay(&request).delta(&mut out, &Delta { choice: 0, text, logprobs: Vec::new() });
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("\"theirs\":1") && !out.contains("sublet"), "{out}");
    }
}
