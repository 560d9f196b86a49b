//! A drawing as PNG, with letters of its own: five by seven points, so that no font has to be there.

use sublet_core::error::{Error, Result};

use super::chart::{BORDER, Color, Drawing, LINE, Point, Shape, Side};

/// Pixels of a point of the drawing, on each side.
const SCALE: i64 = 2;
/// From one letter to the next, in points.
const ADVANCE: i64 = 6;
const LETTER_WIDTH: i64 = 5;
const LETTER_HEIGHT: i64 = 7;

/// A whole picture, row after row, three bytes for each pixel.
struct Raster {
    width: i64,
    height: i64,
    bytes: Vec<u8>,
}

/// From a corner until before another, in pixels.
struct Area {
    from: Point,
    until: Point,
}

pub(super) fn encode(drawing: &Drawing) -> Result<Vec<u8>> {
    let mut raster = Raster::white(drawing.width * SCALE, drawing.height * SCALE);
    drawing.shapes.iter().for_each(|shape| raster.draw(shape));
    let failed = |error: png::EncodingError| Error::internal(format!("a chart cannot be encoded: {error}"));
    let size = |length: i64| u32::try_from(length).map_err(|_| Error::internal("a chart is too large"));
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size(raster.width)?, size(raster.height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&raster.bytes).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

impl Raster {
    fn white(width: i64, height: i64) -> Self {
        let pixels = usize::try_from(width.max(0) * height.max(0)).unwrap_or(0);
        Self { width, height, bytes: vec![0xff; pixels * 3] }
    }

    /// What lies outside is left out.
    fn fill(&mut self, area: &Area, Color(color): Color) {
        let (left, right) = (area.from.x.max(0), area.until.x.min(self.width));
        for y in area.from.y.max(0)..area.until.y.min(self.height) {
            for x in left..right {
                let at = usize::try_from((y * self.width + x) * 3).unwrap_or(usize::MAX);
                if let Some(pixel) = self.bytes.get_mut(at..at.saturating_add(3)) {
                    pixel.copy_from_slice(&color);
                }
            }
        }
    }

    /// A box in points of the drawing.
    fn fill_points(&mut self, from: Point, until: Point, color: Color) {
        let scaled = |point: Point| Point { x: point.x * SCALE, y: point.y * SCALE };
        self.fill(&Area { from: scaled(from), until: scaled(until) }, color);
    }

    fn draw(&mut self, shape: &Shape) {
        match shape {
            Shape::Columns { edges, levels, base, color } => {
                for (edge, level) in edges.windows(2).zip(levels) {
                    self.fill_points(Point { x: edge[0], y: *level }, Point { x: edge[1], y: *base }, *color);
                }
            }
            Shape::Steps { edges, levels, color } => self.steps(edges, levels, *color),
            Shape::Swatch { at, size, color } => {
                let inner = |edge: i64| Point { x: at.x + edge, y: at.y + edge };
                self.fill_points(inner(0), inner(*size), BORDER);
                self.fill_points(inner(1), inner(*size - 1), *color);
            }
            Shape::Down { from, until } => {
                let end = Point { x: from.x * SCALE + 1, y: until * SCALE };
                self.fill(&Area { from: Point { x: from.x * SCALE, y: from.y * SCALE }, until: end }, LINE);
            }
            Shape::Words { at, side, text } => self.words(*at, *side, text),
        }
    }

    /// A line as thick as a point, with what joins one level to the next.
    fn steps(&mut self, edges: &[i64], levels: &[i64], color: Color) {
        let mut before = None;
        for (edge, level) in edges.windows(2).zip(levels) {
            self.fill_points(Point { x: edge[0], y: *level }, Point { x: edge[1], y: level + 1 }, color);
            let other = before.replace(*level).unwrap_or(*level);
            let (high, low) = (other.min(*level), other.max(*level));
            self.fill_points(Point { x: edge[0], y: high }, Point { x: edge[0] + 1, y: low + 1 }, color);
        }
    }

    fn words(&mut self, at: Point, side: Side, text: &str) {
        let letters = i64::try_from(text.chars().count()).unwrap_or(0);
        let left = match side {
            Side::Left => at.x,
            Side::Right => at.x - letters * ADVANCE,
        };
        for (place, letter) in (0_i64..).zip(text.chars()) {
            let corner = Point { x: left + place * ADVANCE, y: at.y - LETTER_HEIGHT };
            for (row, points) in (0_i64..).zip(points_of(letter)) {
                for column in (0..LETTER_WIDTH).filter(|column| points >> (LETTER_WIDTH - 1 - column) & 1 == 1) {
                    let from = Point { x: corner.x + column, y: corner.y + row };
                    self.fill_points(from, Point { x: from.x + 1, y: from.y + 1 }, Color::BLACK);
                }
            }
        }
    }
}

/// Rows from the top, the leftmost point in the highest of five bits; a frame for what has no picture.
#[rustfmt::skip]
fn points_of(letter: char) -> [u8; 7] {
    match letter {
        ' ' => [0; 7],
        'a' => [0x00, 0x00, 0x0e, 0x01, 0x0f, 0x11, 0x0f],
        'b' => [0x10, 0x10, 0x16, 0x19, 0x11, 0x11, 0x1e],
        'c' => [0x00, 0x00, 0x0e, 0x10, 0x10, 0x11, 0x0e],
        'd' => [0x01, 0x01, 0x0d, 0x13, 0x11, 0x11, 0x0f],
        'e' => [0x00, 0x00, 0x0e, 0x11, 0x1f, 0x10, 0x0e],
        'f' => [0x06, 0x09, 0x08, 0x1c, 0x08, 0x08, 0x08],
        'g' => [0x00, 0x0f, 0x11, 0x11, 0x0f, 0x01, 0x0e],
        'h' => [0x10, 0x10, 0x16, 0x19, 0x11, 0x11, 0x11],
        'i' => [0x04, 0x00, 0x0c, 0x04, 0x04, 0x04, 0x0e],
        'j' => [0x02, 0x00, 0x06, 0x02, 0x02, 0x12, 0x0c],
        'k' => [0x10, 0x10, 0x12, 0x14, 0x18, 0x14, 0x12],
        'l' => [0x0c, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e],
        'm' => [0x00, 0x00, 0x1a, 0x15, 0x15, 0x11, 0x11],
        'n' => [0x00, 0x00, 0x16, 0x19, 0x11, 0x11, 0x11],
        'o' => [0x00, 0x00, 0x0e, 0x11, 0x11, 0x11, 0x0e],
        'p' => [0x00, 0x00, 0x1e, 0x11, 0x1e, 0x10, 0x10],
        'q' => [0x00, 0x00, 0x0d, 0x13, 0x0f, 0x01, 0x01],
        'r' => [0x00, 0x00, 0x16, 0x19, 0x10, 0x10, 0x10],
        's' => [0x00, 0x00, 0x0e, 0x10, 0x0e, 0x01, 0x1e],
        't' => [0x08, 0x08, 0x1c, 0x08, 0x08, 0x09, 0x06],
        'u' => [0x00, 0x00, 0x11, 0x11, 0x11, 0x13, 0x0d],
        'v' => [0x00, 0x00, 0x11, 0x11, 0x11, 0x0a, 0x04],
        'w' => [0x00, 0x00, 0x11, 0x11, 0x15, 0x15, 0x0a],
        'x' => [0x00, 0x00, 0x11, 0x0a, 0x04, 0x0a, 0x11],
        'y' => [0x00, 0x00, 0x11, 0x11, 0x0f, 0x01, 0x0e],
        'z' => [0x00, 0x00, 0x1f, 0x02, 0x04, 0x08, 0x1f],
        '0' => [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e],
        '1' => [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
        '2' => [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
        '3' => [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
        '4' => [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
        '5' => [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
        '6' => [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
        '7' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
        '8' => [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
        '9' => [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
        '-' => [0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00],
        ':' => [0x00, 0x0c, 0x0c, 0x00, 0x0c, 0x0c, 0x00],
        ',' => [0x00, 0x00, 0x00, 0x00, 0x0c, 0x04, 0x08],
        _ => [0x1f, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1f],
    }
}
