//! A new certificate of the same authority, in the place of one that has expired, soon will, or does not fit its use.
//!
//! etcd reads certificate and key at each handshake, in both directions, so nothing restarts: a handshake between the two
//! renames fails, and is tried again. Connections that are open stay as they are. That makes renewing safe where nothing
//! else is: a member whose certificate has expired must not restart before it has a new one, and its links may be half-open
//! because of the very certificate that is replaced. So nothing is demanded of the cluster before, and of what did not hold
//! before nothing is demanded afterwards: where the certificates of all members have expired, the first new one mends no
//! link.

use std::collections::BTreeSet;
use std::net::IpAddr;

use seaworthy_evidence::{
    Certificate, Direction, KeyMaterial, Observed, Origin, PkiFile, Problem, ProblemKind, Transport, Url,
};
use seaworthy_pki::{Parsed, certificates_from_pem};

use super::attributes::on_host;
use crate::issue::{Host, Purpose};
use crate::plan::{Action, Condition, Plan, Refusal, RefusalKind, Stage, Step};
use crate::planner::{AuthorityFiles, Input, given, missing, refuse};

/// The rule about dates, for peers and for clients.
pub(crate) const EXPIRY: &str = "certificate-expiry";
/// The rule about all else that a certificate for peers must be.
pub(crate) const PEER: &str = "etcd-peer-certificate";
/// Days that a certificate must still be valid to pass.
const EXPIRING_DAYS: i64 = 30;

/// Returns what gives the member new certificates where `rule` objects to the ones it has.
pub(crate) fn plan(rule: &str, s: &Input<'_>) -> Result<Plan, Refusal> {
    let (etcd, own) = (s.subject, &s.subject.own);
    let side = |material, transport, [certificate, key]: [&'static str; 2], peer| Side {
        material,
        transport,
        certificate,
        key,
        peer,
    };
    let peer = side(&etcd.peer, &own.peer, ["peer-cert-file", "peer-key-file"], true);
    let client = side(&etcd.client, &own.client, ["cert-file", "key-file"], false);
    let sides = if rule == EXPIRY { vec![peer, client] } else { vec![peer] };
    let mut renewals: Vec<Renewal> = Vec::new();
    for side in sides {
        let Some(one) = side.renewal(rule, s)? else { continue };
        // One pair of files may serve both.
        match renewals.iter_mut().find(|other| other.certificate == one.certificate) {
            Some(other) => {
                other.hosts.extend(one.hosts);
                other.verify.extend(one.verify);
            }
            None => renewals.push(one),
        }
    }
    let mut steps: Vec<Step> = Vec::new();
    for renewal in renewals {
        steps.push(renewal.step(s)?);
    }
    let mut by_hand = Vec::new();
    if let Some(last) = steps.last_mut() {
        last.verify.extend(whole(s));
        last.verify.push(Condition::RulePasses { rule: rule.to_owned() });
        by_hand.push(
            "Certificates that clients show to etcd (on kubeadm nodes apiserver-etcd-client and healthcheck-client) are \
             renewed where they are used. The API server has to be restarted to use a new one."
                .to_owned(),
        );
    }
    let stage = if steps.is_empty() { Stage::Done } else { Stage::Change };
    Ok(crate::planner::alone(rule, s, stage, steps, by_hand))
}

/// Returns what holds of the cluster now, and must hold afterwards.
fn whole(s: &Input<'_>) -> Vec<Condition> {
    let full = s.subject.own.links.value().is_some_and(|links| {
        links
            .iter()
            .all(|l| !l.down && !l.half_open && l.inbound.value().is_some() && l.outbound.value().is_some())
    });
    let members = s.subject.own.cluster.value().map(|c| c.members.as_slice()).unwrap_or_default();
    let well = s.health.is_ok_and(|health| {
        members.iter().all(|m| health.members.get(&m.id).is_some_and(|m| m.trouble.is_none()))
    });
    let links = (full && members.len() > 1).then_some(Condition::LinksFull);
    links.into_iter().chain(well.then_some(Condition::ClusterHealthy)).collect()
}

