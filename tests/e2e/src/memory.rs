//! How much memory processes of a world use.

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
