//! How much memory processes of a world use.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time between two looks at a process.
const INTERVAL: Duration = Duration::from_millis(20);

/// The resident memory of a process in bytes; 0 once it has ended.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Looks at some processes' memory until it is asked how much they grew.
#[derive(Debug)]
pub struct GrowthSampler {
    stop: CancellationToken,
    samplers: JoinSet<(String, u64)>,
}

impl GrowthSampler {
    /// Begins with what the processes use now.
    #[must_use]
    pub fn start(processes: impl IntoIterator<Item = (String, u32)>) -> Self {
        let stop = CancellationToken::new();
        let mut samplers = JoinSet::new();
        for (name, pid) in processes {
            let stop = stop.clone();
            samplers.spawn(async move {
                let before = resident_bytes(pid);
                let mut most = before;
                while stop
                    .run_until_cancelled(tokio::time::sleep(INTERVAL))
                    .await
                    .is_some()
                {
                    most = most.max(resident_bytes(pid));
                }
                (name, most.max(resident_bytes(pid)) - before)
            });
        }
        Self { stop, samplers }
    }

    /// By how many bytes each process had grown at most.
    pub async fn finish(self) -> Vec<(String, u64)> {
        self.stop.cancel();
        let mut growth = self.samplers.join_all().await;
        growth.sort();
        growth
    }
}

/// Most bytes of a process that are read at once.
const PIECE: usize = 4 << 20;

/// Which of the needles is anywhere in the writable memory of a process, as if it had been dumped.
///
/// # Errors
/// When the process may not be looked into, or there is none.
pub fn found_in_dump(pid: u32, needles: &[&[u8]]) -> io::Result<Vec<bool>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let longest = needles.iter().map(|needle| needle.len()).max().unwrap_or(0);
    let mut found = vec![false; needles.len()];
    let mut piece = vec![0; PIECE];
    for (from, to) in maps.lines().filter_map(writable) {
        let mut at = from;
        while at < to {
            let most = PIECE.min(usize::try_from(to - at).unwrap_or(PIECE));
            // What was unmapped since, or belongs to a device, has nothing to say.
            let Ok(read @ 1..) = memory.read_at(&mut piece[..most], at) else {
                break;
            };
            for (needle, found) in needles.iter().zip(&mut found) {
                *found = *found || memchr::memmem::find(&piece[..read], needle).is_some();
            }
            if at + read as u64 >= to {
                break;
            }
            // A needle may lie across two pieces.
            at += read.saturating_sub(longest).max(1) as u64;
        }
    }
    Ok(found)
}

/// The bounds of a line of `/proc/<pid>/maps`, where the process may write there.
fn writable(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    rest.starts_with("rw").then_some((address(from)?, address(to)?))
}
