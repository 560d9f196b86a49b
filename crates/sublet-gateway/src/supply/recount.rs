//! Counts what a server did not, by the model's own tokenizer.
//!
//! Only once an answer has ended: while it comes, its bytes are estimate enough to be paid ahead by. Text is kept only
//! for models that have a tokenizer, and only as long as no server has counted it.

use serde_json::Value;
use sublet_core::supply::RemoteModel;
use sublet_core::{Error, Result, TokenCount};

use super::Supply;
use crate::dialect::relay::Kind;

/// What nobody counted.
pub(super) struct Uncounted {
    pub kind: Kind,
    /// The body as the server was sent it; `None` if the prompt was counted.
    pub body: Option<Vec<u8>>,
    /// What each answer said since it was last counted.
    pub said: Vec<String>,
}

/// Its tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Recount {
    /// `None` where not all of the prompt is text.
    pub prompt: Option<TokenCount>,
    pub output: TokenCount,
}

impl Supply {
    /// `None` where the model has no tokenizer that works here; the log says why.
    pub(super) async fn recount(&self, model: &RemoteModel, uncounted: Uncounted) -> Option<Recount> {
        let (tokenizers, name) = (std::sync::Arc::clone(&self.tokenizers), model.tokenizer.clone()?);
        let work = move || -> Result<Recount> {
            let counter = tokenizers.open(&name)?;
            let count = |text: &String| counter.count_text(text);
            let output = sum(uncounted.said.iter().map(count))?;
            let prompts = uncounted.body.and_then(|body| uncounted.kind.prompts(&body).ok());
            let prompt = prompts.map(|prompts| sum(prompts.iter().map(|prompt| counter.count_prompt(prompt)))).transpose()?;
            Ok(Recount { prompt, output })
        };
        let counted = tokio::task::spawn_blocking(work).await;
        counted.unwrap_or_else(|error| Err(Error::internal(format!("counting failed: {error}")))).ok()
    }
}

fn sum(counts: impl Iterator<Item = Result<TokenCount>>) -> Result<TokenCount> {
    counts.into_iter().try_fold(TokenCount::ZERO, |sum, count| Ok(sum.saturating_add(count?)))
}

/// Adds what an event says to what each answer said before it.
pub(super) fn note_said(data: &[u8], said: &mut [String]) {
    let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
    let Some(choices) = event.get("choices").and_then(Value::as_array) else { return };
    for (place, choice) in choices.iter().enumerate() {
        let named = choice.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        // An answer that nobody asked for is paid for like the last one.
        let index = named.unwrap_or(place).min(said.len().saturating_sub(1));
        let Some(text) = said.get_mut(index) else { return };
        if let Some(Value::String(completion)) = choice.get("text") {
            text.push_str(completion);
        }
        for message in ["delta", "message"].iter().filter_map(|name| choice.get(*name)?.as_object()) {
            for (name, value) in message.iter().filter(|(name, _)| *name != "role") {
                push_value(name, value, text);
            }
        }
    }
}

fn push_value(name: &str, value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(false) => {}
        Value::String(said) => text.push_str(said),
        Value::Array(calls) if name == "tool_calls" => {
            for function in calls.iter().filter_map(|call| call.get("function")) {
                for part in ["name", "arguments"].iter().filter_map(|part| function.get(*part)?.as_str()) {
                    text.push_str(part);
                }
            }
        }
        Value::Array(list) if list.is_empty() => {}
        Value::Object(object) if object.is_empty() => {}
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_by_answer_wherever_it_is() {
        let mut said = vec![String::new(), String::new()];
        for event in [
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"index":1,"delta":{"reasoning_content":"c","content":null}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"text":"é"},{"message":{"content":"","tool_calls":[],"logprobs":{}}}]}"#,
            r#"{"choices":[{"index":9,"delta":{"content":"z"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"their_field":{"a":1}}}]}"#,
            "nope",
            "{}",
        ] {
            note_said(event.as_bytes(), &mut said);
        }
        assert_eq!(said, ["af{}é{\"a\":1}", "bcz"]);
        note_said(br#"{"choices":[{"text":"nobody"}]}"#, &mut []);
    }
}
