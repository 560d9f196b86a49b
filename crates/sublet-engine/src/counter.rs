//! Counting as a model does whose weights are elsewhere: its tokenizer and its chat template alone.
//!
//! Where a template cannot write what it is given, or there is none, a conversation is counted as its texts and what
//! ChatML puts around each.

use std::path::Path;

use sublet_core::engine::{Chat, ChatMessage, Prompt};
use sublet_core::tokenizer::TokenCounter;
use sublet_core::{Error, ErrorCode, Result, TokenCount};

use crate::load::load_tokenizer;
use crate::template::ChatTemplate;
use crate::tokenizer::{ModelTokenizer, SpecialTokens};

/// Tokens around a message: where it begins and ends, who speaks, and a line end
/// (<https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken>).
const AROUND_MESSAGE: i64 = 4;
/// Tokens with which the answer begins, from the same source.
const BEFORE_ANSWER: i64 = 3;

/// A tokenizer with the template that writes its model's conversations, if it has one.
pub struct ChatTokenizer {
    tokenizer: ModelTokenizer,
    template: Option<ChatTemplate>,
}

impl ChatTokenizer {
    /// Reads `tokenizer.json`, and `tokenizer_config.json` and `chat_template.jinja` if they are there.
    ///
    /// Errors: `model_file_invalid`, with the file and what is wrong with it.
    pub fn open(directory: &Path) -> Result<Self> {
        let (tokenizer, template) = load_tokenizer(directory)?;
        Ok(Self { tokenizer: tokenizer.forgetful(), template })
    }

    fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>> {
        self.tokenizer.encode(text, special).map_err(|problem| Error::internal(format!("tokenizer: {problem}")))
    }

    fn count(&self, text: &str, special: SpecialTokens) -> Result<TokenCount> {
        Ok(count_of(&self.encode(text, special)?))
    }

    fn count_unwritten(&self, chat: &Chat) -> Result<TokenCount> {
        let texts = chat.messages.iter().map(|message| self.count_message(message));
        let tools = chat.tools.iter().map(|tool| {
            let parts = [Some(tool.name.as_str()), tool.description.as_deref(), tool.parameters.as_deref()];
            self.count_parts(parts.into_iter().flatten())
        });
        let sum = texts.chain(tools).try_fold(BEFORE_ANSWER, |sum, count| Ok::<_, Error>(sum + AROUND_MESSAGE + count?))?;
        Ok(TokenCount::new(sum))
    }

    fn count_message(&self, message: &ChatMessage) -> Result<i64> {
        let calls = message.tool_calls.iter().flat_map(|call| [call.name.as_str(), call.arguments.as_str()]);
        self.count_parts([message.content.as_str()].into_iter().chain(message.name.as_deref()).chain(calls))
    }

    fn count_parts<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Result<i64> {
        let mut counts = parts.map(|part| self.count(part, SpecialTokens::Leave));
        counts.try_fold(0, |sum, count| Ok(sum + count?.get()))
    }
}

fn count_of(tokens: &[u32]) -> TokenCount {
    TokenCount::new(i64::try_from(tokens.len()).unwrap_or(i64::MAX))
}

impl TokenCounter for ChatTokenizer {
    fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
            Prompt::Text(text) => self.encode(text, SpecialTokens::Add),
            Prompt::Chat(chat) => match self.template.as_ref().map(|template| template.render(chat)) {
                Some(Ok(text)) => self.encode(&text, SpecialTokens::Leave),
                Some(Err(_)) | None => Err(Error::new(ErrorCode::UnsupportedField, "no template writes this conversation")),
            },
        }
    }

    fn count_prompt(&self, prompt: &Prompt) -> Result<TokenCount> {
        match prompt {
            Prompt::Tokens(tokens) => Ok(count_of(tokens)),
            Prompt::Text(_) => Ok(count_of(&self.encode_prompt(prompt)?)),
            Prompt::Chat(chat) => match self.encode_prompt(prompt) {
                Ok(tokens) => Ok(count_of(&tokens)),
                Err(_) => self.count_unwritten(chat),
            },
        }
    }

    fn count_text(&self, text: &str) -> Result<TokenCount> {
        self.count(text, SpecialTokens::Leave)
    }
}
