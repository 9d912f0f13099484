//! One etcd server: read, asked, and put together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rayon::join;
use seaworthy_components::etcd::settings;
use seaworthy_components::etcd::{READ_FILES, SETTINGS};
use seaworthy_components::etcd::{Version, bbolt};
use seaworthy_evidence::{
    Advertised, ClientCertificate, Cluster, Connection, Declared, ErrorKind, Etcd, EvidenceError, Instance,
    KeyMaterial, Link, Listener, Member, Observed, Origin, Purpose, Setting, Settings, Transport, Url,
};
use seaworthy_host::root::Root;
use seaworthy_host::sockets::Sockets;
use seaworthy_settings::{Given, Resolved};
use seaworthy_wire::ClientIdentity;

use super::super::attribution::Attributions;
use super::super::declarations::Declarations;
use super::super::listeners::{self, Answers, Socket};
use super::super::material::{CLIENT, Circumstances, Files, Names, PEER, Reader};
use super::super::processes::{Found, Running};
use super::super::{Kind, Survey, drift, files, instance};
use super::allowed::Restriction;
use super::embedded::{self, Embedded};
use super::links::{self, Matrix, Views};
use super::membership;
use super::trust::{Neighbour, Trust};

/// How long a connection must last to count when links are looked at again. One that is refused is gone by then.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// The settings with which etcd does not compare the address of a peer with the names in its certificate, by release.
const SKIPS_NAMES: [&str; 2] =
    ["peer-skip-client-san-verification", "experimental-peer-skip-client-san-verification"];

/// Most certificates that are shown to one listener.
const MAX_SHOWN: usize = 2;

/// One etcd process with what was read of it on the node.
pub(crate) struct Server<'a> {
    pub(crate) running: &'a Running,
    pub(crate) resolved: Resolved,
    pub(crate) sockets: Result<Sockets, EvidenceError>,
    /// The etcd that this process runs inside itself, where it is another program.
    pub(crate) embedded: Option<Embedded>,
    identity: OnceLock<Option<ClientIdentity>>,
    offline: OnceLock<Result<bbolt::Membership, EvidenceError>>,
}

impl<'a> Server<'a> {
    /// Reads the settings and sockets of one process.
    pub(crate) fn read(found: &Found, running: &'a Running) -> Self {
        let (sockets, resolved) = join(|| found.sockets(running), || resolve(running, None));
        Self::new(running, resolved, sockets, None)
    }

    /// Returns the server that `embedded` is, whose settings are known to the program around it alone.
    pub(crate) fn inside(running: &'a Running, sockets: Sockets, embedded: Embedded) -> Self {
        let error = embedded
            .unknown("its settings are not on a command line of its own, and are not known", running.pid());
        let resolved = Resolved {
            settings: Observed::failed(error.clone()),
            config_file: Some(Observed::failed(error.clone())),
            drop_ins: Vec::new(),
            ignored_environment: Some(Observed::failed(error)),
            fatal: Vec::new(),
            doubt: None,
        };
        Self::new(running, resolved, Ok(sockets), Some(embedded))
    }

    fn new(
        running: &'a Running,
        resolved: Resolved,
        sockets: Result<Sockets, EvidenceError>,
        embedded: Option<Embedded>,
    ) -> Self {
        let (identity, offline) = (OnceLock::new(), OnceLock::new());
        Self { running, resolved, sockets, embedded, identity, offline }
    }

    /// Returns the sockets of the peer URLs, each with whether its URL says TLS.
    pub(crate) fn peer_sockets(&self, sockets: &Sockets) -> Vec<(Socket, bool)> {
        listeners::configured(&self.urls(Purpose::Peer), sockets)
    }

    /// Returns the identity for asking as a peer; read once.
    pub(crate) fn peer_identity(&self) -> Option<ClientIdentity> {
        let path = |name: &str| {
            let settings = self.resolved.settings.value()?;
            settings.get(name).filter(|s| s.set).map(|s| s.value.clone())
        };
        self.identity.get_or_init(|| membership::identity(&Reader::of_process(self.running), path)).clone()
    }

    /// Returns the membership in the data directory; read once.
    pub(crate) fn offline_membership(&self) -> Result<bbolt::Membership, EvidenceError> {
        self.offline
            .get_or_init(|| {
                let path = format!("{}/member/snap/db", self.data_directory()?);
                membership::offline(self.running.root.as_ref().map_err(Clone::clone), &path)
            })
            .clone()
    }