/// One side of etcd's transport, with the settings that name its files.
struct Side<'a> {
    material: &'a KeyMaterial,
    transport: &'a Transport,
    certificate: &'static str,
    key: &'static str,
    peer: bool,
}

/// A certificate to be replaced.
struct Renewal {
    /// The files on the host.
    certificate: String,
    key: String,
    common_name: String,
    hosts: BTreeSet<Host>,
    purpose: Purpose,
    owner: (u32, u32),
    /// Fingerprint of the present certificate, and the public key of the present private key.
    present: (String, Option<String>),
    why: String,
    verify: Vec<Condition>,
}

impl Side<'_> {
    /// Returns the new certificate that this side needs, if it does.
    fn renewal(&self, rule: &str, s: &Input<'_>) -> Result<Option<Renewal>, Refusal> {
        let problems = self.material.problems.as_result().map_err(missing)?;
        let counts = |p: &&Problem| match rule {
            EXPIRY => matches!(p.kind, ProblemKind::Expired | ProblemKind::Expiring),
            _ => p.kind != ProblemKind::Expiring,
        };
        let problems: Vec<&Problem> = problems.iter().filter(counts).collect();
        let Some(first) = problems.first() else { return Ok(None) };
        let settings = s.subject.settings.as_result().map_err(missing)?;
        let path = |name: &str| given(settings, name).ok_or_else(|| missing(format!("which file {name} is")));
        let (certificate, key) = (path(self.certificate)?, path(self.key)?);
        if let Some(other) = problems.iter().find(|p| !cured(p, certificate, key)) {
            return Err(refuse(
                RefusalKind::Certificate,
                other.message.clone(),
                "a new certificate of the same authority would not change that",
                "put right what is wrong with that file first; an authority is exchanged by the fix of etcd-unique-ca",
            ));
        }
        let credentials = self.material.files.as_result().map_err(missing)?;
        let chain = credentials.chain.as_ref().map(Observed::as_result).transpose().map_err(missing)?;
        let chain = chain.map(Vec::as_slice).unwrap_or_default();
        let unsupported = |what: String, why: &str| {
            let instead = "renew it with what it was issued with: etcd uses the new files without a restart";
            Err(refuse(RefusalKind::Unsupported, what, why, instead))
        };
        let [present] = chain else {
            return unsupported(
                format!("{certificate} holds {} certificates", chain.len()),
                "the other side of a connection may need all of them, and only the first would be replaced",
            );
        };
        if certificate == key {
            return unsupported(
                format!("certificate and key are both in {certificate}"),
                "they are replaced one after the other",
            );
        }
        self.signed_by(s, present)?;
        let mut hosts = BTreeSet::new();
        for san in present.sans.dns.iter().chain(&present.sans.ip) {
            match Host::parse(san) {
                Ok(host) => _ = hosts.insert(host),
                Err(error) => {
                    return unsupported(
                        format!("{certificate} cannot be issued again as it is: {error}"),
                        "somebody may dial it by that name",
                    );
                }
            }
        }
        hosts.extend(self.needed(s)?);
        let both = present.usages.as_ref().is_none_or(|usages| usages.iter().any(|u| u != "serverAuth"));
        let files = s.subject.files.pki.as_result().map_err(missing)?;
        let on_host = |path: &str| {
            let found: Option<&PkiFile> = files.iter().find(|f| f.file.path == path);
            let file = &found.ok_or_else(|| missing(format!("owner and mode of {path}")))?.file;
            Ok((on_host(file, s)?, (file.uid, file.gid)))
        };
        let (certificate, _) = on_host(certificate)?;
        let (key, owner) = on_host(key)?;
        let tls = s.subject.listening(self.peer).any(|l| l.url.is_tls());
        let serves = match self.peer {
            true => Condition::Serves { certificate: certificate.clone() },
            false => Condition::ServesClients { certificate: certificate.clone() },
        };
        let held = credentials.key.as_ref().and_then(Observed::value);
        Ok(Some(Renewal {
            common_name: present.common_name.clone().or(s.subject.own.name.clone()).unwrap_or_default(),
            hosts,
            purpose: if self.peer || both { Purpose::Peer } else { Purpose::Server },
            owner,
            present: (present.fingerprint.clone(), held.map(|held| held.key.spki.clone())),
            why: first.message.clone(),
            verify: tls.then_some(serves).into_iter().collect(),
            certificate,
            key,
        }))
    }

    /// Refuses an authority that is not the one of the present certificate, or that others would not trust.
    fn signed_by(&self, s: &Input<'_>, present: &Certificate) -> Result<(), Refusal> {
        let refused = |what: String| {
            Err(refuse(
                RefusalKind::Authority,
                what,
                "the other side of a connection accepts only certificates of an authority that it trusts already",
                "name with --ca-cert and --ca-key the authority that issued the present certificate, on the node that \
                 has its key",
            ))
        };
        let Some((files, authorities)) = authority(s)? else {
            return refused("there is no certificate authority with its key on this node".to_owned());
        };
        let Some(issuer) = authorities.iter().find(|a| a.certificate.subject == present.issuer) else {
            return refused(format!(
                "{} is not the authority of the present certificate, {}",
                files.certificate, present.issuer
            ));
        };
        let issuer = &issuer.certificate;
        let credentials = self.material.files.as_result().map_err(missing)?;
        let trusted = credentials.trusted.as_ref().map(Observed::as_result).transpose().map_err(missing)?;
        let mut trusted = trusted.into_iter().flatten();
        if !trusted.any(|ca| ca.key.spki == issuer.key.spki) {
            return refused(format!("{} is not among the authorities that etcd trusts", files.certificate));
        }
        // The file may be newer than the process, which reads authorities only when it starts.
        let wires = s.subject.listening(self.peer).filter_map(|l| l.wire.as_ref());
        let named = wires.filter_map(|wire| wire.value()?.acceptable_cas.as_ref());
        if self.peer && named.into_iter().any(|named| !named.contains(&issuer.subject)) {
            return refused(format!("the running etcd has not loaded {} yet", issuer.subject));
        }
        if issuer.days_left <= EXPIRING_DAYS {
            return Err(refuse(
                RefusalKind::Certificate,
                format!("{} itself ends in {} days", files.certificate, issuer.days_left),
                "no certificate outlives its authority",
                "exchange the authority first (the fix of etcd-unique-ca)",
            ));
        }
        Ok(())
    }

    /// Returns the hosts that others dial, and for members also the addresses from which they see it come.
    fn needed(&self, s: &Input<'_>) -> Result<Vec<Host>, Refusal> {
        let advertised = self.transport.advertised.as_result().map_err(missing)?;
        let dialled =
            advertised.iter().map(|a| &a.url).filter(|url| url.is_tls()).map(|url: &Url| url.host.clone());
        let connections = s.subject.own.connections.value().into_iter().flatten();
        let from = connections.filter(|c| self.peer && c.direction == Direction::Outbound).filter_map(|c| {
            let host = c.local.rsplit_once(':')?.0.trim_matches(['[', ']']);
            Some(host.parse::<IpAddr>().ok()?.to_canonical().to_string())
        });
        let hosts: BTreeSet<String> = dialled.chain(from).collect();
        let cannot = |error: crate::issue::IssueError| {
            refuse(
                RefusalKind::Certificate,
                error.to_string(),
                "it would be refused at the address at which it is dialled",
                "let it be dialled by a name or an address",
            )
        };
        hosts.iter().map(|host| Host::parse(host).map_err(cannot)).collect()
    }
}

