//! What supply costs the owner: declared by him, for months that are not closed.

use sublet_core::{Currency, Error, ErrorCode, Result, Timestamp};
use sublet_money::floor::{BelowCost, below_cost};
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_money::price_book::PriceListVersion;
use sublet_money::supply_cost::{SupplyCost, SupplyCostDraft};
use sublet_store::Tx;
use sublet_store::supply_cost::{self, StoredSupplyCost};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call};
use crate::{Action, Actor, Cloud};

/// For how many months before the running one costs can still be declared: bills for energy come late.
const MONTHS_BACK: u32 = 3;

impl Cloud {
    /// Publishes costs that hold from the beginning of a month on. They are never changed; those of the same month or a
    /// later one take over from them. What a closed month cost stays.
    pub async fn publish_supply_costs(&self, call: &Call, draft: SupplyCostDraft) -> Result<Answer<StoredSupplyCost>> {
        call.actor.require(Action::ManagePrices)?;
        // What is wrong with the content is said before anything is read.
        SupplyCost::new(draft.clone())?;
        let render = |stored: &StoredSupplyCost| Ok(stored.cost.version().to_owned());
        self.once(call, &render, (self, &call.actor, draft), |(cloud, actor, draft), tx| {
            Box::pin(async move {
                let stored = cloud.next_supply_costs(tx, draft).await?;
                supply_cost::insert(tx, &stored).await?;
                let (version, content) = (stored.cost.version(), stored.cost.content());
                let detail = format!(
                    "number {} in {} from {} on: {} kinds of device, {} models",
                    stored.number,
                    content.currency,
                    content.month,
                    content.devices.len(),
                    content.models.len()
                );
                let deed = Deed { organization: None, action: "supply_costs.publish", target: version, detail };
                cloud.record(tx, actor, deed, stored.created_at).await?;
                Ok(stored)
            })
        })
        .await
    }

    async fn next_supply_costs(&self, tx: &mut Tx, draft: &SupplyCostDraft) -> Result<StoredSupplyCost> {
        let now = self.now();
        self.follow_changes(tx).await?;
        let currency = draft.currency;
        if !self.prices.snapshot().values().any(|list| list.currency == currency) {
            let message = format!("nothing is sold in {currency}, and costs are not converted");
            return Err(Error::new(ErrorCode::CurrencyMismatch, message)
                .param("currency")
                .alternative("a currency that a price list has"));
        }
        let earliest = BillingCalendar::new("UTC")?.period_at(now)?.key.minus(MONTHS_BACK)?;
        if draft.month < earliest {
            let message = format!("costs are declared for {earliest} and later months, not for {}", draft.month);
            return Err(Error::new(ErrorCode::InvalidPrice, message).param("effective_at").alternative(earliest.to_string()));
        }
        let last = supply_cost::find_last(tx, currency).await?;
        let (number, replaces) = last.map_or((1, None), |last| (last.number + 1, Some(last.cost.version().to_owned())));
        let cost = SupplyCost::new(SupplyCostDraft { replaces, ..draft.clone() })?;
        Ok(StoredSupplyCost { cost, number, created_at: now })
    }

    /// All versions, by currency, oldest first.
    pub async fn list_supply_costs(&self, actor: &Actor) -> Result<Vec<StoredSupplyCost>> {
        actor.require(Action::ManagePrices)?;
        self.store.read((), |(), tx| Box::pin(supply_cost::list(tx))).await
    }

    /// A version by its hash.
    pub async fn get_supply_costs(&self, actor: &Actor, version: &str) -> Result<StoredSupplyCost> {
        actor.require(Action::ManagePrices)?;
        let found = self.store.read(version, |version, tx| Box::pin(supply_cost::find(tx, version))).await?;
        found.ok_or_else(|| Error::new(ErrorCode::NotFound, "there are no costs of supply with this hash"))
    }

    /// The costs in force in a month.
    pub async fn find_supply_costs(&self, actor: &Actor, currency: Currency, month: PeriodKey) -> Result<Option<StoredSupplyCost>> {
        actor.require(Action::ManagePrices)?;
        self.store
            .read((currency, month), |(currency, month), tx| Box::pin(supply_cost::find_in_force(tx, *currency, *month)))
            .await
    }

    /// Prices of a list that are below what supply costs when the list takes effect.
    pub async fn prices_below_cost(&self, actor: &Actor, version: &PriceListVersion, at: Timestamp) -> Result<Vec<BelowCost>> {
        let month = BillingCalendar::new("UTC")?.period_at(at)?.key;
        match self.find_supply_costs(actor, version.currency(), month).await? {
            Some(stored) => below_cost(version, &stored.cost, at),
            None => Ok(Vec::new()),
        }
    }
}