    /// Returns the place of the data directory's database.
    pub(crate) fn database_origin(&self) -> Origin {
        let directory = self.data_directory().unwrap_or_default();
        Origin::process_file(self.running.pid(), format!("{directory}/member/snap/db"))
    }

    /// Marks the member that this server is: by name, and where names are not unique by its peer URLs.
    pub(crate) fn mark_self(&self, members: &mut [Member]) {
        let settings = self.resolved.settings.value();
        let name = settings.and_then(|s| s.get("name")).map(|s| s.value.as_str()).unwrap_or_default();
        let urls: Vec<Url> = settings
            .map(|s| settings::advertised(s, Purpose::Peer).into_iter().map(|(url, _)| url).collect())
            .unwrap_or_default();
        let local: Vec<SocketAddr> =
            self.sockets.as_ref().map(|s| s.listening.iter().map(|l| l.local).collect()).unwrap_or_default();
        let here = |url: &Url| {
            urls.iter().any(|u| u.host == url.host && u.port == url.port)
                || url
                    .host
                    .parse::<IpAddr>()
                    .is_ok_and(|ip| local.iter().any(|l| l.ip() == ip && Some(l.port()) == url.port))
        };
        let named: Vec<usize> = members
            .iter()
            .enumerate()
            .filter(|(_, m)| !name.is_empty() && m.name == name)
            .map(|(i, _)| i)
            .collect();
        let found = match named.as_slice() {
            [one] => Some(*one),
            _ => members.iter().position(|m| m.peer_urls.iter().any(here)),
        };
        // One that listens everywhere is told by being the only one.
        let found = found.or_else(|| (self.embedded.is_some() && members.len() == 1).then_some(0));
        if let Some(member) = found.and_then(|index| members.get_mut(index)) {
            member.this = true;
        }
    }

    /// Returns how to call this process in a sentence.
    pub(crate) fn who(&self) -> String {
        format!("pid {}", self.running.pid())
    }

    /// Returns every port on which members of its cluster listen for peers, as far as settings and disk tell.
    fn peer_ports(&self) -> Vec<u16> {
        let own = self.urls(Purpose::Peer).into_iter().map(|(url, ..)| url);
        let members = self.offline_membership().map(|m| m.members).unwrap_or_default();
        let urls = own.chain(members.into_iter().flat_map(|m| m.peer_urls));
        let ports: BTreeSet<u16> = urls.filter_map(|url| url.port).collect();
        ports.into_iter().collect()
    }

    fn name(&self) -> Option<String> {
        self.resolved.settings.value()?.get("name").map(|s| s.value.clone())
    }

    /// Returns the URLs on which it is set to listen.
    fn urls(&self, purpose: Purpose) -> Vec<(Url, Origin, Purpose)> {
        let Some(settings) = self.resolved.settings.value() else { return Vec::new() };
        settings::listen_urls(settings, purpose)
            .into_iter()
            .map(|(url, origin)| (url, origin, purpose))
            .collect()
    }

    /// Returns the data directory as an absolute path; a relative one is below the process's working directory.
    fn data_directory(&self) -> Result<String, EvidenceError> {
        if let Some(embedded) = &self.embedded {
            return Ok(embedded.data_directory.clone());
        }
        let settings = self.resolved.settings.as_result()?;
        if let Some(error) = settings.why_unknown("data-dir") {
            return Err(error.clone());
        }
        let path = settings.get("data-dir").map(|s| s.value.clone()).unwrap_or_default();
        self.running.absolute(&path)
    }
}

/// Returns the settings of a running process by etcd's rules: as any release may read them while its `version` has not been asked
/// for, and then as what is known of that tells.
fn resolve(running: &Running, version: Option<&Observed<String>>) -> Resolved {
    let environment = running.entry.environ();
    let mut read = |path: &str| running.config(path);
    (Kind::ETCD.program.resolve)(Given {
        arguments: running.arguments(),
        environment: environment.as_deref().map_err(Clone::clone),
        release: version.and_then(Observed::value).map(String::as_str),
        runs: version.is_some(),
        read: &mut read,
        list: &mut seaworthy_settings::no_list,
    })
}

