//! States that have the same word in SQL, in the API and in errors: an enum whose variants are written with their words.
//!
//! Deliberately absent: words that are not a state but a value with parts.

/// Makes the enum, its words, and the parser, whose error says all words.
macro_rules! named_states {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),+ } }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
        impl std::str::FromStr for $name {
            type Err = $crate::error::Error;
            fn from_str(text: &str) -> $crate::error::Result<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or_else(|| {
                    let shown: String = text.chars().take(40).collect();
                    let message = format!(concat!("'{}' is not ", $what), shown);
                    let error = $crate::error::Error::new($crate::error::ErrorCode::InvalidRequest, message);
                    Self::ALL.iter().fold(error, |error, known| error.alternative(known.as_str()))
                })
            }
        }
    };
}
pub(crate) use named_states;
