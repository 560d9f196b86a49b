//! Lays a sheet out on pages: who and when, the table of lines, taxes and totals, how to pay, and what else is to be said.
//!
//! The head of the table is repeated on every page of it, sums are never apart from each other, and every page says which
//! one it is of how many.

use crate::page::{Composer, Item, LEFT, PAGE_HEIGHT, PAGE_WIDTH, RIGHT, Style};
use crate::sheet::{Fact, Sheet, SheetRow, Sum};
use crate::typeface::{REPLACEMENT, Typeface};

const WIDTH: i32 = RIGHT - LEFT;
/// Where amounts end: quantity, exact amount, amount.
const QUANTITY_END: i32 = RIGHT - 1_520;
const EXACT_END: i32 = RIGHT - 700;
const WHAT_WIDTH: i32 = 2_350;
/// Where facts about the document begin, and their texts.
const FACTS: i32 = 3_250;
const FACT_TEXTS: i32 = 4_220;
const SUMS: i32 = LEFT + 1_800;
const PICTURE_WIDTH_MAX: i32 = 1_600;
const PICTURE_HEIGHT_MAX: i32 = 420;
const GAP: i32 = 85;
/// Where the foot of a page begins.
const FOOT: i32 = PAGE_HEIGHT - 560;
const FOOT_LINES_MAX: usize = 3;

/// A document on its pages. `picture` is the size of the seller's logo.
pub fn pages(sheet: &Sheet, typeface: &Typeface, picture: Option<(u32, u32)>) -> Vec<Vec<Item>> {
    let mut page = Composer::new(typeface);
    head(&mut page, sheet, picture);
    table(&mut page, sheet);
    if !page.has_room(sums_height(&sheet.sums) + taxes_height(sheet) + sums_height(&sheet.totals)) {
        page.new_page();
    }
    sums(&mut page, &sheet.sums);
    taxes(&mut page, sheet);
    sums(&mut page, &sheet.totals);
    for remark in &sheet.remarks {
        page.y += GAP;
        page.paragraph(LEFT, WIDTH, Style::BODY, remark);
    }
    payment(&mut page, &sheet.payment);
    page.y += GAP;
    for note in &sheet.notes {
        page.y += GAP / 4;
        page.paragraph(LEFT, WIDTH, Style::SMALL, note);
    }
    foot(page, sheet)
}

/// Who issued it to whom, and what it is.
fn head(page: &mut Composer<'_>, sheet: &Sheet, picture: Option<(u32, u32)>) {
    let top = page.y;
    page.right_at((RIGHT, top + 150), Style::TITLE, &sheet.title);
    page.right_at((RIGHT, top + 330), Style::NAME, &sheet.name);
    if let Some((width, height)) = picture.and_then(fitted) {
        page.put(Item::Picture { x: LEFT, y: top, width, height });
        page.y += height + GAP;
    }
    for (index, line) in sheet.issuer.iter().enumerate() {
        let style = if index == 0 { Style::NAME } else { Style::SMALL };
        page.paragraph(LEFT, FACTS - LEFT - GAP, style, line);
    }
    page.y = page.y.max(top + 400) + GAP * 2;
    let start = page.y;
    for (index, line) in sheet.recipient.iter().enumerate() {
        let style = if index == 0 { Style::STRONG } else { Style::BODY };
        page.paragraph(LEFT, FACTS - LEFT - GAP, style, line);
    }
    let left = page.y;
    page.y = start;
    facts(page, &sheet.facts, (FACTS, FACT_TEXTS));
    page.y = page.y.max(left) + GAP * 2;
}

/// The size in which a picture is shown: not larger than its place, in its own proportion.
fn fitted((width, height): (u32, u32)) -> Option<(i32, i32)> {
    let (width, height) = (i64::from(width), i64::from(height));
    let (most, highest) = (i64::from(PICTURE_WIDTH_MAX), i64::from(PICTURE_HEIGHT_MAX));
    if width == 0 || height == 0 {
        return None;
    }
    let (shown, tall) =
        if width * highest > height * most { (most, height * most / width) } else { (width * highest / height, highest) };
    Some((i32::try_from(shown.max(1)).ok()?, i32::try_from(tall.max(1)).ok()?))
}

