//! What lists of pools show of themselves: PgBouncer's columns first.

use rpc::pool::v1::{Backend, Budget, Client, DatabaseStats, PinCount, Pool, Pooler, Waiter};
use rpc::query::v1::PinReason;

use crate::output::record::{Record, text, time, word};

const PIN_REASON: &str = "PIN_REASON_";

fn pins(pins: &[i32]) -> String {
    let words = pins.iter().filter_map(|pin| {
        let reason = PinReason::try_from(*pin).ok()?;
        word(reason.as_str_name(), PIN_REASON)
    });
    words.collect::<Vec<_>>().join(" ")
}

fn pin_reasons(counts: &[PinCount]) -> String {
    let words = counts.iter().filter_map(|count| {
        let reason = word(count.reason().as_str_name(), PIN_REASON)?;
        Some(format!("{reason}:{}", count.sessions))
    });
    words.collect::<Vec<_>>().join(" ")
}

impl Record for Pool {
    const MESSAGE: &'static str = "pgmoor.pool.v1.Pool";
    const COLUMNS: &'static [&'static str] = &[
        "database",
        "user",
        "cl_active",
        "cl_waiting",
        "sv_active",
        "sv_being_canceled",
        "sv_idle",
        "sv_used",
        "sv_tested",
        "sv_login",
        "maxwait",
        "maxwait_us",
        "pool_mode",
        "sv_pinned",
        "sv_pinned_idle",
        "sv_closing",
        "pin_reasons",
        "paused",
        "pooler",
        "instance",
        "server",
        "owner",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.database),
            text(&self.user),
            Some(self.cl_active.to_string()),
            Some(self.cl_waiting.to_string()),
            Some(self.sv_active.to_string()),
            Some(self.sv_being_canceled.to_string()),
            Some(self.sv_idle.to_string()),
            Some(self.sv_used.to_string()),
            Some(self.sv_tested.to_string()),
            Some(self.sv_login.to_string()),
            Some(self.maxwait.to_string()),
            Some(self.maxwait_us.to_string()),
            word(self.pool_mode().as_str_name(), "POOL_MODE_"),
            Some(self.sv_pinned.to_string()),
            Some(self.sv_pinned_idle.to_string()),
            Some(self.sv_closing.to_string()),
            text(&pin_reasons(&self.pin_reasons)),
            Some(self.paused.to_string()),
            text(&self.pooler),
            text(&self.instance),
            text(&self.server),
            text(&self.owner),
        ]
    }
}

impl Record for Client {
    const MESSAGE: &'static str = "pgmoor.pool.v1.Client";
    const COLUMNS: &'static [&'static str] = &[
        "user",
        "database",
        "state",
        "connect_time",
        "request_time",
        "wait",
        "wait_us",
        "close_needed",
        "link",
        "name",
        "mode",
        "pins",
        "transaction_status",
        "queue_position",
        "pooler",
        "instance",
        "owner",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.user),
            text(&self.database),
            word(self.state().as_str_name(), "CLIENT_STATE_"),
            time(self.connect_time.as_ref()),
            time(self.request_time.as_ref()),
            Some(self.wait.to_string()),
            Some(self.wait_us.to_string()),
            Some(self.close_needed.to_string()),
            text(&self.link),
            text(&self.name),
            word(self.mode().as_str_name(), "SESSION_MODE_"),
            text(&pins(&self.pins)),
            word(self.transaction_status().as_str_name(), "TRANSACTION_STATUS_"),
            Some(self.queue_position.to_string()),
            text(&self.pooler),
            text(&self.instance),
            text(&self.owner),
        ]
    }
}

impl Record for Backend {
    const MESSAGE: &'static str = "pgmoor.pool.v1.Backend";
    const COLUMNS: &'static [&'static str] = &[
        "user",
        "database",
        "state",
        "addr",
        "port",
        "connect_time",
        "request_time",
        "close_needed",
        "link",
        "remote_pid",
        "name",
        "pins",
        "resting_session",
        "bytes_received",
        "bytes_sent",
        "pooler",
        "server",
        "owner",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.user),
            text(&self.database),
            word(self.state().as_str_name(), "BACKEND_STATE_"),
            text(&self.addr),
            Some(self.port.to_string()),
            time(self.connect_time.as_ref()),
            time(self.request_time.as_ref()),
            Some(self.close_needed.to_string()),
            text(&self.link),
            Some(self.remote_pid.to_string()),
            text(&self.name),
            text(&pins(&self.pins)),
            text(&self.resting_session),
            Some(self.bytes_received.to_string()),
            Some(self.bytes_sent.to_string()),
            text(&self.pooler),
            text(&self.server),
            text(&self.owner),
        ]
    }
}

