use super::*;

const SIZE: Size = Size {
    nodes: 3,
    orchestrators: 3,
    runners: 4,
    inference: 2,
    apis: 2,
    states: 200,
    kills: 30,
    least: Duration::ZERO,
};

#[test]
fn a_seed_gives_one_plan() {
    let plan = |seed| format!("{:?}", Plan::new(seed, &SIZE, &[]));
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}

#[test]
fn every_kind_of_blow_and_of_command_comes_and_kills_are_as_many_as_asked_for() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let plan = Plan::new(seed, &SIZE, &[]);
        assert_eq!(plan.blows.iter().filter(|timed| timed.blow.is_kill()).count(), SIZE.kills);
        assert!(plan.commands.iter().all(|command| command.scenario < SIZE.scenarios()));
        seen.extend(plan.blows.iter().map(|timed| timed.blow.name()));
        seen.extend(plan.commands.iter().map(|command| command.ask.name()));
    }
    assert_eq!(seen.len(), 8 + 5, "{seen:?}");
}

#[test]
fn nothing_but_what_was_named_is_broken() {
    let plan = Plan::new(1, &SIZE, &["kill-orchestrator".to_owned()]);
    assert_eq!(plan.blows.len(), SIZE.kills);
    assert!(plan.blows.iter().all(|t| matches!(t.blow, Blow::Kill { kind: Kind::Orchestrator, .. })));
}
