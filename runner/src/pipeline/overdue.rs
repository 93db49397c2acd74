//! Frames that got no result in time: looked for, sent again, or given up, and what is said when nobody seems to analyse.

use std::time::{Duration, Instant};

use kadr_shared::domain::InterruptionKind;
use tracing::warn;

use super::{Pipeline, SILENCE, job::Report, pending::Pending, stop::Stop};
use crate::meter::Dropped;

/// So many time-outs without any result, and nobody is taken to analyse, whatever workers say of themselves.
const SILENCES: u32 = 2;
/// How often it is looked whether somebody analyses.
const LOOK: Duration = Duration::from_millis(500);

impl Pipeline {
    /// Looks after frames that got no result in time, and tells when nobody seems to analyse.
    pub(super) async fn do_what_is_due(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        self.give_up(|p| p.expires.is_some_and(|expires| expires <= now));
        let is_due = |p: &Pending| !p.sending && p.due().is_some_and(|due| due <= now);
        let mut again: Vec<_> = self.pending.iter().filter(|(_, p)| is_due(p)).map(|(number, _)| *number).collect();
        let sent = self.pending.values().any(|p| is_due(p) && p.sent.is_some());
        if !self.live && sent && !self.some_are_lost().await? {
            // They wait behind others, or are in hand: one look more, later.
            for pending in self.pending.values_mut().filter(|p| is_due(p)) {
                if pending.sent.is_some_and(|sent| now.duration_since(sent) < self.job.limits.frame_timeout) {
                    pending.looks += 1;
                    pending.due = now + self.pace.patience(pending.looks);
                }
            }
            again.retain(|number| self.pending.get(number).is_some_and(&is_due));
        }
        let repeated = again.iter().filter(|number| self.pending.get(number).is_some_and(|p| p.sent.is_some())).count();
        if repeated > 0 {
            warn!(scenario = %self.job.scenario, frames = repeated, "no result in time: sending again");
        }
        self.send(&again);
        self.tell_silence().await
    }

    /// Lets a camera's frames go that have no result.
    pub(super) fn give_up(&mut self, which: impl Fn(&Pending) -> bool) {
        let before = self.pending.len();
        let live = &self.screen.live;
        self.pending.retain(|number, p| {
            let kept = p.result.is_some() || !which(p);
            if !kept {
                live.lost(*number);
            }
            kept
        });
        let given_up = before - self.pending.len();
        self.unanswered |= given_up > 0;
        (0..given_up).for_each(|_| self.meter.dropped(Dropped::Late));
    }

    /// Whether fewer frames are in the queue than have no result: then their results or they themselves are lost.
    async fn some_are_lost(&mut self) -> Result<bool, Stop> {
        let wanted = self.pending.values().filter(|p| p.result.is_none() && p.sent.is_some()).count();
        let waiting = self.stops.unless(self.queue.waiting()).await?;
        // No queue, no frames. If it only can't be seen now, putting them there fails as well, and is tried again.
        Ok(waiting.is_none_or(|waiting| waiting < wanted))
    }

    async fn tell_silence(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        if self.interrupted.inference || now < self.look {
            return Ok(());
        }
        self.look = now + LOOK;
        let quiet = now.duration_since(self.quiet_since);
        let model = &self.job.settings.model;
        let nobody = quiet >= SILENCE && self.job.workers.silence(model) >= SILENCE;
        if nobody || quiet >= self.job.limits.frame_timeout * SILENCES {
            self.interrupted.inference = true;
            let error = format!("no inference for {model}");
            return self.tell(Report::Interrupted { kind: InterruptionKind::Inference, error }).await;
        }
        Ok(())
    }
}
