//! Certificates of an authority whose key is on another node. No private key travels.
//!
//! The member makes its key and a signing request, and loads nothing yet. Somebody carries the request to a node with the
//! authority's key, where [`sign`] decides by the live membership what the certificate says, and carries the certificate
//! back. Once it is in its place, it is loaded like one that the operator supplies.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use seaworthy_evidence::{Direction, Member, MemberSource, Origin};
use seaworthy_pki::certificates_from_pem;

use crate::issue::{self, Host, KeyKind, Profile};
use crate::plan::{Action, Condition, Plan, Refusal, RefusalKind, Stage, Step, Until, Waiting};
use crate::planner::{AuthorityFiles, Input, Planner, View, called, material_directory, missing, refuse};

/// Name of the files, without their endings. It is kubeadm's for nothing.
const STEM: &str = "seaworthy-peer";

/// Where a member that asks for a certificate has its files, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFiles {
    /// The signing request.
    pub request: String,
    /// The private key.
    pub key: String,
    /// The certificate, once it came back.
    pub certificate: String,
}

/// A certificate for a signing request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Name of the member that it is for.
    pub member: String,
    /// Host names and addresses in it.
    pub hosts: Vec<String>,
    /// The certificate as PEM.
    pub pem: String,
}

/// Returns where this member has, or will have, the files by which it asks for a certificate, whatever is known of them in
/// the input.
///
/// # Errors
///
/// When it is not known what its container sees of the host.
pub fn request_files(s: &Input<'_>) -> Result<RequestFiles, Refusal> {
    let settings = s.subject.settings.as_result().map_err(missing)?;
    let directory = material_directory(settings, &View::of(s)?);
    let file = |end: &str| format!("{directory}/{STEM}.{end}");
    Ok(RequestFiles { request: file("csr"), key: file("key"), certificate: file("crt") })
}

/// Returns a certificate for the signing request of another member. What it says is what the live membership says of that
/// member, and the addresses from which it is seen to dial this one.
///
/// # Errors
///
/// When the request is by nobody in the membership, or asks for more than is known of that member.
pub fn sign(request: &[u8], authority: &issue::Authority, s: &Input<'_>) -> Result<Signed, Refusal> {
    let refused = |error: issue::IssueError| {
        refuse(
            RefusalKind::Certificate,
            error.to_string(),
            "with that certificate anybody can pass for that member",
            "plan on that node again, and take the request from there",
        )
    };
    let cluster = s.subject.own.cluster.as_result().map_err(missing)?;
    if cluster.source != MemberSource::Live {
        return Err(missing(format!("the live membership; it was {}", cluster.established)));
    }
    let name = issue::requester(request).map_err(refused)?;
    let members: Vec<&Member> = cluster.members.iter().filter(|m| called(m) == name).collect();
    let [member] = members.as_slice() else {
        let all: Vec<&str> = cluster.members.iter().map(called).collect();
        let error = format!("it is by {name:?}, and the members are {}", all.join(", "));
        return Err(refused(issue::IssueError::Request(error)));
    };
    let connections = s.subject.own.connections.value().into_iter().flatten();
    let from = connections
        .filter(|c| c.direction == Direction::Inbound && c.member.as_deref() == Some(called(member)))
        .filter_map(|c| c.remote.rsplit_once(':')?.0.trim_matches(['[', ']']).parse::<IpAddr>().ok())
        .map(|ip| Ok(Host::Address(ip.to_canonical())));
    let dialled = member.peer_urls.iter().map(|url| Host::parse(&url.host));
    let hosts = dialled.chain(from).collect::<Result<BTreeSet<Host>, _>>().map_err(refused)?;
    let mut profile = Profile::peer(&name, hosts);
    profile.lifetime = Duration::from_secs(u64::from(s.options.days) * 86_400);
    let issued = authority.sign(request, &profile, s.taken_at).map_err(refused)?;
    Ok(Signed { member: name, hosts: profile.hosts.iter().map(Host::to_string).collect(), pem: issued.pem })
}

