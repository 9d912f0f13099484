//! Orders: whether a sequence of changes keeps every two members able to dial each other.
//!
//! Raft needs one working direction between two members, and a member that (re)starts dials anew: `member update` takes
//! effect at once for new dials, TLS to a plaintext listener fails, and so does the reverse. So the one invariant is that
//! no two members are ever *mutually undialable*. Health endpoints do not show it: with two of three members switched the
//! wrong way everything is green, and the third restart ends the cluster. The model below knows what decides a dial, and
//! [`check`] replays an order in it, with the worst moment of every step.
//!
//! Established by experiment on etcd 3.4, 3.5 and 3.6: which orders work, and how the others end.

use std::collections::BTreeSet;

/// How a listener is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// Plaintext.
    Http,
    /// TLS.
    Https,
}

/// The authority that issued a certificate, by name.
pub type Authority = &'static str;

/// What decides whether a member can dial and be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, for messages.
    pub name: String,
    /// The scheme of its peer URL in the membership: how the others dial it.
    pub advertised: Scheme,
    /// What its peer listener speaks, until it restarts.
    pub listens: BTreeSet<Scheme>,
    /// The issuer of the certificate it presents, in both directions; `None` when none is configured.
    pub leaf: Option<Authority>,
    /// The authorities it believes, loaded when it started; empty when it has no CA of its own.
    pub trusts: BTreeSet<Authority>,
    /// Whether its listener demands a certificate of those authorities.
    pub demands: bool,
}

/// One change of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `member update` gives it another peer URL. Takes effect at once, without a restart.
    Advertise(Scheme),
    /// Its certificate files are replaced. Takes effect at the next handshake, without a restart.
    Present(Authority),
    /// It restarts with another configuration; what is `None` stays.
    Restart {
        /// What its listener speaks.
        listens: Option<BTreeSet<Scheme>>,
        /// The issuer of its certificate.
        leaf: Option<Authority>,
        /// The authorities it believes.
        trusts: Option<BTreeSet<Authority>>,
        /// Whether it demands certificates.
        demands: Option<bool>,
    },
    /// It restarts without a certificate and without a CA.
    Unload,
}

/// All changes of one member before the next member's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Index of the member.
    pub member: usize,
    /// Its changes, in order.
    pub changes: Vec<Change>,
}

/// Why an order is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Index of the turn in which it would go wrong.
    pub turn: usize,
    /// Index of the change in that turn.
    pub change: usize,
    /// What would go wrong, in one sentence.
    pub reason: String,
}

/// Returns why the order `turns` must not be carried out on `cluster`, or nothing.
///
/// At every instant, also while the member whose turn it is restarts, each two members that run must be able to dial at
/// least one way, and the members that run must be a quorum that can. After each turn every two members must be able to
/// dial *both* ways: a cluster that waits half-open for its next turn cannot send a snapshot to the member that cannot be
/// dialled, and loses it at the next crash.
pub fn check(cluster: &[Member], turns: &[Turn]) -> Result<(), Refusal> {
    replay(cluster, turns, true)
}

/// Returns the same for a cluster that may stop while a member restarts: only whether members can dial each other counts.
pub fn check_links(cluster: &[Member], turns: &[Turn]) -> Result<(), Refusal> {
    replay(cluster, turns, false)
}

/// Returns which two members, by their indexes, cannot dial each other both ways.
pub fn half_open(cluster: &[Member]) -> Vec<(usize, usize)> {
    let indexes = (0..cluster.len()).flat_map(|i| (i + 1..cluster.len()).map(move |j| (i, j)));
    let whole = |i: usize, j: usize| {
        let (Some(one), Some(other)) = (cluster.get(i), cluster.get(j)) else { return true };
        one.dials(other) && other.dials(one)
    };
    indexes.filter(|(i, j)| !whole(*i, *j)).collect()
}

/// Returns the cluster after these changes of one member.
pub fn after(cluster: &[Member], member: usize, changes: &[Change]) -> Vec<Member> {
    let mut members = cluster.to_vec();
    if let Some(changing) = members.get_mut(member) {
        changes.iter().for_each(|change| changing.apply(change));
    }
    members
}

