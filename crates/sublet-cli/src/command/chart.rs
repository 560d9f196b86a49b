//! A drawing of boxes, steps, lines and words, as SVG or PNG. All of it lies on whole pixels.

use std::fmt::Write;
use std::path::Path;

use sublet_core::error::{Error, ErrorCode, Result};

use super::chart_png;

/// Red, green, blue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Color(pub [u8; 3]);

impl Color {
    pub(super) const BLACK: Self = Self([0; 3]);
    fn text(self) -> String {
        let [red, green, blue] = self.0;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }
}

/// From left and top.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Point {
    pub x: i64,
    pub y: i64,
}

/// Which side of a word is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Left,
    Right,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Columns from their levels down to a base: column *n* is from the *n*-th edge to the next.
    Columns { edges: Vec<i64>, levels: Vec<i64>, base: i64, color: Color },
    /// The upper border of such columns.
    Steps { edges: Vec<i64>, levels: Vec<i64>, color: Color },
    /// A square with a border.
    Swatch { at: Point, size: i64, color: Color },
    /// A thin line from a point down.
    Down { from: Point, until: i64 },
    /// On a base line.
    Words { at: Point, side: Side, text: String },
}

/// What is drawn, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Drawing {
    pub width: i64,
    pub height: i64,
    pub shapes: Vec<Shape>,
}

pub(super) const LINE: Color = Color([0xcc; 3]);
pub(super) const BORDER: Color = Color([0x55; 3]);

/// How a drawing is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Svg,
    Png,
}

impl Format {
    /// By how a file's name ends.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            Some(_) | None => Err(Error::new(ErrorCode::Usage, format!("a chart cannot be drawn as {}", path.display()))
                .alternative("let the file's name end in .svg or .png")),
        }
    }
}

impl Drawing {
    pub(super) fn bytes(&self, format: Format) -> Result<Vec<u8>> {
        match format {
            Format::Svg => Ok(self.svg().into_bytes()),
            Format::Png => chart_png::encode(self),
        }
    }

    fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            self.width, self.height
        );
        for shape in &self.shapes {
            svg.push_str(&element(shape));
            svg.push('\n');
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn element(shape: &Shape) -> String {
    match shape {
        Shape::Columns { edges, levels, base, color } => {
            let (first, last) = (edges.first().unwrap_or(&0), edges.last().unwrap_or(&0));
            format!("<path d=\"M{first} {base}{}L{last} {base}Z\" fill=\"{}\"/>", steps(edges, levels), color.text())
        }
        Shape::Steps { edges, levels, color } => {
            // The first step is where the path begins.
            let path = steps(edges, levels).replacen('L', "M", 1);
            format!("<path d=\"{path}\" fill=\"none\" stroke=\"{}\"/>", color.text())
        }
        Shape::Swatch { at: Point { x, y }, size, color } => format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{size}\" height=\"{size}\" fill=\"{}\" stroke=\"{}\"/>",
            color.text(),
            BORDER.text()
        ),
        Shape::Down { from: Point { x, y }, until } => format!("<path d=\"M{x} {y}V{until}\" stroke=\"{}\"/>", LINE.text()),
        Shape::Words { at: Point { x, y }, side, text } => {
            let anchor = match side {
                Side::Left => "",
                Side::Right => " text-anchor=\"end\"",
            };
            format!("<text x=\"{x}\" y=\"{y}\"{anchor}>{text}</text>")
        }
    }
}

fn steps(edges: &[i64], levels: &[i64]) -> String {
    let mut path = String::new();
    for (edge, level) in edges.windows(2).zip(levels) {
        let _ = write!(path, "L{} {level}L{} {level}", edge[0], edge[1]);
    }
    path
}
