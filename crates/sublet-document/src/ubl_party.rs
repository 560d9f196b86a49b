//! Parties in UBL: BG-4 to BG-6 of the seller, BG-7 to BG-9 of the buyer.

use sublet_core::error::Result;
use sublet_money::party::{Address, ElectronicAddress, Party};

use crate::xml::Xml;

/// BT-34 and BT-49: where the party gets electronic documents.
pub fn endpoint_of(party: &Party) -> Option<&ElectronicAddress> {
    party.electronic_address.as_ref()
}

/// `is_named` with the VAT number: what is not subject to the tax must not have it (BR-O-02).
pub fn party(xml: &mut Xml, party: &Party, is_named: bool, endpoint: Option<&ElectronicAddress>) -> Result<()> {
    xml.group("cac:Party", |xml| {
        if let Some(endpoint) = endpoint {
            xml.leaf_with("cbc:EndpointID", &[("schemeID", &endpoint.scheme)], &endpoint.id)?;
        }
        // Somebody has to be named by a number (BR-CO-26).
        let number = party.tax_id.as_ref();
        if let Some(id) = number.filter(|_| !is_named && party.registration.is_none()) {
            xml.group("cac:PartyIdentification", |xml| xml.leaf("cbc:ID", id.as_str()))?;
        }
        if let Some(name) = &party.trading_name {
            xml.group("cac:PartyName", |xml| xml.leaf("cbc:Name", name))?;
        }
        xml.group("cac:PostalAddress", |xml| address(xml, &party.address))?;
        if let Some(id) = number.filter(|_| is_named) {
            xml.group("cac:PartyTaxScheme", |xml| {
                xml.leaf("cbc:CompanyID", id.as_str())?;
                xml.group("cac:TaxScheme", |xml| xml.leaf("cbc:ID", "VAT"))
            })?;
        }
        xml.group("cac:PartyLegalEntity", |xml| {
            xml.leaf("cbc:RegistrationName", &party.legal_name)?;
            xml.optional("cbc:CompanyID", party.registration.as_deref())
        })?;
        let Some(contact) = &party.contact else { return Ok(()) };
        xml.group("cac:Contact", |xml| {
            xml.optional("cbc:Name", contact.name.as_deref())?;
            xml.optional("cbc:Telephone", contact.phone.as_deref())?;
            xml.optional("cbc:ElectronicMail", contact.email.as_deref())
        })
    })
}

fn address(xml: &mut Xml, address: &Address) -> Result<()> {
    let mut lines = address.lines.iter().map(String::as_str);
    xml.optional("cbc:StreetName", lines.next())?;
    xml.optional("cbc:AdditionalStreetName", lines.next())?;
    xml.leaf("cbc:CityName", &address.city)?;
    xml.optional("cbc:PostalZone", address.postal_code.as_deref())?;
    xml.optional("cbc:CountrySubentity", address.subdivision.as_ref().map(|part| part.as_str()))?;
    for line in lines {
        xml.group("cac:AddressLine", |xml| xml.leaf("cbc:Line", line))?;
    }
    xml.group("cac:Country", |xml| xml.leaf("cbc:IdentificationCode", address.country.as_str()))
}
