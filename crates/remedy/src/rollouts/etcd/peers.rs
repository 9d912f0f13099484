//! What members make of each other's certificates: for the rules that change whom they trust.
//!
//! What a member would accept is foretold from the certificates that peer ports serve, with which a member dials as well
//! unless it is told otherwise; that all are connected both ways is verified after each restart all the same.

use std::net::IpAddr;

use jiff::Timestamp;
use seaworthy_evidence::{Direction, EvidenceError, Member, Origin};
use seaworthy_pki::{Parsed, Usage, certificates_from_pem, chains_to, names};

use crate::issue::pem;
use crate::plan::{Refusal, RefusalKind};
use crate::planner::{AuthorityFiles, Changes, Input, MARGIN_DAYS, Planner, Source, called, missing, refuse};

/// Returns the certificates that the peer port of a member serves, leaf first, if they are known.
pub(crate) fn served<'a>(input: &Input<'a>, member: &Member) -> Option<&'a [Parsed]> {
    input.served.get(&member.id).map(Vec::as_slice).filter(|chain| !chain.is_empty())
}

/// Returns whether who trusts `roots` accepts what the peer port of a member serves; `None` when that is not known.
pub(crate) fn accepted(input: &Input<'_>, roots: &[Parsed], member: &Member) -> Option<bool> {
    let (leaf, rest) = served(input, member)?.split_first()?;
    let fit = |usage| chains_to(leaf, rest, roots, usage, input.taken_at).is_ok();
    Some(fit(Usage::Server) && fit(Usage::Client))
}

/// Returns why members that trust `roots`, and demand certificates, could not talk with this one.
pub(crate) fn against(input: &Input<'_>, roots: &[Parsed], member: &Member) -> Vec<Refusal> {
    let name = called(member);
    let Some((leaf, rest)) = served(input, member).and_then(<[Parsed]>::split_first) else {
        return refuse(
            RefusalKind::Evidence,
            format!("the certificate that the peer port of {name} serves is not known"),
            "if others do not accept it, it is cut off from each of them that restarts",
            "let this node reach the peer port of every member",
        )
        .into();
    };
    let mut wrong = Vec::new();
    for usage in [Usage::Server, Usage::Client] {
        if let Err(error) = chains_to(leaf, rest, roots, usage, input.taken_at) {
            wrong.push(error.to_string());
        }
    }
    wrong.dedup();
    if leaf.certificate.days_left < MARGIN_DAYS {
        wrong.push("it expires today, or has expired".to_owned());
    }
    let unnamed = |host: &str| !names(&leaf.certificate, host);
    for url in member.peer_urls.iter().filter(|url| unnamed(&url.host)) {
        wrong.push(format!("it does not name {}, where its peers dial it", url.host));
    }
    let settings = input.subject.settings.value();
    let skips = ["peer-skip-client-san-verification", "experimental-peer-skip-client-san-verification"];
    let on = |name: &&str| settings.and_then(|all| all.get(*name)).is_some_and(|s| s.on == Some(true));
    // Whether the others look at the address is for them to say.
    if member.this || !skips.iter().any(on) {
        // With names in it a listener asks its resolver, and nobody knows what that will say.
        for address in sources(input, member).iter().map(IpAddr::to_string).filter(|ip| unnamed(ip)) {
            wrong.push(format!("it does not name {address}, which {name} dials from"));
        }
    }
    let object = |what: String| {
        refuse(
            RefusalKind::Certificate,
            format!("the certificate of {name}: {what}"),
            format!("{name} would be cut off from each member that demands certificates of that authority"),
            format!(
                "replace the certificate of {name}: etcd reads it anew at each handshake, without a restart"
            ),
        )
    };
    wrong.into_iter().map(object).collect()
}

/// Returns the addresses that a member is seen to dial from.
fn sources(input: &Input<'_>, member: &Member) -> Vec<IpAddr> {
    let address = |text: &str| {
        let host = text.rsplit_once(':')?.0.trim_matches(['[', ']']);
        host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    };
    let connections = input.subject.own.connections.value().into_iter().flatten();
    let from = connections.filter_map(|c| match c.direction {
        Direction::Outbound if member.this => address(&c.local),
        Direction::Inbound if !member.this && c.member.as_deref() == Some(called(member)) => {
            address(&c.remote)
        }
        _ => None,
    });
    let mut from: Vec<IpAddr> = from.collect();
    from.sort_unstable();
    from.dedup();
    from
}

/// Returns the certificates of an authority; none when it is still to be made.
///
/// # Errors
///
/// When the file does not hold certificates of authorities only.
pub(crate) fn roots(input: &Input<'_>, authority: &AuthorityFiles) -> Result<Vec<Parsed>, Refusal> {
    let Some(pem) = &authority.pem else { return Ok(Vec::new()) };
    let path = &authority.certificate;
    let useless = |what: String| {
        refuse(
            RefusalKind::Authority,
            what,
            "no member would accept a certificate that it issues",
            "name another authority with --ca-cert and --ca-key",
        )
    };
    let found = certificates_from_pem(pem, Origin::file(path), input.taken_at);
    let found = found.map_err(|error| useless(error.to_string()))?;
    match found.iter().find(|c| !c.certificate.ca) {
        Some(leaf) => Err(useless(format!("{path} holds {}, which is no CA", leaf.certificate.subject))),
        None if found.is_empty() => Err(useless(format!("{path} holds no certificate"))),
        None => Ok(found),
    }
}

