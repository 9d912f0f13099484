//! Changes that take several rounds through the members of a cluster.
//!
//! A rollout is data: its rounds, each with who is known to have it behind them, what is waited for, and what it does to who
//! can dial whom. The order, the waiting and the replay of a plan follow from it in one place; the steps of a round are made
//! where the round is described.

pub(crate) mod etcd;

use seaworthy_evidence::Member;

use crate::input::{called, refuse};
use crate::order::{self, Change, Turn};
use crate::plan::{Plan, Refusal, RefusalKind, Stage, Until, Waiting};

/// Says whether a member has a round behind it; `None` when that is not known.
pub(crate) type Done<'a> = Box<dyn Fn(&Member) -> Option<bool> + 'a>;

/// Returns a member as it is, told which rounds it has behind it.
pub(crate) type Model<'a> = Box<dyn Fn(&Member, &[bool]) -> order::Member + 'a>;

/// A change in rounds.
pub(crate) struct Rollout<'a> {
    /// The rounds, in order. Every member has one behind it before the first of them begins the next.
    pub(crate) rounds: Vec<Round<'a>>,
    /// What decides whom the members can dial.
    pub(crate) dialling: Dialling<'a>,
}

/// One round.
pub(crate) struct Round<'a> {
    /// What it is called in plans.
    pub(crate) stage: Stage,
    /// Whether a member has it behind it; `None` when that is not known.
    pub(crate) done: Done<'a>,
    /// What is waited for: of a member that has it not behind it, and of one of which that is not known. `None` for a round
    /// for which no member waits.
    pub(crate) until: Option<[Until; 2]>,
    /// What it does to who can dial whom.
    pub(crate) effect: Vec<Change>,
}

/// What decides whom the members can dial.
pub(crate) enum Dialling<'a> {
    /// The rollout changes nothing of it.
    Unchanged,
    /// It changes it.
    Changed {
        /// Returns a member as it is, told which rounds it has behind it.
        model: Model<'a>,
        /// What to do instead of an order that would part members.
        instead: &'static str,
    },
}

impl Rollout<'_> {
    /// Returns the members that must have done something before this member begins `stage`, and those that have it still to do
    /// afterwards.
    pub(crate) fn waiting(&self, stage: Stage, members: &[Member]) -> (Vec<Waiting>, Vec<Waiting>) {
        let of = |round: Option<&Round<'_>>| -> Vec<Waiting> {
            let Some((round, until)) = round.and_then(|round| Some((round, round.until?))) else {
                return Vec::new();
            };
            let mut others: Vec<&Member> = members.iter().filter(|m| !m.this).collect();
            others.sort_by_key(|m| called(m));
            let [lacking, unknown] = until;
            let waiting = |m: &&Member| {
                let until = match (round.done)(m) {
                    Some(true) => return None,
                    Some(false) => lacking,
                    None => unknown,
                };
                Some(Waiting { member: called(m).to_owned(), until })
            };
            others.iter().filter_map(waiting).collect()
        };
        match self.rounds.iter().position(|round| round.stage == stage) {
            Some(at) => {
                let before = at.checked_sub(1).and_then(|before| self.rounds.get(before));
                (of(before), of(self.rounds.get(at)))
            }
            None if stage == Stage::Done => (Vec::new(), of(self.rounds.last())),
            None => (Vec::new(), Vec::new()),
        }
    }

    /// Returns why the order is refused in which this plan, whose steps do `own` to who can dial whom, and the plans that follow
    /// on the other members, would change the cluster.
    ///
    /// The plan begins once what it waits for has happened. What else is not known of another member is taken for the worst:
    /// that it has the round still to do.
    pub(crate) fn order(&self, plan: &Plan, own: Vec<Change>, members: &[Member]) -> Option<Refusal> {
        let Dialling::Changed { model, instead } = &self.dialling else { return None };
        let position = self.rounds.iter().position(|round| round.stage == plan.stage);
        // A restart behind all rounds, for the sake of old connections, is of none of them.
        let now = position.or_else(|| (plan.stage == Stage::Done).then_some(self.rounds.len()))?;
        let me = members.iter().position(|m| m.this)?;
        let is_behind = |m: &Member, at: usize, round: &Round<'_>| {
            let waited_for = || plan.waits_for.iter().any(|waiting| waiting.member == called(m));
            (round.done)(m) == Some(true) || position.is_some() && at < now && (m.this || waited_for())
        };
        let behind: Vec<Vec<bool>> = members
            .iter()
            .map(|m| self.rounds.iter().enumerate().map(|(at, round)| is_behind(m, at, round)).collect())
            .collect();
        let cluster: Vec<order::Member> =
            members.iter().zip(&behind).map(|(m, behind)| model(m, behind)).collect();
        let mut turns = vec![Turn { member: me, changes: own }];
        for (at, round) in self.rounds.iter().enumerate() {
            let lacks = |index: &usize| {
                let done = behind.get(*index).and_then(|behind| behind.get(at)).copied().unwrap_or_default();
                !(done || *index == me && at <= now)
            };
            let others = (0..members.len()).filter(lacks);
            turns.extend(others.map(|member| Turn { member, changes: round.effect.clone() }));
        }
        check(&cluster, &turns, members, instead)
    }
}

/// Returns why an order must not be carried out. Whether a cluster of two may stop while one restarts is asked elsewhere.
pub(crate) fn check(
    cluster: &[order::Member],
    turns: &[Turn],
    members: &[Member],
    instead: &str,
) -> Option<Refusal> {
    let check = if members.len() <= 2 { order::check_links } else { order::check };
    let refusal = check(cluster, turns).err()?;
    let whose = turns.get(refusal.turn).and_then(|t| members.get(t.member)).map_or("?", called);
    let when = if refusal.turn == 0 { "in this plan" } else { "after it" };
    Some(refuse(
        RefusalKind::Order,
        format!("the order would part members, at the turn of {whose} ({when})"),
        refusal.reason,
        instead,
    ))
}
