//! The chain of a writer: each record has the hash of the one before it and its own, so that none can be changed, taken
//! out, put in or moved without the chain showing it. No IO.
//!
//! A hash is SHA-256 over the format's name, the hash before, and every field of the record in a fixed order, each with its
//! length. What the database itself adds (the position, when it arrived) is not in it.

use domain::id::IncarnationId;
use sha2::{Digest as _, Sha256};
use store::audit::{Anchor, Entry, Kind, Record, WriterRole};
use thiserror::Error;

/// The encoding that hashes are made of now.
pub const FORMAT: i16 = 1;
/// What the first record has for the hash before it.
pub const GENESIS: [u8; 32] = [0; 32];

/// The chain of one writer, to be continued.
#[derive(Debug, Clone)]
pub struct Chain {
    writer: IncarnationId,
    writer_role: WriterRole,
    sequence: i64,
    hash: [u8; 32],
}

impl Chain {
    /// A chain without records.
    #[must_use]
    pub const fn new(writer: IncarnationId, writer_role: WriterRole) -> Self {
        Self {
            writer,
            writer_role,
            sequence: 0,
            hash: GENESIS,
        }
    }

    /// The next record.
    pub fn append(&mut self, entry: Entry) -> Record {
        self.sequence += 1;
        let mut record = Record {
            writer: self.writer,
            writer_role: self.writer_role,
            sequence: self.sequence,
            format: FORMAT,
            previous_hash: self.hash,
            hash: GENESIS,
            entry,
        };
        record.hash = hash(&record);
        self.hash = record.hash;
        record
    }

    /// How many records it has.
    #[must_use]
    pub const fn len(&self) -> i64 {
        self.sequence
    }

    /// True before its first record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sequence == 0
    }
}

/// The hash a record should have.
#[must_use]
pub fn hash(record: &Record) -> [u8; 32] {
    let Record {
        writer,
        writer_role,
        sequence,
        format,
        previous_hash,
        hash: _,
        entry,
    } = record;
    let mut input = Input(Sha256::new());
    input.bytes(b"pgmoor audit record");
    input.number(i64::from(*format));
    input.bytes(previous_hash);
    input.bytes(writer.as_uuid().as_bytes());
    input.text(writer_role.as_str());
    input.number(*sequence);
    input.entry(entry);
    input.0.finalize().into()
}

struct Input(Sha256);

impl Input {
    /// With its length, so that no two rows of fields look alike.
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, number: i64) {
        self.0.update(number.to_be_bytes());
    }

    fn entry(&mut self, entry: &Entry) {
        // Taken apart, so that a field that is added cannot be forgotten here.
        let Entry {
            kind,
            time,
            correlation_id,
            user_id,
            username,
            provider,
            credential,
            address,
            method,
            resources,
            session,
            database,
            role,
            statement_fingerprint,
            statement,
            outcome,
            reason,
            sqlstate,
            commit_outcome,
            row_count,
            byte_count,
            duration_us,
            policy_revision,
            count,
        } = entry;
        self.text(kind.as_str());
        self.number(time.unix_timestamp());
        self.number(i64::from(time.nanosecond()));
        self.text(correlation_id);
        match user_id {
            Some(id) => self.bytes(id.as_uuid().as_bytes()),
            None => self.bytes(&[]),
        }
        for text in [username, provider, credential, address, method] {
            self.text(text);
        }
        self.number(i64::try_from(resources.len()).unwrap_or(i64::MAX));
        for resource in resources {
            self.text(resource);
        }
        for text in [
            session,
            database,
            role,
            statement_fingerprint,
            statement,
            outcome,
            reason,
            sqlstate,
            commit_outcome,
        ] {
            self.text(text);
        }
        for number in [row_count, byte_count, duration_us, policy_revision, count] {
            self.number(*number);
        }
    }
}