/// Puts every server together.
pub(crate) fn finish_all<'s>(
    survey: &Survey<'_>,
    servers: Vec<Server<'s>>,
    declarations: &Declarations,
    attributions: &Attributions<'_>,
    trust: &Trust,
    answers: &Answers,
) -> Vec<Instance> {
    let hosts = survey.root.read("/etc/hosts", 1 << 20).map(|b| links::hosts(&b)).unwrap_or_default();
    let views = watch(survey, &servers);
    let unwatched = Ok(Views::new());
    let several = servers.iter().filter(|_| servers.len() > 1);
    let neighbours: Vec<Neighbour> = several.filter_map(|server| Neighbour::of(survey, server)).collect();
    let finish = |server: Server<'s>| {
        let views = views.get(&server.running.pid()).unwrap_or(&unwatched);
        let mut finish = Finish {
            kind: declarations.kind,
            survey,
            declarations,
            attributions,
            trust,
            answers,
            hosts: &hosts,
            views,
            neighbours: &neighbours,
            server,
        };
        (finish.instance(), finish)
    };
    let mut all: Vec<(Instance, Finish<'_, '_>)> = servers.into_iter().map(finish).collect();
    wait_for_links(&mut all, survey.options.patience);
    all.into_iter().map(|(instance, _)| instance).collect()
}

/// Looks at the connections of servers again while links seem to be missing, until `patience` ends. A member dials again
/// ten times a second (`rafthttp`'s `DialRetryFrequency`), and the peers of one that has just started find it only then.
fn wait_for_links(all: &mut [(Instance, Finish<'_, '_>)], patience: Duration) {
    let ends = Instant::now() + patience;
    while Instant::now() < ends {
        let lacking = all.iter_mut().filter_map(|(instance, finish)| {
            let etcd = instance.etcd.as_deref_mut().filter(|etcd| lacks_links(etcd))?;
            Some((etcd, &instance.listeners, &*finish))
        });
        let looks: Vec<_> = lacking
            .map(|(etcd, listeners, finish)| {
                (etcd, listeners, finish, Sockets::of_process(&finish.server.running.entry))
            })
            .collect();
        if looks.is_empty() {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        for (etcd, listeners, finish, sockets) in looks {
            // What was seen before stands when the process has gone.
            if sockets.is_ok() {
                (etcd.connections, etcd.links) = finish.connections(sockets, &etcd.cluster, listeners);
            }
        }
    }
}

fn lacks_links(etcd: &Etcd) -> bool {
    let missing = |link: &Link| link.half_open || link.down || link.outbound.value() == Some(&0);
    etcd.links.value().is_some_and(|links| links.iter().any(missing))
}

/// Watches the peer ports of every server passively and at the same time, each in its own network, if that was asked for.
fn watch(survey: &Survey<'_>, servers: &[Server<'_>]) -> BTreeMap<u32, Result<Views, EvidenceError>> {
    let Some(duration) = survey.options.observe else { return BTreeMap::new() };
    let observe = |server: &Server<'_>| -> Result<Views, EvidenceError> {
        let seen = listeners::in_its_network(server.running, || {
            seaworthy_wire::observe(&server.peer_ports(), duration)
        })?;
        let both =
            |s: seaworthy_wire::Seen| [((s.listener, s.dialer), s.view), ((s.dialer, s.listener), s.view)];
        Ok(seen.into_iter().flat_map(both).collect())
    };
    let lost = || Err(EvidenceError::new(ErrorKind::Io, "the watch did not finish"));
    std::thread::scope(|scope| {
        let start = |server| std::thread::Builder::new().spawn_scoped(scope, move || observe(server));
        let watches: Vec<_> = servers.iter().map(|s| (s.running.pid(), start(s))).collect();
        let finish = |watch: std::io::Result<ScopedJoinHandle<'_, _>>| match watch {
            Ok(watch) => watch.join().unwrap_or_else(|_| lost()),
            Err(error) => Err(EvidenceError::from_io(&error, "a thread that watches")),
        };
        watches.into_iter().map(|(pid, watch)| (pid, finish(watch))).collect()
    })
}

/// What is needed to put one server together.
struct Finish<'a, 'b> {
    kind: Kind,
    survey: &'a Survey<'a>,
    declarations: &'a Declarations,
    attributions: &'a Attributions<'a>,
    trust: &'a Trust,
    answers: &'a Answers,
    hosts: &'a BTreeMap<String, Vec<IpAddr>>,
    views: &'a Result<Views, EvidenceError>,
    neighbours: &'a [Neighbour],
    server: Server<'b>,
}

