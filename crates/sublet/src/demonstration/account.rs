//! The customers' accounts: organizations with a project, a key and prepaid credit.
//!
//! Their keys are in the data directory, readable by its owner only: whoever plays with the demonstration may use them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sublet_api::client::{Client, IdempotencyKey, Keys};
use sublet_api::credit::{CreateCreditGrant, CreditKind};
use sublet_api::key::{CreateKey, SecretText};
use sublet_api::money::Money;
use sublet_api::object::Metadata;
use sublet_api::organization::CreateOrganization;
use sublet_api::project::CreateProject;
use sublet_core::id::OrganizationId;
use sublet_core::organization::OrganizationClass;
use sublet_core::{Currency, Error, Nanos, Result, Timestamp};

use crate::data_directory;

use super::wish::CUSTOMERS;

/// What a customer pays in at once, and below what it pays in again.
const PAID_IN: Nanos = Nanos::new(5_000_000_000_000);
const PAID_IN_BELOW: Nanos = Nanos::new(1_500_000_000_000);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    organization: OrganizationId,
    name: String,
    admin_key: String,
    project_key: String,
}

/// Those of all customers, in their order.
pub struct Accounts {
    path: PathBuf,
    kept: Vec<Account>,
    clients: Vec<Client>,
}

impl Accounts {
    /// Those that there are.
    pub fn open(path: PathBuf) -> Self {
        let kept = std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { path, kept, clients: Vec::new() }
    }

    /// Makes those that are missing. One that was made when the process died, and not written down, stays unused.
    pub fn ensure(&mut self, operator: &Client, now: Timestamp) -> Result<()> {
        let stamp = now.micros();
        while let Some(character) = CUSTOMERS.get(self.kept.len()) {
            let account = create(operator, character.name, stamp)?;
            self.kept.push(account);
            self.keep()?;
        }
        let client = |account: &Account| {
            let keys = Keys { project: Some(SecretText::new(&account.project_key)), ..Keys::default() };
            Client::new(operator.base(), keys)
        };
        self.clients = self.kept.iter().map(client).collect::<Result<_>>()?;
        Ok(())
    }

    /// Calls as this customer.
    pub fn client(&self, customer: usize) -> Option<&Client> {
        self.clients.get(customer)
    }

    /// A customer with little credit left pays in; once a day at most, by the day's number.
    pub fn pay_in(&self, operator: &Client, customer: usize, day: i64) -> Result<()> {
        let Some(account) = self.kept.get(customer) else { return Ok(()) };
        if operator.organization_credits(&account.organization)?.available.nanos() >= PAID_IN_BELOW {
            return Ok(());
        }
        pay_in(operator, &account.organization, &format!("day-{day}"))
    }

    fn keep(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.kept).map_err(|error| Error::internal(error.to_string()))?;
        let beside = self.path.with_extension("json.new");
        data_directory::write_owner_only(&beside, &text)?;
        std::fs::rename(&beside, &self.path).map_err(|error| data_directory::failure(&self.path, &error))
    }
}

fn create(operator: &Client, name: &str, stamp: i64) -> Result<Account> {
    let body = CreateOrganization {
        name: name.to_owned(),
        class: OrganizationClass::External,
        currency: Currency::EUR,
        time_zone: None,
        credit_limit: None,
        isolation: None,
        metadata: Metadata::default(),
    };
    // Another key each time: an answer that was given before does not show the secret again.
    let key = |what: &str| IdempotencyKey(format!("demonstration-{what}-{}-{}", name.replace(' ', "-"), stamp));
    let made = operator.create_organization(&body, &key("organization"))?;
    let organization = made.organization.id;
    let keys = Keys { admin: Some(made.admin_key.value.clone()), ..Keys::default() };
    let admin = Client::new(operator.base(), keys)?;
    let project = CreateProject { name: "simulated work".to_owned(), metadata: Metadata::default() };
    let project = admin.create_project(&project, &key("project"))?;
    let body = CreateKey { name: "simulated customer".to_owned(), ..CreateKey::default() };
    let project_key = admin.create_project_key(&project.id, &body, &key("key"))?;
    pay_in(operator, &organization, "first")?;
    let (admin_key, project_key) = (made.admin_key.value.reveal().to_owned(), project_key.value.reveal().to_owned());
    Ok(Account { organization, name: name.to_owned(), admin_key, project_key })
}

fn pay_in(operator: &Client, organization: &OrganizationId, reference: &str) -> Result<()> {
    let body = CreateCreditGrant {
        amount: Money::new(PAID_IN, Currency::EUR),
        kind: CreditKind::Paid,
        expires_at: None,
        priority: None,
        scope: None,
        reference: Some(format!("simulated-{reference}")),
        metadata: Metadata::default(),
    };
    let key = IdempotencyKey(format!("demonstration-pay-in-{organization}-{reference}"));
    operator.grant_credit(organization, &body, &key).map(|_| ())
}