/// Returns one file with the certificates of several, each once; what else is in them is left out, because a key may be.
///
/// # Errors
///
/// When one of them cannot be read as certificates.
pub fn bundled(parts: &[&[u8]], now: Timestamp) -> Result<Vec<u8>, EvidenceError> {
    let mut seen: Vec<Parsed> = Vec::new();
    for part in parts {
        for certificate in certificates_from_pem(part, Origin::derived("a bundle"), now)? {
            if seen.iter().all(|known| known.der() != certificate.der()) {
                seen.push(certificate);
            }
        }
    }
    Ok(seen.iter().map(|certificate| pem(certificate.der())).collect::<String>().into_bytes())
}

impl<'a> Planner<'a> {
    /// Returns the authority that the operator named.
    pub(crate) fn authority(&self) -> Result<&'a AuthorityFiles, Refusal> {
        self.s.options.authority.as_ref().ok_or_else(|| {
            refuse(
                RefusalKind::Authority,
                "there is no certificate authority with its key on this node",
                "peers accept only certificates of an authority that they trust",
                "name one with --ca-cert and --ca-key; on kubeadm nodes it is /etc/kubernetes/pki/etcd/ca.crt",
            )
        })
    }

    /// Refuses members that do not all talk TLS: what they demand of each other has no effect there.
    pub(crate) fn over_tls(&self) -> Result<(), Refusal> {
        let listens = self.urls("listen-peer-urls")?;
        let told = self.members.iter().flat_map(|m| &m.peer_urls);
        let plain: Vec<&str> = listens
            .iter()
            .chain(told)
            .filter(|url| url.scheme != "https")
            .map(|url| url.text.as_str())
            .collect();
        let nowhere = listens.is_empty() || self.members.iter().any(|m| m.peer_urls.is_empty());
        if plain.is_empty() && !nowhere {
            return Ok(());
        }
        Err(refuse(
            RefusalKind::Unsupported,
            match plain.first() {
                Some(url) => format!("{url} is a peer URL, and not https"),
                None => "not every member has a peer URL".to_owned(),
            },
            "certificates have no effect on it, and members with and without them could be parted",
            "bring all members to TLS first: seaworthy fix etcd-peer-tls",
        ))
    }

    /// Refuses settings that make a member accept, or present, something other than what its peer port shows.
    pub(crate) fn usual_identity(&self) -> Result<(), Refusal> {
        let given = ["peer-client-cert-file", "peer-cert-allowed-cn", "peer-cert-allowed-hostname"];
        match given.into_iter().find(|name| self.settings.get(*name).is_some_and(|s| s.set)) {
            None => Ok(()),
            Some(name) => Err(refuse(
                RefusalKind::Unsupported,
                format!("{name} is set"),
                "whom its peers accept, or it accepts, cannot be told from the certificates that peer ports serve",
                format!("go on without {name} on any member, and set it again afterwards"),
            )),
        }
    }

    /// Refuses changes of settings that are given somewhere else than in the file that is edited.
    pub(crate) fn within_reach(&self, changes: &Changes) -> Result<(), Refusal> {
        let names = changes.set.keys().chain(&changes.removed).map(String::as_str);
        let elsewhere = |name: &&str| {
            let Some(setting) = self.settings.get(*name) else { return false };
            let same = match (&setting.origin, &self.source) {
                (Origin::Default { .. }, _) => true,
                (Origin::File { path, .. }, Source::Config(_)) => !path.is_empty(),
                (Origin::Environment { .. }, Source::Environment(_)) => true,
                (Origin::Argv { .. }, Source::Manifest(_) | Source::Unit(_)) => true,
                _ => false,
            };
            !same
        };
        match names.into_iter().find(elsewhere) {
            None => Ok(()),
            Some(name) => Err(refuse(
                RefusalKind::Environment,
                format!("{name} is given elsewhere than the other settings are"),
                "etcd exits at once when a setting is given by a flag and by a variable",
                format!("give {name} where the other settings are given, restart the member, and plan again"),
            )),
        }
    }

    /// Refuses a member whose connections are not known: they tell what its peers see it come from.
    pub(crate) fn connected(&self) -> Result<(), Refusal> {
        self.s.subject.own.connections.as_result().map(|_| ()).map_err(missing)
    }

    /// Returns the folder on the host that new certificates for peers go to: the one that holds those there are.
    pub(crate) fn peer_directory(&self) -> String {
        let present = self.given("peer-cert-file").and_then(|path| self.view.outside(path));
        let directory = present.map(|path| crate::planner::directory(&path).to_owned());
        directory.filter(|path| path.starts_with('/')).unwrap_or_else(|| self.material_directory())
    }
}
