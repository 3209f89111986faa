//! `pgmoor admin verify-audit`: goes along the chain of every writer, as all of them stood at one moment, and says whether anybody
//! touched it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use audit::chain::{Broken, Verifier};
use audit::{Anchor, HEARTBEAT, Kept};
use clap::Args;
use config::Config;
use data_encoding::HEXLOWER;
use domain::id::IncarnationId;
use store::audit::AuditSnapshot;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::database;

/// Records that are read at once.
const BATCH: u16 = 1000;

/// Arguments of `verify-audit`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Compare with the ends of the chains that this file has from the time before, and keep those of now in it. Without it,
    /// what is missing at the end of a chain cannot be told from a crash. Keep it where nobody who can change the config
    /// database gets to
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
}

/// The end of a chain.
type Heads = BTreeMap<IncarnationId, (i64, [u8; 32])>;

/// What became of a chain.
enum Verdict {
    /// Sound, and its writer ended as it should.
    Ended,
    /// Sound, and its writer wrote a moment ago.
    Live,
    /// Sound as far as it goes; its writer did not say that it ends.
    Unclosed,
    /// Touched.
    Broken(Broken),
    /// Not what it was when it was looked at before.
    Changed { sequence: i64 },
    /// Put in by somebody who is no process of pgmoor.
    Unknown,
    /// Says to be of another role than its writer logged in with.
    Foreign { role: &'static str },
}

struct Report {
    writer: IncarnationId,
    role: &'static str,
    login: String,
    verifier: Verifier,
    anchor: Option<Anchor>,
    last: Option<(OffsetDateTime, OffsetDateTime)>,
    verdict: Verdict,
}

/// Verifies every chain.
///
/// # Errors
/// When one was touched, or the database cannot be read.
pub(crate) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<()> {
    let known = match &arguments.heads {
        Some(path) => read_heads(path)?,
        None => Heads::new(),
    };
    let store = database::connect(&config.config_database, "pgmoor admin").await?;
    // All chains of one moment: what is written or reaches its retention meanwhile is not taken for damage.
    let mut trail = store.audit_snapshot().await?;
    let (mut broken, mut unclosed, mut records, mut unrecorded) = (0_u32, 0_u32, 0, 0);
    let mut heads = Heads::new();
    let mut writer = None;
    let mut out = std::io::stdout().lock();
    while let Some(next) = trail.next_writer(writer).await? {
        writer = Some(next);
        let report = verify(&mut trail, next, known.get(&next).copied()).await?;
        heads.insert(next, report.verifier.head());
        records += report.verifier.records;
        unrecorded += report.verifier.unrecorded;
        match report.verdict {
            Verdict::Ended | Verdict::Live => {}
            Verdict::Unclosed => unclosed += 1,
            Verdict::Broken(_) | Verdict::Changed { .. } | Verdict::Unknown | Verdict::Foreign { .. } => {
                broken += 1;
            }
        }
        writeln!(out, "{}", report.line())?;
    }
    for (writer, (sequence, _)) in known.iter().filter(|(writer, _)| !heads.contains_key(writer)) {
        // Retention takes a chain as a whole once all of it is old enough.
        let anchor = trail.anchor(*writer).await?;
        if anchor.is_none_or(|anchor| anchor.sequence < *sequence) {
            broken += 1;
            writeln!(out, "{writer}: TAMPERED WITH: its {sequence} records are gone")?;
        }
    }
    writeln!(
        out,
        "{} writers, {records} records; {unclosed} ended without a closing record; {unrecorded} records were only counted; \
         {broken} tampered with",
        heads.len()
    )?;
    out.flush()?;
    drop(trail);
    store.close().await;
    if broken > 0 {
        bail!("the audit trail was tampered with: {broken} of its chains");
    }
    if let Some(path) = &arguments.heads {
        write_heads(path, &heads)?;
    }
    Ok(())
}

async fn verify(
    trail: &mut AuditSnapshot,
    writer: IncarnationId,
    known: Option<(i64, [u8; 32])>,
) -> anyhow::Result<Report> {
    let anchor = trail.anchor(writer).await?;
    let mut verifier = Verifier::new(anchor.as_ref());
    let (mut after, mut role, mut last, mut verdict) = (0, "", None, None);
    let mut seen_known =
        known.is_none_or(|(sequence, _)| anchor.is_some_and(|anchor| sequence <= anchor.sequence));
    'chain: loop {
        let batch: Vec<Kept> = trail.chain(writer, after, BATCH).await?;
        for kept in &batch {
            let record = &kept.record;
            role = record.writer_role.as_str();
            if let Err(broken) = verifier.next(record) {
                verdict = Some(Verdict::Broken(broken));
                break 'chain;
            }
            if let Some((sequence, hash)) = known
                && record.sequence == sequence
            {
                seen_known = true;
                if record.hash != hash {
                    verdict = Some(Verdict::Changed { sequence });
                    break 'chain;
                }
            }
            after = record.sequence;
            last = Some((record.entry.time, kept.insert_time));
        }
        if batch.len() < usize::from(BATCH) {
            break;
        }
    }
    if verdict.is_none() && !seen_known {
        verdict = known.map(|(sequence, _)| Verdict::Changed { sequence });
    }
    let entered = trail.writer(writer).await?;
    if verdict.is_none() {
        verdict = match &entered {
            None => Some(Verdict::Unknown),
            Some(entered) if entered.role.as_str() != role && last.is_some() => Some(Verdict::Foreign {
                role: entered.role.as_str(),
            }),
            Some(_) => None,
        };
    }
    let is_live = last.is_some_and(|(_, arrived)| trail.taken() - arrived < 3 * HEARTBEAT);
    let verdict = verdict.unwrap_or(match (verifier.ended(), is_live) {
        (true, _) => Verdict::Ended,
        (false, true) => Verdict::Live,
        (false, false) => Verdict::Unclosed,
    });
    Ok(Report {
        writer,
        role,
        login: entered.map(|entered| entered.login).unwrap_or_default(),
        verifier,
        anchor,
        last,
        verdict,
    })
}

