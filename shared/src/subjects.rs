//! Names of streams and subjects. Built here and nowhere else.

use crate::{
    id::{CommandId, ModelName, RunId, RunnerId, ScenarioId},
    secret::SecretName,
};

pub const INBOX: &str = "KADR_INBOX";
pub const EVENTS: &str = "KADR_EVENTS";
pub const FRAMES: &str = "KADR_FRAMES";
pub const DETECTIONS: &str = "KADR_DETECTIONS";
pub const VIDEO: &str = "KADR_VIDEO";
pub const RECORDINGS: &str = "KADR_RECORDINGS";
/// A key-value bucket.
pub const NODES: &str = "KADR_NODES";
/// The stream behind it.
pub const NODES_STREAM: &str = "KV_KADR_NODES";

/// A key-value bucket.
pub const SECRETS: &str = "KADR_SECRETS";
/// The stream behind it.
pub const SECRETS_STREAM: &str = "KV_KADR_SECRETS";

pub const INBOX_ALL: &str = "kadr.in.>";
pub const EVENTS_ALL: &str = "kadr.evt.>";
pub const FRAMES_ALL: &str = "kadr.frame.>";
pub const DETECTIONS_ALL: &str = "kadr.det.>";
pub const VIDEO_ALL: &str = "kadr.video.>";
pub const RECORDINGS_ALL: &str = "kadr.rec.>";
/// Every start of every scenario: what runners compete for.
pub const STARTS: &str = "kadr.evt.*.start_requested";
/// Signs of life of all models' workers.
pub const WORKERS_ALL: &str = "kadr.inf.*";
/// Every deletion of every scenario.
pub const DELETIONS: &str = "kadr.evt.*.scenario_deleted";
/// The consumer of [`STARTS`] that all runners share.
pub const STARTS_CONSUMER: &str = "runners";
pub const NODES_ALL: &str = "$KV.KADR_NODES.>";
pub const RUNNERS_ALL: &str = "$KV.KADR_NODES.runner.*";
pub const LEADER: &str = "$KV.KADR_NODES.leader";

/// Whether frames come from a camera, which can't wait, or from a file, which can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameClass {
    Live,
    Batch,
}

impl FrameClass {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Batch => "batch",
        }
    }
}

pub fn command(scenario: &ScenarioId, key: &CommandId) -> String {
    format!("kadr.in.{scenario}.cmd.{key}")
}

/// `id` is a fact's own: one token.
pub fn fact(scenario: &ScenarioId, run: RunId, id: &str) -> String {
    format!("kadr.in.{scenario}.run.{run}.{id}")
}

pub fn secret(scenario: &ScenarioId, name: &SecretName) -> String {
    format!("$KV.KADR_SECRETS.{scenario}.{name}")
}

/// All secrets of one scenario.
pub fn secrets_of(scenario: &ScenarioId) -> String {
    format!("$KV.KADR_SECRETS.{scenario}.*")
}

/// `kind` is an event's type.
pub fn event(scenario: &ScenarioId, kind: &str) -> String {
    format!("kadr.evt.{scenario}.{kind}")
}

/// All events of one scenario; also the filter that an append's expected sequence is about.
pub fn events_of(scenario: &ScenarioId) -> String {
    format!("kadr.evt.{scenario}.>")
}

pub fn frame(model: &ModelName, class: FrameClass, scenario: &ScenarioId) -> String {
    format!("kadr.frame.{model}.{}.{scenario}", class.as_str())
}

/// All frames of a class for a model.
pub fn frames_of(model: &ModelName, class: FrameClass) -> String {
    format!("kadr.frame.{model}.{}.*", class.as_str())
}

/// The name of the consumer that a model's workers share for a class.
pub fn frames_consumer(model: &ModelName, class: FrameClass) -> String {
    format!("{model}-{}", class.as_str())
}

/// Raw results, on core NATS.
pub fn results(scenario: &ScenarioId, run: RunId) -> String {
    format!("kadr.res.{scenario}.{run}")
}