impl Finish<'_, '_> {
    fn instance(&mut self) -> Instance {
        let pid = self.server.running.pid();
        let (cluster, cluster_version) =
            membership::cluster(self.survey, &self.server, self.answers.members(pid));
        let version = self.version(cluster_version);
        let release = version.value().and_then(|v| Version::parse(v));
        if self.server.embedded.is_none() {
            // What a key or flag means depends on the version, which was not known before.
            self.server.resolved = resolve(self.server.running, Some(&version));
        }
        let settings = self.server.resolved.settings.clone();
        let known = settings.value();
        let empty = Settings::default();
        let restriction = known.and_then(|known| Restriction::of_peers(known, release));
        let reader = Reader::as_process(self.server.running, self.survey.users);
        let (peer_listeners, client_listeners) = self.listeners(&cluster);
        let side = |purpose: Purpose, names: &Names| {
            let files = Files::read(self.survey, &reader, known.unwrap_or(&empty), names);
            let (transport, material) =
                self.transport(purpose, &files, &cluster, &version, restriction.as_ref());
            (files, transport, material)
        };
        let declaration = match &self.server.embedded {
            Some(embedded) => Err(embedded.unknown("what declares that program is not read", pid)),
            None => self.attributions.of(pid, settings.as_result()),
        };
        let root: Result<&Root, _> = self.server.running.root.as_ref().map_err(Clone::clone);
        let files = || {
            let data = |name: &str| (name == "data-dir").then(|| self.server.data_directory());
            let mut files = files::read(
                self.survey,
                self.kind,
                &reader,
                settings.as_result(),
                data,
                match &self.server.embedded {
                    Some(embedded) => embedded.manifest(self.server.running),
                    None => self.attributions.manifest(pid, &declaration),
                },
                |manifest| self.declarations.rivals(manifest),
            );
            files.unit = files::of_unit(self.survey, self.declarations.unit_files(&declaration));
            let stat = |path: String| root.clone()?.stat(path, self.survey.users);
            let data_directory = self.server.data_directory().and_then(stat);
            (files, files::observed(data_directory, "the data directory"))
        };
        let ((of_peers, (connections, links)), (of_clients, files, process)) = join(
            || {
                let sockets = self.server.sockets.clone();
                (side(Purpose::Peer, &PEER), self.connections(sockets, &cluster, &peer_listeners))
            },
            || {
                let client = side(Purpose::Client, &CLIENT);
                (client, files(), self.server.running.evidence(self.survey))
            },
        );
        let (peer_files, peer, peer_material) = of_peers;
        let (client_files, client, client_material) = of_clients;
        let (files, data_directory) = files;

        let mut drifts = Vec::new();
        let mut doubtful = None;
        let now = Timestamp::now();
        if let (Ok(Some(declared)), Some(running)) = (&declaration, known) {
            drifts.extend(drift::settings(declared, running, &self.server.who()));
        }
        if let Some(file) = &self.server.resolved.config_file {
            for (side, listeners) in [(Purpose::Peer, &peer_listeners), (Purpose::Client, &client_listeners)]
            {
                let enforced = known.map(|known| settings::client_auth(known, side).enforced);
                let listeners = listeners.value().map_or(&[][..], Vec::as_slice);
                match drift::configuration(file, &process, listeners, enforced, now) {
                    Ok(found) => drifts.extend(found),
                    Err(error) => doubtful = Some(error),
                }
            }
        }
        let mut unloaded: Vec<(Purpose, EvidenceError)> = Vec::new();
        let changed =
            |path: &str| root.clone().ok()?.open(self.server.running.absolute(path).ok()?).ok()?.changed();
        let sides = [
            (Purpose::Peer, &peer_files, &peer_listeners),
            (Purpose::Client, &client_files, &client_listeners),
        ];
        let pool = |files: &Files| Some(self.server.running.absolute(&files.trusted.as_ref()?.path));
        let same_pool = pool(&peer_files) == pool(&client_files);
        for (purpose, files, listeners) in sides {
            let listeners = listeners.value().map_or(&[][..], Vec::as_slice);
            let what = if purpose == Purpose::Peer { "peer" } else { "client" };
            let loaded = drift::Loaded { files, process: &process, listeners, what };
            // One file is read for both sides at one start, so what is known of either is known of both.
            let asked = |(side, _, listeners): &(Purpose, &Files, &Observed<Vec<Listener>>)| {
                let asked = *side == purpose || same_pool;
                asked.then(|| self.shown(*side, known.unwrap_or(&empty), release, listeners, &reader))
            };
            let shown = || sides.iter().filter_map(asked).flatten().collect();
            let modified = files.trusted.as_ref().and_then(|trusted| changed(&trusted.path));
            match loaded.trusted(modified, shown, now) {
                Ok(found) => {
                    let other = found.iter().map(|drift| (purpose, not_loaded(&drift.message)));
                    unloaded.extend(other);
                    drifts.extend(found);
                }
                Err(error) => {
                    unloaded.push((purpose, error.clone()));
                    doubtful = Some(error);
                }
            }
            let modified = || changed(&files.certificate.as_ref()?.path);
            drifts.extend(loaded.served(modified, self.survey.options.now));
        }
        // What was not compared may have drifted, too.
        let declared = declaration.as_ref().map(|d| d.as_ref().and_then(|d| d.settings.error()));
        let uncompared = settings.error().or_else(|| declared.unwrap_or_else(Some)).or(doubtful.as_ref());
        let drift = match uncompared {
            Some(error) if drifts.is_empty() => Observed::failed(error.clone()),
            _ => Observed::seen(drifts, Origin::derived("the declaration, the files and the process")),
        };
        // That nobody else is let in is known only of the CAs that are loaded.
        let doubt = |side: Option<Purpose>| {
            let of_side = |(of, _): &&(Purpose, EvidenceError)| side.is_none_or(|side| side == *of);
            unloaded.iter().find(of_side).map(|(_, error)| error.clone())
        };
        let unnamed = known.and_then(|known| known.doubt_about(READ_FILES)).cloned();
        let (of_peers, of_both) =
            (doubt(Some(Purpose::Peer)).or_else(|| unnamed.clone()), doubt(None).or(unnamed));
        let this = || cluster.value()?.members.iter().find(|m| m.this && !m.name.is_empty());
        let name = match self.server.embedded {
            Some(_) => this().map(|member| member.name.clone()),
            None => self.server.name(),
        };
        let inside = self.server.embedded.as_ref().map(|e| format!(" in {}", e.program)).unwrap_or_default();
        let etcd = Etcd {
            name: name.clone(),
            peer,
            client,
            connections,
            links,
            impostors: match known {
                Some(known) => {
                    let (running, files) = (self.server.running, [&peer_files, &client_files]);
                    let among = (&cluster, self.neighbours);
                    let found =
                        self.trust.impostors(self.survey, running, known, restriction.as_ref(), files, among);
                    unless_doubted(found, of_peers)
                }
                None => Observed::failed(unknown(&settings)),
            },
            shared_cas: match known {
                Some(_) => {
                    unless_doubted(self.trust.shared(self.survey, [&peer_files, &client_files]), of_both)
                }
                None => Observed::failed(unknown(&settings)),
            },
            data_directory,
            cluster,
        };
        let listeners = match (peer_listeners, client_listeners) {
            (Observed::Seen { value: peer, origin }, Observed::Seen { value: client, .. }) => {
                Observed::seen(peer.into_iter().chain(client).collect(), origin)
            }
            (Observed::Failed { error }, _) | (_, Observed::Failed { error }) => Observed::failed(error),
        };
        Instance {
            id: match &name {
                Some(name) => format!("etcd {name}{inside} (pid {pid})"),
                None => format!("etcd{inside} (pid {pid})"),
            },
            component: self.kind.component.name.to_owned(),
            process,
            version,
            config_file: self.server.resolved.config_file.clone(),
            ignored_environment: self.server.resolved.ignored_environment.clone(),
            declared: Observed::from_result(
                declaration.map(|declared| {
                    let judge = |declared| files::unusable(self.kind.program, &reader, declared, known);
                    declared.into_iter().map(judge).collect()
                }),
                Origin::derived("static pod manifests and systemd units"),
            ),
            drift,
            listeners,
            credentials: vec![peer_material, client_material],
            files,
            settings,
            etcd: Some(Box::new(etcd)),
            etcd_proxy: None,
            kube_apiserver: None,
        }
    }