/// Why a chain is not what its writer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Broken {
    /// Records are missing.
    #[error("records {expected} to {} are missing", found - 1)]
    Missing {
        /// The first of them.
        expected: i64,
        /// The first that is there.
        found: i64,
    },
    /// A record is not the successor of the one before it: that one was replaced, or this one was put in.
    #[error("record {sequence} does not follow the record before it")]
    Unlinked {
        /// Which.
        sequence: i64,
    },
    /// A record's fields are not those its writer wrote.
    #[error("record {sequence} was altered")]
    Altered {
        /// Which.
        sequence: i64,
    },
    /// There are records after the one with which the writer ended.
    #[error("record {sequence} comes after the writer's end")]
    AfterEnd {
        /// Which.
        sequence: i64,
    },
    /// A record is of a format this version does not know.
    #[error("record {sequence} has the unknown format {format}")]
    Format {
        /// Which.
        sequence: i64,
        /// Its format.
        format: i16,
    },
}

/// Goes along a chain and compares it with its hashes.
#[derive(Debug, Clone)]
pub struct Verifier {
    sequence: i64,
    hash: [u8; 32],
    /// How many records were looked at.
    pub records: u64,
    /// How many more its writer counted and did not write.
    pub unrecorded: i64,
    ended: bool,
}

impl Verifier {
    /// For a chain from its beginning, or from where retention cut it.
    #[must_use]
    pub fn new(anchor: Option<&Anchor>) -> Self {
        let (sequence, hash) = anchor.map_or((0, GENESIS), |anchor| (anchor.sequence, anchor.hash));
        Self {
            sequence,
            hash,
            records: 0,
            unrecorded: 0,
            ended: false,
        }
    }

    /// Looks at the next record.
    ///
    /// # Errors
    /// Where it is not the next of this chain as its writer wrote it.
    pub fn next(&mut self, record: &Record) -> Result<(), Broken> {
        let sequence = record.sequence;
        if self.ended {
            return Err(Broken::AfterEnd { sequence });
        }
        if sequence != self.sequence + 1 {
            return Err(Broken::Missing {
                expected: self.sequence + 1,
                found: sequence,
            });
        }
        if record.format != FORMAT {
            let format = record.format;
            return Err(Broken::Format { sequence, format });
        }
        if record.hash != hash(record) {
            return Err(Broken::Altered { sequence });
        }
        if record.previous_hash != self.hash {
            return Err(Broken::Unlinked { sequence });
        }
        self.sequence = sequence;
        self.hash = record.hash;
        self.records += 1;
        match record.entry.kind {
            Kind::Stop => self.ended = true,
            Kind::Unrecorded => self.unrecorded += record.entry.count,
            _ => {}
        }
        Ok(())
    }

    /// The number and the hash of the last record that was looked at.
    #[must_use]
    pub const fn head(&self) -> (i64, [u8; 32]) {
        (self.sequence, self.hash)
    }

    /// True where the writer ended as it should.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use domain::id::UserId;
    use domain::random::SeededRandom;
    use proptest::prelude::*;
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn chain(texts: &[String]) -> Vec<Record> {
        let mut chain = Chain::new(IncarnationId::generate(&SeededRandom::new(1)), WriterRole::Pooler);
        let entry = |(number, text): (usize, &String)| {
            let time = OffsetDateTime::UNIX_EPOCH + Duration::seconds(i64::try_from(number).unwrap());
            let mut entry = Entry::new(Kind::Call, time);
            entry.method.clone_from(text);
            entry
        };
        texts
            .iter()
            .enumerate()
            .map(|one| chain.append(entry(one)))
            .collect()
    }

    fn verify(records: &[Record]) -> Result<(), Broken> {
        let mut verifier = Verifier::new(None);
        records.iter().try_for_each(|record| verifier.next(record))
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(".{0,8}", 3..12)
    }

