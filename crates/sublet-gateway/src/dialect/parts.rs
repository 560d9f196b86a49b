//! Between a generation and the writer of a dialect: splits text into pieces, answer by answer.
//!
//! Log-probabilities go with the first piece that their text became part of. Output that comes in
//! pieces already needs none of this: whoever has it can feed a [`PartWriter`] directly.

use sublet_core::Error;
use sublet_core::admission::TokenUsage;
use sublet_core::engine::PositionLogprobs;
use sublet_core::id::RequestId;

use super::piece::{CallPiece, Piece, Reading, Splitter};
use super::{COMMENT, End, Text, Writer};
use crate::generation::Delta;

/// More of one answer.
#[derive(Debug)]
pub(crate) struct Part {
    pub choice: usize,
    pub piece: Piece,
    pub logprobs: Vec<PositionLogprobs>,
}

/// One whole answer.
#[derive(Default, Debug)]
pub(crate) struct Answer {
    /// In order; no two texts follow each other.
    pub items: Vec<Item>,
    pub logprobs: Vec<PositionLogprobs>,
}

/// A whole text or call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    Text(String),
    Call(Call),
}

impl Item {
    /// Its text, if it is one.
    pub fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Call(_) => String::new(),
        }
    }
}

/// One whole call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    /// Given by whoever made it.
    pub id: Option<String>,
    pub name: String,
    pub arguments: String,
}

impl Answer {
    pub fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Text(more) => match self.items.last_mut() {
                Some(Item::Text(text)) => text.push_str(&more),
                Some(Item::Call(_)) | None => self.items.push(Item::Text(more)),
            },
            Piece::Call(CallPiece { start: Some(start), arguments, .. }) => {
                self.items.push(Item::Call(Call { id: start.id, name: start.name, arguments }));
            }
            Piece::Call(CallPiece { start: None, arguments, .. }) => {
                if let Some(Item::Call(call)) = self.items.last_mut() {
                    call.arguments.push_str(&arguments);
                }
            }
        }
    }
}

/// Writes one answer as [`Writer`] does, from parts.
pub(crate) trait PartWriter: Send {
    fn begin(&mut self, out: &mut Vec<u8>, prompt: &TokenUsage);
    fn part(&mut self, out: &mut Vec<u8>, part: &Part);
    /// What is still to be said before [`PartWriter::end`].
    fn rest(&mut self, _out: &mut Vec<u8>) {}
    /// The finished answer as it is kept, where a dialect has answers that are.
    fn object(&self, _end: &End<'_>) -> Option<Vec<u8>> {
        None
    }
    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>);
    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error);
    fn heartbeat(&self) -> &'static [u8] {
        COMMENT
    }
    fn whole(&mut self, answers: Vec<Answer>, end: &End<'_>) -> Vec<u8>;
}

/// A writer of parts over the text of a generation.
pub(crate) struct Split<W> {
    writer: W,
    choices: Vec<Choice>,
    /// Nothing is kept back any more.
    is_rested: bool,
}

struct Choice {
    splitter: Splitter,
    /// Of text that is kept back.
    logprobs: Vec<PositionLogprobs>,
}

impl<W: PartWriter> Split<W> {
    pub fn new(writer: W, reading: &Reading, choices: usize) -> Self {
        let choice = |_| Choice { splitter: Splitter::new(reading.clone()), logprobs: Vec::new() };
        Self { writer, choices: (0..choices).map(choice).collect(), is_rested: false }
    }

    fn write(&mut self, out: &mut Vec<u8>, choice: usize, pieces: Vec<Piece>) {
        for piece in pieces {
            let logprobs = std::mem::take(&mut self.choices[choice].logprobs);
            self.writer.part(out, &Part { choice, piece, logprobs });
        }
    }
}

impl<W: PartWriter> Writer for Split<W> {
    fn begin(&mut self, out: &mut Vec<u8>, prompt: &TokenUsage) {
        self.writer.begin(out, prompt);
    }

    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        let choice = &mut self.choices[delta.choice];
        choice.logprobs.extend_from_slice(&delta.logprobs);
        let pieces = choice.splitter.push(&delta.text);
        self.write(out, delta.choice, pieces);
    }

    fn rest(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_rested, true) {
            return;
        }
        for index in 0..self.choices.len() {
            let mut pieces = self.choices[index].splitter.finish();
            if pieces.is_empty() && !self.choices[index].logprobs.is_empty() {
                pieces.push(Piece::Text(String::new()));
            }
            self.write(out, index, pieces);
        }
        self.writer.rest(out);
    }

    fn object(&self, end: &End<'_>) -> Option<Vec<u8>> {
        self.writer.object(end)
    }

    fn end(&mut self, out: &mut Vec<u8>, end: &End<'_>) {
        self.rest(out);
        self.writer.end(out, end);
    }

    fn failure(&mut self, out: &mut Vec<u8>, request: &RequestId, error: &Error) {
        self.writer.failure(out, request, error);
    }

    fn heartbeat(&self) -> &'static [u8] {
        self.writer.heartbeat()
    }

    fn whole(&mut self, texts: Vec<Text>, end: &End<'_>) -> Vec<u8> {
        let answer = |(choice, text): (&mut Choice, Text)| {
            let mut answer = Answer { logprobs: text.logprobs, ..Answer::default() };
            let pieces = choice.splitter.push(&text.text).into_iter().chain(choice.splitter.finish());
            pieces.for_each(|piece| answer.push(piece));
            answer
        };
        let answers = self.choices.iter_mut().zip(texts).map(answer).collect();
        self.writer.whole(answers, end)
    }
}