fn facts(page: &mut Composer<'_>, facts: &[Fact], (labels, texts): (i32, i32)) {
    for fact in facts {
        let lines = page.lines(RIGHT - texts, Style::BODY, &fact.text);
        if !page.has_room(lines * Style::BODY.line()) {
            page.new_page();
        }
        let base = page.y + Style::BODY.line();
        page.text_at((labels, base), Style { size: Style::BODY.size, ..Style::SMALL }, fact.label);
        page.paragraph(texts, RIGHT - texts, Style::BODY, &fact.text);
        page.y = page.y.max(base);
    }
}

fn table_head(page: &mut Composer<'_>, sheet: &Sheet) {
    page.y += Style::SMALL.line();
    let y = page.y;
    page.text_at((LEFT, y), Style::SMALL, "Description");
    page.right_at((QUANTITY_END, y), Style::SMALL, "Quantity");
    let [exact, amount] = &sheet.amount_heads;
    page.right_at((EXACT_END, y), Style::SMALL, exact);
    page.right_at((RIGHT, y), Style::SMALL, amount);
    page.y += 40;
    page.rule(LEFT, WIDTH);
    page.y += 20;
}

fn table(page: &mut Composer<'_>, sheet: &Sheet) {
    if sheet.sections.is_empty() {
        return;
    }
    table_head(page, sheet);
    for section in &sheet.sections {
        let mut heading = section.heading.as_deref();
        for row in &section.rows {
            let over = if heading.is_some() { Style::STRONG.line() + 60 } else { 0 };
            if !page.has_room(over + height(page, row)) {
                page.new_page();
                table_head(page, sheet);
            }
            if let Some(heading) = heading.take() {
                page.y += 60;
                page.paragraph(LEFT, WIDTH, Style::STRONG, heading);
            }
            draw_row(page, row);
        }
    }
    page.y += 60;
    page.rule(LEFT, WIDTH);
}

fn height(page: &Composer<'_>, row: &SheetRow) -> i32 {
    let details = row.details.iter().map(|text| page.lines(WHAT_WIDTH, Style::SMALL, text)).sum::<i32>();
    page.lines(WHAT_WIDTH, Style::BODY, &row.what) * Style::BODY.line() + details * Style::SMALL.line() + 30
}

fn draw_row(page: &mut Composer<'_>, row: &SheetRow) {
    let base = page.y + Style::BODY.line();
    page.paragraph(LEFT, WHAT_WIDTH, Style::BODY, &row.what);
    for detail in &row.details {
        page.paragraph(LEFT, WHAT_WIDTH, Style::SMALL, detail);
    }
    page.right_at((QUANTITY_END, base), Style::BODY, &row.quantity);
    page.right_at((EXACT_END, base), Style { shade: Style::SMALL.shade, ..Style::BODY }, &row.exact);
    page.right_at((RIGHT, base), Style::BODY, &row.amount);
    page.y += 30;
}

/// Everything from the sum of the lines to what is due stays together.
fn sums_height(sums: &[Sum]) -> i32 {
    sums.iter().fold(60, |height, _| height + Style::BODY.line() + 70)
}

fn taxes_height(sheet: &Sheet) -> i32 {
    sheet.taxes.iter().fold(GAP + Style::SMALL.line() + 40, |height, _| height + Style::BODY.line() + 20)
}

fn sums(page: &mut Composer<'_>, sums: &[Sum]) {
    page.y += 60;
    for sum in sums {
        let style = if sum.is_total { Style::STRONG } else { Style::BODY };
        if sum.is_total {
            page.y += 50;
            page.rule(SUMS, RIGHT - SUMS);
            page.y += 20;
        }
        page.y += style.line();
        let y = page.y;
        page.text_at((SUMS, y), style, &sum.label);
        if let Some(exact) = &sum.exact {
            page.right_at((EXACT_END, y), Style { shade: Style::SMALL.shade, ..Style::BODY }, exact);
        }
        page.right_at((RIGHT, y), style, &sum.amount);
    }
}

