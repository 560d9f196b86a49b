//! The typeface of documents: Noto Sans, in two weights, and how wide its text is.
//!
//! Text is shaped as it is drawn, so that what is measured is what is seen. A letter that the typeface lacks is replaced
//! by one sign, and whoever drew it is told, so that a document can say so.
//!
//! Deliberately absent: other typefaces, and text from right to left.

use krilla::text::Font;
use rustybuzz::UnicodeBuffer;
use sublet_core::error::{Error, Result};

/// What stands for a letter that the typeface lacks.
pub const REPLACEMENT: char = '\u{fffd}';

/// How strong text is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Weight {
    #[default]
    Regular,
    Bold,
}

/// One weight.
struct Face {
    font: Font,
    shaper: rustybuzz::Face<'static>,
    /// In how many units the size of a letter is divided.
    units: i64,
}

impl Face {
    fn new(bytes: &'static [u8]) -> Result<Self> {
        let unreadable = || Error::internal("the typeface of documents cannot be read");
        let font = Font::new(bytes.into(), 0).ok_or_else(unreadable)?;
        let shaper = rustybuzz::Face::from_slice(bytes, 0).ok_or_else(unreadable)?;
        let units = i64::from(shaper.units_per_em());
        if units <= 0 {
            return Err(unreadable());
        }
        Ok(Self { font, shaper, units })
    }

    /// The width in the font's units, and the places of letters that it lacks.
    fn shape(&self, text: &str) -> (i64, Vec<usize>) {
        let mut buffer = UnicodeBuffer::new();
        buffer.push_str(text);
        buffer.guess_segment_properties();
        let shaped = rustybuzz::shape(&self.shaper, &[], buffer);
        let width = shaped.glyph_positions().iter().map(|position| i64::from(position.x_advance)).sum();
        let is_missing = |info: &&rustybuzz::GlyphInfo| info.glyph_id == 0;
        let missing = shaped.glyph_infos().iter().filter(is_missing).filter_map(|info| usize::try_from(info.cluster).ok());
        (width, missing.collect())
    }
}

/// Both weights.
pub struct Typeface {
    regular: Face,
    bold: Face,
}

impl Typeface {
    pub fn new() -> Result<Self> {
        Ok(Self { regular: Face::new(notosans::REGULAR_TTF)?, bold: Face::new(notosans::BOLD_TTF)? })
    }

    const fn face(&self, weight: Weight) -> &Face {
        match weight {
            Weight::Regular => &self.regular,
            Weight::Bold => &self.bold,
        }
    }

    pub const fn font(&self, weight: Weight) -> &Font {
        &self.face(weight).font
    }

    /// How wide a line is, rounded up; in the unit of `size`.
    pub fn width(&self, text: &str, weight: Weight, size: i32) -> i32 {
        let face = self.face(weight);
        let (width, _) = face.shape(text);
        let scaled = width.saturating_mul(i64::from(size));
        i32::try_from(scaled.saturating_add(face.units - 1) / face.units).unwrap_or(i32::MAX)
    }

    /// Text that can be drawn: one line, without letters that the typeface lacks. Tells whether any was replaced.
    pub fn printable(&self, text: &str) -> (String, bool) {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Both weights have the same letters.
        let (_, missing) = self.regular.shape(&line);
        if missing.is_empty() {
            return (line, false);
        }
        // Marks are shaped with the letter before them, so each is looked at by itself. What still cannot be drawn is one
        // letter's fault and all letters' loss.
        let has = |c: char| self.regular.shaper.glyph_index(c).is_some();
        let shown: String = line.chars().map(|c| if has(c) { c } else { REPLACEMENT }).collect();
        if self.regular.shape(&shown).1.is_empty() {
            return (shown, true);
        }
        (line.chars().map(|c| if c.is_ascii() { c } else { REPLACEMENT }).collect(), true)
    }

    /// Cuts text into lines of at most `room`, between words where it can.
    pub fn wrap(&self, text: &str, (weight, size): (Weight, i32), room: i32) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in text.split_whitespace() {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if self.width(&longer, weight, size) <= room {
                line = longer;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            line = self.cut(word, (weight, size), room, &mut lines);
        }
        if !line.is_empty() {
            lines.push(line);
        }
        lines
    }

    /// Cuts a word that is wider than a line; the rest begins the next one.
    fn cut(&self, word: &str, (weight, size): (Weight, i32), room: i32, lines: &mut Vec<String>) -> String {
        if self.width(word, weight, size) <= room {
            return word.to_owned();
        }
        let mut line = String::new();
        for letter in word.chars() {
            line.push(letter);
            if line.chars().count() > 1 && self.width(&line, weight, size) > room {
                line.pop();
                lines.push(std::mem::take(&mut line));
                line.push(letter);
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_grows_with_text_and_size() {
        let typeface = Typeface::new().unwrap();
        let width = |text, size| typeface.width(text, Weight::Regular, size);
        assert!(0 < width("12", 90) && width("12", 90) < width("123", 90) && width("12", 90) < width("12", 120));
        // Figures stand under each other.
        assert_eq!(width("111.11", 90), width("888.88", 90));
        assert!(typeface.width("Total", Weight::Bold, 90) > width("Total", 90));
    }

    #[test]
    fn what_the_typeface_lacks_is_replaced_and_told() {
        let typeface = Typeface::new().unwrap();
        for text in ["Müller & Söhne", "Ελληνική ΑΕ", "Кооператив «Луч»", "Łódź – Şti. ™", ""] {
            assert_eq!(typeface.printable(text), (text.to_owned(), false));
        }
        assert_eq!(typeface.printable("株式会社 A"), ("\u{fffd}\u{fffd}\u{fffd}\u{fffd} A".to_owned(), true));
        assert_eq!(typeface.printable("two\nlines\u{7}"), ("two lines ".to_owned(), false));
    }

    #[test]
    fn lines_are_cut_between_words_and_nothing_is_lost() {
        let typeface = Typeface::new().unwrap();
        let style = (Weight::Regular, 90);
        let text = "Output tokens of a model with averyveryveryverylongnamewithoutanyspaceinit at night";
        let lines = typeface.wrap(text, style, 900);
        assert!(lines.len() > 3, "{lines:?}");
        assert!(lines.iter().all(|line| typeface.width(line, style.0, style.1) <= 900), "{lines:?}");
        let joined = |text: &str| text.replace(' ', "");
        assert_eq!(joined(&lines.concat()), joined(text));
        assert_eq!(typeface.wrap("", style, 900), Vec::<String>::new());
    }
}
