//! OpenAI's embeddings, for models of the engine of this process.
//!
//! Everything that decides how much work and memory a request needs is bounded while it is read: the number of
//! inputs, their tokens, and the bytes of the answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use sublet_api::openai::{Embedding, EmbeddingList, EmbeddingUsage};
use sublet_core::engine::{EmbeddingInfo, Prompt, Shortening};
use sublet_core::id::RequestId;
use sublet_core::{Error, Result};

use super::body::boolean;
use super::field::{Bounded, Field, field, invalid, unsupported};
use super::{COMMENT, End, Envelope, Subject, Text, Writer, json};
use crate::generation::Delta;
use crate::supply::request::Fields;

/// Inputs of one request.
pub(crate) const INPUTS_MAX: usize = 2_048;
/// Tokens of all inputs of one request.
pub(crate) const TOKENS_MAX: usize = 300_000;
/// Bytes of all vectors of one answer.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Most bytes of one number with its comma, as JSON writes 32-bit floats.
const NUMBER_BYTES_MAX: usize = 17;
const DIMENSIONS_MAX: i64 = 1 << 20;
const EXPECTED: &str = "a string, a list of strings, a list of token ids, or a list of lists of token ids";

/// How vectors are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Float,
    /// The bytes of little-endian 32-bit floats.
    Base64,
}

/// One checked request.
#[derive(Debug)]
pub(crate) struct Asked {
    pub inputs: Vec<Prompt>,
    pub dimensions: Option<u32>,
    pub format: Format,
}

/// Fields of other servers that would change a vector, with the JSON values that change nothing.
const CHANGING: [(&str, &[&str]); 13] = [
    ("messages", &[]),
    ("truncate_prompt_tokens", &["0"]),
    ("truncate", &["false", "\"NONE\""]),
    ("input_type", &[]),
    ("task", &[]),
    ("instruction", &["\"\""]),
    ("prompt_name", &[]),
    ("normalize", &["true"]),
    ("add_special_tokens", &["true"]),
    ("pooling", &[]),
    ("output_dimension", &[]),
    ("output_dtype", &["\"float\""]),
    ("embed_dtype", &["\"float32\""]),
];

/// Reads a body for a model that makes such vectors.
pub(crate) fn read(body: &[u8], model: &EmbeddingInfo) -> Result<Asked> {
    let fields = Fields::read(body)?;
    for (name, neutral) in CHANGING {
        if let Some(field) = field(name, fields.get(name)) {
            field.refuse_unless_neutral(neutral)?;
        }
    }
    if boolean("stream", fields.get("stream"))? {
        return Err(unsupported("stream", "does not work here: vectors come in one answer"));
    }
    let asked = Asked {
        inputs: inputs(field("input", fields.get("input")))?,
        dimensions: dimensions(field("dimensions", fields.get("dimensions")), model)?,
        format: format(field("encoding_format", fields.get("encoding_format")))?,
    };
    let bytes = asked.answer_bytes_max(model);
    if bytes > ANSWER_BYTES_MAX {
        let message = format!("the vectors would take up to {bytes} bytes; one answer has at most {ANSWER_BYTES_MAX}");
        return Err(invalid("input", message).alternative("fewer inputs").alternative("encoding_format: base64"));
    }
    Ok(asked)
}

impl Asked {
    /// Bytes of all vectors, at most.
    pub fn answer_bytes_max(&self, model: &EmbeddingInfo) -> usize {
        let values = usize::try_from(self.dimensions.unwrap_or(model.dimensions)).unwrap_or(usize::MAX);
        let each = match self.format {
            Format::Float => values.saturating_mul(NUMBER_BYTES_MAX),
            Format::Base64 => values.saturating_mul(4).div_ceil(3).saturating_mul(4),
        };
        each.saturating_mul(self.inputs.len())
    }
}

/// The inputs alone: for those who count them.
pub(crate) fn prompts(body: &[u8]) -> Result<Vec<Prompt>> {
    inputs(field("input", Fields::read(body)?.get("input")))
}

fn inputs(field: Option<Field<'_>>) -> Result<Vec<Prompt>> {
    let field = field.ok_or_else(|| invalid("input", format!("'input' is missing: send {EXPECTED}")))?;
    let expected = format!("{EXPECTED}; at most {INPUTS_MAX} inputs and {TOKENS_MAX} tokens in all");
    let first = field.raw.get().strip_prefix('[').map(|rest| rest.trim_start().bytes().next());
    let inputs: Vec<Prompt> = match (field.raw.get().as_bytes().first(), first) {
        (Some(b'"'), _) => vec![Prompt::Text(field.parse(&expected)?)],
        (_, Some(Some(b'"'))) => field.parse::<Bounded<String, INPUTS_MAX>>(&expected)?.0.into_iter().map(Prompt::Text).collect(),
        (_, Some(Some(b'['))) => {
            let lists = field.parse::<Bounded<Bounded<u32, TOKENS_MAX>, INPUTS_MAX>>(&expected)?;
            lists.0.into_iter().map(|tokens| Prompt::Tokens(tokens.0)).collect()
        }
        (_, Some(Some(b'0'..=b'9'))) => vec![Prompt::Tokens(field.parse::<Bounded<u32, TOKENS_MAX>>(&expected)?.0)],
        _ => return Err(invalid("input", format!("'input' must be {expected}, and not empty"))),
    };
    let is_empty = |input: &Prompt| match input {
        Prompt::Text(text) => text.is_empty(),
        Prompt::Tokens(tokens) => tokens.is_empty(),
        Prompt::Chat(_) => false,
    };
    match inputs.iter().position(is_empty) {
        Some(index) => Err(invalid(&format!("input[{index}]"), "an input must not be empty").alternative("leave it out")),
        None => Ok(inputs),
    }
}

