//! Whether an agent is trusted with keys.

/// The standing of a deployment's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It gets what its placements ask for.
    Active,
    /// An operator cut it off from keys and changes; it may stay connected and report.
    Suspended,
    /// Two agents use its identity: neither gets keys or changes until an operator decides.
    Cloned,
    /// Its certificate is void: it cannot connect.
    Revoked,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 4] = [Self::Active, Self::Suspended, Self::Cloned, Self::Revoked];

    /// The name in tables and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Cloned => "CLONED",
            Self::Revoked => "REVOKED",
        }
    }

    /// The standing of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|standing| standing.as_str() == text)
    }

    /// True where its agent may be sent keys and changes.
    pub const fn may_have_keys(self) -> bool {
        matches!(self, Self::Active)
    }

    /// True where its agent may connect.
    pub const fn may_connect(self) -> bool {
        !matches!(self, Self::Revoked)
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standing_has_one_name_and_only_active_gets_keys() {
        for standing in Standing::ALL {
            assert_eq!(Standing::parse(standing.as_str()), Some(standing));
            assert_eq!(standing.may_have_keys(), standing == Standing::Active);
            assert_eq!(standing.may_connect(), standing != Standing::Revoked);
        }
    }
}
