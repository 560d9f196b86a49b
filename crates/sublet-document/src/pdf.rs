//! A sheet as PDF/A-3, with what programs read attached to it.
//!
//! The bytes are a function of the sheet, the logo and the attachment: nothing is taken from a clock or from chance. The
//! library checks the rules of PDF/A as it writes, and gives no file that breaks them.
//!
//! Deliberately absent: tags for readers that read aloud, and signatures.

use krilla::color::rgb;
use krilla::configure::{Archival, ConfigurationBuilder};
use krilla::embed::{AssociationKind, EmbeddedFile, MimeType};
use krilla::geom::{PathBuilder, Point, Rect, Size, Transform};
use krilla::image::Image;
use krilla::metadata::{DateTime, Metadata};
use krilla::num::NormalizedF32;
use krilla::page::PageSettings;
use krilla::paint::Fill;
use krilla::surface::Surface;
use krilla::text::TextDirection;
use krilla::{Document, SerializeSettings};
use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::layout::{mark_at, pages};
use crate::page::{Item, PAGE_HEIGHT, PAGE_WIDTH, Shade};
use crate::sheet::Sheet;
use crate::typeface::{Typeface, Weight};

/// Tenths of a point to points.
const SCALE: f32 = 0.1;
const RULE_HEIGHT: i32 = 5;
const MARK_SIZE: i32 = 1_300;
/// Upwards to the right, in degrees.
const MARK_ANGLE: f32 = -35.0;
/// Most pixels of a logo in each direction.
const PICTURE_PIXELS_MAX: u32 = 4_096;
/// Who wrote the file.
const PRODUCER: &str = "Sublet";

/// A file inside of the document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    pub name: String,
    pub description: String,
    pub content: Vec<u8>,
}

/// Writes a document. `logo` is a PNG.
pub fn pdf(sheet: &Sheet, logo: Option<&[u8]>, attachment: Option<Attachment>) -> Result<Vec<u8>> {
    let typeface = Typeface::new()?;
    let logo = logo.map(|bytes| picture(bytes.to_vec())).transpose()?;
    let laid_out = pages(sheet, &typeface, logo.as_ref().map(Image::size));
    let configuration = ConfigurationBuilder::new().with_archival_validator(Archival::A3_B).finish();
    let configuration = configuration.map_err(|error| Error::internal(format!("PDF/A-3 cannot be written: {error:?}")))?;
    let mut document = Document::new_with(SerializeSettings { configuration, ..SerializeSettings::default() });
    for items in &laid_out {
        draw(&mut document, items, &typeface, logo.as_ref())?;
    }
    let date = date_time(sheet.dated);
    document.set_metadata(metadata(sheet, date));
    if let Some(attachment) = attachment {
        let file = EmbeddedFile {
            path: attachment.name,
            mime_type: MimeType::new("application/xml"),
            description: Some(attachment.description),
            association_kind: AssociationKind::Alternative,
            data: attachment.content.into(),
            modification_date: Some(date),
            compress: Some(true),
            location: None,
        };
        document.embed_file(file).ok_or_else(|| Error::internal("a document has two files of one name"))?;
    }
    document.finish().map_err(|error| Error::internal("a document could not be written").context(format!("{error:?}")))
}

/// A logo that can be drawn.
fn picture(bytes: Vec<u8>) -> Result<Image> {
    let unreadable = |reason: String| {
        Error::new(ErrorCode::InvalidRequest, "the logo is not a PNG that can be drawn").param("logo").context(reason)
    };
    let image = Image::from_png(bytes.into(), false).map_err(unreadable)?;
    let (width, height) = image.size();
    if width.max(height) > PICTURE_PIXELS_MAX {
        return Err(unreadable(format!("{width} × {height} pixels")));
    }
    Ok(image)
}

fn metadata(sheet: &Sheet, date: DateTime) -> Metadata {
    let metadata = Metadata::new()
        .title(format!("{} {}", sheet.title, sheet.name))
        .language("en".to_owned())
        .producer(PRODUCER.to_owned())
        .creation_date(date)
        .document_id(format!("{} {}", sheet.title, sheet.name));
    match sheet.issuer.first() {
        Some(issuer) => metadata.authors(vec![issuer.clone()]),
        None => metadata,
    }
}

/// An instant, read from how it is written: `2026-03-01T12:00:00.000000Z`.
fn date_time(instant: Timestamp) -> DateTime {
    let text = instant.to_string();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u16>().unwrap_or(0));
    let year = DateTime::new(numbers.next().unwrap_or(0)).utc_offset_hour(0).utc_offset_minute(0);
    let mut next = || numbers.next().and_then(|number| u8::try_from(number).ok()).unwrap_or(0);
    year.month(next()).day(next()).hour(next()).minute(next()).second(next())
}

fn point(number: i32) -> f32 {
    f32::from(i16::try_from(number).unwrap_or(i16::MAX))
}

fn fill(shade: Shade) -> Fill {
    let level = match shade {
        Shade::Black => 0x1a,
        Shade::Gray => 0x66,
        Shade::Faint => 0xe8,
    };
    Fill { paint: rgb::Color::new(level, level, level).into(), opacity: NormalizedF32::ONE, ..Fill::default() }
}

fn draw(document: &mut Document, items: &[Item], typeface: &Typeface, logo: Option<&Image>) -> Result<()> {
    let outside = || Error::internal("a page of a document has no size");
    // A4 in points; what is on it is in tenths of a point.
    let settings = PageSettings::from_wh(595.3, 841.9).ok_or_else(outside)?;
    let mut page = document.start_page_with(settings);
    let mut surface = page.surface();
    surface.push_transform(&Transform::from_scale(SCALE, SCALE));
    for item in items {
        draw_item(&mut surface, item, typeface, logo).ok_or_else(outside)?;
    }
    surface.pop();
    surface.finish();
    page.finish();
    Ok(())
}

/// `None` if a size is not one.
fn draw_item(surface: &mut Surface<'_>, item: &Item, typeface: &Typeface, logo: Option<&Image>) -> Option<()> {
    match item {
        Item::Text { x, y, style, text } => {
            surface.set_fill(Some(fill(style.shade)));
            let at = Point::from_xy(point(*x), point(*y));
            let font = typeface.font(style.weight).clone();
            surface.draw_text(at, font, point(style.size), text, false, TextDirection::Auto);
        }
        Item::Mark(text) => {
            surface.set_fill(Some(fill(Shade::Faint)));
            let (x, y) = mark_at(typeface.width(text, Weight::Bold, MARK_SIZE));
            surface.push_transform(&Transform::from_rotate_at(MARK_ANGLE, point(PAGE_WIDTH / 2), point(PAGE_HEIGHT / 2)));
            let font = typeface.font(Weight::Bold).clone();
            surface.draw_text(Point::from_xy(point(x), point(y)), font, point(MARK_SIZE), text, false, TextDirection::Auto);
            surface.pop();
        }
        Item::Rule { x, y, width } => {
            surface.set_fill(Some(fill(Shade::Gray)));
            let mut path = PathBuilder::new();
            path.push_rect(Rect::from_xywh(point(*x), point(*y), point(*width), point(RULE_HEIGHT))?);
            surface.draw_path(&path.finish()?);
        }
        Item::Picture { x, y, width, height } => {
            surface.push_transform(&Transform::from_translate(point(*x), point(*y)));
            surface.draw_image(logo?.clone(), Size::from_wh(point(*width), point(*height))?);
            surface.pop();
        }
    }
    Some(())
}
