//! Why a session must stay on its backend: what lives there and nowhere else.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pin {
    /// The session was opened to keep its backend.
    Mode,
    /// A transaction block is open or failed.
    Transaction,
    /// A portal has rows left.
    Portal,
    /// A COPY is under way.
    Copy,
    /// Run-time parameters were set (PostgreSQL manual, `SET`).
    Setting,
    /// Another role or session user was taken on (`SET ROLE`, `SET SESSION AUTHORIZATION`).
    Role,
    /// Temporary tables, or other objects in the temporary schema.
    TempTable,
    /// Session-level advisory locks (PostgreSQL manual, 13.3.5).
    AdvisoryLock,
    /// Channels are listened to.
    Listen,
    /// Cursors `WITH HOLD`.
    HoldCursor,
    /// Statements prepared by `PREPARE`.
    Prepared,
    /// State that cannot be looked at nor reset: `setseed`, `LOAD`, a customized option.
    Sticky,
}

impl Pin {
    /// Every reason there is.
    pub const ALL: [Self; 12] = [
        Self::Mode,
        Self::Transaction,
        Self::Portal,
        Self::Copy,
        Self::Setting,
        Self::Role,
        Self::TempTable,
        Self::AdvisoryLock,
        Self::Listen,
        Self::HoldCursor,
        Self::Prepared,
        Self::Sticky,
    ];

    /// The reason in the words of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mode => "MODE",
            Self::Transaction => "TRANSACTION",
            Self::Portal => "PORTAL",
            Self::Copy => "COPY",
            Self::Setting => "SETTING",
            Self::Role => "ROLE",
            Self::TempTable => "TEMP_TABLE",
            Self::AdvisoryLock => "ADVISORY_LOCK",
            Self::Listen => "LISTEN",
            Self::HoldCursor => "HOLD_CURSOR",
            Self::Prepared => "PREPARED",
            Self::Sticky => "STICKY",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The reasons that hold at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Pins(u16);

impl Pins {
    /// No reason: any backend will do.
    pub const NONE: Self = Self(0);

    /// True where nothing holds the session.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True where this reason holds.
    #[must_use]
    pub fn contains(self, pin: Pin) -> bool {
        self.0 & pin.bit() != 0
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, pin: Pin) -> Self {
        Self(self.0 | pin.bit())
    }

    /// These, and one more if it holds.
    #[must_use]
    pub fn with_if(self, holds: bool, pin: Pin) -> Self {
        if holds { self.with(pin) } else { self }
    }

    /// The reasons, in their order.
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        Pin::ALL.into_iter().filter(move |pin| self.contains(*pin))
    }
}

impl FromIterator<Pin> for Pins {
    fn from_iter<I: IntoIterator<Item = Pin>>(pins: I) -> Self {
        pins.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The reasons with commas between them.
impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, pin) in self.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            f.write_str(pin.as_str())?;
        }
        Ok(())
    }
}

/// A text that names no pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected reasons separated by commas, such as TRANSACTION,SETTING")]
pub struct UnknownPin;

impl FromStr for Pins {
    type Err = UnknownPin;

    fn from_str(text: &str) -> Result<Self, UnknownPin> {
        let names = text.split(',').filter(|name| !name.is_empty());
        names
            .map(|name| {
                let mut all = Pin::ALL.into_iter();
                all.find(|pin| pin.as_str() == name).ok_or(UnknownPin)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_kept_apart() {
        for pin in Pin::ALL {
            let alone = Pins::NONE.with(pin);
            assert_eq!(alone.iter().collect::<Vec<_>>(), [pin]);
            assert_eq!(alone.with_if(false, Pin::Mode), alone);
        }
        let all: Pins = Pin::ALL.into_iter().collect();
        assert_eq!(all.iter().count(), Pin::ALL.len());
    }

    #[test]
    fn reasons_are_shown_as_the_contract_names_them() {
        let pins: Pins = [Pin::Sticky, Pin::TempTable].into_iter().collect();
        assert_eq!(pins.to_string(), "TEMP_TABLE,STICKY");
        assert!(Pins::NONE.to_string().is_empty());
        assert_eq!(
            ("TEMP_TABLE,STICKY".parse(), "".parse()),
            (Ok(pins), Ok(Pins::NONE))
        );
        assert_eq!("TEMP_TABLE,NONSENSE".parse::<Pins>(), Err(UnknownPin));
    }
}
