//! How values that have a name are written into the ledger: as that name.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value, or none.
pub(super) mod one {
    use super::*;

    pub(in super::super) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(T::to_string).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse(&text)).transpose()
    }
}

/// Any number of values.
pub(super) mod several {
    use super::*;

    pub(in super::super) fn serialize<T: Display, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(T::to_string))
    }

    pub(in super::super) fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| parse(text)).collect()
    }
}

/// How far a live call came.
pub(super) mod rung {
    use super::*;
    use keyfleet_core::binding::Rung;

    pub(in super::super) fn serialize<S: Serializer>(
        rung: &Option<Rung>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        rung.map(Rung::as_str).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Rung>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        // A rung of a later agent is worth less than the rest of the entry.
        Ok(text.as_deref().and_then(Rung::parse))
    }
}

/// A failure class.
pub(super) mod class {
    use super::*;
    use keyfleet_core::failure::FailureClass;

    pub(in super::super) fn serialize<S: Serializer>(
        class: &FailureClass,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        class.as_str().serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<FailureClass, D::Error> {
        let text = String::deserialize(deserializer)?;
        FailureClass::parse(&text).ok_or_else(|| D::Error::custom("not a failure class"))
    }
}

fn parse<T: FromStr, E: Error>(text: &str) -> Result<T, E> {
    text.parse()
        .map_err(|_| E::custom("not a value of its kind"))
}
