//! The main job, the same that `script/demo` shows.

use e2e::leaks;
use e2e::main_job::{MainJob, STEPS};

#[tokio::test]
async fn two_instances_serve_the_main_job_as_one_and_leak_no_secret() {
    let mut job = MainJob::start().await;
    for step in STEPS {
        let outcome = job.run(step).await;
        outcome.unwrap_or_else(|error| panic!("{}: {error:#}\n{:#?}", step.title, ends(&job)));
    }
    assert_eq!(leaks::find(job.world()), Vec::<String>::new());
}

/// The last lines of every log.
fn ends(job: &MainJob) -> Vec<(String, Vec<String>)> {
    let logs = job.world().logs().into_iter();
    logs.map(|(place, text)| {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (place, lines[lines.len().saturating_sub(8)..].to_vec())
    })
    .collect()
}
