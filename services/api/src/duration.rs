//! Durations and points in time as the wire has them.

use std::time::Duration;

use prost_types::Timestamp;
use time::OffsetDateTime;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// Reads a length of time.
pub(crate) fn decode(duration: prost_types::Duration) -> Result<Duration, &'static str> {
    // By hand: prost's own conversion overflows on the most negative values.
    let seconds = u64::try_from(duration.seconds).map_err(|_| "must not be negative")?;
    let nanos = u32::try_from(duration.nanos).map_err(|_| "must not be negative")?;
    if nanos >= NANOS_PER_SECOND {
        return Err("must have less than a second in nanos");
    }
    Ok(Duration::new(seconds, nanos))
}

/// Reads a length of time between bounds.
pub(crate) fn decode_within(
    duration: prost_types::Duration,
    min: Duration,
    max: Duration,
) -> Result<Duration, String> {
    let value = decode(duration)?;
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(format!(
        "must be between {} s and {} s",
        min.as_secs(),
        max.as_secs()
    ))
}

/// Writes a length of time; one beyond what the wire can hold becomes the longest it can.
pub(crate) fn encode(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// Reads a point in time.
pub(crate) fn decode_timestamp(timestamp: Timestamp) -> Result<OffsetDateTime, &'static str> {
    let nanos = u32::try_from(timestamp.nanos).map_err(|_| "must have nanos of 0 or more")?;
    OffsetDateTime::from_unix_timestamp(timestamp.seconds)
        .and_then(|time| time.replace_nanosecond(nanos))
        .map_err(|_| "must be a point in time from the year 1 to 9999")
}

/// Writes a point in time.
pub(crate) fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_durations_are_refused() {
        assert!(
            decode(prost_types::Duration {
                seconds: -1,
                nanos: 0
            })
            .is_err()
        );
        assert!(
            decode(prost_types::Duration {
                seconds: 0,
                nanos: -1
            })
            .is_err()
        );
        assert_eq!(
            decode(prost_types::Duration { seconds: 1, nanos: 5 }),
            Ok(Duration::new(1, 5))
        );
        assert!(
            decode(prost_types::Duration {
                seconds: i64::MIN,
                nanos: i32::MIN
            })
            .is_err()
        );
    }
}
