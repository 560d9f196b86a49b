//! Explanations: the rule and the numbers behind a request, lease, job, charge or invoice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::WhyTag;

/// Deepest nesting of facts that is sent or shown.
pub const FACT_DEPTH_MAX: usize = 8;

/// Why something is as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    pub object: WhyTag,
    /// What is explained.
    pub id: String,
    /// One sentence: the answer.
    pub summary: String,
    /// The rule that decided, in words.
    pub rule: String,
    /// The numbers the rule was applied to.
    pub facts: Vec<Fact>,
    /// Ids worth asking about next.
    pub related: Vec<String>,
}

/// A number or a step, with what it was made from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    pub label: String,
    pub value: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Fact>,
}

impl Fact {
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self { label: label.into(), value: value.into(), parts: Vec::new() }
    }
    /// Adds what the value was made from.
    #[must_use]
    pub fn made_of(mut self, parts: Vec<Fact>) -> Self {
        self.parts = parts;
        self
    }
}