impl Renewal {
    fn step(self, s: &Input<'_>) -> Result<Step, Refusal> {
        let files = s.options.authority.as_ref().ok_or_else(|| missing("the authority"))?;
        let (certificate, key) = (self.certificate, self.key);
        let (fingerprint, spki) = self.present;
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        let mut verify = vec![Condition::CertificateSound {
            certificate: certificate.clone(),
            key: key.clone(),
            ca_certificate: files.certificate.clone(),
            hosts: hosts.clone(),
            purpose: self.purpose,
        }];
        verify.extend(self.verify);
        Ok(Step {
            title: format!("Replace {certificate} and its key"),
            why: format!("{}. etcd reads both files at each handshake, so nothing restarts.", self.why),
            action: Action::Issue {
                common_name: self.common_name,
                hosts,
                purpose: self.purpose,
                days: s.options.days,
                certificate: certificate.clone(),
                key: key.clone(),
                ca_certificate: files.certificate.clone(),
                ca_key: files.key.clone(),
                uid: self.owner.0,
                gid: self.owner.1,
                replaces: true,
            },
            diff: None,
            preconditions: vec![Condition::Holds {
                certificate: certificate.clone(),
                fingerprint,
                key: key.clone(),
                spki,
            }],
            verify,
            restarts: false,
        })
    }
}

