//! What bytes from outside must never do to a dialect.

mod answers;
mod requests;

pub use answers::{numbers, tool_text, upstream_answer};
pub use requests::{chat, completions, embeddings, messages, responses};

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: chat, completions, embeddings, messages, numbers, responses, tool_text, upstream_answer);
}
