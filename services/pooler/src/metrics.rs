//! A pooler's figures for Prometheus. What they mean is in docs/src/reference/metrics.md.

use std::collections::BTreeMap;

use telemetry::metrics::{Family, Kind, Sample, Source};

use crate::inspection::{Bound, InspectionFigures};
use crate::pooler::{BudgetFigures, Figures, Place, PoolFigures, Pooler, StatFigures};

impl Source for Pooler {
    fn families(&self) -> Vec<Family> {
        let figures = self.figures();
        let mut families = of_process(&figures);
        families.extend(of_inspections(figures.inspections));
        families.extend(of_pools(&figures.pools));
        families.extend(of_stats(&figures.stats));
        families.extend(of_budgets(&figures.budgets));
        families
    }
}

fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family {
        name,
        help,
        kind: Kind::Gauge,
        samples,
    }
}

fn sample(labels: &[(&'static str, &str)], value: f64) -> Sample {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned()));
    Sample {
        labels: labels.collect(),
        value,
    }
}

fn of_process(figures: &Figures) -> Vec<Family> {
    let one = |value: usize| vec![sample(&[], value as f64)];
    vec![
        gauge("pgmoor_sessions", "Open sessions", one(figures.sessions)),
        gauge(
            "pgmoor_scripts",
            "Scripts that run without a session",
            one(figures.scripts),
        ),
        gauge(
            "pgmoor_instances_owned",
            "Instances this pooler owns",
            one(figures.instances),
        ),
        gauge(
            "pgmoor_pooler_draining",
            "1 while this pooler takes nothing new",
            one(figures.draining.into()),
        ),
    ]
}

fn of_inspections(figures: InspectionFigures) -> [Family; 2] {
    let one = |name, value, count: u64| sample(&[(name, value)], count as f64);
    let counter = |name, help, samples| Family {
        name,
        help,
        kind: Kind::Counter,
        samples,
    };
    let InspectionFigures {
        looked,
        failed,
        lost_read_only,
        lost_tenancy,
    } = figures;
    [
        counter(
            "pgmoor_inspections",
            "Looks at what roles may do",
            vec![one("outcome", "found", looked), one("outcome", "failed", failed)],
        ),
        counter(
            "pgmoor_enforcement_lost",
            "Roles that PostgreSQL kept within a limit and does not any more",
            vec![
                one("limit", Bound::ReadOnly.as_str(), lost_read_only),
                one("limit", Bound::Tenancy.as_str(), lost_tenancy),
            ],
        ),
    ]
}

fn of_pools(pools: &BTreeMap<Place, PoolFigures>) -> Vec<Family> {
    // The states of a backend exclude each other; the others are counted beside them.
    let clients = [("active", "cl_active"), ("waiting", "cl_waiting")];
    let backends = [
        ("active", "sv_active"),
        ("idle", "sv_idle"),
        ("used", "sv_used"),
        ("tested", "sv_tested"),
        ("login", "sv_login"),
        ("closing", "sv_closing"),
    ];
    let by_state = |states: &[(&str, &str)]| {
        let mut samples = Vec::new();
        for ((instance, database), pool) in pools {
            for (state, column) in states {
                let labels = [
                    ("instance", &**instance),
                    ("database", database),
                    ("state", state),
                ];
                samples.push(sample(&labels, pool.count(column)));
            }
        }
        samples
    };
    let each = |value: &dyn Fn(&PoolFigures) -> f64| {
        let samples = pools.iter().map(|((instance, database), pool)| {
            sample(&[("instance", instance), ("database", database)], value(pool))
        });
        samples.collect::<Vec<_>>()
    };
    vec![
        gauge("pgmoor_pool_clients", "Clients by state", by_state(&clients)),
        gauge(
            "pgmoor_pool_backends",
            "Connections to PostgreSQL by state",
            by_state(&backends),
        ),
        gauge(
            "pgmoor_pool_pinned_backends",
            "Active backends that a session holds whether it runs something or not",
            each(&|pool| pool.count("sv_pinned")),
        ),
        gauge(
            "pgmoor_pool_pinned_idle_backends",
            "Pinned backends whose session runs nothing",
            each(&|pool| pool.count("sv_pinned_idle")),
        ),
        gauge(
            "pgmoor_pool_canceled_backends",
            "Active backends whose client waits for a cancellation",
            each(&|pool| pool.count("sv_being_canceled")),
        ),
        gauge(
            "pgmoor_pool_longest_wait_seconds",
            "How long the first of those who wait has waited",
            each(&|pool| pool.longest_wait),
        ),
    ]
}

type Read = fn(&StatFigures) -> f64;

fn of_stats(stats: &BTreeMap<Place, StatFigures>) -> Vec<Family> {
    let read: [(&'static str, &'static str, Read); 8] = [
        (
            "pgmoor_server_assignments",
            "Times a client was given a backend",
            |stats| stats.assignments as f64,
        ),
        ("pgmoor_transactions", "Transactions", |stats| {
            stats.transactions as f64
        }),
        (
            "pgmoor_queries",
            "Messages to PostgreSQL that were answered",
            |stats| stats.queries as f64,
        ),
        (
            "pgmoor_received_bytes",
            "Bytes passed on to PostgreSQL",
            |stats| stats.received as f64,
        ),
        ("pgmoor_sent_bytes", "Bytes that PostgreSQL answered", |stats| {
            stats.sent as f64
        }),
        ("pgmoor_transaction_seconds", "Time in transactions", |stats| {
            stats.transaction_time as f64
        }),
        (
            "pgmoor_query_seconds",
            "Time in which PostgreSQL was at work",
            |stats| stats.query_time as f64,
        ),
        (
            "pgmoor_wait_seconds",
            "Time clients waited for a backend",
            |stats| stats.wait_time as f64,
        ),
    ];
    let families = read.into_iter().map(|(name, help, read)| {
        // Times are counted in microseconds.
        let unit = if name.ends_with("_seconds") { 1e6 } else { 1.0 };
        let samples = stats.iter().map(|((instance, database), stats)| {
            sample(
                &[("instance", instance), ("database", database)],
                read(stats) / unit,
            )
        });
        Family {
            name,
            help,
            kind: Kind::Counter,
            samples: samples.collect(),
        }
    });
    families.collect()
}

fn of_budgets(budgets: &BTreeMap<String, BudgetFigures>) -> Vec<Family> {
    let each = |value: &dyn Fn(&BudgetFigures) -> f64| {
        let samples = budgets
            .iter()
            .map(|(instance, budget)| sample(&[("instance", instance)], value(budget)));
        samples.collect::<Vec<_>>()
    };
    let mut by_class = Vec::new();
    for (instance, BudgetFigures { usage, .. }) in budgets {
        let classes = [
            ("interactive", usage.interactive),
            ("pinned", usage.pinned),
            ("worker", usage.worker),
            ("monitoring", usage.monitoring),
        ];
        for (class, connections) in classes {
            by_class.push(sample(
                &[("instance", instance), ("class", class)],
                connections.into(),
            ));
        }
    }
    vec![
        gauge(
            "pgmoor_budget_connections",
            "Connections given out, by class",
            by_class,
        ),
        gauge(
            "pgmoor_budget_max_connections",
            "Most connections",
            each(&|one| one.budget.connections.into()),
        ),
        gauge(
            "pgmoor_budget_reserved_connections",
            "Of these, those kept for workers and monitoring",
            each(&|one| one.budget.reserved.into()),
        ),
        gauge(
            "pgmoor_budget_elsewhere_connections",
            "Connections that poolers before this one have, and that count",
            each(&|one| one.elsewhere.into()),
        ),
        gauge(
            "pgmoor_budget_waiting",
            "Claims that wait",
            each(&|one| one.waiting as f64),
        ),
        gauge(
            "pgmoor_instance_paused",
            "1 while the instance is paused",
            each(&|one| f64::from(u8::from(one.paused))),
        ),
    ]
}