/// Returns the authority that the operator names, with its certificates.
fn authority<'a>(s: &Input<'a>) -> Result<Option<(&'a AuthorityFiles, Vec<Parsed>)>, Refusal> {
    let Some(files) = &s.options.authority else { return Ok(None) };
    let Some(pem) = &files.pem else { return Ok(None) };
    let origin = Origin::file(&files.certificate);
    Ok(Some((files, certificates_from_pem(pem, origin, s.taken_at).map_err(missing)?)))
}

/// Returns whether a new key and certificate in the same files end the problem.
fn cured(problem: &Problem, certificate: &str, key: &str) -> bool {
    let kind = matches!(
        problem.kind,
        ProblemKind::Expired
            | ProblemKind::Expiring
            | ProblemKind::KeyMismatch
            | ProblemKind::NoClientAuth
            | ProblemKind::NoSan
            | ProblemKind::NoServerAuth
            | ProblemKind::NotYetValid
            | ProblemKind::Revoked
            | ProblemKind::WeakKey
            | ProblemKind::WeakSignature
            | ProblemKind::WrongSan
    );
    kind && (problem.path == certificate || problem.path == key)
}

#[cfg(test)]
pub(crate) mod tests {
    use seaworthy_evidence::{Credentials, ErrorKind, EvidenceError, Link};

    use super::*;
    use crate::fixture::World;
    use crate::planner::POD_DIRECTORY;
    use crate::preflight::preflight;

