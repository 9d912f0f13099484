//! Everything that a TLS listener accepts, found by asking until it refuses.

use std::io::{self, Read, Write};

use seaworthy_evidence::Protocol;

use crate::connection::{Connector, is_hang_up};
use crate::flight::{Flight, parse_server_flight};
use crate::hello::{ClientHello, number};
use crate::registry;
use crate::tls::random;

/// What a listener accepts of one protocol version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Whether it accepts the version; `None` when it did not answer.
    pub(crate) version: Option<bool>,
    /// Suites in the order of its preference.
    pub(crate) suites: Vec<u16>,
    /// Groups in the order of its preference.
    pub(crate) groups: Vec<u16>,
    /// Whether a question was left without an answer, so that it may accept more.
    pub(crate) unanswered: bool,
}

/// Returns what the listener accepts with `version`; its groups only if they are `wanted`.
pub(crate) fn accepted(connector: &Connector<'_>, version: Protocol, wanted: bool) -> Accepted {
    let (suites, ephemeral, groups) = match version {
        Protocol::Tls13 => (registry::SUITES_13.to_vec(), registry::SUITES_13.to_vec(), registry::groups()),
        _ => (registry::suites_12(), registry::suites_ecdhe(), registry::CURVES.to_vec()),
    };
    let ask = |suites: &[u16], groups: &[u16]| exchange(connector, version, suites, groups);
    until_refused(suites, &ephemeral, groups, wanted, ask)
}

/// A server sends its certificates, a key exchange and no more in answer to a ClientHello.
const MAX_FLIGHT: usize = 64 << 10;

/// A suite, and the group to go with it.
type Choice = (u16, Option<u16>);

/// Offers everything, takes away what was chosen, and so on until nothing is chosen any more. While `wanted` groups
/// last, one question finds a suite and a group: each costs the server a signature. `ephemeral` are the suites that have
/// a group.
fn until_refused(
    mut suites: Vec<u16>,
    ephemeral: &[u16],
    mut groups: Vec<u16>,
    wanted: bool,
    ask: impl Fn(&[u16], &[u16]) -> io::Result<Option<Choice>>,
) -> Accepted {
    let mut found = Accepted::default();
    let every_group = groups.clone();
    let mut both = wanted;
    found.version = loop {
        let answer = ask(&suites, if both { &groups } else { &every_group });
        found.unanswered |= answer.is_err();
        match answer {
            Ok(Some((suite, group))) if take(&mut suites, &mut found.suites, Some(suite)) => {
                take(&mut groups, &mut found.groups, group.filter(|_| both));
            }
            // Either the suites or the groups that are left are unacceptable.
            _ if both && !found.suites.is_empty() => both = false,
            Err(_) if found.suites.is_empty() => break None,
            _ => break Some(!found.suites.is_empty()),
        }
        if suites.is_empty() {
            break Some(true);
        }
        both &= !groups.is_empty();
    };
    while wanted && found.version == Some(true) && !groups.is_empty() {
        let answer = ask(ephemeral, &groups);
        found.unanswered |= answer.is_err();
        let group = answer.ok().flatten().and_then(|(_, group)| group);
        if !take(&mut groups, &mut found.groups, group) {
            break;
        }
    }
    found
}

/// Moves `choice` from what is `offered` to what was `found`; returns whether it was there, so that a server that
/// chooses what it was not offered is not asked forever.
fn take(offered: &mut Vec<u16>, found: &mut Vec<u16>, choice: Option<u16>) -> bool {
    let place = choice.and_then(|choice| offered.iter().position(|o| *o == choice));
    found.extend(place.map(|place| offered.remove(place)));
    place.is_some()
}

/// Returns what the listener chooses, or `None` if it refuses or chooses another version. A connection that it only
/// closes is a refusal, but only the second time.
fn exchange(
    connector: &Connector<'_>,
    version: Protocol,
    suites: &[u16],
    groups: &[u16],
) -> io::Result<Option<Choice>> {
    let server_name = connector.target.sni();
    let hello = ClientHello { version, suites, groups, server_name, random: random() }.encode();
    let mut flight = answer(connector, &hello)?;
    if flight == Flight::default() {
        flight = answer(connector, &hello)?;
    }
    let hello = flight.hello.filter(|hello| hello.version == number(version));
    Ok(hello.map(|hello| (hello.suite, hello.group.or(flight.curve))))
}

/// Returns the answer to the ClientHello in `hello`; empty if the connection was closed.
fn answer(connector: &Connector<'_>, hello: &[u8]) -> io::Result<Flight> {
    let mut connection = connector.connect(MAX_FLIGHT)?;
    connection.write_all(hello)?;
    let mut received = Vec::new();
    let mut chunk = [0; 4 << 10];
    // The whole flight is read, although its first message decides: closing with unread bytes would be a reset.
    loop {
        let n = match connection.read(&mut chunk) {
            Err(e) if is_hang_up(&e) => 0,
            result => result?,
        };
        received.extend(chunk.iter().take(n));
        let flight = parse_server_flight(&received).map_err(io::Error::other)?;
        if n == 0 || flight.complete {
            return Ok(flight);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What a server accepts, in its order. Suites from 100 on have no group.
    fn run(suites: &[u16], groups: &[u16], wanted: bool) -> (Accepted, u32) {
        let questions = Cell::new(0);
        let found = until_refused(vec![1, 2, 3, 100], &[1, 2, 3], vec![7, 8, 9], wanted, |s, g| {
            questions.set(questions.get() + 1);
            let group = groups.iter().find(|group| g.contains(group));
            let suite = suites.iter().find(|id| s.contains(id) && (**id >= 100 || group.is_some()));
            Ok(suite.map(|id| (*id, group.copied().filter(|_| *id < 100))))
        });
        (found, questions.get())
    }

    #[test]
    fn choices_are_collected_in_the_servers_order() {
        let cases: [(&[u16], &[u16], u32); 6] = [
            (&[3, 1], &[8], 5),
            (&[3, 1, 2, 100], &[9, 8, 7], 4),
            (&[100, 2], &[8, 9], 6),
            (&[1], &[9, 8, 7], 5),
            (&[100], &[], 4),
            (&[], &[7], 1),
        ];
        for (suites, groups, questions) in cases {
            let case = format!("{suites:?} {groups:?}");
            let version = Some(!suites.is_empty());
            let groups = if suites.iter().any(|id| *id < 100) { groups } else { &[] };
            let want =
                Accepted { version, suites: suites.to_vec(), groups: groups.to_vec(), unanswered: false };
            assert_eq!(run(suites, groups, true), (want.clone(), questions), "{case}");
            let (found, _) = run(suites, &[7, 8, 9], false);
            assert_eq!(found, Accepted { groups: Vec::new(), ..want }, "{case}");
        }
    }

    #[test]
    fn liars_and_mutes_are_not_asked_forever() {
        let run = |answer: fn() -> io::Result<Option<Choice>>| {
            until_refused(vec![1, 2], &[1], vec![7], true, |_, _| answer())
        };
        let refused = Accepted { version: Some(false), ..Accepted::default() };
        assert_eq!(run(|| Ok(Some((99, Some(7))))), refused);
        assert_eq!(
            run(|| Err(io::ErrorKind::TimedOut.into())),
            Accepted { unanswered: true, ..Accepted::default() }
        );
    }
}
