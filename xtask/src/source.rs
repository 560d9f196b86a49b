//! Reads Rust source well enough to check it: which bytes are code, which are text, which lines
//! are tests, and where each function begins and ends.
//!
//! Deliberately absent: a parser. The checks need line numbers and bracket structure only, and a
//! lexer compiles in a second where a full grammar takes half a minute.

use std::ops::Range;

/// One Rust file, split into code and text.
pub struct Source {
    /// The file with comments and the insides of literals replaced by spaces, byte for byte.
    pub code: String,
    /// String literals: the line where each starts, and its content as written.
    pub strings: Vec<(usize, String)>,
    /// Comments: line and text.
    pub comments: Vec<(usize, String)>,
    /// Byte ranges that exist only for tests.
    test_ranges: Vec<Range<usize>>,
}

/// A function's name, first line, and length in lines including signature and closing brace.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// From what stands before `fn` on its line to the opening brace.
    pub signature: String,
    pub line: usize,
    pub lines: usize,
}

impl Source {
    pub fn parse(text: &str) -> Self {
        let mut lexer = Lexer::new(text);
        lexer.run();
        let mut source = Self { code: lexer.code, strings: lexer.strings, comments: lexer.comments, test_ranges: Vec::new() };
        source.test_ranges = find_test_ranges(&source.code);
        source
    }

    /// Lines outside `#[cfg(test)]` items.
    pub fn lines_without_tests(&self) -> usize {
        let total = self.code.lines().count();
        let tests: usize =
            self.test_ranges.iter().map(|range| line_at(&self.code, range.end) - line_at(&self.code, range.start) + 1).sum();
        total.saturating_sub(tests)
    }

    /// Whether a line belongs to a `#[cfg(test)]` item.
    pub fn is_test_line(&self, line: usize) -> bool {
        self.test_ranges.iter().any(|range| (line_at(&self.code, range.start)..=line_at(&self.code, range.end)).contains(&line))
    }

    /// Lines where `pattern` stands as code, not inside a longer word.
    pub fn find(&self, pattern: &str) -> Vec<usize> {
        let starts_as_word = pattern.starts_with(is_word_char);
        self.code
            .match_indices(pattern)
            .filter(|(at, _)| !(starts_as_word && self.code[..*at].ends_with(is_word_char)))
            .map(|(at, _)| line_at(&self.code, at))
            .collect()
    }

    /// Like [`Source::find`], for a whole word.
    pub fn find_word(&self, word: &str) -> Vec<usize> {
        self.code
            .match_indices(word)
            .filter(|(at, _)| !self.code[..*at].ends_with(is_word_char) && !self.code[at + word.len()..].starts_with(is_word_char))
            .map(|(at, _)| line_at(&self.code, at))
            .collect()
    }

    /// All functions with a body, nested ones too.
    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            if self.code[..at].ends_with(is_word_char) {
                continue;
            }
            let rest = &self.code[at + 3..];
            let name: String = rest.trim_start().chars().take_while(|c| is_word_char(*c)).collect();
            if name.is_empty() {
                continue;
            }
            if let Some(end) = item_end(&self.code, at).filter(|end| self.code[*end..].starts_with('}')) {
                let line = line_at(&self.code, at);
                let start = self.code[..at].rfind('\n').map_or(0, |end| end + 1);
                let signature = self.code[start..end].split('{').next().unwrap_or("").trim().to_owned();
                found.push(Function { name, signature, line, lines: line_at(&self.code, end) - line + 1 });
            }
        }
        found
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The 1-based line of a byte offset.
fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The offset of the `;` or `}` that ends the item starting at `start`.
fn item_end(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut braces = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && depth == 0 {
                    return Some(offset);
                }
            }
            b';' if depth == 0 && braces == 0 => return Some(offset),
            _ => {}
        }
    }
    None
}

