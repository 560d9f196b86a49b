//! The fuzz targets of this crate: functions of bytes that panic when something is wrong.
//!
//! There only for tests and fuzzers (`docs/fuzzing.md`). Libraries that panic on what they do not
//! expect are contained where they are called; what leaves those places is a finding.

use std::borrow::Cow;
use std::sync::OnceLock;

use sublet_core::ErrorCode;
use sublet_core::engine::{Calling, Chat, ChatMessage, Constraint, Role, Tool, ToolTemplate};

use crate::constraint::Rules;
use crate::load::bytes::ByteSource;
use crate::load::{EmbeddedFiles, LoadedModel, ModelSource, load, load_gguf};
use crate::template::ChatTemplate;
use crate::test_model::{END_TOKEN, TinyModel, VOCABULARY, safetensors, tiny_tokenizer, tokenizer_config, tokenizer_json};
use crate::tokenizer::{ModelTokenizer, SpecialTokens};

/// Tokens of one output that are followed.
const TOKENS_MAX: usize = 24;
/// Longest text that a template makes of two short messages, in bytes.
const PROMPT_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Fuzzers end the process at every panic; here only those count that nobody contains.
fn contain() {
    static QUIET: OnceLock<()> = OnceLock::new();
    if cfg!(fuzzing) {
        QUIET.get_or_init(|| std::panic::set_hook(Box::new(|_| {})));
    }
}

/// A schema, a regular expression or a grammar, and the tokens that are chosen under it: refused as the
/// caller's error, or a token is always found until the output may end. The first byte says which, the
/// second how tokens are chosen.
pub fn constraint(data: &[u8]) {
    contain();
    static RULES: OnceLock<Rules> = OnceLock::new();
    let rules = RULES.get_or_init(|| Rules::new(&tiny_tokenizer(), VOCABULARY, &[END_TOKEN]).expect("a good vocabulary"));
    let Some(([kind, choice], text)) = data.split_first_chunk::<2>() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (constraint, tools) = match kind % 5 {
        0 => (Constraint::JsonSchema(text.into()), ToolTemplate::Absent),
        1 => (Constraint::Regex(text.into()), ToolTemplate::Absent),
        2 => (Constraint::Grammar(text.into()), ToolTemplate::Absent),
        3 => (Constraint::Call { schema: text.into(), calling: Calling::Forced }, ToolTemplate::Tagged),
        _ => (Constraint::Call { schema: text.into(), calling: Calling::Named("f".to_owned()) }, ToolTemplate::Tagged),
    };
    let mut rule = match rules.compile(&constraint, tools) {
        Ok(rule) => rule,
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::InvalidRequest, "{error:?}");
            assert!(error.message().len() <= 2_048);
            return;
        }
    };
    for step in 0..TOKENS_MAX {
        // An error ends the request; it is refused as the caller's.
        let Ok(allowed) = rule.allowed() else { return };
        let allowed: Vec<u32> = (0..VOCABULARY as u32).filter(|token| allowed.is_allowed(*token)).collect();
        assert!(!allowed.is_empty(), "something may follow, if only the end");
        let token = allowed[(usize::from(*choice) + step * 7) % allowed.len()];
        if rule.accept(token).is_err() || rule.is_complete() || token == END_TOKEN {
            return;
        }
    }
}

fn tiny() -> TinyModel {
    TinyModel { hidden: 8, layers: 1, heads: 2, kv_heads: 1, intermediate: 8, ..TinyModel::default() }
}

fn files() -> EmbeddedFiles {
    static WEIGHTS: OnceLock<Vec<u8>> = OnceLock::new();
    let text = |value: serde_json::Value| Cow::Owned(value.to_string().into_bytes());
    EmbeddedFiles {
        config: text(tiny().config()),
        weights: Cow::Borrowed(WEIGHTS.get_or_init(|| safetensors(&tiny().tensors()))),
        tokenizer: text(tokenizer_json()),
        tokenizer_config: Some(text(tokenizer_config())),
        generation_config: None,
    }
}

/// A refusal names the file; a model that is loaded can be asked.
fn check_model(loaded: sublet_core::Result<LoadedModel>) {
    match loaded {
        Err(error) => {
            assert_eq!(error.code(), ErrorCode::ModelFileInvalid, "{error:?}");
            assert!(error.message().len() <= 8 * 1_024, "a message of {} bytes", error.message().len());
        }
        Ok(model) => {
            let parameters = &model.decoder.parameters;
            assert!(parameters.check().is_ok() && model.tokenizer.token_count() <= parameters.vocabulary);
            check_tokenizer(&model.tokenizer);
        }
    }
}

fn check_tokenizer(tokenizer: &ModelTokenizer) {
    for text in ["", "hi there", "é\u{0}\u{1f600}\n"] {
        let Ok(tokens) = tokenizer.encode(text, SpecialTokens::Add) else { continue };
        assert!(tokens.iter().all(|token| (*token as usize) < tokenizer.token_count()), "{tokens:?}");
        assert!(tokens.iter().map(|token| tokenizer.bytes(*token).len()).sum::<usize>() < 1 << 20);
    }
}

/// `model.safetensors`.
pub fn model_safetensors(data: &[u8]) {
    contain();
    check_model(load(ModelSource::Embedded(EmbeddedFiles { weights: Cow::Owned(data.to_vec()), ..files() })));
}

/// `config.json`.
pub fn model_config(data: &[u8]) {
    contain();
    check_model(load(ModelSource::Embedded(EmbeddedFiles { config: Cow::Owned(data.to_vec()), ..files() })));
}

/// `tokenizer.json`.
pub fn model_tokenizer(data: &[u8]) {
    contain();
    check_model(load(ModelSource::Embedded(EmbeddedFiles { tokenizer: Cow::Owned(data.to_vec()), ..files() })));
}

/// A `.gguf` file.
pub fn model_gguf(data: &[u8]) {
    contain();
    check_model(load_gguf(ByteSource::memory("model.gguf", Cow::Owned(data.to_vec())), None));
}

/// A chat template: it ends, in bounds, whatever it says.
pub fn chat_template(data: &[u8]) {
    contain();
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(template) = ChatTemplate::new(text.to_owned(), Some("<s>".to_owned()), Some("</s>".to_owned())) else { return };
    let messages = vec![ChatMessage::text(Role::System, "be brief"), ChatMessage::text(Role::User, "hi")];
    let tool =
        Tool { name: "f".to_owned(), description: Some("d".to_owned()), parameters: Some("{\"type\":\"object\"}".to_owned()) };
    for (tools, calling) in
        [(vec![], Calling::Free), (vec![tool.clone()], Calling::Free), (vec![tool], Calling::Named("f".to_owned()))]
    {
        if let Ok(prompt) = template.render(&Chat { messages: messages.clone(), tools, calling }) {
            assert!(prompt.len() <= PROMPT_BYTES_MAX, "a prompt of {} bytes", prompt.len());
        }
    }
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Slow: chat_template, constraint, model_config, model_gguf, model_safetensors, model_tokenizer);
}