    fn version(&self, cluster_version: Option<String>) -> Observed<String> {
        let pid = self.server.running.pid();
        match (self.answers.version(pid).or_else(|| self.server.running.built_version()), cluster_version) {
            (Some((version, origin)), _) => Observed::seen(version, origin),
            (None, Some(version)) => {
                let minor = version.rsplitn(2, '.').last().unwrap_or(&version).to_owned();
                Observed::seen(minor, self.server.database_origin())
            }
            (None, None) => {
                let message =
                    "no listener told its version, and neither its executable nor the data directory has it";
                Observed::failed(EvidenceError::new(ErrorKind::NotFound, message))
            }
        }
    }

    /// Shows this member's own certificates to a listener of `side` that demands one, and returns what it made of them.
    fn shown(
        &self,
        side: Purpose,
        settings: &Settings,
        release: Option<Version>,
        listeners: &Observed<Vec<Listener>>,
        reader: &Reader<'_>,
    ) -> Vec<drift::Shown> {
        let demands = |listener: &&Listener| {
            let wire = listener.wire.as_ref().and_then(Observed::value);
            wire.is_some_and(|wire| wire.client_certificate == Some(ClientCertificate::Required))
        };
        let demanding = listeners.value().into_iter().flatten().find(demands);
        let Some(address) = demanding.and_then(|listener| listener.address.as_ref()) else {
            return Vec::new();
        };
        let Ok(sockets) = &self.server.sockets else { return Vec::new() };
        let Some(socket) = listeners::socket(sockets, address) else { return Vec::new() };
        let restriction = match side {
            Purpose::Peer => Restriction::of_peers(settings, release),
            _ => Restriction::of_clients(settings, release),
        };
        let now = self.survey.options.now;
        let own = |(certificate, key): (&str, &str)| {
            let path = |name: &str| settings.get(name).filter(|s| s.set).map(|s| s.value.clone());
            let (path, key) = (path(certificate)?, reader.bytes(&path(key)?).ok()?);
            let bytes = reader.bytes(&path).ok()?;
            let chain = seaworthy_pki::certificates_from_pem(&bytes, reader.origin(&path), now).ok()?;
            let leaf = &chain.first()?.certificate;
            // What is refused for another reason proves nothing.
            let usable = seaworthy_pki::Usage::Client.allowed_by(leaf)
                && (leaf.not_before..=leaf.not_after).contains(&now)
                && restriction.as_ref().is_none_or(|r| matches!(r.admits(leaf), Ok(true)));
            Some((path, ClientIdentity::from_pem(&bytes, &key).ok()?, chain)).filter(|_| usable)
        };
        let of_peers = [("peer-client-cert-file", "peer-client-key-file"), (PEER.certificate, PEER.key)];
        let of_clients = [("client-cert-file", "client-key-file"), (CLIENT.certificate, CLIENT.key)];
        let pairs = if side == Purpose::Peer { [of_peers, of_clients] } else { [of_clients, of_peers] };
        let identities = pairs.into_iter().flatten().filter_map(own).take(MAX_SHOWN);
        let ask = |(path, identity, chain)| {
            let let_in = listeners::in_its_network(self.server.running, || {
                let options = self.survey.probing_until(Instant::now() + self.survey.options.timeout)?;
                seaworthy_wire::lets_in(&socket.target(self.server.running)?, &identity, &options)
            });
            drift::Shown { path, chain, listener: address.clone(), let_in }
        };
        // The thread may have to leave our own network.
        std::thread::scope(|scope| {
            let asking = std::thread::Builder::new().spawn_scoped(scope, || identities.map(ask).collect());
            asking.ok().and_then(|asking| asking.join().ok()).unwrap_or_default()
        })
    }