/// Signs of life of a model's workers, on core NATS: a frame without an answer is either being waited for or lost.
pub fn workers(model: &ModelName) -> String {
    format!("kadr.inf.{model}")
}

/// The model in `kadr.inf.{model}`.
pub fn model_in(subject: &str) -> Option<ModelName> {
    subject.strip_prefix("kadr.inf.")?.parse().ok()
}

/// Stored detections.
pub fn detections(scenario: &ScenarioId) -> String {
    format!("kadr.det.{scenario}")
}

/// Live video, as coded pictures.
pub fn video(scenario: &ScenarioId) -> String {
    format!("kadr.video.{scenario}")
}

/// Recorded video, some seconds a message.
pub fn recordings(scenario: &ScenarioId) -> String {
    format!("kadr.rec.{scenario}")
}

/// Live video as JPEG images, on core NATS.
pub fn images(scenario: &ScenarioId) -> String {
    format!("kadr.image.{scenario}")
}

/// That somebody watches, on core NATS.
pub fn watching(scenario: &ScenarioId) -> String {
    format!("kadr.watch.{scenario}")
}

/// The consumer of a scenario's detections that holds how far its webhook was told.
pub fn webhook_consumer(scenario: &ScenarioId) -> String {
    format!("webhook-{scenario}")
}

/// The scenario of such a consumer.
pub fn scenario_of_webhook(consumer: &str) -> Option<ScenarioId> {
    consumer.strip_prefix("webhook-")?.parse().ok()
}

/// Images for a scenario whose source is `push:`, on core NATS.
pub fn pushed(scenario: &ScenarioId) -> String {
    format!("kadr.push.{scenario}")
}

/// Whether a subject is kadr's own or the server's: others publish nothing there.
pub fn is_reserved(subject: &str) -> bool {
    let first = subject.split('.').next().unwrap_or_default();
    first == "kadr" || first.starts_with('$') || first.starts_with('_')
}

pub fn runner(runner: &RunnerId) -> String {
    format!("$KV.KADR_NODES.runner.{runner}")
}

/// The scenario in `kadr.{in,evt,det}.{scenario}…`.
pub fn scenario_in(subject: &str) -> Option<ScenarioId> {
    let mut tokens = subject.split('.');
    match (tokens.next(), tokens.next()) {
        (Some("kadr"), Some("in" | "evt" | "det")) => tokens.next()?.parse().ok(),
        _ => None,
    }
}

/// The type in `kadr.evt.{scenario}.{type}`.
pub fn event_kind_in(subject: &str) -> Option<&str> {
    let mut tokens = subject.split('.').skip(1);
    match (tokens.next(), tokens.next(), tokens.next(), tokens.next()) {
        (Some("evt"), Some(_), Some(kind), None) => Some(kind),
        _ => None,
    }
}

/// The runner in `$KV.KADR_NODES.runner.{id}`.
pub fn runner_in(subject: &str) -> Option<RunnerId> {
    subject.strip_prefix("$KV.KADR_NODES.runner.")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let gate: ScenarioId = "gate".parse().unwrap();
        assert_eq!(scenario_in(&event(&gate, "activated")), Some(gate.clone()));
        assert_eq!(event_kind_in(&event(&gate, "activated")), Some("activated"));
        assert_eq!(scenario_in(&command(&gate, &CommandId::generate())), Some(gate.clone()));
        assert_eq!(scenario_of_webhook(&webhook_consumer(&gate)), Some(gate.clone()));
        assert_eq!(scenario_in(&detections(&gate)), Some(gate));
        let model: ModelName = "yolov8n".parse().unwrap();
        assert_eq!(model_in(&workers(&model)), Some(model));
        let id = RunnerId::generate();
        assert_eq!(runner_in(&runner(&id)), Some(id));
        assert_eq!(scenario_in("kadr.frame.yolov8n.live.gate"), None);
        assert_eq!(event_kind_in("kadr.evt.gate"), None);
    }
}