fn replay(cluster: &[Member], turns: &[Turn], quorum: bool) -> Result<(), Refusal> {
    let mut members = cluster.to_vec();
    for (turn, Turn { member, changes }) in turns.iter().enumerate() {
        for (change, wanted) in changes.iter().enumerate() {
            let refuse = |reason: String| Err(Refusal { turn, change, reason });
            if quorum
                && matches!(wanted, Change::Restart { .. } | Change::Unload)
                && let Some(reason) = without(&members, *member)
            {
                return refuse(reason);
            }
            let Some(changing) = members.get_mut(*member) else {
                return refuse("the order names a member that the cluster does not have".to_owned());
            };
            changing.apply(wanted);
            if let Some((a, b)) = pairs(&members).find(|(a, b)| !a.dials(b) && !b.dials(a)) {
                return refuse(format!(
                    "{} and {} could not dial each other any more ({}; {}): one restart or broken connection \
                     would part them",
                    a.name,
                    b.name,
                    a.why_not(b),
                    b.why_not(a)
                ));
            }
        }
        let half_open = |(a, b): &(&Member, &Member)| !(a.dials(b) && b.dials(a));
        if let Some((a, b)) = pairs(&members).find(half_open) {
            let (from, to) = if a.dials(b) { (b, a) } else { (a, b) };
            let reason = format!(
                "{} could not dial {} after this turn ({}): health would stay green, but no snapshot could reach \
                 {} from there, and its next restart could isolate it",
                from.name,
                to.name,
                from.why_not(to),
                to.name
            );
            return Err(Refusal { turn, change: changes.len().saturating_sub(1), reason });
        }
    }
    Ok(())
}

/// Returns why member `gone` of `members` may not restart now; `None` when the others remain a quorum.
fn without(members: &[Member], gone: usize) -> Option<String> {
    let quorum = members.len() / 2 + 1;
    let rest = members.len().saturating_sub(1);
    (members.len() > 1 && rest < quorum)
        .then(|| {
            format!(
                "{rest} of {} members are no quorum while one restarts: the cluster would stop",
                members.len()
            )
        })
        .filter(|_| gone < members.len())
}

fn pairs(members: &[Member]) -> impl Iterator<Item = (&Member, &Member)> {
    members.iter().enumerate().flat_map(|(i, a)| members.iter().skip(i + 1).map(move |b| (a, b)))
}