    /// Returns the listeners for peers, and those for clients and metrics.
    fn listeners(&self, cluster: &Observed<Cluster>) -> (Observed<Vec<Listener>>, Observed<Vec<Listener>>) {
        let server = &self.server;
        let all = || -> Result<Vec<Listener>, EvidenceError> {
            let settings = server.resolved.settings.as_result()?;
            let listen = SETTINGS.iter().copied().filter(|name| name.starts_with("listen-"));
            if let Some(error) = settings.doubt_about(listen) {
                return Err(error.clone());
            }
            let sockets = server.sockets.as_ref().map_err(Clone::clone)?;
            let purposes = [Purpose::Peer, Purpose::Client, Purpose::Metrics];
            let urls: Vec<_> = purposes.into_iter().flat_map(|side| server.urls(side)).collect();
            Ok(listeners::all(self.survey, server.running, &urls, sockets, self.answers))
        };
        let origin = Origin::proc(format!("/proc/{}/net/tcp", server.running.pid()));
        if let (Some(_), Ok(sockets)) = (&server.embedded, &server.sockets) {
            let this = cluster.value().and_then(|c| c.members.iter().find(|m| m.this));
            let (peer, client) = embedded::listeners(server.running, sockets, self.answers, this);
            return (Observed::seen(peer, origin.clone()), Observed::seen(client, origin));
        }
        match all() {
            Err(error) => (Observed::failed(error.clone()), Observed::failed(error)),
            Ok(all) => {
                let (peer, client) = all.into_iter().partition(|l| l.purpose == Purpose::Peer);
                (Observed::seen(peer, origin.clone()), Observed::seen(client, origin))
            }
        }
    }