impl Planner<'_> {
    /// Returns the plan that asks for a certificate, or waits for it.
    pub(crate) fn request(&self, authority: &AuthorityFiles, hosts: Vec<String>) -> Result<Plan, Refusal> {
        let files = request_files(&self.s)?;
        let RequestFiles { request, key, certificate } = files.clone();
        let steps = match (self.s.asked.request, self.s.asked.key) {
            (true, true) => Vec::new(),
            (false, false) => vec![self.ask(authority, hosts, files)?],
            (there, _) => {
                let (left, missing) = if there { (&request, &key) } else { (&key, &request) };
                return Err(refuse(
                    RefusalKind::Unrestorable,
                    format!("{left} is there, and {missing} is not"),
                    "it may be in use, and would be lost",
                    format!("move {left} away if nothing uses it, and plan again"),
                ));
            }
        };
        let back = Waiting { member: called(self.me).to_owned(), until: Until::Certified };
        let mut plan = self.document(Stage::Request, Vec::new(), steps, vec![back]);
        plan.by_hand = vec![format!(
            "Carry {request} to a node that has the key of {}, and run `seaworthy fix {} --sign FILE` there. Put the \
             certificate that it gives at {certificate} on this node, and go on here. Neither is a secret; the key \
             stays in {key}.",
            authority.certificate, self.rule
        )];
        Ok(plan)
    }

    /// Returns the step that makes key and request.
    fn ask(
        &self,
        authority: &AuthorityFiles,
        hosts: Vec<String>,
        files: RequestFiles,
    ) -> Result<Step, Refusal> {
        let RequestFiles { request, key, certificate } = files;
        let process = self.s.subject.process.as_result().map_err(missing)?;
        let pem = authority.pem.as_ref().ok_or_else(|| {
            refuse(
                RefusalKind::Authority,
                format!("{} is still to be made", authority.certificate),
                "nobody could sign the request with it",
                "make it where its key is to stay first, and bring its certificate to this node",
            )
        })?;
        let origin = Origin::file(&authority.certificate);
        let authorities = certificates_from_pem(pem, origin, self.s.taken_at).map_err(missing)?;
        let kind = authorities.first().map(|ca| KeyKind::like(&ca.certificate.key)).unwrap_or_default();
        let absent = [&request, &key, &certificate].map(|p| Condition::Absent { path: p.clone() });
        Ok(Step {
            title: format!("Make a key for {}, and a request for its certificate", called(self.me)),
            why: "The authority's key is on another node. The member's own key never leaves this one."
                .to_owned(),
            action: Action::Request {
                common_name: called(self.me).to_owned(),
                hosts,
                key_kind: kind,
                request: request.clone(),
                key: key.clone(),
                uid: process.uid,
                gid: process.gid,
            },
            diff: None,
            preconditions: absent.to_vec(),
            verify: vec![Condition::RequestSound { common_name: called(self.me).to_owned(), request, key }],
            restarts: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use seaworthy_evidence::Observed;

    use super::super::peer_tls::{self, known_to_have_loaded};
    use super::*;
    use crate::fixture::{World, record};
    use crate::issue::Authority;
    use crate::plan::Plan;
    use crate::planner::POD_DIRECTORY;
    use crate::preflight::preflight;
    use crate::supplied::{Asked, tests::supplied};

    /// Returns a member without a certificate, whose authority's key is elsewhere.
    fn world() -> (World, Authority) {
        let mut world = World::plaintext();
        let (authority, _) = Authority::create("peers", KeyKind::Rsa2048, world.taken_at).unwrap();
        let files = world.options.authority.as_mut().unwrap();
        files.pem = Some(authority.pem().as_bytes().to_vec());
        world.options.request = true;
        (world, authority)
    }

    #[test]
    fn without_the_authoritys_key_a_certificate_is_asked_for_and_nothing_is_loaded() {
        let (world, _) = world();
        let plan = world.plan();
        assert_eq!((plan.stage, plan.restarts(), plan.disturbs()), (Stage::Request, 0, false));
        let [step] = &plan.steps[..] else { panic!("{plan:?}") };
        let Action::Request { common_name, hosts, key_kind, request, key, .. } = &step.action else {
            panic!("{step:?}")
        };
        let files = request_files(&world.input()).unwrap();
        assert_eq!((request, key), (&files.request, &files.key));
        assert_eq!(files.certificate, format!("{POD_DIRECTORY}/seaworthy-peer.crt"));
        assert_eq!((common_name.as_str(), *key_kind), ("m1", KeyKind::Rsa2048));
        assert_eq!(hosts, &["10.77.0.1"]);
        assert_eq!(step.preconditions.len(), 3, "nothing of another's is written over");
        assert_eq!(plan.then_waits_for[0].until, Until::Certified);
        assert!(plan.by_hand[0].contains("--sign FILE") && plan.by_hand[0].contains(&files.certificate));
        assert_eq!(preflight(&plan, &world.input()), []);
        let again = Plan::from_value(&serde_json::to_value(&plan).unwrap()).unwrap();
        assert_eq!(again, plan);
    }

    #[test]
    fn who_has_asked_has_not_loaded() {
        let mut world = World::loaded();
        let id = world.members()[0].id.clone();
        world.progress.insert(id, record(Some(Stage::Request), &world.issuer));
        let member = world.members()[0].clone();
        assert_eq!(known_to_have_loaded(&world.input(), &member), Some(false));
    }

    #[test]
    fn what_was_asked_for_is_waited_for_and_then_loaded() {
        let (mut world, authority) = world();
        world.asked = Asked { key: true, request: true, returned: None };
        let plan = world.plan();
        assert_eq!((plan.stage, plan.steps.len(), plan.then_waits_for.len()), (Stage::Request, 0, 1));
        assert_eq!(plan.by_hand.len(), 1);

        let profile = Profile::peer("m1", [Host::parse("10.77.0.1").unwrap()]);
        world.asked.returned = Some(supplied(&authority, &profile, world.taken_at));
        let plan = world.plan();
        assert_eq!((plan.stage, plan.restarts()), (Stage::Load, 1));
        assert!(matches!(plan.steps[0].action, Action::Edit { .. }), "{plan:?}");
        assert_eq!(preflight(&plan, &world.input()), []);

        // Another authority than the one that will be trusted.
        let (other, _) = Authority::create("peers", KeyKind::EcP256, world.taken_at).unwrap();
        world.asked.returned = Some(supplied(&other, &profile, world.taken_at));
        let refusals = world.planned(peer_tls::RULE).unwrap_err();
        assert!(refusals[0].what.contains("does not chain"), "{refusals:?}");
    }

    #[test]
    fn half_of_a_request_is_not_written_over() {
        for (key, request) in [(true, false), (false, true)] {
            let (mut world, _) = world();
            world.asked = Asked { key, request, returned: None };
            let refusals = world.planned(peer_tls::RULE).unwrap_err();
            assert_eq!(refusals[0].kind, RefusalKind::Unrestorable);
        }
    }

    #[test]
    fn who_signs_goes_by_the_membership() {
        let (world, authority) = world();
        let ask = |name: &str, hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| Host::parse(host).unwrap());
            issue::request(&Profile::peer(name, hosts), KeyKind::EcP256).unwrap().1
        };
        let sign = |world: &World, request: &str| sign(request.as_bytes(), &authority, &world.input());
        let signed = sign(&world, &ask("m2", &["10.77.0.2"])).unwrap();
        assert_eq!((signed.member.as_str(), signed.hosts.as_slice()), ("m2", &["10.77.0.2".to_owned()][..]));
        let origin = Origin::file("the answer");
        let found = certificates_from_pem(signed.pem.as_bytes(), origin, world.taken_at).unwrap();
        let certificate = &found[0].certificate;
        assert_eq!((certificate.sans.ip.len(), certificate.sans.dns.len()), (1, 0));
        assert!((364..=365).contains(&certificate.days_left));

        // It is seen to come from another address as well.
        let mut seen = world.clone();
        let Observed::Seen { value, .. } = &mut seen.subject.own.connections else { panic!() };
        value[0].remote = "10.88.0.2:40000".to_owned();
        assert!(sign(&seen, &ask("m2", &["10.77.0.2", "10.88.0.2"])).is_ok());
        let cases = [
            ("10.88.0.2, which is not expected", ask("m2", &["10.88.0.2"])),
            ("10.77.0.3, which is not expected", ask("m2", &["10.77.0.3"])),
            ("by \"m9\"", ask("m9", &["10.77.0.2"])),
            ("signing request is refused", "no PEM".to_owned()),
        ];
        for (words, request) in cases {
            let refusal = sign(&world, &request).expect_err(words);
            assert_eq!(refusal.kind, RefusalKind::Certificate);
            assert!(refusal.what.contains(words), "{words}: {refusal:?}");
        }
        let mut stale = world.clone();
        let Observed::Seen { value, .. } = &mut stale.subject.own.cluster else { panic!() };
        value.source = MemberSource::DataDirectory;
        let refusal = sign(&stale, &ask("m2", &["10.77.0.2"])).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Evidence);
    }
}
