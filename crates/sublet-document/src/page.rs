//! Pages: text, rules and a picture at their places, in tenths of a point from the upper left corner.
//!
//! Places are whole numbers, so that a document is the same on every machine. Everything is placed before anything is
//! drawn, so that each page can say how many there are.

use crate::typeface::{Typeface, Weight};

/// A4.
pub const PAGE_WIDTH: i32 = 5_953;
pub const PAGE_HEIGHT: i32 = 8_419;
pub const LEFT: i32 = 500;
pub const RIGHT: i32 = PAGE_WIDTH - 500;
const TOP: i32 = 430;
/// What is below belongs to the foot of the page.
const BOTTOM: i32 = PAGE_HEIGHT - 640;

/// How dark something is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Shade {
    #[default]
    Black,
    Gray,
    /// For what is behind text.
    Faint,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    pub weight: Weight,
    pub size: i32,
    pub shade: Shade,
}

impl Style {
    pub const BODY: Self = Self { weight: Weight::Regular, size: 90, shade: Shade::Black };
    pub const STRONG: Self = Self { weight: Weight::Bold, ..Self::BODY };
    pub const SMALL: Self = Self { weight: Weight::Regular, size: 75, shade: Shade::Gray };
    pub const TITLE: Self = Self { weight: Weight::Bold, size: 200, shade: Shade::Black };
    pub const NAME: Self = Self { weight: Weight::Bold, size: 120, shade: Shade::Black };

    /// From one line to the next.
    pub const fn line(self) -> i32 {
        self.size + self.size * 2 / 5
    }
}

/// Something on a page. `y` is the base line of text, and the upper edge of a picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    Text {
        x: i32,
        y: i32,
        style: Style,
        text: String,
    },
    /// Across the page, behind everything.
    Mark(String),
    Rule {
        x: i32,
        y: i32,
        width: i32,
    },
    Picture {
        x: i32,
        y: i32,
        width: i32,
        height: i32,
    },
}

/// Pages while they are filled, from top to bottom.
pub struct Composer<'a> {
    pub typeface: &'a Typeface,
    pub pages: Vec<Vec<Item>>,
    /// How far the page is filled.
    pub y: i32,
    /// A letter was replaced.
    pub has_replaced: bool,
}

impl<'a> Composer<'a> {
    pub fn new(typeface: &'a Typeface) -> Self {
        Self { typeface, pages: vec![Vec::new()], y: TOP, has_replaced: false }
    }

    pub fn put(&mut self, item: Item) {
        if let Some(page) = self.pages.last_mut() {
            page.push(item);
        }
    }

    pub fn new_page(&mut self) {
        self.pages.push(Vec::new());
        self.y = TOP;
    }

    /// Whether that much is left of the page.
    pub const fn has_room(&self, height: i32) -> bool {
        self.y + height <= BOTTOM
    }

    fn printable(&mut self, text: &str) -> String {
        let (text, was_replaced) = self.typeface.printable(text);
        self.has_replaced |= was_replaced;
        text
    }

    /// A line that begins at `x`, with its base line at `y`.
    pub fn text_at(&mut self, (x, y): (i32, i32), style: Style, text: &str) {
        let text = self.printable(text);
        if !text.trim().is_empty() {
            self.put(Item::Text { x, y, style, text });
        }
    }

    /// A line that ends at `x`.
    pub fn right_at(&mut self, (x, y): (i32, i32), style: Style, text: &str) {
        let text = self.printable(text);
        let width = self.typeface.width(&text, style.weight, style.size);
        if !text.trim().is_empty() {
            self.put(Item::Text { x: x - width, y, style, text });
        }
    }

    pub fn rule(&mut self, x: i32, width: i32) {
        let y = self.y;
        self.put(Item::Rule { x, y, width });
    }

    /// Text in as many lines as it needs, from here down; on the next page where there is no room.
    pub fn paragraph(&mut self, x: i32, room: i32, style: Style, text: &str) {
        let text = self.printable(text);
        for line in self.typeface.wrap(&text, (style.weight, style.size), room) {
            if !self.has_room(style.line()) {
                self.new_page();
            }
            self.y += style.line();
            let y = self.y;
            self.put(Item::Text { x, y, style, text: line });
        }
    }

    /// How many lines that would be.
    pub fn lines(&self, room: i32, style: Style, text: &str) -> i32 {
        let (text, _) = self.typeface.printable(text);
        i32::try_from(self.typeface.wrap(&text, (style.weight, style.size), room).len()).unwrap_or(i32::MAX / 1_000)
    }
}
