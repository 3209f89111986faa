//! How many refused calls are recorded one by one: so many in a row from one address, and then so many in a second, so that
//! nobody fills the trail from outside. The rest is counted. No IO; time is passed in.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Refusals from one address that are recorded whatever their rate.
const BURST: u32 = 20;
/// After those one is recorded so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// Addresses that are told apart. What comes from more is counted together.
const MOST_ADDRESSES: usize = 4096;

/// The refusals of late, by address.
#[derive(Debug, Default)]
pub struct Denials {
    addresses: HashMap<String, Bucket>,
    others: Bucket,
}

#[derive(Debug, Default)]
struct Bucket {
    /// How many were recorded of late.
    level: u32,
    since: Option<Instant>,
    suppressed: u64,
}

impl Bucket {
    fn admit(&mut self, now: Instant) -> bool {
        self.drain(now);
        let admitted = self.level < BURST;
        if admitted {
            self.level += 1;
        } else {
            self.suppressed += 1;
        }
        admitted
    }

    fn drain(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since).as_secs() / INTERVAL.as_secs();
        if let Ok(passed) = u32::try_from(passed) {
            self.level = self.level.saturating_sub(passed);
            self.since = Some(since + INTERVAL * passed);
        } else {
            *self = Self {
                suppressed: self.suppressed,
                ..Self::default()
            };
        }
    }
}

impl Denials {
    /// Whether a refusal of a call from `address` is recorded by itself.
    pub fn admit(&mut self, address: &str, now: Instant) -> bool {
        if !self.addresses.contains_key(address) {
            if self.addresses.len() >= MOST_ADDRESSES {
                return self.others.admit(now);
            }
            self.addresses.insert(address.to_owned(), Bucket::default());
        }
        self.addresses
            .get_mut(address)
            .is_none_or(|bucket| bucket.admit(now))
    }

    /// How many were not recorded since this was asked last, by address; of no address, those beyond the addresses that
    /// are told apart. Forgets addresses that have calmed down.
    pub fn take_suppressed(&mut self, now: Instant) -> Vec<(String, u64)> {
        let mut suppressed = Vec::new();
        self.addresses.retain(|address, bucket| {
            bucket.drain(now);
            let count = std::mem::take(&mut bucket.suppressed);
            if count > 0 {
                suppressed.push((address.clone(), count));
            }
            bucket.level > 0
        });
        let count = std::mem::take(&mut self.others.suppressed);
        if count > 0 {
            suppressed.push((String::new(), count));
        }
        suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusals_beyond_the_rate_are_counted_by_address() {
        let mut denials = Denials::default();
        let now = Instant::now();
        let admitted = (0..100).filter(|_| denials.admit("192.0.2.1", now)).count();
        assert_eq!(admitted, 20);
        assert!(denials.admit("192.0.2.2", now), "others are not affected");
        assert_eq!(denials.take_suppressed(now), [("192.0.2.1".to_owned(), 80)]);
        assert_eq!(denials.take_suppressed(now), []);
        let later = now + Duration::from_secs(3);
        let admitted = (0..100).filter(|_| denials.admit("192.0.2.1", later)).count();
        assert_eq!(admitted, 3);
    }

    #[tokio::test]
    async fn many_addresses_take_bounded_room() {
        let mut denials = Denials::default();
        let now = Instant::now();
        let admitted = (0..10_000)
            .filter(|number| denials.admit(&format!("2001:db8::{number:x}"), now))
            .count();
        assert_eq!(admitted, MOST_ADDRESSES + 20);
        assert_eq!(
            denials.take_suppressed(now),
            [(String::new(), 10_000 - 4096 - 20)]
        );
        denials.take_suppressed(now + Duration::from_secs(60));
        assert!(denials.addresses.is_empty());
    }
}