fn taxes(page: &mut Composer<'_>, sheet: &Sheet) {
    if sheet.taxes.is_empty() {
        return;
    }
    page.y += GAP + Style::SMALL.line();
    let y = page.y;
    page.text_at((SUMS, y), Style::SMALL, "Tax");
    page.right_at((EXACT_END - 800, y), Style::SMALL, "Rate");
    page.right_at((EXACT_END, y), Style::SMALL, "Taxable amount");
    page.right_at((RIGHT, y), Style::SMALL, "Tax amount");
    page.y += 40;
    page.rule(SUMS, RIGHT - SUMS);
    for tax in &sheet.taxes {
        page.y += Style::BODY.line() + 20;
        let y = page.y;
        page.text_at((SUMS, y), Style::BODY, &tax.name);
        page.right_at((EXACT_END - 800, y), Style::BODY, &tax.rate);
        page.right_at((EXACT_END, y), Style::BODY, &tax.base);
        page.right_at((RIGHT, y), Style::BODY, &tax.amount);
    }
}

fn payment(page: &mut Composer<'_>, payment: &[Fact]) {
    if payment.is_empty() {
        return;
    }
    let lines = i32::try_from(payment.len()).unwrap_or(i32::MAX / 1_000);
    if !page.has_room((lines + 2) * Style::BODY.line()) {
        page.new_page();
    }
    page.y += GAP * 2;
    page.paragraph(LEFT, WIDTH, Style::STRONG, "Payment");
    facts(page, payment, (LEFT, LEFT + 1_200));
}

/// What is on every page: which one it is, who issued it, and its mark.
fn foot(mut page: Composer<'_>, sheet: &Sheet) -> Vec<Vec<Item>> {
    if page.has_replaced {
        page.y += GAP / 4;
        let note = format!("{REPLACEMENT} stands for a letter that this document's typeface lacks.");
        page.paragraph(LEFT, WIDTH, Style::SMALL, &note);
    }
    let count = page.pages.len();
    let typeface = page.typeface;
    let footer: Vec<String> = sheet
        .footer
        .iter()
        .flat_map(|line| {
            let (line, _) = typeface.printable(line);
            typeface.wrap(&line, (Style::SMALL.weight, Style::SMALL.size), WIDTH - 1_500)
        })
        .take(FOOT_LINES_MAX)
        .collect();
    let (name, _) = typeface.printable(&format!("{} {}", sheet.title, sheet.name));
    for (index, items) in page.pages.iter_mut().enumerate() {
        let y = FOOT + Style::SMALL.line();
        let item = |x, y, text: String| Item::Text { x, y, style: Style::SMALL, text };
        items.push(Item::Rule { x: LEFT, y: FOOT, width: WIDTH });
        for (line, y) in footer.iter().zip((y..).step_by(usize::try_from(Style::SMALL.line()).unwrap_or(1))) {
            items.push(item(LEFT, y, line.clone()));
        }
        let number = format!("Page {} of {count}", index + 1);
        let width = |text: &str| typeface.width(text, Style::SMALL.weight, Style::SMALL.size);
        items.push(item(RIGHT - width(&number), y, number));
        items.push(item(RIGHT - width(&name), y + Style::SMALL.line(), name.clone()));
        if let Some(mark) = sheet.mark {
            items.insert(0, Item::Mark(mark.to_owned()));
        }
    }
    page.pages
}

/// Where a mark of this width begins, so that it is in the middle of the page.
pub const fn mark_at(width: i32) -> (i32, i32) {
    ((PAGE_WIDTH - width) / 2, PAGE_HEIGHT / 2)
}
