//! The price book: all published versions, in memory, immutable.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use sublet_core::admission::{PriceVersion, TokenPrices};
use sublet_core::id::PriceListId;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Error, ErrorCode, Result, Timestamp};
use sublet_money::price_book::{PriceList, PriceListDraft, PriceListVersion};
use sublet_money::sku::ModelName;
use sublet_store::Tx;
use sublet_store::change::{self, Subject};
use sublet_store::price::StoredPriceVersion;

use crate::audit::Deed;
use crate::idempotency::{Answer, Call};
use crate::{Action, Cloud};

/// Published price lists. One list per currency is the public one: the first published in it.
#[derive(Default)]
pub struct PriceBook {
    edition: RwLock<Edition>,
}

/// The lists as they were when prices had changed `number` times.
#[derive(Clone, Default)]
struct Edition {
    number: i64,
    lists: Arc<BTreeMap<PriceListId, PriceList>>,
}

impl PriceBook {
    /// Reads all versions again if any were published since they were last read.
    pub(crate) async fn follow(&self, tx: &mut Tx, number: i64) -> Result<()> {
        if number <= self.edition().number {
            return Ok(());
        }
        let stored = sublet_store::price::list(tx).await?;
        let mut versions: BTreeMap<PriceListId, (String, Currency, Vec<Arc<PriceListVersion>>)> = BTreeMap::new();
        for version in stored {
            let parsed = PriceListVersion::from_canonical(&version.body, &PriceVersion(version.version.as_str().into()))?;
            let entry =
                versions.entry(version.list.clone()).or_insert_with(|| (version.name.clone(), parsed.currency(), Vec::new()));
            entry.2.push(Arc::new(parsed));
        }
        let mut lists = BTreeMap::new();
        for (id, (name, currency, versions)) in versions {
            lists.insert(id.clone(), PriceList::restore(id, name, currency, versions)?);
        }
        let mut edition = self.edition.write().unwrap_or_else(PoisonError::into_inner);
        if edition.number < number {
            *edition = Edition { number, lists: Arc::new(lists) };
        }
        Ok(())
    }

    fn edition(&self) -> Edition {
        self.edition.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All lists as they are now.
    pub fn snapshot(&self) -> Arc<BTreeMap<PriceListId, PriceList>> {
        self.edition().lists
    }

    /// The version in force for accounts in a currency.
    pub fn in_force(&self, currency: Currency, at: Timestamp) -> Result<Arc<PriceListVersion>> {
        let lists = self.snapshot();
        let list = lists.values().find(|list| list.currency == currency).ok_or_else(|| {
            Error::new(ErrorCode::UnknownPrice, format!("there is no price list in {currency}"))
                .alternative("the operator publishes one in this currency")
        })?;
        list.at(at).cloned()
    }

    /// A version by its hash, whether in force or not.
    pub fn get(&self, version: &PriceVersion) -> Result<Arc<PriceListVersion>> {
        let lists = self.snapshot();
        lists
            .values()
            .flat_map(PriceList::versions)
            .find(|known| known.version() == version)
            .cloned()
            .ok_or_else(|| Error::new(ErrorCode::UnknownPrice, format!("there is no price-list version {}", version.0)))
    }

    /// Prices of one model's tokens at one tier for what is admitted at an instant.
    pub fn token_prices(&self, currency: Currency, (model, tier): (&str, ServiceTier), at: Timestamp) -> Result<TokenPrices> {
        let name: ModelName = model.parse()?;
        self.in_force(currency, at)?.token_prices(&name, tier, at)
    }
}

impl Cloud {
    /// Publishes a version. It takes over at its `effective_at`, which `now` may be the very instant of;
    /// what was admitted before keeps its price. A repeat of the call gets the hash of the version.
    pub async fn publish_prices(
        &self,
        call: &Call,
        name: &str,
        draft: PriceListDraft,
        now: Timestamp,
    ) -> Result<Answer<Arc<PriceListVersion>>> {
        call.actor.require(Action::ManagePrices)?;
        let version = Arc::new(PriceListVersion::new(draft)?);
        let render = |version: &Arc<PriceListVersion>| Ok(version.version().0.to_string());
        let answer = self
            .once(call, &render, (self, &call.actor, name, version), move |(cloud, actor, name, version), tx| {
                Box::pin(async move {
                    cloud.follow_changes(tx).await?;
                    let stored = cloud.next_version(name, version, now)?;
                    sublet_store::price::insert(tx, &stored).await?;
                    change::announce(tx, Subject::Prices).await?;
                    let detail =
                        format!("version {} number {} effective at {}", stored.version, stored.number, stored.effective_at);
                    let deed = Deed { organization: None, action: "price_list.publish", target: stored.list.as_str(), detail };
                    cloud.record(tx, actor, deed, now).await?;
                    Ok(version.clone())
                })
            })
            .await?;
        self.follow().await?;
        Ok(answer)
    }

    /// A version by its hash, even if another process published it a moment ago.
    pub(crate) async fn price_version(&self, tx: &mut Tx, version: &PriceVersion) -> Result<Arc<PriceListVersion>> {
        if let Ok(known) = self.prices.get(version) {
            return Ok(known);
        }
        self.follow_changes(tx).await?;
        self.prices.get(version)
    }

    /// Checks a version against the list it continues and numbers it.
    fn next_version(&self, name: &str, version: &Arc<PriceListVersion>, now: Timestamp) -> Result<StoredPriceVersion> {
        let lists = self.prices.snapshot();
        let known = lists.get(version.list());
        let mut list =
            known.cloned().unwrap_or_else(|| PriceList::new(version.list().clone(), name.to_owned(), version.currency()));
        if known.is_none() && lists.values().any(|list| list.currency == version.currency()) {
            return Err(Error::new(ErrorCode::Conflict, format!("there is a price list in {} already", version.currency()))
                .alternative("publish a new version of that list"));
        }
        list.publish(version.clone(), now)?;
        Ok(StoredPriceVersion {
            list: version.list().clone(),
            number: i64::try_from(list.versions().len()).unwrap_or(i64::MAX),
            name: list.name.clone(),
            currency: version.currency().to_string(),
            version: version.version().0.to_string(),
            effective_at: version.effective_at(),
            body: version.canonical().to_owned(),
            created_at: now,
        })
    }
}
