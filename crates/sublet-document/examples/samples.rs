//! Writes an invoice of every kind into a folder, as PDF and as UBL: for judges, and to look at.
//!
//! Usage: samples FOLDER

use std::path::PathBuf;

#[path = "../tests/documents/sample.rs"]
mod sample;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("a folder is needed")?);
    std::fs::create_dir_all(&folder)?;
    let prices = sample::prices("EUR", 30);
    for sample in sample::samples(&prices) {
        let price = sample::price(&prices);
        let write = |name: String, bytes: Vec<u8>| std::fs::write(folder.join(name), bytes);
        write(format!("{}.pdf", sample.name), sublet_document::invoice_pdf(&sample.invoice, &sample.about, &price)?)?;
        if let Ok(xml) = sublet_document::invoice_ubl(&sample.invoice, &sample.about, &price) {
            write(format!("{}.xml", sample.name), xml)?;
        }
        if let Some(note) = &sample.note {
            let pdf = sublet_document::credit_note_pdf(note, &sample.invoice, sample.about.logo.as_deref())?;
            write(format!("{}-credit-note.pdf", sample.name), pdf)?;
            write(format!("{}-credit-note.xml", sample.name), sublet_document::credit_note_ubl(note, &sample.invoice)?)?;
        }
    }
    Ok(())
}
