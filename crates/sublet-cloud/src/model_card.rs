//! What the operator tells of models: licences, policies, ends, and other names.

use sublet_core::card::{DataPolicy, Licence, ModelCard};
use sublet_core::{Error, ErrorCode, Result};
use sublet_money::sku::ModelName;
use sublet_store::change::{self, Subject};
use sublet_store::model_card::{self, ModelCardRow};
use sublet_store::{Tx, remote_model};

use crate::organization::checked_name;
use crate::remote_model::check_audience;
use crate::{Action, Actor, Cloud};

/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 2_000;
/// Longest name of a licence, in bytes.
const LICENCE_BYTES_MAX: usize = 128;
/// Longest address of a licence, in bytes.
const URL_BYTES_MAX: usize = 512;
/// Longest text about retention, in bytes.
const RETENTION_BYTES_MAX: usize = 256;
/// Places in which one model is served, and the bytes of each.
const PLACES_MAX: usize = 16;
const PLACE_BYTES_MAX: usize = 64;
/// Other names of one model.
const ALIASES_MAX: usize = 16;

fn invalid(param: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

/// One line of text within a bound.
fn check_line(param: &str, text: &str, bytes_max: usize) -> Result<()> {
    if (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(invalid(param, format!("'{param}' is one line of 1 to {bytes_max} bytes")))
}

fn check_licence(licence: &Licence) -> Result<()> {
    check_line("licence.name", &licence.name, LICENCE_BYTES_MAX)?;
    if let Some(url) = &licence.url {
        check_line("licence.url", url, URL_BYTES_MAX)?;
        let scheme = url.starts_with("https://") || url.starts_with("http://");
        if !scheme || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("licence.url", "a licence's address is a URL that starts with https:// or http://"));
        }
    }
    if licence.acceptance_required && licence.url.is_none() {
        return Err(invalid("licence.url", "nobody can accept a licence without its text: say where it can be read"));
    }
    Ok(())
}

fn check_policy(policy: &DataPolicy) -> Result<()> {
    if let Some(retention) = &policy.retention {
        check_line("data_policy.retention", retention, RETENTION_BYTES_MAX)?;
    }
    if policy.served_in.len() > PLACES_MAX {
        return Err(invalid("data_policy.served_in", format!("a model is served in at most {PLACES_MAX} places")));
    }
    policy.served_in.iter().try_for_each(|place| check_line("data_policy.served_in", place, PLACE_BYTES_MAX))
}

/// Checks what can be checked without other models.
fn checked(model: &ModelName, card: ModelCard) -> Result<ModelCard> {
    let owned_by = card.owned_by.as_deref().map(checked_name).transpose().map_err(|error| error.param("owned_by"))?;
    let described = card.description.as_ref();
    if described.is_some_and(|text| text.is_empty() || text.len() > DESCRIPTION_BYTES_MAX || text.contains('\0')) {
        return Err(invalid("description", format!("a description has 1 to {DESCRIPTION_BYTES_MAX} bytes")));
    }
    card.licence.as_ref().map_or(Ok(()), check_licence)?;
    card.data_policy.as_ref().map_or(Ok(()), check_policy)?;
    if let (Some(deprecated), Some(shutdown)) = (card.deprecated_at, card.shutdown_at)
        && deprecated > shutdown
    {
        return Err(invalid("shutdown_date", "a model is not shut down before it is deprecated"));
    }
    if let Some(replacement) = &card.replacement {
        let name: ModelName = replacement.parse().map_err(|error: Error| error.param("replacement"))?;
        if name == *model {
            return Err(invalid("replacement", "a model does not replace itself"));
        }
    }
    if card.aliases.len() > ALIASES_MAX {
        return Err(invalid("aliases", format!("a model has at most {ALIASES_MAX} aliases")));
    }
    for (index, alias) in card.aliases.iter().enumerate() {
        let name: ModelName = alias.parse().map_err(|error: Error| error.param("aliases"))?;
        if name == *model || card.aliases[..index].contains(alias) {
            return Err(invalid("aliases", format!("'{alias}' is there already")));
        }
    }
    Ok(ModelCard { owned_by, ..card })
}

/// A name means one thing: a model or an alias, and an alias leads to a model.
async fn check_names(tx: &mut Tx, model: &str, card: &ModelCard, served_here: &[String]) -> Result<()> {
    let conflict = |message: String| Err(Error::new(ErrorCode::Conflict, message).param("aliases"));
    if let Some(other) = model_card::find_alias(tx, model).await? {
        return Err(Error::new(ErrorCode::Conflict, format!("'{model}' is an alias of '{other}', and not a model"))
            .alternative(format!("the card of '{other}'")));
    }
    for alias in &card.aliases {
        let is_model = served_here.contains(alias) || remote_model::find_name(tx, alias).await?.is_some();
        if is_model || model_card::find(tx, alias).await?.is_some() {
            return conflict(format!("'{alias}' is a model, and cannot be an alias"));
        }
        if let Some(other) = model_card::find_alias(tx, alias).await?
            && other != model
        {
            return conflict(format!("'{alias}' is an alias of '{other}' already"));
        }
    }
    Ok(())
}

