//! Constrained decoding: which tokens may come next, so that the whole output keeps a rule.
//!
//! A rule is compiled before its sequence is queued, so that a rule that cannot be kept is refused
//! and never half kept. While the sequence runs, its rule says before each choice which tokens may
//! follow ([`Rule::allowed`]) and learns which one did ([`Rule::accept`]).
//!
//! Invariants: a rule belongs to one sequence and depends on its own output alone, so batching,
//! parking and computing again change nothing; the work and the memory of one rule are bounded
//! ([`limits`]); an end-of-sequence token is allowed exactly where the output may end; no rule
//! makes this process panic.
//!
//! Deliberately absent: forcing several tokens at once. It would save steps, and cost the
//! promise that a text is one token sequence for one seed.

mod schema;

use std::sync::Arc;

use llguidance::api::{GrammarInit, GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use sublet_core::engine::{Calling, Constraint, ToolTemplate};
use sublet_core::{Error, ErrorCode};

use crate::apart::apart;
use crate::tokenizer::ModelTokenizer;

/// Longest schema, in bytes of JSON.
pub const SCHEMA_BYTES_MAX: usize = 256 * 1_024;
/// Longest regular expression, in bytes.
pub const REGEX_BYTES_MAX: usize = 64 * 1_024;
/// Longest grammar, in bytes.
pub const GRAMMAR_BYTES_MAX: usize = 64 * 1_024;
/// Longest part of the compiler's words that is repeated, in characters.
const PROBLEM_CHARS_MAX: usize = 300;
/// The name of the grammar of a call's JSON.
const CALL: &str = "call";
/// The field that errors name.
const PARAM: &str = "response_format";

/// The tokens that may come next.
pub type TokenSet = SimpleVob;

/// What the rules of one model share: its vocabulary, as a tree of bytes.
pub struct Rules {
    factory: ParserFactory,
}

/// The rule of one sequence.
pub struct Rule {
    matcher: Matcher,
}

impl Rules {
    /// `rows` is the length of a row of scores; the error says what is wrong with the vocabulary.
    pub fn new(tokenizer: &ModelTokenizer, rows: usize, end_tokens: &[u32]) -> Result<Self, String> {
        // A configuration may name tokens that the model has no score for.
        let end_tokens: Vec<u32> = end_tokens.iter().copied().filter(|token| (*token as usize) < rows).collect();
        let build = || {
            let words: Vec<Vec<u8>> = (0..rows as u32).map(|token| word(tokenizer, token, &end_tokens)).collect();
            let end = end_tokens.first().copied().unwrap_or(INVALID_TOKEN);
            let mut tree = TokTrie::from(&TokRxInfo::new(rows as u32, end), &words);
            if !end_tokens.is_empty() {
                tree = tree.with_eos_tokens(&end_tokens);
            }
            let vocabulary: TokEnv = Arc::new(ApproximateTokEnv::new(tree));
            ParserFactory::new(&vocabulary, Default::default(), &SlicedBiasComputer::json_slices()).map_err(|e| e.to_string())
        };
        let mut factory = apart(build)?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { factory })
    }

    /// Compiles a rule. The error is the caller's: it says what the rule cannot have.
    /// `tools` says how the model's template ends calls.
    pub fn compile(&self, constraint: &Constraint, tools: ToolTemplate) -> Result<Rule, Error> {
        let (what, grammar) = match constraint {
            Constraint::JsonObject => {
                ("JSON object", TopLevelGrammar::from_json_schema(schema::compact(json!({"type": "object"}))))
            }
            Constraint::JsonSchema(text) => ("schema", TopLevelGrammar::from_json_schema(parse_schema(text)?)),
            Constraint::Call { schema, calling } => ("schema", call(parse_schema(schema)?, calling, tools)),
            Constraint::Regex(text) => {
                check_size("regular expression", text, REGEX_BYTES_MAX)?;
                ("regular expression", TopLevelGrammar::from_regex(without_anchors(text)))
            }
            Constraint::Grammar(text) => {
                check_size("grammar", text, GRAMMAR_BYTES_MAX)?;
                ("grammar", TopLevelGrammar::from_lark(text.to_string()))
            }
        };
        let compile = || {
            let parser = self.factory.create_parser_from_init_default(GrammarInit::Serialized(grammar));
            let mut rule = Rule { matcher: Matcher::new(parser) };
            // A rule whose first token cannot be found is found out here and not in the decoder.
            rule.allowed()?;
            Ok(rule)
        };
        apart(compile).map_err(|problem| refuse(format!("the {what} cannot constrain the output: {}", shortened(&problem))))
    }
}

