//! Money on the wire: a decimal string and a currency, never a JSON number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::money::{Currency, Nanos};

use crate::schema::CurrencyText;

/// A decimal amount as text, exact to nine decimals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(description = "plain decimal with at most nine decimals", extend("pattern" = "^-?[0-9]{1,10}(\\.[0-9]{1,9})?$"))]
pub struct Amount(pub Nanos);

impl TryFrom<String> for Amount {
    type Error = sublet_core::Error;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}
impl From<Amount> for String {
    fn from(amount: Amount) -> Self {
        amount.0.to_string()
    }
}

/// `{"amount":"12.345678","currency":"EUR"}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    pub amount: Amount,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
}

impl Money {
    pub const fn new(amount: Nanos, currency: Currency) -> Self {
        Self { amount: Amount(amount), currency }
    }
    pub const fn nanos(&self) -> Nanos {
        self.amount.0
    }
}

impl From<sublet_core::Money> for Money {
    fn from(money: sublet_core::Money) -> Self {
        Self::new(money.amount, money.currency)
    }
}
impl From<Money> for sublet_core::Money {
    fn from(money: Money) -> Self {
        Self { amount: money.amount.0, currency: money.currency }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_a_decimal_string_with_a_currency() {
        let money = Money::new(Nanos::new(12_345_678_000), Currency::EUR);
        let text = serde_json::to_string(&money).unwrap();
        assert_eq!(text, r#"{"amount":"12.345678","currency":"EUR"}"#);
        assert_eq!(serde_json::from_str::<Money>(&text).unwrap(), money);
    }

    #[test]
    fn a_json_number_is_not_an_amount() {
        for text in
            [r#"{"amount":12.5,"currency":"EUR"}"#, r#"{"amount":"1e3","currency":"EUR"}"#, r#"{"amount":"1","currency":"eur"}"#]
        {
            assert!(serde_json::from_str::<Money>(text).is_err(), "{text}");
        }
    }
}
