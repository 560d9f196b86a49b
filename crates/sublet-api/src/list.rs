//! Lists: one shape for all, keyset cursors, at most [`PAGE_LIMIT_MAX`] objects a page.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode};

use crate::object::ListTag;

/// Most objects on one page.
pub const PAGE_LIMIT_MAX: u32 = 100;
/// Objects on a page when the caller does not say.
pub const PAGE_LIMIT_DEFAULT: u32 = 20;
/// Longest cursor, in bytes.
pub const CURSOR_BYTES_MAX: usize = 128;

/// One page of objects.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub struct List<T> {
    pub object: ListTag,
    pub data: Vec<T>,
    /// Cursor of the first object: give it as `before` for the page in front.
    pub first_id: Option<Cursor>,
    /// Cursor of the last object: give it as `after` for the next page.
    pub last_id: Option<Cursor>,
    pub has_more: bool,
}

impl<T> List<T> {
    /// One page with its cursors.
    pub fn page(data: Vec<T>, has_more: bool, cursor: impl Fn(&T) -> String) -> Self {
        let first_id = data.first().map(|object| Cursor(cursor(object)));
        let last_id = data.last().map(|object| Cursor(cursor(object)));
        Self { object: ListTag, data, first_id, last_id, has_more }
    }
    /// A list that is short by nature and never paged.
    pub fn whole(data: Vec<T>) -> Self {
        Self { object: ListTag, data, first_id: None, last_id: None, has_more: false }
    }
}

/// A position in a list; the id of an object there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor(pub String);

impl TryFrom<String> for Cursor {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        if text.is_empty() || text.len() > CURSOR_BYTES_MAX {
            return Err(Error::new(ErrorCode::InvalidRequest, "a cursor is the first_id or last_id of an earlier page"));
        }
        Ok(Self(text))
    }
}
impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.0
    }
}

/// Objects per page: 1 to 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(extend("minimum" = 1, "maximum" = 100))]
pub struct PageLimit(u32);

impl PageLimit {
    pub const MAX: Self = Self(PAGE_LIMIT_MAX);

    pub const fn get(self) -> u32 {
        self.0
    }
}
impl Default for PageLimit {
    fn default() -> Self {
        Self(PAGE_LIMIT_DEFAULT)
    }
}
impl TryFrom<u32> for PageLimit {
    type Error = Error;
    fn try_from(limit: u32) -> Result<Self, Error> {
        if (1..=PAGE_LIMIT_MAX).contains(&limit) {
            return Ok(Self(limit));
        }
        Err(Error::new(ErrorCode::InvalidRequest, format!("limit is between 1 and {PAGE_LIMIT_MAX}, not {limit}")).param("limit"))
    }
}
impl From<PageLimit> for u32 {
    fn from(limit: PageLimit) -> Self {
        limit.0
    }
}

/// Direction by creation.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Asc,
    #[default]
    Desc,
}

/// Which page of a list is wanted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PageRequest {
    pub limit: PageLimit,
    pub after: Option<Cursor>,
    pub before: Option<Cursor>,
    pub order: Order,
}

/// Defines the query of a list: its own filters and the four paging fields. (`serde(flatten)`
/// would read every number of a query string as text, so the fields are written out.)
macro_rules! list_query {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$kind>,)*
            /// Objects per page, 1 to 100; 20 if left out.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub limit: Option<$crate::list::PageLimit>,
            /// Only objects behind this cursor.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub after: Option<$crate::list::Cursor>,
            /// Only objects in front of this cursor.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub before: Option<$crate::list::Cursor>,
            /// By creation; newest first if left out.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub order: Option<$crate::list::Order>,
        }

        impl $name {
            /// The paging part, with its defaults.
            pub fn page(&self) -> $crate::list::PageRequest {
                $crate::list::PageRequest {
                    limit: self.limit.unwrap_or_default(),
                    after: self.after.clone(),
                    before: self.before.clone(),
                    order: self.order.unwrap_or_default(),
                }
            }
        }
    };
}
pub(crate) use list_query;

list_query! {
    /// The query of a list without filters.
    ListQuery {}
}