    /// Returns the connections with peers, and the links that they make, of those of `sockets` that are still open.
    fn connections(
        &self,
        sockets: Result<Sockets, EvidenceError>,
        cluster: &Observed<Cluster>,
        listeners: &Observed<Vec<Listener>>,
    ) -> (Observed<Vec<Connection>>, Observed<Vec<Link>>) {
        // A name means what the process is told first, then what the host is.
        let mut hosts = self.hosts.clone();
        let own = self.server.running.root.as_ref().ok().and_then(|r| r.read("/etc/hosts", 1 << 20).ok());
        hosts.extend(own.map(|text| links::hosts(&text)).unwrap_or_default());
        let all = || -> Result<_, EvidenceError> {
            // A member that cannot dial tries and tries again, so a socket counts only if it is still open by now.
            let mut sockets = sockets?;
            sockets.retain_open(&self.server.running.entry);
            // What arrives at another listener is no link.
            let listeners =
                listeners.as_result()?.iter().filter(|listener| listener.purpose == Purpose::Peer);
            let listeners: Vec<Listener> = listeners.cloned().collect();
            let matrix = Matrix {
                members: &cluster.as_result()?.members,
                listeners: &listeners,
                sockets: &sockets,
                views: self.views.as_ref().map_err(Clone::clone)?,
                hosts: &hosts,
                origin: Origin::proc(format!("/proc/{}/net/tcp", self.server.running.pid())),
            };
            let connections = matrix.connections();
            let links = matrix.links(&connections);
            Ok((Observed::seen(connections, matrix.origin.clone()), Observed::seen(links, matrix.origin)))
        };
        all().unwrap_or_else(|error| (Observed::failed(error.clone()), Observed::failed(error)))
    }

    fn transport(
        &self,
        side: Purpose,
        files: &Files,
        cluster: &Observed<Cluster>,
        version: &Observed<String>,
        restriction: Option<&Restriction>,
    ) -> (Transport, KeyMaterial) {
        let names = if side == Purpose::Peer { &PEER } else { &CLIENT };
        let settings = match self.server.resolved.settings.as_result() {
            Ok(settings) => settings,
            Err(error) => return nothing_known(side, &error),
        };
        let advertised = self.advertised(side, settings, cluster);
        let dialled = membership::tls_hosts(advertised.value().into_iter().flatten().map(|a| &a.url));
        let dials_from: Vec<IpAddr> = match side {
            Purpose::Peer => self.own_addresses(&advertised),
            _ => Vec::new(),
        };
        let on = |name: &&str| settings.get(*name).is_some_and(|s| s.on == Some(true));
        let unchecked = match side {
            Purpose::Peer => &SKIPS_NAMES[..],
            _ => &[],
        };
        let client_auth = settings::client_auth(settings, side);
        let circumstances = Circumstances {
            dialled: &dialled,
            dials_from: &dials_from,
            client_auth: client_auth.enforced,
            checks_client_names: !unchecked.iter().any(on),
            restriction: restriction.filter(|_| side == Purpose::Peer),
            user: seaworthy_pki::User::Etcd(version.value().map(String::as_str)),
        };
        let pki_side =
            if side == Purpose::Peer { seaworthy_pki::Side::Peer } else { seaworthy_pki::Side::Client };
        let derived = |name: &str| Origin::derived(format!("the settings {name}"));
        let doubt = settings.doubt_about(names.all());
        let judged_by = settings.doubt_about(names.all().into_iter().chain(unchecked.iter().copied()));
        let material = KeyMaterial {
            purpose: side,
            problems: unless_doubted(
                files.problems(self.survey, pki_side, circumstances),
                judged_by.cloned(),
            ),
            files: match doubt {
                Some(error) => Observed::failed(error.clone()),
                None => Observed::seen(files.credentials(), derived(&names.all().join(", "))),
            },
        };
        let transport = Transport {
            client_auth: decided(settings, client_auth, derived(names.trusted)),
            auto_tls: decided(settings, settings::auto_tls(settings, side), derived(names.certificate)),
            advertised,
        };
        (transport, material)
    }