fn dimensions(field: Option<Field<'_>>, model: &EmbeddingInfo) -> Result<Option<u32>> {
    let Some(field) = field else { return Ok(None) };
    let wanted = u32::try_from(field.integer(1..=DIMENSIONS_MAX)?).unwrap_or(u32::MAX);
    if model.allows(wanted) {
        return Ok(Some(wanted));
    }
    let whole = model.dimensions;
    let message = format!("vectors of this model have {whole} values, and cannot have {wanted}");
    let error = match &model.shortening {
        Shortening::Refused => {
            unsupported("dimensions", &format!("does not work with this model: its vectors have {whole} values"))
        }
        Shortening::Any => invalid("dimensions", message).alternative(format!("1 to {whole}")),
        Shortening::To(lengths) => {
            lengths.iter().fold(invalid("dimensions", message), |error, length| error.alternative(length.to_string()))
        }
    };
    Err(error)
}

fn format(field: Option<Field<'_>>) -> Result<Format> {
    const EXPECTED: &str = "float or base64";
    let Some(field) = field else { return Ok(Format::Float) };
    match field.parse::<&str>(EXPECTED)? {
        "float" => Ok(Format::Float),
        "base64" => Ok(Format::Base64),
        _ => Err(invalid("encoding_format", format!("'encoding_format' must be {EXPECTED}"))),
    }
}

/// What is said of token ids that the model does not have. The ids of another tokenizer may all be in its
/// vocabulary, too: those cannot be told from its own.
pub(crate) fn foreign_token(index: usize, token: u32, last: i64) -> Error {
    let message = format!(
        "token {token} is not in the model's vocabulary, which ends at {last}: these ids were made by another tokenizer, \
         as LangChain's OpenAIEmbeddings does unless it is told not to"
    );
    invalid(&format!("input[{index}]"), message)
        .alternative("send the text itself")
        .alternative("OpenAIEmbeddings(check_embedding_ctx_length=False)")
        .alternative("ids of the model's own tokenizer")
}

/// What the form of an answer depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub format: Format,
}

/// Writes the answer.
pub(crate) struct Vectors {
    form: Form,
    model: String,
}

impl Vectors {
    pub fn new(form: Form, subject: Subject<'_>) -> Self {
        Self { form, model: subject.model.to_owned() }
    }

    fn value(&self, bytes: &[u8]) -> Box<RawValue> {
        let text = match self.form.format {
            Format::Base64 => format!("\"{}\"", STANDARD.encode(bytes)),
            Format::Float => {
                let values = bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value));
                serde_json::to_string(&values.collect::<Vec<f32>>()).expect("writing numbers to memory cannot fail")
            }
        };
        RawValue::from_string(text).expect("a list of numbers and a text in base 64 are JSON")
    }
}

impl Writer for Vectors {
    fn begin(&mut self, _out: &mut Vec<u8>, _prompt: &sublet_core::admission::TokenUsage) {}

    fn delta(&mut self, _out: &mut Vec<u8>, _delta: &Delta) {}

    fn end(&mut self, _out: &mut Vec<u8>, _end: &End<'_>) {}

    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error) {
        out.extend_from_slice(&Envelope::OpenAi.body(request, error));
    }

    fn heartbeat(&self) -> &'static [u8] {
        COMMENT
    }

    /// The inputs were dealt out to the lanes one by one: they are taken back in the same way.
    fn whole(&mut self, texts: Vec<Text>, end: &End<'_>) -> Vec<u8> {
        let count = texts.iter().map(|text| text.vectors.len()).sum();
        let dealt = (0..count).filter_map(|index| texts[index % texts.len()].vectors.get(index / texts.len()));
        let data =
            dealt.zip(0..).map(|(bytes, index)| Embedding { object: "embedding".to_owned(), index, embedding: self.value(bytes) });
        let prompt_tokens = end.tokens.prompt().get();
        json(&EmbeddingList {
            object: "list".to_owned(),
            data: data.collect(),
            model: self.model.clone(),
            usage: EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens },
        })
    }
}
