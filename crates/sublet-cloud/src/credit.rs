//! Credit: granted by the operator, prepaid or promotional.

use sublet_core::id::{CreditGrantId, OrganizationId};
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope};
use sublet_money::account::{AccountKind, CreditKind, LedgerAccount, Processor};
use sublet_money::balance::{AccountTotals, CustomerFunds};
use sublet_money::credit_lot::{CreditLot, CreditTerms};
use sublet_money::posting::{EntryHead, Fact, MEMO_MAX_BYTES, post};
use sublet_store::credit::{self, CreditGrant};
use sublet_store::{Page, PageRequest, Tx, ledger, organization};

use crate::audit::Deed;
use crate::credit_lot::open_lot;
use crate::idempotency::{Answer, Call, Render};
use crate::{Action, Actor, Cloud};

/// Longest reference of a payment, in characters.
const REFERENCE_MAX_CHARS: usize = 200;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewCredit {
    pub organization: OrganizationId,
    pub kind: CreditKind,
    pub amount: Nanos,
    /// `None` takes the account's currency; another one is refused.
    pub currency: Option<Currency>,
    /// What the owner's own records call this payment.
    pub reference: String,
    /// When and for what it burns.
    pub terms: CreditTerms,
}

/// Why there is credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GrantSource {
    /// It was paid for; the money is there.
    Payment(Processor),
    Gift,
    /// A promise was not kept.
    Compensation,
}

/// Nobody grants it.
pub(crate) fn of_a_contract() -> Error {
    Error::new(ErrorCode::InvalidRequest, "committed credit comes with a contract that bills its commitment in advance")
        .param("kind")
        .alternative("paid")
        .alternative("promotional")
}

/// What a customer has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditBalance {
    pub organization: OrganizationId,
    pub currency: Currency,
    pub funds: CustomerFunds,
}

impl GrantSource {
    /// What an operator grants: paid credit came by bank.
    pub(crate) fn of(kind: CreditKind) -> Result<Self> {
        match kind {
            CreditKind::Paid => Ok(Self::Payment(Processor::Bank)),
            CreditKind::Promotional => Ok(Self::Gift),
            CreditKind::Committed => Err(of_a_contract()),
        }
    }
    const fn kind(self) -> CreditKind {
        match self {
            Self::Payment(_) => CreditKind::Paid,
            Self::Gift | Self::Compensation => CreditKind::Promotional,
        }
    }
}