impl Report {
    fn line(&self) -> String {
        let (head, _) = self.verifier.head();
        let login = if self.login.is_empty() { "" } else { " as " };
        let mut line = format!("{} ({}{login}{}): ", self.writer, self.role, self.login);
        let text = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
        // Writing to a String succeeds.
        let _ = match &self.verdict {
            Verdict::Broken(broken) => write!(line, "TAMPERED WITH: {broken}; sound up to record {head}"),
            Verdict::Changed { sequence } => write!(
                line,
                "TAMPERED WITH: record {sequence}, which was its last before, is gone or another; sound up to record {head}"
            ),
            Verdict::Unknown => write!(line, "TAMPERED WITH: no process of pgmoor ever wrote it"),
            Verdict::Foreign { role } => {
                write!(line, "TAMPERED WITH: its writer is a process of role {role}")
            }
            Verdict::Ended => write!(line, "sound, {} records, ended", self.verifier.records),
            Verdict::Live => write!(line, "sound, {} records, writes", self.verifier.records),
            Verdict::Unclosed => write!(
                line,
                "sound, {} records; GAP at the end: no closing record after {}, what was not yet written is lost",
                self.verifier.records,
                self.last.map(|(time, _)| text(time)).unwrap_or_default()
            ),
        };
        if self.verifier.unrecorded > 0 {
            let _ = write!(line, "; {} only counted", self.verifier.unrecorded);
        }
        if let Some(anchor) = &self.anchor {
            let _ = write!(
                line,
                "; retention removed the first {} on {}",
                anchor.sequence,
                text(anchor.cut_time)
            );
        }
        line
    }
}

fn read_heads(path: &Path) -> anyhow::Result<Heads> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Heads::new()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let writer: IncarnationId = words.next()?.parse().ok()?;
        let sequence = words.next()?.parse().ok()?;
        let hash = HEXLOWER.decode(words.next()?.as_bytes()).ok()?;
        Some((writer, (sequence, hash.try_into().ok()?)))
    };
    text.lines()
        .map(line)
        .collect::<Option<Heads>>()
        .with_context(|| format!("{} is no file of this command", path.display()))
}

fn write_heads(path: &Path, heads: &Heads) -> anyhow::Result<()> {
    let text: String = heads
        .iter()
        .map(|(writer, (sequence, hash))| format!("{writer} {sequence} {}\n", HEXLOWER.encode(hash)))
        .collect();
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;

    use super::*;

    #[test]
    fn heads_survive_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("heads");
        assert!(read_heads(&path).unwrap().is_empty());
        let writer = IncarnationId::generate(&SeededRandom::new(1));
        let heads = Heads::from([(writer, (7, [3; 32]))]);
        write_heads(&path, &heads).unwrap();
        assert_eq!(read_heads(&path).unwrap(), heads);
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(read_heads(&path).is_err());
    }
}