impl Member {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Advertise(scheme) => self.advertised = *scheme,
            Change::Present(authority) => self.leaf = Some(authority),
            Change::Unload => {
                self.leaf = None;
                self.trusts.clear();
                self.demands = false;
            }
            Change::Restart { listens, leaf, trusts, demands } => {
                self.listens = listens.clone().unwrap_or_else(|| self.listens.clone());
                self.leaf = leaf.or(self.leaf);
                self.trusts = trusts.clone().unwrap_or_else(|| self.trusts.clone());
                self.demands = demands.unwrap_or(self.demands);
            }
        }
    }

    fn dials(&self, other: &Self) -> bool {
        self.obstacle(other).is_none()
    }

    fn why_not(&self, other: &Self) -> String {
        self.obstacle(other).unwrap_or_else(|| format!("{} can dial {}", self.name, other.name))
    }

    /// Returns what keeps a new connection from this member to `other` from being made.
    fn obstacle(&self, other: &Self) -> Option<String> {
        let (me, it) = (&self.name, &other.name);
        if !other.listens.contains(&other.advertised) {
            return Some(match other.advertised {
                Scheme::Http => {
                    format!("{me} is told to dial {it} in plaintext, but {it} listens for TLS only")
                }
                Scheme::Https => {
                    format!("{me} is told to dial {it} with TLS, but {it} listens in plaintext only")
                }
            });
        }
        if other.advertised == Scheme::Http {
            return None;
        }
        match other.leaf {
            None => return Some(format!("{it} has no certificate")),
            Some(issuer) if !self.trusts.contains(issuer) => {
                return Some(format!("{me} does not trust {issuer}, which issued {it}'s certificate"));
            }
            Some(_) => {}
        }
        match self.leaf {
            _ if !other.demands => None,
            None => Some(format!("{it} demands a certificate, and {me} has none")),
            Some(issuer) if !other.trusts.contains(issuer) => {
                Some(format!("{it} does not trust {issuer}, which issued {me}'s certificate"))
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: Authority = "the peer CA";
    const NEW: Authority = "the new CA";

    fn plaintext(count: usize) -> Vec<Member> {
        let member = |index| Member {
            name: format!("m{}", index + 1),
            advertised: Scheme::Http,
            listens: BTreeSet::from([Scheme::Http]),
            leaf: None,
            trusts: BTreeSet::new(),
            demands: false,
        };
        (0..count).map(member).collect()
    }

    fn encrypted(count: usize) -> Vec<Member> {
        let mut members = plaintext(count);
        for member in &mut members {
            member.advertised = Scheme::Https;
            member.listens = BTreeSet::from([Scheme::Https]);
            member.leaf = Some(CA);
            member.trusts = BTreeSet::from([CA]);
            member.demands = true;
        }
        members
    }

    fn listen(schemes: &[Scheme]) -> Change {
        let listens = Some(schemes.iter().copied().collect());
        Change::Restart { listens, leaf: None, trusts: None, demands: None }
    }

    fn preload() -> Change {
        Change::Restart {
            listens: None,
            leaf: Some(CA),
            trusts: Some(BTreeSet::from([CA])),
            demands: Some(true),
        }
    }

    fn trust(authorities: &[Authority]) -> Change {
        let trusts = Some(authorities.iter().copied().collect());
        Change::Restart { listens: None, leaf: None, trusts, demands: None }
    }

    fn everybody(count: usize, changes: &[Change]) -> Vec<Turn> {
        (0..count).map(|member| Turn { member, changes: changes.to_vec() }).collect()
    }

    fn together(parts: &[Vec<Turn>]) -> Vec<Turn> {
        parts.concat()
    }

    const HTTPS: Scheme = Scheme::Https;
    const HTTP: Scheme = Scheme::Http;

    #[test]
    fn material_everywhere_and_then_one_member_at_a_time_is_safe() {
        for count in [3, 5, 7] {
            let switch = [Change::Advertise(HTTPS), listen(&[HTTPS])];
            let order = together(&[everybody(count, &[preload()]), everybody(count, &switch)]);
            assert_eq!(check(&plaintext(count), &order), Ok(()));
        }
    }

    #[test]
    fn the_way_back_is_safe_as_well() {
        let back = [Change::Advertise(HTTP), listen(&[HTTP])];
        assert_eq!(check(&encrypted(3), &everybody(3, &back)), Ok(()));
    }

    #[test]
    fn listening_both_ways_for_a_while_is_safe() {
        let both = Change::Restart {
            listens: Some(BTreeSet::from([HTTP, HTTPS])),
            leaf: Some(CA),
            trusts: Some(BTreeSet::from([CA])),
            demands: Some(true),
        };
        let order = together(&[
            everybody(3, &[both]),
            everybody(3, &[Change::Advertise(HTTPS)]),
            everybody(3, &[listen(&[HTTPS])]),
        ]);
        assert_eq!(check(&plaintext(3), &order), Ok(()));
    }

    #[test]
    fn a_ca_is_exchanged_in_three_rounds() {
        let order = together(&[
            everybody(3, &[trust(&[CA, NEW])]),
            everybody(3, &[Change::Present(NEW)]),
            everybody(3, &[trust(&[NEW])]),
        ]);
        assert_eq!(check(&encrypted(3), &order), Ok(()));
    }

    /// Each of these was tried on real clusters, and ended as the comment says.
    #[test]
    fn the_wrong_orders_are_refused() {
        let exchange = Change::Restart {
            listens: None,
            leaf: Some(NEW),
            trusts: Some(BTreeSet::from([NEW])),
            demands: None,
        };
        let at_once = Change::Restart {
            listens: Some(BTreeSet::from([HTTPS])),
            leaf: Some(CA),
            trusts: Some(BTreeSet::from([CA])),
            demands: Some(true),
        };
        let preloaded = everybody(3, &[preload()]);
        let cases = [
            // Green after two members, quorum lost at the third.
            (
                "listeners without membership",
                together(&[preloaded.clone(), everybody(3, &[listen(&[HTTPS])])]),
                "could not dial",
            ),
            // One crash before the last restart, and a member cannot come back; two, and the quorum is lost.
            (
                "membership of all first",
                together(&[
                    preloaded,
                    everybody(3, &[Change::Advertise(HTTPS)]),
                    everybody(3, &[listen(&[HTTPS])]),
                ]),
                "listens in plaintext only",
            ),
            // Half-open until the end, and three seconds without writes.
            ("no material in advance", everybody(3, &[Change::Advertise(HTTPS), at_once]), "does not trust"),
        ];
        for (name, order, reason) in cases {
            let refusal = check(&plaintext(3), &order).expect_err(name);
            assert!(refusal.reason.contains(reason), "{name}: {}", refusal.reason);
        }
        // The first member is isolated at once.
        let refusal = check(&encrypted(3), &everybody(3, &[exchange])).expect_err("leaf and CA together");
        assert!(refusal.reason.contains("does not trust the peer CA"), "{}", refusal.reason);
        assert_eq!(refusal.turn, 0);
    }

    #[test]
    fn two_members_cannot_spare_one() {
        let refusal = check(&plaintext(2), &everybody(2, &[preload()])).expect_err("no quorum");
        assert!(refusal.reason.contains("no quorum"), "{}", refusal.reason);
    }

    #[test]
    fn one_member_may_restart() {
        assert_eq!(check(&plaintext(1), &everybody(1, &[preload()])), Ok(()));
    }
}