fn find_test_ranges(code: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (start, marker) in code.match_indices("#[cfg(test)]") {
        if ranges.last().is_some_and(|range| range.contains(&start)) {
            continue;
        }
        let mut item = start + marker.len();
        // Attributes between the marker and the item belong to the item.
        while let Some(rest) = code[item..].trim_start().strip_prefix("#[") {
            let inside = code.len() - rest.len();
            let Some(close) = code[inside..].find(']') else { break };
            item = inside + close + 1;
        }
        if let Some(end) = item_end(code, item) {
            ranges.push(start..end);
        }
    }
    ranges
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    code: String,
    strings: Vec<(usize, String)>,
    comments: Vec<(usize, String)>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, code: String::with_capacity(text.len()), strings: Vec::new(), comments: Vec::new() }
    }

    fn run(&mut self) {
        while let Some(next) = self.rest().chars().next() {
            if self.rest().starts_with("//") {
                let length = self.rest().find('\n').unwrap_or(self.rest().len());
                self.take_comment(length);
            } else if self.rest().starts_with("/*") {
                self.take_comment(block_comment_length(self.rest()));
            } else if let Some(literal) = raw_string(self.rest()).filter(|_| !self.code.ends_with(is_word_char)) {
                self.take_string(&literal);
            } else if next == '"' {
                let content = plain_string_length(&self.rest()[1..]);
                self.take_string(&Literal { open: 1, content, close: 1 });
            } else if let Some(length) = char_literal(self.rest()) {
                self.blank(length);
            } else {
                self.code.push(next);
                self.advance(next.len_utf8());
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at.min(self.text.len())..]
    }

    fn advance(&mut self, length: usize) {
        self.line += self.rest()[..length.min(self.rest().len())].matches('\n').count();
        self.at += length;
    }

    /// Copies `length` bytes as spaces, keeping line breaks.
    fn blank(&mut self, length: usize) {
        let length = length.min(self.rest().len());
        let blanks = self.rest()[..length].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
        self.code.extend(blanks);
        self.advance(length);
    }

    fn take_comment(&mut self, length: usize) {
        self.comments.push((self.line, self.rest()[..length].to_owned()));
        self.blank(length);
    }

    fn take_string(&mut self, literal: &Literal) {
        let end = (literal.open + literal.content).min(self.rest().len());
        self.strings.push((self.line, self.rest()[literal.open..end].to_owned()));
        self.code.push('"');
        self.advance(1);
        self.blank(literal.open + literal.content + literal.close - 2);
        if !self.rest().is_empty() {
            self.code.push('"');
            self.advance(1);
        }
    }
}

/// Lengths in bytes of a string literal's parts: `r#"`, what is inside, `"#`.
struct Literal {
    open: usize,
    content: usize,
    close: usize,
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<Literal> {
    let after_prefix = ["br", "cr", "r"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = after_prefix.bytes().take_while(|byte| *byte == b'#').count();
    let content = after_prefix[hashes..].strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes));
    Some(Literal {
        open: text.len() - content.len(),
        content: content.find(&closing).unwrap_or(content.len()),
        close: closing.len(),
    })
}

fn plain_string_length(content: &str) -> usize {
    let mut escaped = false;
    for (offset, byte) in content.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return offset,
            _ => {}
        }
    }
    content.len()
}

/// The length of a character literal at the start of `text`; `None` for a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    if let Some(escaped) = rest.strip_prefix('\\') {
        let end = escaped.char_indices().skip(1).find(|(_, c)| *c == '\'')?;
        return Some(2 + end.0 + 1);
    }
    let first = rest.chars().next()?;
    rest[first.len_utf8()..].starts_with('\'').then(|| 1 + first.len_utf8() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_comments_are_not_code() {
        let source = Source::parse(
            "let a = \"SELECT\"; // SELECT\nlet b = r#\"raw \"SELECT\" \"#; /* x /* SELECT */ */ let c = '\"'; let d: &'a str = b\"é\\\"SELECT\";\nend",
        );
        assert!(source.find("SELECT").is_empty(), "{}", source.code);
        assert_eq!(source.find_word("end"), [3]);
        let strings: Vec<_> = source.strings.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(strings, [(1, "SELECT"), (2, "raw \"SELECT\" "), (2, "é\\\"SELECT")]);
        assert_eq!(source.comments.len(), 2);
    }

    #[test]
    fn lifetimes_and_characters_are_told_apart() {
        for (text, length) in [
            ("'a'", Some(3)),
            ("'\\''", Some(4)),
            ("'\\u{1F600}'", Some(11)),
            ("'é'", Some(4)),
            ("'a str", None),
            ("'static", None),
        ] {
            assert_eq!(char_literal(text), length, "{text}");
        }
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let text = "fn one() {}\nimpl X {\n    pub fn two(\n        a: [u8; 3],\n    ) -> u8 {\n        if a { \"}\" }\n    }\n    fn declared();\n}\ntype F = fn (u8);\n";
        let functions = Source::parse(text).functions();
        let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, [("one", 1, 1), ("two", 3, 5)]);
        assert!(functions[1].signature.starts_with("pub fn two(") && functions[1].signature.ends_with("-> u8"));
    }

    #[test]
    fn test_items_do_not_count_as_lines_of_the_file() {
        let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\n";
        let source = Source::parse(text);
        assert_eq!(source.lines_without_tests(), 2);
        assert!(source.is_test_line(5) && source.is_test_line(9) && !source.is_test_line(7));
    }
}