impl Cloud {
    /// Writes a model's card in the place of the one before it. The model need not be served yet. `served_here` are
    /// the names that the engine of this process has.
    pub async fn set_model_card(
        &self,
        actor: &Actor,
        model: &str,
        card: ModelCard,
        served_here: &[String],
    ) -> Result<ModelCardRow> {
        actor.require(Action::ManageFleet)?;
        let name: ModelName = model.parse().map_err(|error: Error| error.param("model"))?;
        let card = checked(&name, card)?;
        let row = ModelCardRow { model: name.to_string(), card, generation: 1, changed_at: self.now() };
        let row = self
            .store
            .write((self, actor, row, served_here), |(cloud, actor, row, served_here), tx| {
                Box::pin(async move {
                    // Announced first: whoever else changes names waits here, so that two changes cannot miss each other.
                    change::announce(tx, Subject::Models).await?;
                    check_names(tx, &row.model, &row.card, served_here).await?;
                    check_audience(tx, &row.card.audience).await?;
                    model_card::set(tx, row).await?;
                    let licence = row.card.licence.as_ref().map_or("none", |licence| licence.name.as_str());
                    let detail = format!("licence {licence}, {} aliases", row.card.aliases.len());
                    cloud.changed(tx, actor, ("model_card.set", &row.model, detail)).await?;
                    model_card::find(tx, &row.model).await?.ok_or_else(|| Error::internal("a card that was written is not there"))
                })
            })
            .await?;
        self.follow().await?;
        Ok(row)
    }

    pub async fn get_model_card(&self, actor: &Actor, model: &str) -> Result<ModelCardRow> {
        actor.require(Action::ManageFleet)?;
        let found = self.store.read(model, |model, tx| Box::pin(model_card::find(tx, model))).await?;
        found.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no card of a model '{model}'")))
    }

    /// Every card, in the order of names.
    pub async fn list_model_cards(&self, actor: &Actor) -> Result<Vec<ModelCardRow>> {
        actor.require(Action::ManageFleet)?;
        self.store.read((), |(), tx| Box::pin(model_card::list_all(tx))).await
    }

    /// Forgets a model's card: nothing is said of it any more, and its aliases mean nothing.
    pub async fn delete_model_card(&self, actor: &Actor, model: &str) -> Result<()> {
        actor.require(Action::ManageFleet)?;
        self.store
            .write((self, actor, model), |(cloud, actor, model), tx| {
                Box::pin(async move {
                    model_card::delete(tx, model).await?;
                    cloud.changed(tx, actor, ("model_card.delete", model, String::new())).await
                })
            })
            .await?;
        self.follow().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_core::Timestamp;

    #[test]
    fn every_text_of_a_card_is_bounded_and_named_when_it_is_not() {
        let model: ModelName = "maker/model".parse().unwrap();
        let licence = |name: &str, url: Option<&str>, acceptance_required| {
            Some(Licence { name: name.to_owned(), url: url.map(str::to_owned), acceptance_required })
        };
        let policy = |retention: &str, places: usize| {
            Some(DataPolicy {
                retention: Some(retention.to_owned()),
                used_for_training: None,
                served_in: vec!["DE".to_owned(); places],
            })
        };
        let card = ModelCard::default;
        let at = |seconds| Some(Timestamp::from_seconds(seconds));
        for (card, param) in [
            (ModelCard { owned_by: Some("x".repeat(1_000)), ..card() }, "owned_by"),
            (ModelCard { description: Some("x".repeat(2_001)), ..card() }, "description"),
            (ModelCard { licence: licence("", None, false), ..card() }, "licence.name"),
            (ModelCard { licence: licence("two\nlines", None, false), ..card() }, "licence.name"),
            (ModelCard { licence: licence("MIT", Some("ftp://x"), false), ..card() }, "licence.url"),
            (ModelCard { licence: licence("MIT", None, true), ..card() }, "licence.url"),
            (ModelCard { data_policy: policy(&"x".repeat(257), 1), ..card() }, "data_policy.retention"),
            (ModelCard { data_policy: policy("none", 17), ..card() }, "data_policy.served_in"),
            (ModelCard { deprecated_at: at(9), shutdown_at: at(8), ..card() }, "shutdown_date"),
            (ModelCard { replacement: Some("maker/model".to_owned()), ..card() }, "replacement"),
            (ModelCard { aliases: vec!["a".to_owned(), "a".to_owned()], ..card() }, "aliases"),
            (ModelCard { aliases: vec!["maker/model".to_owned()], ..card() }, "aliases"),
            (ModelCard { aliases: vec!["with space".to_owned()], ..card() }, "aliases"),
            (ModelCard { aliases: (0..17).map(|n| format!("a{n}")).collect(), ..card() }, "aliases"),
        ] {
            let error = checked(&model, card).expect_err(param);
            assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some(param)));
        }
        let good = ModelCard {
            licence: licence("llama3.1", Some("https://example.com/licence"), true),
            data_policy: policy("30 days", 2),
            aliases: vec!["best".to_owned()],
            ..card()
        };
        assert_eq!(checked(&model, good.clone()).ok(), Some(good));
    }
}
