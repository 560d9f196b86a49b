//! Prices by contract: what an account pays instead of the public prices, and from when on.
//!
//! When something is agreed, left or published, the versions that follow are made and kept in the same transaction
//! ([`sublet_money::contract_price`]). What holds already stays as it is: a contract that is accepted in the middle of its
//! first month has its prices from then on, and never for what was admitted before. All processes of a deployment take
//! them over as they do public lists.

use std::sync::Arc;

use sublet_core::admission::PriceVersion;
use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::{Currency, Error, ErrorCode, Result, Scope, Timestamp};
use sublet_money::contract::TermsVersion;
use sublet_money::contract_price::{PlannedPrices, Sources, contract_prices, list_of, plan_prices};
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_money::price_book::{PriceList, PriceListVersion, PriceSource};
use sublet_proof::bundle::PriceSources;
use sublet_store::change::{self, Subject};
use sublet_store::contract::{self, Contract};
use sublet_store::contract_price::{self, STRETCHES_MAX};
use sublet_store::{Tx, organization};

use crate::{Action, Actor, Cloud};

/// What an account pays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountPrices {
    pub version: Arc<PriceListVersion>,
    /// The public list that it is of, or that it was made from.
    pub list: PriceList,
}

impl Cloud {
    /// The prices of the actor's account at an instant, now or later.
    pub async fn account_prices(&self, actor: &Actor, at: Timestamp) -> Result<AccountPrices> {
        actor.require(Action::ReadCatalogue)?;
        let id = actor.organization()?;
        let account = self
            .store
            .read((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    cloud.follow_changes(tx).await?;
                    organization::get(tx, &Scope::Organization((*id).clone()), &actor.organization()?.clone()).await
                })
            })
            .await?;
        let version = self.prices.in_force_for((&account.id, account.currency), at)?;
        Ok(AccountPrices { version, list: self.prices.public(account.currency)? })
    }

    /// What an offer protects if it names no version: that of the terms which it amends, or else the public one in force.
    pub async fn version_to_protect(
        &self,
        actor: &Actor,
        currency: Currency,
        amended: Option<&ContractId>,
    ) -> Result<PriceVersion> {
        actor.require(Action::OfferContracts)?;
        if let Some(id) = amended {
            let contract = self.store.read((actor, id), |(actor, id), tx| Box::pin(contract::get(tx, &actor.scope, id))).await?;
            let agreement = contract.agreement()?;
            let newest = agreement.as_ref().map(|agreement| agreement.newest()).transpose()?;
            let pricing = newest.and_then(|version| version.terms.pricing.as_ref());
            if let Some(protection) = pricing.and_then(|pricing| pricing.protection.as_ref()) {
                return Ok(protection.list.clone());
            }
        }
        self.follow().await?;
        Ok(self.prices.in_force(currency, self.now())?.version().clone())
    }

    /// Refuses terms whose prices could not be made from the list in force.
    pub(crate) async fn check_pricing(&self, tx: &mut Tx, version: &TermsVersion) -> Result<()> {
        let Some(pricing) = &version.terms.pricing else { return Ok(()) };
        self.follow_changes(tx).await?;
        let list = self.prices.public(version.terms.currency).map_err(|error| error.param("terms.pricing"))?;
        let public = list.at(self.now()).map_err(|error| error.param("terms.pricing"))?;
        if let Some(quantities) = &version.terms.quantities {
            // Use of what is not sold could never count.
            if !public.sells(&quantities.sku) {
                public.get(&quantities.sku).map_err(|error| error.param("terms.quantities.sku"))?;
            }
        }
        let protected = match &pricing.protection {
            None => None,
            Some(protection) => {
                Some(list.versions().iter().find(|known| *known.version() == protection.list).ok_or_else(|| {
                    Error::new(ErrorCode::InvalidRequest, format!("no version {} of the public list is known", protection.list.0))
                        .param("terms.pricing.protection.list")
                        .alternative(format!("{}, which is in force", public.version().0))
                })?)
            }
        };
        let from = Sources { public, protected: protected.map(AsRef::as_ref), terms: version };
        contract_prices(public.list().clone(), self.now(), from).map_err(|error| error.param("terms.pricing"))?;
        Ok(())
    }

    /// Makes the prices of a contract from now on, after something was agreed or notice was given.
    pub(crate) async fn plan_contract_prices(&self, tx: &mut Tx, contract: &Contract) -> Result<()> {
        let Some(agreement) = contract.agreement()? else { return Ok(()) };
        if agreement.versions().iter().all(|version| version.terms.pricing.is_none()) {
            return Ok(());
        }
        self.follow_changes(tx).await?;
        let account = organization::get(tx, &Scope::Operator, &contract.organization).await?;
        let list = self.prices.public(account.currency)?;
        self.plan(tx, contract, (&list, &account.time_zone), self.now()).await?;
        change::announce(tx, Subject::Prices).await
    }

    /// Makes the prices of all contracts from now on, after a version of the list was published.
    pub(crate) async fn plan_all_contract_prices(&self, tx: &mut Tx, list: &PriceList, now: Timestamp) -> Result<()> {
        let mut contracts: Vec<_> = contract_price::live(tx, now).await?.into_iter().map(|stretch| stretch.contract).collect();
        contracts.dedup();
        for id in contracts {
            let contract = contract::get(tx, &Scope::Operator, &id).await?;
            let account = organization::get(tx, &Scope::Operator, &contract.organization).await?;
            if account.currency == list.currency {
                let planned = self.plan(tx, &contract, (list, &account.time_zone), now).await;
                planned.map_err(|error| of_contract(error, &id))?;
            }
        }
        Ok(())
    }

    /// `list` is as it is in this transaction.
    async fn plan(&self, tx: &mut Tx, contract: &Contract, (list, zone): (&PriceList, &str), now: Timestamp) -> Result<()> {
        let Some(agreement) = contract.agreement()? else { return Ok(()) };
        let planned = plan_prices(&agreement, list, &BillingCalendar::new(zone)?, now)?;
        let held = match contract_price::find_at(tx, &contract.organization, &contract.id, now).await? {
            Some(version) => self.price_version(tx, &version).await?.source().cloned(),
            None => None,
        };
        let is_held = planned.first().is_some_and(|first| first.source == held);
        let from = if is_held { Timestamp::from_micros(now.micros().saturating_add(1)) } else { now };
        contract_price::remove_from(tx, &contract.id, from).await?;
        let next = if is_held { planned.get(1).map(|next| next.starts_at) } else { Some(now) };
        contract_price::set_end(tx, &contract.id, now, next).await?;
        for (index, PlannedPrices { starts_at, source }) in planned.iter().enumerate().skip(usize::from(is_held)) {
            let Some(source) = source else { continue };
            let version = made(contract, list, (source, *starts_at))?;
            let ends_at = planned.get(index + 1).map(|next| next.starts_at);
            contract_price::insert(tx, &contract.id, &version, now).await?;
            contract_price::insert_stretch(tx, &contract.id, version.version(), (*starts_at, ends_at)).await?;
        }
        if contract_price::count_live(tx, now).await? > STRETCHES_MAX {
            let message = format!("a cloud keeps at most {STRETCHES_MAX} price lists by contract that hold now or later");
            return Err(Error::new(ErrorCode::Conflict, message)
                .alternative("publish fewer versions ahead, or agree on fewer contracts with prices of their own"));
        }
        Ok(())
    }

    /// What an account's price lists were made from, for who checks them.
    pub(crate) async fn price_sources(
        &self,
        tx: &mut Tx,
        organization: &OrganizationId,
        lists: &[&PriceListVersion],
    ) -> Result<PriceSources> {
        let (versions, hashes) = PriceSources::named(lists.iter().copied());
        let mut sources = PriceSources::default();
        if hashes.is_empty() {
            return Ok(sources);
        }
        for version in versions {
            sources.lists.push(self.price_version(tx, version).await?.canonical().to_owned());
        }
        let contracts = contract::list_of(tx, organization).await?;
        let known: Vec<_> = contracts.iter().flat_map(|contract| &contract.offers).map(|offer| &offer.version).collect();
        for hash in hashes {
            let found = known.iter().find(|version| version.hash == hash);
            sources.terms.push(found.ok_or_else(|| missing("terms"))?.canonical()?);
        }
        Ok(sources)
    }

    /// A version of the public list as it would be for an account in a month, by its contract.
    pub(crate) async fn as_by_contract(
        &self,
        tx: &mut Tx,
        organization: &OrganizationId,
        (public, month): (&PriceListVersion, PeriodKey),
    ) -> Result<Option<PriceListVersion>> {
        for contract in contract::list_of(tx, organization).await? {
            let Some(agreement) = contract.agreement()? else { continue };
            let Some((terms, _)) = agreement.at(month)? else { continue };
            let Some(pricing) = &terms.terms.pricing else { continue };
            let protection = pricing.protection.as_ref();
            let protection = protection.filter(|protection| protection.until.is_none_or(|until| month <= until));
            let protected = protection.map(|protection| self.prices.get(&protection.list)).transpose()?;
            let from = Sources { public, protected: protected.as_deref(), terms };
            let own = contract_prices(list_of(&contract.id)?, public.effective_at(), from);
            return own.map(Some).map_err(|error| of_contract(error, &contract.id));
        }
        Ok(None)
    }
}

/// Says whose prices a list would not give: the contract is the operator's to amend.
fn of_contract(error: Error, id: &ContractId) -> Error {
    error
        .context(format!("prices by contract {id}"))
        .alternative(format!("amend the contract {id}, whose prices are made from the list"))
}

fn missing(what: &str) -> Error {
    Error::internal(format!("prices by contract are made from {what} that are not there"))
}

/// The version that a contract has from an instant on.
fn made(contract: &Contract, list: &PriceList, (source, starts_at): (&PriceSource, Timestamp)) -> Result<PriceListVersion> {
    let public = |version: &PriceVersion| {
        let found = list.versions().iter().find(|known| known.version() == version);
        found.map(AsRef::as_ref).ok_or_else(|| missing("public prices"))
    };
    let terms = contract.offers.iter().map(|offer| &offer.version).find(|version| version.hash == source.terms);
    let from = Sources {
        public: public(&source.list)?,
        protected: source.protected.as_ref().map(public).transpose()?,
        terms: terms.ok_or_else(|| missing("terms"))?,
    };
    contract_prices(list_of(&contract.id)?, starts_at, from)
}