    proptest! {
        #[test]
        fn chain_that_nobody_touched_is_sound(texts in texts(), cut in any::<prop::sample::Index>()) {
            let records = chain(&texts);
            prop_assert_eq!(verify(&records), Ok(()));
            // Cut by retention, with the anchor it leaves.
            let cut = cut.index(records.len());
            let last = &records[cut];
            let anchor = Anchor {
                writer: last.writer,
                sequence: last.sequence,
                hash: last.hash,
                cut_time: OffsetDateTime::UNIX_EPOCH,
            };
            let mut verifier = Verifier::new(Some(&anchor));
            for record in &records[cut + 1..] {
                prop_assert_eq!(verifier.next(record), Ok(()));
            }
        }

        #[test]
        fn record_that_is_taken_out_is_missed(texts in texts(), at in any::<prop::sample::Index>()) {
            let mut records = chain(&texts);
            let at = at.index(records.len() - 1);
            records.remove(at);
            let (expected, found) = (at as i64 + 1, at as i64 + 2);
            prop_assert_eq!(verify(&records), Err(Broken::Missing { expected, found }));
        }

        #[test]
        fn records_that_change_places_are_found(
            texts in texts(),
            one in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(),
        ) {
            let mut records = chain(&texts);
            let (one, other) = (one.index(records.len()), other.index(records.len()));
            prop_assume!(one != other);
            let (first, second) = (records[one].sequence, records[other].sequence);
            records.swap(one, other);
            records[one].sequence = first;
            records[other].sequence = second;
            let sequence = first.min(second);
            prop_assert_eq!(verify(&records), Err(Broken::Altered { sequence }));
        }

        #[test]
        fn record_that_is_replaced_by_a_sound_one_is_not_followed(
            texts in texts(),
            at in any::<prop::sample::Index>(),
        ) {
            let mut records = chain(&texts);
            let at = at.index(records.len() - 1);
            records[at].entry.method.push('x');
            records[at].hash = hash(&records[at]);
            let sequence = at as i64 + 2;
            prop_assert_eq!(verify(&records), Err(Broken::Unlinked { sequence }));
        }
    }

    #[test]
    fn change_of_any_field_is_found() {
        type Change = fn(&mut Record);
        let changes: [Change; 31] = [
            |it| it.writer = IncarnationId::generate(&SeededRandom::new(2)),
            |it| it.writer_role = WriterRole::Api,
            |it| it.sequence += 1,
            |it| it.format += 1,
            |it| it.previous_hash[0] ^= 1,
            |it| it.hash[31] ^= 1,
            |it| it.entry.kind = Kind::Execution,
            |it| it.entry.time += Duration::microseconds(1),
            |it| it.entry.correlation_id.push('x'),
            |it| it.entry.user_id = Some(UserId::generate(&SeededRandom::new(3))),
            |it| it.entry.username.push('x'),
            |it| it.entry.provider.push('x'),
            |it| it.entry.credential.push('x'),
            |it| it.entry.address.push('x'),
            |it| it.entry.method.push('x'),
            |it| it.entry.resources.push(String::new()),
            |it| it.entry.session.push('x'),
            |it| it.entry.database.push('x'),
            |it| it.entry.role.push('x'),
            |it| it.entry.statement_fingerprint.push('x'),
            |it| it.entry.statement.push('x'),
            |it| it.entry.outcome.push('x'),
            |it| it.entry.reason.push('x'),
            |it| it.entry.sqlstate.push('x'),
            |it| it.entry.commit_outcome.push('x'),
            |it| it.entry.row_count += 1,
            |it| it.entry.byte_count += 1,
            |it| it.entry.duration_us += 1,
            |it| it.entry.policy_revision += 1,
            |it| it.entry.count += 1,
            // From one field to the next.
            |it| {
                it.entry.session = std::mem::take(&mut it.entry.method);
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut records = chain(&["a".to_owned(), "b".to_owned()]);
            change(&mut records[1]);
            assert!(verify(&records).is_err(), "change {number}");
        }
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let mut chain = Chain::new(IncarnationId::generate(&SeededRandom::new(1)), WriterRole::Api);
        let stop = chain.append(Entry::new(Kind::Stop, OffsetDateTime::UNIX_EPOCH));
        let late = chain.append(Entry::new(Kind::Call, OffsetDateTime::UNIX_EPOCH));
        let mut verifier = Verifier::new(None);
        verifier.next(&stop).unwrap();
        assert!(verifier.ended());
        assert_eq!(verifier.next(&late), Err(Broken::AfterEnd { sequence: 2 }));
    }

    #[test]
    fn format_1_does_not_change() {
        let record = chain(&["a".to_owned()]).remove(0);
        assert_eq!(
            data_encoding::HEXLOWER.encode(&record.hash),
            "32d77b6942cc5cee2d31709e0468d4b498fb13e1d67b4131876488499d737a85"
        );
    }
}
