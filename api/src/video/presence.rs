//! Whether a scenario has live video now, and what is said if it has none; by whatever way it is asked for.

use std::time::Duration;

use kadr_shared::{domain::Phase, id::ScenarioId};
use tokio::time::timeout;

use crate::{
    live::Live,
    problem::{Problem, ProblemName},
    read_model::ReadModel,
};

/// A video that was not made before is waited for as long.
pub(crate) const FIRST_PICTURE: Duration = Duration::from_secs(5);
/// After a silence of this length it is looked whether the scenario still runs.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

/// Nothing, if the scenario is there and runs.
pub(crate) async fn runs(model: &ReadModel, id: &ScenarioId) -> Result<(), Problem> {
    match model.scenario(id).await?.found {
        Some(state) if state.exists() && state.phase != Phase::Inactive => Ok(()),
        Some(state) if state.exists() => {
            Err(Problem::new(ProblemName::NotRunning, "there is no live video of it: start it first"))
        }
        _ => Err(Problem::no_such_scenario()),
    }
}

/// Whether it does not run any more. Tables that can't be read say nothing of it.
pub(crate) async fn is_over(model: &ReadModel, id: &ScenarioId) -> bool {
    match model.scenario(id).await {
        Ok(read) => read.found.as_ref().is_none_or(|state| state.phase == Phase::Inactive),
        Err(_) => false,
    }
}

/// What comes next; `None` once the scenario does not run any more.
pub(crate) async fn while_it_runs<T>(model: &ReadModel, id: &ScenarioId, next: impl Future<Output = T>) -> Option<T> {
    let mut next = std::pin::pin!(next);
    loop {
        if let Ok(next) = timeout(SILENCE, &mut next).await {
            return Some(next);
        }
        if is_over(model, id).await {
            return None;
        }
    }
}

/// Why there is no picture, as far as it is known.
pub(crate) async fn no_picture(model: &ReadModel, live: &Live, id: &ScenarioId) -> Problem {
    let state = model.scenario(id).await.ok().and_then(|read| read.found);
    let progress = state.and_then(|state| live.progress(id, &state));
    let why = match progress.and_then(|progress| progress.trouble) {
        Some(trouble) => format!("no picture came: {trouble}"),
        None => format!("no picture came for {} s: it may be starting, try again", FIRST_PICTURE.as_secs()),
    };
    Problem::new(ProblemName::Unavailable, why)
}

/// The API ends.
pub(crate) fn ending() -> Problem {
    Problem::new(ProblemName::Unavailable, "this API is about to end: ask another one, or later")
}