impl Cloud {
    pub async fn grant_credit(&self, call: &Call, new: &NewCredit, render: &Render<CreditGrant>) -> Result<Answer<CreditGrant>> {
        call.actor.require(Action::GrantCredit)?;
        let source = GrantSource::of(new.kind)?;
        if new.amount <= Nanos::ZERO {
            return Err(Error::new(ErrorCode::InvalidAmount, "a credit grant is a positive amount").param("amount"));
        }
        if new.reference.chars().count() > REFERENCE_MAX_CHARS || new.reference.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                format!("a reference is one line of at most {REFERENCE_MAX_CHARS} characters"),
            )
            .param("reference"));
        }
        let id: CreditGrantId = self.ids.mint();
        self.once(call, render, (self, &call.actor, new, id), move |(cloud, actor, new, id), tx| {
            Box::pin(async move {
                // A repeat is answered as it was, though its end may have passed since.
                new.terms.validate(cloud.now())?;
                let organization = organization::get(tx, &actor.scope, &new.organization).await?;
                if new.currency.is_some_and(|currency| currency != organization.currency) {
                    return Err(Error::new(
                        ErrorCode::CurrencyMismatch,
                        format!("the account is kept in {}", organization.currency),
                    )
                    .param("amount"));
                }
                let grant = CreditGrant {
                    id: id.clone(),
                    organization: organization.id.clone(),
                    kind: new.kind.as_str().to_owned(),
                    amount: new.amount,
                    currency: organization.currency,
                    reference: new.reference.clone(),
                    terms: new.terms,
                    created_at: cloud.now(),
                    remaining: None,
                };
                let lot = cloud.insert_grant(tx, actor, &grant, source).await?;
                Ok(CreditGrant { remaining: lot, ..grant })
            })
        })
        .await
    }

    /// Books a payment, a gift or what makes something good. A payment is gross: what of it is tax, by what holds for the account on that day, is
    /// kept for its invoices and is no credit. Of a payment, who received the money is said.
    /// The answer is what is left of it where its terms tell it apart from the rest.
    pub(crate) async fn insert_grant(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        grant: &CreditGrant,
        source: GrantSource,
    ) -> Result<Option<Nanos>> {
        credit::insert(tx, grant).await?;
        // A reference in a script of many bytes is in the grant.
        let memo =
            [format!("{} credit {} {}", grant.kind, grant.id, grant.reference), format!("{} credit {}", grant.kind, grant.id)];
        let memo = memo.into_iter().find(|memo| memo.len() <= MEMO_MAX_BYTES).unwrap_or_default();
        let head = EntryHead { id: self.ids.mint(), at: grant.created_at, currency: grant.currency, memo };
        let mut detail = format!("{} {} {}", grant.amount, grant.currency, grant.kind);
        let mut through = Processor::Bank;
        let (fact, net) = match source {
            GrantSource::Gift => (Fact::CreditGranted { credit: CreditKind::Promotional, amount: grant.amount }, grant.amount),
            GrantSource::Compensation => (Fact::Compensated { amount: grant.amount }, grant.amount),
            GrantSource::Payment(processor) => {
                through = processor;
                let (fact, tax) = self.payment(tx, grant).await?;
                if !tax.is_zero() {
                    detail = format!("{detail}, of which {tax} are kept for tax");
                }
                (fact, grant.amount.checked_sub(tax)?)
            }
        };
        ledger::post(tx, &post(head, &grant.organization, &fact)?.through(through)).await?;
        let deed = Deed { organization: Some(&grant.organization), action: "credit.grant", target: grant.id.as_str(), detail };
        self.record(tx, actor, deed, grant.created_at).await?;
        self.note_paid(tx, &grant.organization, grant.created_at).await?;
        open_lot(tx, &grant.organization, CreditLot::of(grant.id.clone(), source.kind(), grant.terms, net)).await
    }

    pub async fn list_credit(&self, actor: &Actor, organization: &OrganizationId, page: &PageRequest) -> Result<Page<CreditGrant>> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((actor, organization, page), |(actor, organization, page), tx| {
                Box::pin(async move {
                    organization::get(tx, &actor.scope, organization).await?;
                    credit::list(tx, organization, page).await
                })
            })
            .await
    }

    /// A customer's funds, with the invariant of the ledger checked.
    pub async fn credit_balance(&self, actor: &Actor, organization: &OrganizationId) -> Result<CreditBalance> {
        actor.require(Action::ReadUsage)?;
        let scope = match &actor.scope {
            Scope::Project { organization, .. } => Scope::Organization(organization.clone()),
            other => other.clone(),
        };
        self.store.read((scope, organization), |(scope, organization), tx| Box::pin(balance(tx, scope, organization))).await
    }
}

pub(crate) async fn balance(tx: &mut Tx, scope: &Scope, organization: &OrganizationId) -> Result<CreditBalance> {
    let found = organization::get(tx, scope, organization).await?;
    let mut totals = std::collections::BTreeMap::new();
    for kind in AccountKind::ALL {
        let account = LedgerAccount::customer(kind, organization);
        if account.organization().is_some() {
            totals.insert(kind, ledger::totals(tx, &account).await?);
        }
    }
    let mut taxes = AccountTotals::default();
    for (_, tax) in ledger::list_taxes(tx, organization).await? {
        taxes.debits = taxes.debits.checked_add(tax.debits)?;
        taxes.credits = taxes.credits.checked_add(tax.credits)?;
    }
    totals.insert(AccountKind::Tax, taxes);
    let mut deferred = AccountTotals::default();
    for (_, of_contract) in ledger::list_deferred(tx, organization).await? {
        deferred.debits = deferred.debits.checked_add(of_contract.debits)?;
        deferred.credits = deferred.credits.checked_add(of_contract.credits)?;
    }
    totals.insert(AccountKind::DeferredRevenue, deferred);
    let funds = CustomerFunds::from_totals(found.credit_limit, |kind| totals.get(&kind).copied().unwrap_or_default())?;
    funds.verify()?;
    Ok(CreditBalance { organization: found.id, currency: found.currency, funds })
}
