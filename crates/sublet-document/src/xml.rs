//! XML with the prefixes of UBL, written element by element.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use sublet_core::error::{Error, Result};
use sublet_core::{Currency, Nanos};

use crate::text::plain;

/// A document while it is written.
pub struct Xml {
    writer: Writer<Vec<u8>>,
    /// Of every amount.
    currency: Currency,
}

fn refused(error: std::io::Error) -> Error {
    Error::internal("XML could not be written").context(error.to_string())
}

impl Xml {
    pub fn new(currency: Currency) -> Result<Self> {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None))).map_err(refused)?;
        Ok(Self { writer, currency })
    }

    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.writer.into_inner();
        bytes.push(b'\n');
        bytes
    }

    /// An element with what `inside` writes.
    pub fn group(&mut self, name: &str, inside: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.group_with(name, &[], inside)
    }

    pub fn group_with(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        inside: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let start = BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.writer.write_event(Event::Start(start)).map_err(refused)?;
        inside(self)?;
        self.writer.write_event(Event::End(BytesEnd::new(name))).map_err(refused)
    }

    /// An element with text.
    pub fn leaf(&mut self, name: &str, text: &str) -> Result<()> {
        self.leaf_with(name, &[], text)
    }

    /// One that is left out where there is nothing to say.
    pub fn optional(&mut self, name: &str, text: Option<&str>) -> Result<()> {
        text.map_or(Ok(()), |text| self.leaf(name, text))
    }

    pub fn leaf_with(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) -> Result<()> {
        // XML has no way to write these.
        let text: String =
            text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c }).collect();
        let start = BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.writer.write_event(Event::Start(start)).map_err(refused)?;
        self.writer.write_event(Event::Text(BytesText::new(&text))).map_err(refused)?;
        self.writer.write_event(Event::End(BytesEnd::new(name))).map_err(refused)
    }

    pub fn amount(&mut self, name: &str, amount: Nanos) -> Result<()> {
        let currency = self.currency;
        self.leaf_with(name, &[("currencyID", currency.as_str())], &plain(amount, currency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_xml_is_escaped() {
        let mut xml = Xml::new(Currency::EUR).unwrap();
        xml.group("a", |xml| xml.leaf_with("b", &[("c", "\"<&")], "1 < 2 & \u{1}\"")).unwrap();
        let text = String::from_utf8(xml.finish()).unwrap();
        assert!(text.contains("<b c=\"&quot;&lt;&amp;\">1 &lt; 2 &amp;  &quot;</b>"), "{text}");
    }
}
