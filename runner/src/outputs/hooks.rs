//! Webhooks: who delivers when. Any runner may, for any scenario, also when it does not run any more.
//!
//! How far a webhook was told is what a durable consumer of the scenario's results holds (`webhook-{scenario}`), with what
//! is wanted in its metadata. It gives one message at a time to one runner: that is the right to deliver. The runner that has
//! the scenario begins at once; all of them look now and then for what nobody takes. One delivery stands in [`delivery`].

mod delivery;
mod request;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures::TryStreamExt;
use kadr_shared::{
    detections, id::ScenarioId, nats::Nats, secret::SecretKey, settings::Webhook, subjects, telemetry::chain,
};
use tokio::{sync::OnceCell, task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, warn};

use crate::{
    meter::{Meter, Trouble},
    patience::{REQUEST, RETRY, answered},
    starts::is_missing,
};

/// Between two looks for results that nobody delivers.
const LOOK: Duration = Duration::from_secs(5);
/// For one look.
const LOOK_LIMIT: Duration = Duration::from_secs(20);
/// Scenarios that a runner delivers for at the same time. There may be more: they wait for the next look.
const AT_A_TIME: usize = 256;
/// A delivery that says nothing for so long is another runner's to try.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Deliveries under way at a runner's end are waited for so long.
const GOODBYE: Duration = Duration::from_secs(3);
/// Where the consumer's metadata holds what is wanted.
const WANTED: &str = "kadr-webhook";

/// A runner's deliveries.
pub(crate) struct Hooks {
    shared: Arc<Shared>,
    _looking: AbortOnDropHandle<()>,
}

/// What deliveries share.
struct Shared {
    nats: Nats,
    secret_key: Option<SecretKey>,
    /// Made when the first webhook wants it.
    client: OnceCell<reqwest::Client>,
    busy: Mutex<HashSet<ScenarioId>>,
    tasks: Mutex<JoinSet<()>>,
    /// Of the scenarios that this runner has.
    meters: Mutex<HashMap<ScenarioId, Weak<Meter>>>,
    stop: CancellationToken,
}

/// A panic while these were changed leaves them usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hooks {
    /// Begins to look for what is to be delivered.
    pub(crate) fn start(nats: Nats, secret_key: Option<SecretKey>) -> Self {
        let shared = Arc::new(Shared {
            nats,
            secret_key,
            client: OnceCell::new(),
            busy: Mutex::default(),
            tasks: Mutex::default(),
            meters: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let looking = tokio::spawn(look(shared.clone()));
        Self { shared, _looking: AbortOnDropHandle::new(looking) }
    }

    /// A run begins, whose results are for this webhook. Waits for the server if it has to: what is stored after it will be
    /// delivered.
    pub(crate) async fn expect(&self, scenario: &ScenarioId, webhook: &Webhook, meter: &Arc<Meter>) {
        let shared = &self.shared;
        lock(&shared.meters).insert(scenario.clone(), Arc::downgrade(meter));
        loop {
            let error = match answered(&shared.nats, 2 * REQUEST, make(&shared.nats, scenario, webhook)).await {
                Some(Ok(())) => break,
                Some(Err(error)) => error.to_string(),
                None => "no answer from NATS".to_owned(),
            };
            warn!(%scenario, error, "the webhook can't be made ready, trying again");
            shared.tell(scenario, Some(format!("the webhook can't be made ready: {error}")));
            sleep(RETRY).await;
        }
        shared.tell(scenario, None);
        shared.take_up(scenario.clone());
    }

    /// A run begins, whose results are for no webhook: one of earlier settings is told of nothing more. Nothing waits for
    /// it; it ends with what it gives.
    pub(crate) fn expect_none(&self, scenario: &ScenarioId) -> AbortOnDropHandle<()> {
        let (nats, scenario) = (self.shared.nats.clone(), scenario.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            while !matches!(answered(&nats, 2 * REQUEST, forget(&nats, &scenario)).await, Some(Ok(()))) {
                debug!(%scenario, "an earlier webhook can't be taken away, trying again");
                sleep(RETRY).await;
            }
        }))
    }

    /// Ends deliveries; those that don't end in time are another runner's after [`ACK_WAIT`].
    pub(crate) async fn stop(&self) {
        self.shared.stop.cancel();
        let mut tasks = std::mem::take(&mut *lock(&self.shared.tasks));
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, ended).await.is_err() {
            debug!("a webhook's receiver does not answer: its results are left to another runner");
        }
    }
}

