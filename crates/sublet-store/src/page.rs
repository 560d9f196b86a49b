//! Keyset pagination: a bounded page after (or before) an id.

use sublet_core::Result;

use crate::row::{Row, Value};

/// Most items in one page.
pub const PAGE_LIMIT_MAX: i64 = 100;
const PAGE_LIMIT_DEFAULT: i64 = 20;

/// Which part of a list is wanted. Lists are in order of creation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageRequest {
    pub limit: Option<i64>,
    /// Items after this id in the chosen order.
    pub after: Option<String>,
    pub order: Order,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    Ascending,
    #[default]
    Descending,
}

impl PageRequest {
    pub fn limit(&self) -> i64 {
        self.limit.unwrap_or(PAGE_LIMIT_DEFAULT).clamp(1, PAGE_LIMIT_MAX)
    }
    /// The value to compare ids with, one row more than the limit, for statements of the form
    /// `… AND id > $a … ORDER BY id ASC LIMIT $b` (or `<` and `DESC`).
    pub(crate) fn keyset(&self) -> (Value<'_>, Value<'static>) {
        // 'zzzz' sorts after every id in every collation, the empty text before.
        let open_end = match self.order {
            Order::Ascending => "",
            Order::Descending => "zzzz",
        };
        (Value::from(self.after.as_deref().unwrap_or(open_end)), Value::from(self.limit() + 1))
    }
    /// Picks the statement for the wanted order.
    pub(crate) fn pick(&self, ascending: &'static str, descending: &'static str) -> &'static str {
        match self.order {
            Order::Ascending => ascending,
            Order::Descending => descending,
        }
    }
    /// Cuts the extra row off and notes that there is more.
    pub(crate) fn page<T>(&self, rows: &[Row], read: impl Fn(&Row) -> Result<T>) -> Result<Page<T>> {
        let limit = usize::try_from(self.limit()).unwrap_or(1);
        let items = rows.iter().take(limit).map(read).collect::<Result<_>>()?;
        Ok(Page { items, has_more: rows.len() > limit })
    }
}

/// A part of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub has_more: bool,
}

/// Expands one list statement into both orders: `list_sql!("SELECT … WHERE org = $1", "id", 2, 3)` compares
/// the id column with parameter 2 and bounds the rows by parameter 3.
#[macro_export]
macro_rules! list_sql {
    ($page:expr, $select:literal, $id:literal, $key:literal, $limit:literal) => {
        $page.pick(
            concat!($select, " AND ", $id, " > $", $key, " ORDER BY ", $id, " ASC LIMIT $", $limit),
            concat!($select, " AND ", $id, " < $", $key, " ORDER BY ", $id, " DESC LIMIT $", $limit),
        )
    };
}