    fn value<T>(observed: &mut Observed<T>) -> &mut T {
        match observed {
            Observed::Seen { value, .. } => value,
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    fn credentials(material: &mut KeyMaterial) -> &mut Credentials {
        value(&mut material.files)
    }

    fn leaf(material: &mut KeyMaterial) -> &mut Certificate {
        &mut value(credentials(material).chain.as_mut().unwrap())[0]
    }

    fn object(material: &mut KeyMaterial, kind: ProblemKind, name: &str) {
        let path = format!("{POD_DIRECTORY}/{name}");
        let message = format!("{path} is {kind:?}");
        let problem = Problem { kind, breaks: true, path, message, origin: Origin::derived("the fixture") };
        value(&mut material.problems).push(problem);
    }

    /// Returns a cluster with TLS everywhere, whose members trust the options' authority.
    fn world() -> World {
        let mut world = World::encrypted();
        let files = world.options.authority.clone().unwrap();
        let origin = Origin::file(&files.certificate);
        let ca = certificates_from_pem(&files.pem.unwrap(), origin.clone(), world.taken_at).unwrap();
        let ca = ca[0].certificate.clone();
        for listener in value(&mut world.subject.listeners) {
            listener.url = Url::parse(&listener.url.text.replace("http://", "https://")).unwrap();
        }
        for material in [&mut world.subject.peer, &mut world.subject.client] {
            leaf(material).issuer.clone_from(&ca.subject);
            credentials(material).trusted = Some(Observed::seen(vec![ca.clone()], origin.clone()));
        }
        for transport in [&mut world.subject.own.peer, &mut world.subject.own.client] {
            for advertised in value(&mut transport.advertised) {
                advertised.url = Url::parse(&advertised.url.text.replace("http://", "https://")).unwrap();
            }
        }
        world
    }

    fn planned(rule: &str, world: &World) -> Plan {
        world.planned(rule).unwrap()
    }

    #[test]
    fn what_is_sound_is_left_alone() {
        for rule in [EXPIRY, PEER] {
            assert_eq!(planned(rule, &world()).stage, Stage::Done);
        }
        let mut world = world();
        object(&mut world.subject.peer, ProblemKind::Expiring, "peer.crt");
        object(&mut world.subject.client, ProblemKind::WeakKey, "server.crt");
        assert_eq!(planned(PEER, &world).stage, Stage::Done, "each rule has its own matters");
    }

    /// Returns a member whose certificates expire.
    pub(crate) fn expiring() -> World {
        let mut world = world();
        object(&mut world.subject.peer, ProblemKind::Expiring, "peer.crt");
        object(&mut world.subject.client, ProblemKind::Expired, "server.crt");
        leaf(&mut world.subject.client).usages = Some(vec!["serverAuth".to_owned()]);
        world
    }

    #[test]
    fn a_certificate_that_expires_is_replaced_in_its_place_without_a_restart() {
        let mut world = expiring();
        let plan = planned(EXPIRY, &world);
        assert_eq!((plan.stage, plan.restarts(), plan.disturbs()), (Stage::Change, 0, false));
        assert_eq!(preflight(&plan, &world.input()), []);
        let issued = |step: &Step| match &step.action {
            Action::Issue { hosts, purpose, certificate, key, replaces: true, common_name, .. } => {
                format!("{common_name} {} {purpose:?} {certificate} {key}", hosts.join(","))
            }
            other => panic!("{other:?}"),
        };
        let pki = POD_DIRECTORY;
        assert_eq!(
            plan.steps.iter().map(issued).collect::<Vec<_>>(),
            [
                format!("m1 10.77.0.1,127.0.0.1,::1,localhost,m1 Peer {pki}/peer.crt {pki}/peer.key"),
                format!("m1 10.77.0.1,127.0.0.1,::1,localhost,m1 Server {pki}/server.crt {pki}/server.key"),
            ]
        );
        let [peer, client] = &plan.steps[..] else { panic!("{plan:?}") };
        assert_eq!(peer.verify[1], Condition::Serves { certificate: format!("{pki}/peer.crt") });
        assert_eq!(client.verify[1], Condition::ServesClients { certificate: format!("{pki}/server.crt") });
        let last = [
            Condition::LinksFull,
            Condition::ClusterHealthy,
            Condition::RulePasses { rule: EXPIRY.to_owned() },
        ];
        assert_eq!(client.verify[2..], last);
        let fingerprint = leaf(&mut world.subject.peer).fingerprint.clone();
        let Condition::Holds { fingerprint: found, spki: Some(_), .. } = &peer.preconditions[0] else {
            panic!("{peer:?}")
        };
        assert_eq!(*found, fingerprint);
    }

    #[test]
    fn what_the_certificate_itself_breaks_is_no_obstacle() {
        let mut world = world();
        object(&mut world.subject.peer, ProblemKind::Expired, "peer.crt");
        world.health = Err("the certificate has expired".to_owned());
        let origin = Origin::derived("the fixture");
        let link = Link {
            member: "m2".into(),
            inbound: Observed::seen(0, origin.clone()),
            outbound: Observed::seen(3, origin.clone()),
            half_open: true,
            down: false,
            message: String::new(),
            origin: origin.clone(),
        };
        world.subject.own.links = Observed::seen(vec![link], origin);
        world.subject.own.cluster =
            Observed::failed(EvidenceError::new(ErrorKind::NotFound, "nobody answers"));
        let plan = planned(EXPIRY, &world);
        assert_eq!(preflight(&plan, &world.input()), []);
        // The certificates of the others may have expired as well.
        let verify = &plan.steps[0].verify;
        assert_eq!(
            (verify.len(), verify.last()),
            (3, Some(&Condition::RulePasses { rule: EXPIRY.to_owned() })),
            "{verify:?}"
        );
    }

    #[test]
    fn a_name_that_is_missing_is_added_to_those_that_are_there() {
        let mut world = world();
        object(&mut world.subject.peer, ProblemKind::WrongSan, "peer.crt");
        value(&mut world.subject.own.peer.advertised)[0].url = Url::parse("https://m1.example:2380").unwrap();
        let plan = planned(PEER, &world);
        let Action::Issue { hosts, .. } = &plan.steps[0].action else { panic!("{plan:?}") };
        for host in ["10.77.0.1", "m1.example", "localhost"] {
            assert!(hosts.contains(&host.to_owned()), "{hosts:?}");
        }
    }

    #[test]
    fn one_pair_for_peers_and_clients_is_replaced_once() {
        let mut world = world();
        for (name, file) in [("cert-file", "peer.crt"), ("key-file", "peer.key")] {
            world.settings().get_mut(name).unwrap().value = format!("{POD_DIRECTORY}/{file}");
        }
        object(&mut world.subject.peer, ProblemKind::Expired, "peer.crt");
        object(&mut world.subject.client, ProblemKind::Expired, "peer.crt");
        let plan = planned(EXPIRY, &world);
        assert_eq!(plan.steps.len(), 1);
        assert!(plan.steps[0].verify.iter().any(|v| matches!(v, Condition::ServesClients { .. })));
    }

    #[test]
    fn what_a_new_certificate_does_not_cure_is_refused_with_the_reason() {
        type Break = fn(&mut World);
        let cases: [(RefusalKind, &str, Break); 10] = [
            (RefusalKind::Certificate, "ca.crt is Expired", |w| {
                object(&mut w.subject.peer, ProblemKind::Expired, "ca.crt");
            }),
            (RefusalKind::Authority, "no certificate authority", |w| w.options.authority = None),
            (RefusalKind::Authority, "not the authority of the present", |w| {
                leaf(&mut w.subject.peer).issuer = "CN=other".to_owned();
            }),
            (RefusalKind::Authority, "not among the authorities", |w| {
                let trusted = credentials(&mut w.subject.peer).trusted.as_mut().unwrap();
                value(trusted)[0].key.spki = "00".to_owned();
            }),
            (RefusalKind::Authority, "not among the authorities", |w| {
                credentials(&mut w.subject.peer).trusted = None;
            }),
            (RefusalKind::Authority, "has not loaded", |w| {
                let listener = &mut value(&mut w.subject.listeners)[0];
                let Some(Observed::Seen { value, .. }) = &mut listener.wire else { panic!() };
                value.acceptable_cas = Some(vec!["CN=former".to_owned()]);
            }),
            (RefusalKind::Certificate, "itself ends in", |w| {
                w.taken_at += jiff::SignedDuration::from_hours(24 * 3_630);
            }),
            (RefusalKind::Unsupported, "holds 2 certificates", |w| {
                let chain = value(credentials(&mut w.subject.peer).chain.as_mut().unwrap());
                chain.push(chain[0].clone());
            }),
            (RefusalKind::Unsupported, "*.example", |w| {
                leaf(&mut w.subject.peer).sans.dns.push("*.example".to_owned());
            }),
            (RefusalKind::Evidence, "unreadable", |w| {
                w.subject.peer.problems =
                    Observed::failed(EvidenceError::new(ErrorKind::PermissionDenied, "unreadable"));
            }),
        ];
        for (kind, words, change) in cases {
            let mut world = world();
            object(&mut world.subject.peer, ProblemKind::Expired, "peer.crt");
            change(&mut world);
            let refusals = world.planned(EXPIRY).expect_err(words);
            assert!(refusals[0].kind == kind && refusals[0].what.contains(words), "{words}: {refusals:?}");
        }
    }
}
