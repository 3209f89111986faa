//! Elevations between the store and the wire.

use domain::id::UserId;
use rpc::access::v1 as proto;
use store::elevations::{ElevationState, ServerElevation};

use crate::duration::{self, timestamp};
use crate::error::Violations;

/// An elevation.
pub(super) fn elevation(elevation: &ServerElevation) -> proto::Elevation {
    let user = |id: UserId| format!("users/{id}");
    let by = |done: Option<(Option<UserId>, _)>| done.and_then(|(by, _)| by).map(user).unwrap_or_default();
    let wish = &elevation.wish;
    proto::Elevation {
        name: format!("servers/{}/elevations/{}", elevation.server, elevation.id),
        user: user(elevation.user),
        databases: wish.databases.iter().map(ToString::to_string).collect(),
        reason: wish.reason.clone(),
        duration: Some(duration::encode(wish.duration)),
        session: wish.session.clone(),
        state: state(elevation.state).into(),
        decided_by: by(elevation.decided),
        decide_time: elevation.decided.map(|(_, time)| timestamp(time)),
        expire_time: Some(timestamp(elevation.expire_time)),
        ended_by: by(elevation.ended),
        end_time: elevation.ended.map(|(_, time)| timestamp(time)),
        create_time: Some(timestamp(elevation.create_time)),
        etag: elevation.etag.to_string(),
    }
}

/// Reads the states that are listed.
pub(super) fn states(states: &[i32], violations: &mut Violations) -> Vec<ElevationState> {
    let mut read = Vec::new();
    for (index, given) in states.iter().enumerate() {
        let known = ElevationState::ALL
            .into_iter()
            .find(|one| i32::from(state(*one)) == *given);
        let field = format!("states[{index}]");
        read.extend(violations.check(&field, known.ok_or("is not a known value")));
    }
    read
}

/// The contract's word for a state.
pub(crate) const fn state(state: ElevationState) -> proto::ElevationState {
    match state {
        ElevationState::Requested => proto::ElevationState::Requested,
        ElevationState::Active => proto::ElevationState::Active,
        ElevationState::Denied => proto::ElevationState::Denied,
        ElevationState::Ended => proto::ElevationState::Ended,
        ElevationState::Expired => proto::ElevationState::Expired,
    }
}