    /// Returns what others are told to dial: the membership's word once it is known, else the setting's.
    fn advertised(
        &self,
        side: Purpose,
        settings: &BTreeMap<String, Setting>,
        cluster: &Observed<Cluster>,
    ) -> Observed<Vec<Advertised>> {
        let this = cluster.value().and_then(|c| c.members.iter().find(|m| m.this));
        let told = this.map(|m| if side == Purpose::Peer { &m.peer_urls } else { &m.client_urls });
        let list: Vec<Advertised> = match (told, cluster.origin()) {
            (Some(urls), Some(origin)) if !urls.is_empty() => {
                urls.iter().map(|url| Advertised { url: url.clone(), origin: origin.clone() }).collect()
            }
            _ => settings::advertised(settings, side)
                .into_iter()
                .map(|(url, origin)| Advertised { url, origin })
                .collect(),
        };
        Observed::seen(list, Origin::derived("the membership, else the settings"))
    }

    /// Returns the addresses from which this member dials its peers: those of the connections it has, else those it
    /// listens on.
    fn own_addresses(&self, advertised: &Observed<Vec<Advertised>>) -> Vec<IpAddr> {
        let urls = advertised.value().into_iter().flatten().filter_map(|a| a.url.host.parse().ok());
        let mut addresses: Vec<IpAddr> = urls.collect();
        if addresses.is_empty() {
            let sockets = self.server.sockets.as_ref().map(|s| s.listening.as_slice()).unwrap_or_default();
            addresses.extend(
                sockets.iter().map(|s| s.local.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback()),
            );
        }
        addresses
    }
}

/// Returns what the settings decide of who is let in; not known where one that decides it is not.
fn decided<T>(settings: &Settings, value: T, origin: Origin) -> Observed<T> {
    let decisive = SETTINGS.iter().copied().filter(|name| {
        ["-auth", "auto-tls", "cert-file", "key-file", "trusted-ca-file"]
            .iter()
            .any(|end| name.ends_with(end))
    });
    match settings.doubt_about(decisive) {
        Some(error) => Observed::failed(error.clone()),
        None => Observed::seen(value, origin),
    }
}

/// Returns the error for what is true of the CAs in a file and not known of those that are loaded.
fn not_loaded(why: &str) -> EvidenceError {
    EvidenceError::new(ErrorKind::Unsupported, format!("the CAs that are loaded are not known: {why}"))
}

/// Returns what was found; that nothing was found is not known where there is a `doubt`.
fn unless_doubted<T>(found: Observed<Vec<T>>, doubt: Option<EvidenceError>) -> Observed<Vec<T>> {
    match (&found, doubt) {
        (Observed::Seen { value, .. }, Some(error)) if value.is_empty() => Observed::failed(error),
        _ => found,
    }
}

fn unknown<T>(settings: &Observed<T>) -> EvidenceError {
    settings
        .error()
        .cloned()
        .unwrap_or_else(|| EvidenceError::new(ErrorKind::NotFound, "the settings are not known"))
}

/// Returns one side of which nothing can be told, because of `error`.
pub(crate) fn nothing_known(side: Purpose, error: &EvidenceError) -> (Transport, KeyMaterial) {
    let transport = Transport {
        advertised: Observed::failed(error.clone()),
        client_auth: Observed::failed(error.clone()),
        auto_tls: Observed::failed(error.clone()),
    };
    (transport, instance::unknown(side, error))
}

/// Says of `instance`, an etcd that `declared` promises and that does not run, what only an etcd has.
pub(crate) fn without_process(instance: &mut Instance, declared: &Declared, error: &EvidenceError) {
    let name = declared.settings.value().and_then(|s| s.get("name")).map(|s| s.value.clone());
    let (peer, of_peers) = nothing_known(Purpose::Peer, error);
    let (client, of_clients) = nothing_known(Purpose::Client, error);
    instance.id = format!("etcd {} (not running)", name.as_deref().unwrap_or("?"));
    instance.credentials = vec![of_peers, of_clients];
    instance.etcd = Some(Box::new(Etcd {
        name,
        cluster: Observed::failed(error.clone()),
        peer,
        client,
        connections: Observed::failed(error.clone()),
        links: Observed::failed(error.clone()),
        impostors: Observed::failed(error.clone()),
        shared_cas: Observed::failed(error.clone()),
        data_directory: Observed::failed(error.clone()),
    }));
}
