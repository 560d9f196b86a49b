//! Request fields kept as raw JSON, each `Option<&RawValue>`: a refusal can name its field, numbers keep
//! their text, and nothing is allocated for fields nobody needs. JSON `null` reads as absent.

macro_rules! raw_fields {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, serde::Deserialize, Default, Debug)]
        pub struct $name<'a> {
            $(#[serde(borrow, default)] pub $field: Option<&'a serde_json::value::RawValue>,)+
        }
    };
}

pub(crate) use raw_fields;