impl Shared {
    /// Delivers a scenario's results, if this runner does not yet and has room for it.
    fn take_up(self: &Arc<Self>, scenario: ScenarioId) {
        let mut busy = lock(&self.busy);
        if self.stop.is_cancelled() || busy.len() >= AT_A_TIME || !busy.insert(scenario.clone()) {
            return;
        }
        drop(busy);
        let shared = self.clone();
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _guard = Busy { shared: &shared, scenario: &scenario };
            if let Err(error) = delivery::deliver(&shared, &scenario).await {
                shared.tell(&scenario, Some(error.to_string()));
                warn!(%scenario, error = chain(error.as_ref()), "the webhook can't be served now, trying again");
            }
        });
    }

    /// What is wrong with a scenario's webhook, where this runner has the scenario; none: nothing.
    fn tell(&self, scenario: &ScenarioId, error: Option<String>) {
        if let Some(meter) = lock(&self.meters).get(scenario).and_then(Weak::upgrade) {
            meter.trouble(Trouble::Webhook, error);
        }
    }

    /// For requests: neither redirected nor waited for without an end.
    async fn client(&self) -> Result<&reqwest::Client, async_nats::Error> {
        let make = async || {
            // Whoever runs kadr has chosen one already; a second choice is refused.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let policy = reqwest::redirect::Policy::none();
            reqwest::Client::builder().timeout(request::DEADLINE).redirect(policy).build()
        };
        Ok(self.client.get_or_try_init(make).await?)
    }
}

/// A scenario that is being delivered for.
struct Busy<'a> {
    shared: &'a Shared,
    scenario: &'a ScenarioId,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(&self.shared.busy).remove(self.scenario);
    }
}

/// Looks for what nobody delivers, until the end.
async fn look(shared: Arc<Shared>) {
    loop {
        match tokio::time::timeout(LOOK_LIMIT, look_once(&shared)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "can't look for webhooks' results"),
            Err(_) => debug!("can't look for webhooks' results in time"),
        }
        lock(&shared.meters).retain(|_, meter| meter.strong_count() > 0);
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

async fn look_once(shared: &Arc<Shared>) -> Result<(), async_nats::Error> {
    let stream = shared.nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
    let mut consumers = stream.consumers();
    while let Some(info) = consumers.try_next().await? {
        let undone = info.num_pending > 0 || info.num_ack_pending > 0;
        // Somebody who waits for the next one delivers it.
        if undone
            && info.num_waiting == 0
            && let Some(scenario) = subjects::scenario_of_webhook(&info.name)
        {
            shared.take_up(scenario);
        }
    }
    Ok(())
}

/// Makes the consumer, or has it know what is wanted now. It begins with what is stored after it was made.
async fn make(nats: &Nats, scenario: &ScenarioId, webhook: &Webhook) -> Result<(), async_nats::Error> {
    let name = subjects::webhook_consumer(scenario);
    let wanted = serde_json::to_string(webhook)?;
    let stream = nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
    match stream.consumer_info(&name).await {
        Ok(info) => {
            let mut config: pull::Config = jetstream::consumer::FromConsumer::try_from_consumer_config(info.config)?;
            if config.metadata.insert(WANTED.to_owned(), wanted.clone()) != Some(wanted) {
                stream.update_consumer(config).await?;
            }
        }
        Err(error) if is_missing(&error.kind()) => {
            let stored = detections::last(nats, scenario).await?.unwrap_or(0);
            let config = pull::Config {
                durable_name: Some(name),
                description: Some("how far a scenario's webhook was told".into()),
                filter_subject: subjects::detections(scenario),
                // The same as only what is new; but that one can't be set behind what was delivered.
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: stored + 1 },
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                max_ack_pending: 1,
                metadata: HashMap::from([(WANTED.to_owned(), wanted)]),
                ..pull::Config::default()
            };
            stream.create_consumer(config).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Nothing is to be delivered any more.
async fn forget(nats: &Nats, scenario: &ScenarioId) -> Result<(), async_nats::Error> {
    let name = subjects::webhook_consumer(scenario);
    let stream = nats.jetstream.get_stream_no_info(subjects::DETECTIONS).await?;
    match stream.consumer_info(&name).await {
        Ok(_) => Ok(stream.delete_consumer(&name).await.map(|_| ())?),
        Err(error) if is_missing(&error.kind()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
