//! What is left of a run: everything in files of its folder, a summary for people, and the one line that says what held.

use std::{collections::BTreeMap, io::Write, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    Args,
    checks::{Evidence, Findings, Violation, times},
    process::Kind,
    streams::Message,
};

/// Violations of one check that are printed; the file has them all.
const PRINTED: usize = 5;

/// Writes the streams, the answers, the blows and the violations beside the logs.
pub fn keep(folder: &Path, evidence: &Evidence, findings: &Findings) -> Result<()> {
    for (name, messages) in
        [("inbox", &evidence.inbox), ("events", &evidence.events), ("detections", &evidence.detections)]
    {
        lines(&folder.join(format!("{name}.jsonl")), messages.iter().map(line))?;
    }
    lines(&folder.join("answers.jsonl"), evidence.answers.iter().map(|answer| json!(answer)))?;
    lines(&folder.join("blows.jsonl"), evidence.blows.iter().map(|blow| json!(blow)))?;
    lines(&folder.join("violations.jsonl"), findings.violations.iter().map(|violation| json!(violation)))
}

fn line(message: &Message) -> Value {
    json!({"seq": message.seq, "at": message.at, "subject": message.subject, "fence": message.fence, "body": message.body})
}

fn lines(path: &Path, values: impl Iterator<Item = Value>) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for value in values {
        writeln!(file, "{value}")?;
    }
    Ok(file.flush()?)
}

/// What was done, for the figures.
pub fn count(evidence: &Evidence, findings: &mut Findings) {
    let mut blows: BTreeMap<String, usize> = BTreeMap::new();
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for blow in &evidence.blows {
        let target = blow.kind.map_or("disk", Kind::name);
        *blows.entry(format!("{} {target}", blow.what)).or_default() += 1;
        if let Some(reason) = &blow.skipped {
            *skipped.entry(format!("{}: {reason}", blow.what)).or_default() += 1;
        }
    }
    let kills = evidence.blows.iter().filter(|b| matches!(b.what, "kill" | "freeze") && b.skipped.is_none()).count();
    findings.figure("kills", kills);
    findings.figure("leader_hit", evidence.blows.iter().filter(|blow| blow.leader).count());
    findings.figure("blows", blows);
    findings.figure("skipped", skipped);
}

/// The summary, the figures as one line of JSON in a file, and the one line at the end; whether all held.
pub fn tell(args: &Args, seed: u64, folder: &Path, findings: &Findings, seconds: u64) -> Result<bool> {
    let counts = |violation: &&Violation| !(args.tell_times && times::LIMITS.contains(&violation.check));
    let held = !findings.violations.iter().any(|violation| counts(&violation));
    let mut by_check: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in &findings.violations {
        by_check.entry(violation.check).or_default().push(violation);
    }
    let head = [
        ("seed", json!(seed)),
        ("nodes", json!(args.nodes)),
        ("held", json!(held)),
        ("seconds", json!(seconds)),
        ("violations", json!(by_check.iter().map(|(check, all)| (*check, all.len())).collect::<BTreeMap<_, _>>())),
    ];
    let mut figures: serde_json::Map<_, _> = head.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    figures.extend(findings.figures.clone());
    std::fs::write(folder.join("figures.jsonl"), format!("{}\n", Value::Object(figures.clone())))?;

    let mut out = std::io::stdout().lock();
    for name in [
        "events",
        "commands",
        "facts",
        "void_facts",
        "runs",
        "frames",
        "completed_clips",
        "answers",
        "blows",
        "leader_hit",
        "skipped",
        "states_after_events",
        "stops",
        "recovery",
        "recovery_runner",
        "recovery_orchestrator",
        "recovery_inference",
        "without_quorum_ms",
        "without_writes_ms",
        "without_frames_ms",
        "without_orchestrator_ms",
        "without_starved_ms",
        "level_lives",
        "began_in_vain",
    ] {
        writeln!(out, "  {name:24} {}", figures.get(name).unwrap_or(&Value::Null))?;
    }
    for (check, all) in &by_check {
        writeln!(out, "NOT HELD: {check} ({} times)", all.len())?;
        for violation in all.iter().take(PRINTED) {
            writeln!(out, "    {}", violation.text.chars().take(1500).collect::<String>())?;
            for message in violation.evidence.iter().take(4) {
                writeln!(out, "        {}", message.to_string().chars().take(600).collect::<String>())?;
            }
        }
    }
    let kills = figures.get("kills").cloned().unwrap_or_default();
    let said = if held {
        "held".to_owned()
    } else {
        let broken: Vec<_> = by_check.iter().map(|(check, all)| format!("{check} ({})", all.len())).collect();
        format!("NOT held: {}", broken.join("; "))
    };
    writeln!(out, "chaos: SEED={seed} KILLS={kills} NODES={} {seconds} s, {}: {said}", args.nodes, folder.display())?;
    Ok(held)
}
