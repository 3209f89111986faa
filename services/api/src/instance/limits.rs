//! An instance's limits on the wire. Their fields have the limits' names.

use domain::limits::{Limit, Limits};
use rpc::server::v1::InstanceLimits;

use crate::duration;

/// A limit's field: a count, or a time of which milliseconds are kept.
trait Field {
    fn read(&self) -> Option<Result<u64, String>>;
    fn write(value: u64) -> Self;
}

impl Field for Option<i32> {
    fn read(&self) -> Option<Result<u64, String>> {
        self.map(|count| u64::try_from(count).map_err(|_| "must not be negative".to_owned()))
    }

    fn write(value: u64) -> Self {
        Some(i32::try_from(value).unwrap_or(i32::MAX))
    }
}

impl Field for Option<prost_types::Duration> {
    fn read(&self) -> Option<Result<u64, String>> {
        let decoded = duration::decode((*self)?).map_err(str::to_owned);
        Some(decoded.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    fn write(value: u64) -> Self {
        Some(duration::encode(std::time::Duration::from_millis(value)))
    }
}

macro_rules! fields {
    ($($limit:ident => $field:ident;)+) => {
        /// What a message says of a limit; nothing where it says nothing.
        pub(super) fn read(message: &InstanceLimits, limit: Limit) -> Option<Result<u64, String>> {
            match limit {
                $(Limit::$limit => message.$field.read(),)+
            }
        }

        /// All limits as they hold.
        pub(super) fn message(limits: &Limits) -> InstanceLimits {
            InstanceLimits {
                $($field: Field::write(limits.get(Limit::$limit)),)+
            }
        }
    };
}

fields! {
    PoolSize => pool_size;
    MinPoolSize => min_pool_size;
    ReservePoolTimeout => reserve_pool_timeout;
    MaxPinnedConnections => max_pinned_connections;
    MaxUserSessions => max_user_sessions;
    MaxWaiting => max_waiting;
    QueryWaitTimeout => query_wait_timeout;
    ServerConnectTimeout => server_connect_timeout;
    ServerIdleTimeout => server_idle_timeout;
    ServerLifetime => server_lifetime;
    ServerLifetimeJitter => server_lifetime_jitter;
    ServerCheckDelay => server_check_delay;
    ClientIdleTimeout => client_idle_timeout;
    PinnedIdleTimeout => pinned_idle_timeout;
    IdleTransactionTimeout => idle_transaction_timeout;
    TransactionTimeout => transaction_timeout;
    QueryTimeout => query_timeout;
}
