//! `sublet top-ups rule`.

use clap::{Args, Subcommand};
use sublet_api::money::Money;
use sublet_api::top_up_rule::{TopUpBelow, TopUpOn, TopUpRule, TopUpTerms};
use sublet_core::error::Result;

use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::MoneyArgument;

/// What is charged to the saved card by itself.
#[derive(Subcommand, Debug)]
pub enum TopUpRuleCommand {
    /// Show the rule, and how far it is
    Show,
    /// Set it, in the place of the one before it; one that was paused goes on
    Set(SetArgs),
    /// Have nothing charged by itself any more
    Remove,
}

#[derive(Args, Debug)]
pub struct SetArgs {
    /// When less than this is left to spend
    #[arg(long, value_name = "AMOUNT", requires = "add")]
    below: Option<MoneyArgument>,
    /// What is charged then
    #[arg(long, value_name = "AMOUNT", requires = "below")]
    add: Option<MoneyArgument>,
    /// On this day: mon to sun in each week, 1 to 31 in each month
    #[arg(long, value_name = "DAY", requires = "add_on_day")]
    on: Option<String>,
    /// What is charged then
    #[arg(long, value_name = "AMOUNT", requires = "on")]
    add_on_day: Option<MoneyArgument>,
    /// Never more than this in a calendar day
    #[arg(long, value_name = "AMOUNT")]
    most_per_day: Option<MoneyArgument>,
    /// Never more than this in a calendar month
    #[arg(long, value_name = "AMOUNT")]
    most_per_month: MoneyArgument,
}

impl TopUpRuleCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let rule = match self {
            Self::Show => client.top_up_rule()?,
            Self::Remove => client.remove_top_up_rule()?,
            Self::Set(set) => {
                let currency = client.credits()?.available.currency;
                let sum = |amount: MoneyArgument| amount.in_currency(currency);
                let below = set.below.zip(set.add).map(|(threshold, amount)| {
                    Ok::<_, sublet_core::Error>(TopUpBelow { threshold: sum(threshold)?, amount: sum(amount)? })
                });
                let on = set
                    .on
                    .zip(set.add_on_day)
                    .map(|(day, amount)| Ok::<_, sublet_core::Error>(TopUpOn { day, amount: sum(amount)? }));
                client.set_top_up_rule(&TopUpTerms {
                    below: below.transpose()?,
                    on: on.transpose()?,
                    most_per_day: set.most_per_day.map(sum).transpose()?,
                    most_per_month: sum(set.most_per_month)?,
                })?
            }
        };
        context.show(&rule, table)
    }
}

fn table(rule: &TopUpRule) -> Table {
    let sum = |money: &Money| render::money(money);
    let terms = rule.terms.as_ref();
    let below = terms.and_then(|terms| terms.below.as_ref());
    let on = terms.and_then(|terms| terms.on.as_ref());
    let row = [
        Cell::text(rule.status.as_str()),
        Cell::optional(below.map(|below| format!("{} below {}", sum(&below.amount), sum(&below.threshold))).as_ref()),
        Cell::optional(on.map(|on| format!("{} on {}", sum(&on.amount), on.day)).as_ref()),
        Cell::optional(terms.and_then(|terms| terms.most_per_day.as_ref()).map(sum).as_ref()),
        Cell::optional(terms.map(|terms| sum(&terms.most_per_month)).as_ref()),
        Cell::optional(rule.next_day_at.map(|at| render::instant(at.0)).as_ref()),
        Cell::optional(rule.reason.as_ref()),
    ];
    Table::new(["status", "adds", "adds on a day", "most a day", "most a month", "next day", "reason"], "").rows([row])
}