impl Record for DatabaseStats {
    const MESSAGE: &'static str = "pgmoor.pool.v1.DatabaseStats";
    const COLUMNS: &'static [&'static str] = &[
        "database",
        "total_server_assignment_count",
        "total_xact_count",
        "total_query_count",
        "total_received",
        "total_sent",
        "total_xact_time",
        "total_query_time",
        "total_wait_time",
        "avg_server_assignment_count",
        "avg_xact_count",
        "avg_query_count",
        "avg_recv",
        "avg_sent",
        "avg_xact_time",
        "avg_query_time",
        "avg_wait_time",
        "pooler",
        "instance",
        "server",
        "owner",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.database),
            Some(self.total_server_assignment_count.to_string()),
            Some(self.total_xact_count.to_string()),
            Some(self.total_query_count.to_string()),
            Some(self.total_received.to_string()),
            Some(self.total_sent.to_string()),
            Some(self.total_xact_time.to_string()),
            Some(self.total_query_time.to_string()),
            Some(self.total_wait_time.to_string()),
            Some(self.avg_server_assignment_count.to_string()),
            Some(self.avg_xact_count.to_string()),
            Some(self.avg_query_count.to_string()),
            Some(self.avg_recv.to_string()),
            Some(self.avg_sent.to_string()),
            Some(self.avg_xact_time.to_string()),
            Some(self.avg_query_time.to_string()),
            Some(self.avg_wait_time.to_string()),
            text(&self.pooler),
            text(&self.instance),
            text(&self.server),
            text(&self.owner),
        ]
    }
}

impl Record for Budget {
    const MESSAGE: &'static str = "pgmoor.pool.v1.Budget";
    const COLUMNS: &'static [&'static str] = &[
        "instance",
        "max_connections",
        "current_connections",
        "paused",
        "reserved_connections",
        "interactive_connections",
        "pinned_connections",
        "worker_connections",
        "monitoring_connections",
        "waiting",
        "own_connections",
        "elsewhere_connections",
        "pause_time",
        "pooler",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.instance),
            Some(self.max_connections.to_string()),
            Some(self.current_connections.to_string()),
            Some(self.paused.to_string()),
            Some(self.reserved_connections.to_string()),
            Some(self.interactive_connections.to_string()),
            Some(self.pinned_connections.to_string()),
            Some(self.worker_connections.to_string()),
            Some(self.monitoring_connections.to_string()),
            Some(self.waiting.to_string()),
            Some(self.own_connections.to_string()),
            Some(self.elsewhere_connections.to_string()),
            time(self.pause_time.as_ref()),
            text(&self.pooler),
        ]
    }
}

impl Record for Pooler {
    const MESSAGE: &'static str = "pgmoor.pool.v1.Pooler";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "state",
        "sessions",
        "scripts",
        "backends",
        "start_time",
        "address",
        "instances",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            word(self.state().as_str_name(), "POOLER_STATE_"),
            Some(self.sessions.to_string()),
            Some(self.scripts.to_string()),
            Some(self.backends.to_string()),
            time(self.start_time.as_ref()),
            text(&self.address),
            text(&self.instances.join(" ")),
        ]
    }
}

impl Record for Waiter {
    const MESSAGE: &'static str = "pgmoor.pool.v1.Waiter";
    const COLUMNS: &'static [&'static str] = &[
        "instance",
        "position",
        "user",
        "claimant",
        "connection_class",
        "count",
        "wait_start_time",
        "pooler",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.instance),
            Some(self.position.to_string()),
            text(&self.user),
            text(&self.claimant),
            word(self.connection_class().as_str_name(), "CONNECTION_CLASS_"),
            Some(self.count.to_string()),
            time(self.wait_start_time.as_ref()),
            text(&self.pooler),
        ]
    }
}
