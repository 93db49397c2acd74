//! `/v1/discover`: cameras on the networks of the machine that this API runs on.

use std::{sync::Arc, time::Duration};

use kadr_shared::{
    onvif::{self, Credentials, DiscoverError, Search},
    telemetry::chain,
};
use poem_openapi::{
    OpenApi,
    param::{Header, Query},
};

use super::{Part, Services, answers::DiscoverProblems, params::default_wait};
use crate::{
    body::{Body, Devices},
    problem::{Failure, Problem, ProblemName},
};

/// For devices' profiles, all together: with the longest wait it is less than a request may take.
const PATIENCE: Duration = Duration::from_secs(4);

pub(super) struct DiscoverApi {
    pub(super) services: Arc<Services>,
}

#[OpenApi(tag = "Part::Cameras")]
impl DiscoverApi {
    /// Find cameras by ONVIF
    ///
    /// Asks the networks of the machine that this API runs on, or one host, and each device that answers for its profiles.
    /// Whether a runner on another machine can reach a device is another matter. User name and password are used for this
    /// question and not kept; devices are shown that they are known, not what the password is.
    #[oai(path = "/v1/discover", method = "get", operation_id = "discover")]
    async fn discover(
        &self,
        /// Ask this host only: `host`, or `host:port` of its web server.
        host: Query<Option<String>>,
        /// How long answers are waited for, in seconds.
        #[oai(default = "default_wait", validator(minimum(value = "1"), maximum(value = "4")))]
        wait: Query<u32>,
        /// A user of the devices, for their profiles.
        #[oai(name = "Camera-Username")]
        username: Header<Option<String>>,
        /// Its password.
        #[oai(name = "Camera-Password")]
        password: Header<Option<String>>,
    ) -> Result<Body<Devices>, Failure<DiscoverProblems>> {
        let credentials = username.0.map(|username| Credentials { username, password: password.0.unwrap_or_default() });
        let wait = Duration::from_secs(wait.0.into());
        let search = Search { host: host.0, wait, credentials, patience: PATIENCE, ..Search::default() };
        let Ok(_permit) = self.services.searches.try_acquire() else {
            let busy = "others are looking for cameras just now: try again in some seconds";
            return Err(Problem::new(ProblemName::Unavailable, busy).into());
        };
        let found = onvif::discover(&search).await.map_err(|error| {
            let name = match &error {
                DiscoverError::Host | DiscoverError::Unknown(_) => ProblemName::BadRequest,
                DiscoverError::Network(_) => ProblemName::Unavailable,
            };
            Problem::new(name, chain(&error))
        })?;
        Ok(Body(Devices { devices: found.into_iter().map(Into::into).collect() }))
    }
}
