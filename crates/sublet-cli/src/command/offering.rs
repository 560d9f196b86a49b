//! `sublet offerings`.

use clap::{Args, Subcommand};
use sublet_api::offering::{Offering, OfferingNote, OfferingRecord, SetOffering};
use sublet_api::time::Rfc3339;
use sublet_core::error::Result;
use sublet_core::id::OrganizationId;
use sublet_core::offering::{OfferingState, Product};

use super::show_page;
use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};
use crate::value::word;

/// To whom products are sold. One that is not listed is public.
#[derive(Subcommand, Debug)]
pub enum OfferingCommand {
    /// List the products of which something was said
    List,
    /// Show a product's state, who is invited, and what was said before
    Show {
        /// model/NAME, device/KIND or device/NOTICE/KIND
        product: Product,
    },
    /// Bring a product to a state
    Set(SetArgs),
    /// Let an organization use what others do not see
    Invite { product: Product, organization: OrganizationId },
    /// Withdraw an invitation
    Uninvite { product: Product, organization: OrganizationId },
}

#[derive(Args, Debug)]
pub struct SetArgs {
    /// model/NAME, device/KIND or device/NOTICE/KIND; it need not be served yet
    pub product: Product,
    /// draft, invited, preview, public, retiring or retired
    #[arg(value_parser = word::<OfferingState>)]
    pub state: OfferingState,
    /// From when on nobody uses what retires, as RFC 3339
    #[arg(long, value_name = "INSTANT")]
    pub ends_at: Option<Rfc3339>,
    /// What to use instead
    #[arg(long, value_name = "PRODUCT")]
    pub successor: Option<Product>,
    /// Who used it in so many days before goes on until the end; 90 if left out
    #[arg(long, value_name = "DAYS")]
    pub used_within_days: Option<u32>,
    /// Why, for the record
    #[arg(long, default_value = "", hide_default_value = true)]
    pub note: String,
}

impl OfferingCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let record = match self {
            Self::List => return show_page(context, &client.offerings()?, |offerings| table(offerings)),
            Self::Show { product } => client.offering(&product.to_string())?,
            Self::Set(args) => {
                let SetArgs { product, state, ends_at, successor, used_within_days, note } = args;
                client.set_offering(&product.to_string(), &SetOffering { state, ends_at, successor, used_within_days, note })?
            }
            Self::Invite { product, organization } => client.invite_to_offering(&organization, &product.to_string())?,
            Self::Uninvite { product, organization } => client.uninvite_from_offering(&organization, &product.to_string())?,
        };
        context.show_text(&record, text)
    }
}

/// What customers are told of what is not simply public, in a few words.
pub(super) fn words(note: &OfferingNote) -> String {
    let until = note.ends_at.map(|at| format!(" until {}", render::unix(at)));
    let successor = note.successor.as_ref().map(|name| format!(", then {name}"));
    [Some(note.state.to_string()), until, successor].into_iter().flatten().collect()
}

fn end(offering: &Offering) -> String {
    offering.ends_at.map_or_else(|| NOTHING.to_owned(), |at| render::instant(at.0))
}

fn successor(offering: &Offering) -> String {
    offering.successor.as_ref().map_or_else(|| NOTHING.to_owned(), ToString::to_string)
}

fn table<'a>(offerings: impl IntoIterator<Item = &'a Offering>) -> Table {
    let rows = offerings.into_iter().map(|offering| {
        [
            Cell::text(offering.id.to_string()),
            Cell::text(offering.state.as_str()),
            Cell::text(offering.known_to.as_str()),
            Cell::text(end(offering)),
            Cell::text(successor(offering)),
            Cell::text(render::instant(offering.changed_at.into())),
        ]
    });
    let headings = ["product", "state", "known to", "ends at", "successor", "changed at"];
    Table::new(headings, "everything with a price is public").rows(rows)
}

fn text(record: &OfferingRecord, style: Style) -> String {
    let offering = &record.offering;
    let mut fields = vec![
        ("product", Cell::text(offering.id.to_string())),
        ("state", Cell::text(offering.state.as_str())),
        ("known to", Cell::text(offering.known_to.as_str())),
    ];
    if offering.ends_at.is_some() {
        fields.push(("ends at", Cell::text(end(offering))));
        fields.push(("successor", Cell::text(successor(offering))));
        fields.push(("organizations that go on", Cell::text(record.users.to_string())));
    }
    if !offering.note.is_empty() {
        fields.push(("note", Cell::text(&offering.note)));
    }
    fields.push(("changed", Cell::text(format!("{} by {}", render::instant(offering.changed_at.into()), offering.changed_by))));
    let mut parts = vec![Table::of_fields(fields)];
    if !record.invited.is_empty() {
        let rows = record.invited.iter().map(|invitation| {
            let since = render::instant(invitation.invited_at.into());
            [Cell::text(invitation.organization.as_str()), Cell::text(since), Cell::text(&invitation.invited_by)]
        });
        parts.push(Table::new(["invited", "since", "by"], "nobody is invited").rows(rows));
    }
    if !record.history.is_empty() {
        let rows = record.history.iter().map(|earlier| {
            [
                Cell::number(earlier.number),
                Cell::text(earlier.state.as_str()),
                Cell::text(end(earlier)),
                Cell::text(render::instant(earlier.changed_at.into())),
                Cell::text(&earlier.note),
            ]
        });
        parts.push(Table::new(["earlier", "state", "ends at", "said at", "note"], "nothing was said before").rows(rows));
    }
    parts.iter().map(|part| part.render(style)).collect::<Vec<_>>().join("\n")
}