impl Rule {
    /// The tokens that may come next; the end-of-sequence tokens alone when nothing may. The error
    /// says why the output cannot go on.
    pub fn allowed(&mut self) -> Result<TokenSet, String> {
        self.matcher.compute_mask_or_eos().map_err(|error| error.to_string())
    }

    /// The output went on with this token.
    pub fn accept(&mut self, token: u32) -> Result<(), String> {
        self.matcher.consume_token(token).map_err(|error| error.to_string())?;
        let reason = self.matcher.stop_reason();
        if reason.is_ok() { Ok(()) } else { Err(format!("the rule ended with {reason}")) }
    }

    /// Nothing can follow: the output is complete.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}

/// The grammar of a call. A model that was trained to end calls in one way has tokens that reach from the last
/// value into that end; without them it would go on with the value.
fn call(schema: Value, calling: &Calling, tools: ToolTemplate) -> TopLevelGrammar {
    let json = TopLevelGrammar::from_json_schema(schema);
    let end = match (tools, calling) {
        (ToolTemplate::Absent | ToolTemplate::Shown, _) => return json,
        (ToolTemplate::Tagged, Calling::Named(_)) => r#""}</tool_call>" | "}\n</tool_call>""#,
        (ToolTemplate::Tagged, Calling::Forced | Calling::Free) => r#""</tool_call>" | "\n</tool_call>""#,
    };
    let mut grammar = TopLevelGrammar::from_lark(format!("start: @{CALL} end\nend: {end}"));
    grammar.grammars.extend(json.grammars.into_iter().map(|json| GrammarWithLexer { name: Some(CALL.to_owned()), ..json }));
    grammar
}

/// Bounds of one rule. A step of the work is about 20 to 70 nanoseconds, a state one or two kilobytes.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 500,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 100_000,
        step_max_items: 20_000,
        max_lexer_states: 10_000,
        max_grammar_size: 100_000,
        precompute_large_lexemes: true,
        // Errors would repeat what was generated.
        verbose_errors: false,
    }
}

/// A token's bytes. Tokens without text, and those that end a sequence, are marked so that no text matches them.
fn word(tokenizer: &ModelTokenizer, token: u32, end_tokens: &[u32]) -> Vec<u8> {
    let bytes = tokenizer.bytes(token);
    if !bytes.is_empty() && !end_tokens.contains(&token) {
        return bytes.to_vec();
    }
    let name = tokenizer.name(token).unwrap_or_else(|| format!("<[{token}]>"));
    [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat()
}

fn parse_schema(text: &str) -> Result<Value, Error> {
    check_size("schema", text, SCHEMA_BYTES_MAX)?;
    let schema: Value = serde_json::from_str(text).map_err(|error| refuse(format!("the schema is not JSON: {error}")))?;
    match schema {
        Value::Object(_) => Ok(schema::compact(schema)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(refuse("the schema must be a JSON object".to_owned()))
        }
    }
}

fn check_size(what: &str, text: &str, bytes_max: usize) -> Result<(), Error> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(refuse(format!("the {what} has {} bytes; 1 to {bytes_max} work", text.len())));
    }
    Ok(())
}

/// The whole output has to match in any case, so anchors at the ends say nothing; the compiler knows none.
fn without_anchors(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        // An even number of backslashes before it leaves the sign its meaning.
        Some(rest) if rest.bytes().rev().take_while(|byte| *byte == b'\\').count().is_multiple_of(2) => rest,
        Some(_) | None => regex,
    }
}

/// A rule that was compiled and cannot be followed to its end.
pub fn broken(problem: &str) -> Error {
    refuse(format!("the output cannot go on as the constraint demands: {}", shortened(problem)))
}

/// The compiler's own words, without the mark of what it leaves out.
fn shortened(problem: &str) -> String {
    let words = problem.split("<non-verbose").next().unwrap_or(problem).trim();
    words.chars().take(PROBLEM_CHARS_MAX).collect()
}

fn refuse(message: String) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(PARAM)
}
