//! Drift: where the declaration, the files on disk and the running process disagree.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use seaworthy_evidence::{
    Certificate, ClientCertificate, ConfigFile, Declared, Drift, ErrorKind, EvidenceError, Listener,
    Observed, Origin, Process, Purpose, Setting, Side, Wire,
};
use seaworthy_pki::{Parsed, Usage, chains_to};

use super::material::Files;

/// Returns the settings that `declared` would give a process started now, and the running one does not have.
pub(crate) fn settings(declared: &Declared, running: &BTreeMap<String, Setting>, who: &str) -> Vec<Drift> {
    let Some(promised) = declared.settings.value() else { return Vec::new() };
    let differing = promised.iter().filter_map(|(name, promised)| {
        let running = running.get(name)?;
        let same = promised.value == running.value && promised.on == running.on;
        // Defaults differ between versions, and the declared one is not known to have any.
        let defaults = is_default(promised) && is_default(running);
        (!same && !defaults).then_some((name, promised, running))
    });
    differing
        .map(|(name, promised, running)| Drift {
            subject: name.clone(),
            message: format!(
                "{} declares {name} as {}, but {who} runs with {}: the next restart changes it",
                declared.path,
                shown(promised),
                shown(running)
            ),
            declared: side(promised),
            running: side(running),
        })
        .collect()
}

/// A certificate that a listener which demands one was shown, and whether it let its holder in.
pub(crate) struct Shown {
    /// The file with the certificate.
    pub(crate) path: String,
    /// The certificate, with what is sent along.
    pub(crate) chain: Vec<Parsed>,
    /// Who was asked.
    pub(crate) listener: String,
    pub(crate) let_in: Result<bool, EvidenceError>,
}

impl Shown {
    /// Returns whether who trusts `roots` would let it in.
    fn accepted_by(&self, roots: &[Parsed], now: Timestamp) -> bool {
        let chain = self.chain.split_first();
        chain.is_some_and(|(leaf, rest)| chains_to(leaf, rest, roots, Usage::Client, now).is_ok())
    }

    /// Returns whether it depends on the release whether the signatures of its chain count (SHA-1).
    fn is_doubtful(&self) -> bool {
        self.chain.iter().any(|p| p.certificate.signature.to_ascii_lowercase().contains("sha1"))
    }
}

/// One side of an etcd, and what tells which CAs it loaded when it started.
pub(crate) struct Loaded<'a> {
    pub(crate) files: &'a Files,
    pub(crate) process: &'a Observed<Process>,
    pub(crate) listeners: &'a [Listener],
    /// What the side is called.
    pub(crate) what: &'static str,
}

impl Loaded<'_> {
    /// Returns whether the CA file is another one than the process loaded when it started. A listener sends the names of
    /// the CAs that it accepts (RFC 8446 §4.2.4, RFC 5246 §7.4.4), and no keys. So where the file was changed or replaced
    /// since the start and has the same names, what tells is which certificates a listener lets in: those are `shown` to it
    /// only then.
    ///
    /// # Errors
    ///
    /// When it cannot be told whether the process has loaded what is in the file.
    pub(crate) fn trusted(
        &self,
        changed: Option<Timestamp>,
        shown: impl FnOnce() -> Vec<Shown>,
        now: Timestamp,
    ) -> Result<Option<Drift>, EvidenceError> {
        let Some((file, Ok(content))) = self.files.trusted.as_ref().map(|file| (file, &file.content)) else {
            return Ok(None);
        };
        // Each certificate is loaded once, however often it is in the file; several may have one name.
        let mut once = BTreeSet::new();
        let distinct = content.iter().filter(|p| once.insert(p.der()));
        let mut on_disk: Vec<&str> = distinct.map(|p| p.certificate.subject.as_str()).collect();
        on_disk.sort_unstable();
        let sent = self.listeners.iter().filter_map(|listener| {
            let wire = listener.wire.as_ref()?;
            let mut sent: Vec<&str> =
                wire.value()?.acceptable_cas.as_ref()?.iter().map(String::as_str).collect();
            sent.sort_unstable();
            (!sent.is_empty()).then_some((sent, wire.origin()))
        });
        let sent: Vec<_> = sent.collect();
        let (what, path, disk) = (self.what, &file.path, on_disk.join("; "));
        let drift = |message: String, declared: String, running: Side| Drift {
            subject: format!("the {what} CA file"),
            declared: Side { value: declared, origin: file.origin.clone() },
            running,
            message,
        };
        if let Some((other, wire)) = sent.iter().find(|(names, _)| *names != on_disk) {
            let other = other.join("; ");
            let message = format!(
                "the {what} CA file {path} holds {disk}, but the running etcd accepts certificates of {other}: it read \
                 the file when it started, and a restart changes whom it trusts"
            );
            let origin = wire.cloned().unwrap_or_else(|| Origin::derived("the wire"));
            return Ok(Some(drift(message, disk, Side { value: other, origin })));
        }
        let Some((process, changed)) = self.process.value().zip(changed) else { return Ok(None) };
        let order = order(changed, process, now);
        if order == Order::Before || !self.is_used() {
            return Ok(None);
        }
        let shown = shown();
        let contradicts = |shown: &&Shown| {
            let let_in = shown.let_in.as_ref().ok().copied();
            let_in.is_some_and(|is| is != shown.accepted_by(content, now)) && !shown.is_doubtful()
        };
        if let Some(shown) = shown.iter().find(contradicts) {
            let (does, would) = match shown.let_in {
                Ok(true) => ("accepts", "refuses"),
                _ => ("refuses", "accepts"),
            };
            let message = format!(
                "the {what} CA file {path} was changed or replaced at {}, after etcd had read it at {}: it {would} {}, which \
                 the running etcd at {} {does}, so it holds another key than the CA of the same name that is loaded ({disk}), \
                 and a restart changes whom it trusts",
                at(changed),
                at(process.started_at),
                shown.path,
                shown.listener,
            );
            let origin = Origin::wire(&shown.listener, format!("the certificate {}", shown.path));
            let running = Side { value: format!("{does} {}", shown.path), origin };
            return Ok(Some(drift(message, format!("{would} {}", shown.path), running)));
        }
        // What was let in although only one CA of the file accepts it shows that this one is loaded.
        let proves = |root: &Parsed| {
            let root = std::slice::from_ref(root);
            shown.iter().any(|shown| matches!(shown.let_in, Ok(true)) && shown.accepted_by(root, now))
        };
        if !sent.is_empty() && content.iter().all(proves) {
            return Ok(None);
        }
        if order == Order::Unknown {
            return Err(doubtful(path, changed, process));
        }
        let why = match (sent.is_empty(), shown.iter().find_map(|shown| shown.let_in.as_ref().err())) {
            (true, _) => "no listener told which CAs it accepts".to_owned(),
            (false, Some(error)) => format!(
                "its names are those of the CAs that the listener accepts, which tells no keys, and the certificate of this \
                 member proved nothing ({error})"
            ),
            (false, None) => {
                "its names are those of the CAs that the listener accepts, which tells no keys, and no \
                              certificate of this member could prove more"
                    .to_owned()
            }
        };
        let message = format!(
            "whether the running etcd trusts what is in the {what} CA file {path} is unknown since the file was changed or \
             replaced at {}, after etcd had read it at {}: {why}",
            at(changed),
            at(process.started_at)
        );
        Err(EvidenceError::new(ErrorKind::Unsupported, message).at(file.origin.clone()))
    }

    /// Returns whether the CA file has been loaded at all: for peers always, because this member dials them, and for
    /// clients where a listener speaks TLS.
    fn is_used(&self) -> bool {
        let tls = |l: &Listener| {
            l.url.is_tls() || l.wire.as_ref().and_then(Observed::value).is_some_and(Wire::speaks_tls)
        };
        self.what == "peer" || self.listeners.iter().any(tls)
    }

    /// Returns the listener that serves another certificate than its file holds, which etcd reads at every handshake. A
    /// file that was `changed` since the snapshot was begun says nothing about what was served before.
    pub(crate) fn served(
        &self,
        changed: impl FnOnce() -> Option<Timestamp>,
        taken: Timestamp,
    ) -> Option<Drift> {
        let file = self.files.certificate.as_ref()?;
        let leaf = &file.content.as_ref().ok()?.first()?.certificate;
        let other = |listener: &&Listener| -> bool {
            let wire = listener.wire.as_ref().and_then(Observed::value);
            let served = wire.and_then(|wire| wire.chain.first());
            listener.configured && served.is_some_and(|served| served.fingerprint != leaf.fingerprint)
        };
        let listener = self.listeners.iter().find(other)?;
        let wire = listener.wire.as_ref()?;
        let served = wire.value()?.chain.first()?;
        if changed()? >= taken {
            return None;
        }
        let value = |c: &Certificate| format!("{} (serial number {})", c.subject, c.serial);
        Some(Drift {
            subject: format!("the {} certificate", self.what),
            message: format!(
                "{} serves {}, and {} holds {}: etcd reads the file at every handshake, so what listens there is given \
                 another one",
                listener.url.text,
                value(served),
                file.path,
                value(leaf)
            ),
            declared: Side { value: value(leaf), origin: file.origin.clone() },
            running: Side {
                value: value(served),
                origin: wire.origin().cloned().unwrap_or_else(|| listener.origin.clone()),
            },
        })
    }
}

/// Returns what shows that the process runs with another configuration than its file has now. The file is compared only
/// if it was changed or replaced after the process read it, by what can be seen from outside: sockets, TLS and client certificates.
/// `listeners` are those that the file names now, joined with the sockets there are; `enforced` tells whether the file
/// demands client certificates of them.
///
/// # Errors
///
/// When the file was changed or replaced since: what cannot be seen from outside is unknown, and so is whether what
/// contradicts it does, where the clock does not tell which was first.
pub(crate) fn configuration(
    file: &Observed<ConfigFile>,
    process: &Observed<Process>,
    listeners: &[Listener],
    enforced: Option<bool>,
    now: Timestamp,
) -> Result<Vec<Drift>, EvidenceError> {
    let changed = || Some((file.value()?, file.value()?.changed_at?, process.value()?));
    let Some((file, changed, process)) = changed() else { return Ok(Vec::new()) };
    let order = order(changed, process, now);
    if order == Order::Before {
        return Ok(Vec::new());
    }
    let contradiction = |listener: &Listener| -> Option<Drift> {
        let (declared, running, origin) = contradicted(listener, enforced)?;
        Some(Drift {
            subject: format!("the configuration file, {}", listener.url.text),
            message: format!(
                "{} was changed or replaced at {}, after etcd had read it at {}: by the file, {} {declared}; in truth, it \
                 {running}",
                file.path,
                at(changed),
                at(process.started_at),
                listener.url.text
            ),
            declared: Side { value: declared.to_owned(), origin: listener.origin.clone() },
            running: Side {
                value: running.to_owned(),
                origin: origin.unwrap_or_else(|| socket_table(process)),
            },
        })
    };
    let contradictions: Vec<_> = listeners.iter().filter_map(contradiction).collect();
    match (order, contradictions.is_empty()) {
        (Order::Unknown, _) => Err(doubtful(&file.path, changed, process)),
        (_, false) => Ok(contradictions),
        (_, true) => {
            let message = format!(
                "whether the running etcd has the settings of {} is unknown since the file was changed or replaced at {}, \
                 after etcd had read it at {}: nothing that can be seen from outside (sockets, TLS, client certificates) \
                 contradicts it, and the other settings cannot be seen",
                file.path,
                at(changed),
                at(process.started_at)
            );
            Err(EvidenceError::new(ErrorKind::Unsupported, message))
        }
    }
}

/// Returns why it is not known whether `component` runs with what is in its configuration file, if it is not: it was changed or
/// replaced since the process was started.
pub(crate) fn replaced(
    component: &str,
    path: &str,
    changed: Option<Timestamp>,
    process: &Process,
    now: Timestamp,
) -> Option<EvidenceError> {
    let changed = changed?;
    let how = match order(changed, process, now) {
        Order::Before => return None,
        Order::After => "since then",
        Order::Unknown => "perhaps since then, which the clock of the node does not tell",
    };
    let message = format!(
        "whether {component} runs with what is in {path} is not known: it was started at {}, and the file was changed or replaced at {}, {how}",
        at(process.started_at),
        at(changed)
    );
    Some(EvidenceError::new(ErrorKind::Unsupported, message))
}

/// When a file was changed, as seen from the start of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Before it, or nothing speaks for after it.
    Before,
    /// After it for certain.
    After,
    /// After it by the clock as it is set now, which does not tell.
    Unknown,
}

/// Returns when a file whose inode has the time `changed` was changed. The time of a file is what the clock said then, and the start
/// of a process is derived from the clock as it is set now: they cannot be compared more exactly than the clock is known
/// to have been kept, nor can a time that is still to come.
fn order(changed: Timestamp, process: &Process, now: Timestamp) -> Order {
    if changed <= process.started_at {
        Order::Before
    } else if changed > process.started_before.unwrap_or(process.started_at) && changed <= now {
        Order::After
    } else {
        Order::Unknown
    }
}

fn doubtful(path: &str, changed: Timestamp, process: &Process) -> EvidenceError {
    let message = format!(
        "{path} was changed or replaced at {}, and etcd was started at {}: which was first cannot be told, because the clock of the \
         node may have been set back in between",
        at(changed),
        at(process.started_at)
    );
    EvidenceError::new(ErrorKind::Unsupported, message)
}

/// Returns what a listener is by the settings and what it is in truth, with the place of the latter, where they differ.
fn contradicted(
    listener: &Listener,
    enforced: Option<bool>,
) -> Option<(&'static str, &'static str, Option<Origin>)> {
    match (listener.configured, &listener.address) {
        (true, None) => return Some(("is listened on", "is not", None)),
        (false, _) => return Some(("is not listened on", "is", None)),
        (true, Some(_)) => {}
    }
    let seen = listener.wire.as_ref()?;
    let (wire, origin) = (seen.value()?, seen.origin().cloned());
    let (declared, running) = match (listener.url.is_tls(), wire.speaks_only_tls()) {
        (true, Some(false)) => ("speaks TLS", "speaks plaintext"),
        (false, Some(true)) => ("speaks plaintext", "speaks TLS"),
        _ if listener.purpose == Purpose::Metrics => return None,
        _ => match (enforced?, wire.client_certificate?) {
            (true, ClientCertificate::NotRequested | ClientCertificate::Requested) => {
                ("demands a client certificate", "serves a client that has none")
            }
            (false, ClientCertificate::Required) => {
                ("demands no client certificate", "refuses a client that has none")
            }
            _ => return None,
        },
    };
    Some((declared, running, origin))
}

fn at(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn socket_table(process: &Process) -> Origin {
    Origin::proc(format!("/proc/{}/net/tcp", process.pid))
}

fn side(setting: &Setting) -> Side {
    Side { value: shown(setting), origin: setting.origin.clone() }
}

fn is_default(setting: &Setting) -> bool {
    matches!(setting.origin, Origin::Default { .. })
}

fn shown(setting: &Setting) -> String {
    match setting.value.as_str() {
        "" => "unset".to_owned(),
        value => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use seaworthy_evidence::{ConfigFormat, ProcessId, Url};

    use super::super::material::Content;
    use super::*;

    const START: i64 = 1_000_000;

    fn wire(tls: bool, client_certificate: Option<ClientCertificate>) -> Observed<Wire> {
        let seen = |value| Observed::seen(value, Origin::wire("10.0.0.1:2380", "TLS"));
        let wire = Wire {
            address: "10.0.0.1:2380".to_owned(),
            tls: seen(tls),
            plaintext: seen(!tls),
            complete: seen(true),
            spoke: String::new(),
            raft: None,
            etcd_version: None,
            protocols: Vec::new(),
            suites: Vec::new(),
            groups: Vec::new(),
            client_certificate,
            acceptable_cas: Some(vec!["CN=etcd-ca".to_owned()]),
            chain: Vec::new(),
            milliseconds: 0,
            connections: 0,
        };
        Observed::seen(wire, Origin::wire("10.0.0.1:2380", "TLS"))
    }

    fn listener(url: &str, configured: bool, bound: bool, wire: Option<Observed<Wire>>) -> Listener {
        Listener {
            url: Url::parse(url).unwrap(),
            purpose: Purpose::Peer,
            configured,
            address: bound.then(|| "10.0.0.1:2380".to_owned()),
            wire,
            open_to: None,
            origin: Origin::file("/etc/etcd.yaml"),
        }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn process() -> Observed<Process> {
        let process = Process {
            pid: 7,
            exe: Observed::seen("/etcd".to_owned(), Origin::proc("/proc/7/exe")),
            build: None,
            argv0: "etcd".to_owned(),
            identity: Some(ProcessId { boot_id: String::new(), pid: 7, start_ticks: 100 }),
            started_at: second(START),
            started_before: Some(second(START + 60)),
            uid: 0,
            gid: 0,
            user: None,
            container: None,
            own_mounts: None,
            own_network: None,
        };
        Observed::seen(process, Origin::proc("/proc/7/stat"))
    }

    /// Returns a configuration file that was changed so many seconds after the start.
    fn file(later: i64) -> Observed<ConfigFile> {
        let file = ConfigFile {
            path: "/etc/etcd.yaml".to_owned(),
            format: ConfigFormat::Yaml,
            changed_at: Some(second(START + later)),
            ignored: Vec::new(),
        };
        Observed::seen(file, Origin::file("/etc/etcd.yaml"))
    }

    #[test]
    fn a_rewritten_configuration_file_is_drift_only_where_something_contradicts_it() {
        let https = "https://10.0.0.1:2380";
        let required = Some(ClientCertificate::Required);
        let none = Some(ClientCertificate::NotRequested);
        let sound = || listener(https, true, true, Some(wire(true, required)));
        let cases = [
            ("not changed since", -1, listener(https, true, false, None), Some(true), None),
            ("no such socket", 61, listener(https, true, false, None), Some(true), Some("is not")),
            ("a socket more", 61, listener(https, false, true, None), Some(true), Some("it is")),
            (
                "plaintext on the wire",
                61,
                listener(https, true, true, Some(wire(false, None))),
                Some(true),
                Some("speaks plaintext"),
            ),
            (
                "no certificate demanded",
                61,
                listener(https, true, true, Some(wire(true, none))),
                Some(true),
                Some("serves a client that has none"),
            ),
            ("a certificate demanded", 61, sound(), Some(false), Some("refuses a client that has none")),
        ];
        for (about, later, listener, enforced, want) in cases {
            let now = second(START + 1000);
            let drifts = configuration(&file(later), &process(), &[listener], enforced, now).unwrap();
            let said: Vec<_> = drifts.iter().map(|d| d.message.as_str()).collect();
            assert_eq!(said.len(), usize::from(want.is_some()), "{about}: {said:?}");
            assert!(said.iter().all(|s| s.ends_with(want.unwrap_or_default())), "{about}: {said:?}");
        }
        for (about, listener) in [
            ("rewritten, and nothing contradicts it", sound()),
            ("nobody asked the wire", listener(https, true, true, None)),
        ] {
            let error = configuration(&file(61), &process(), &[listener], Some(true), second(START + 1000));
            let message = error.expect_err(about).message;
            assert!(message.contains("is unknown since the file was changed or replaced"), "{message}");
        }
    }

    #[test]
    fn a_clock_that_may_have_been_set_back_proves_no_drift() {
        let https = "https://10.0.0.1:2380";
        let gone = || listener(https, true, false, None);
        let sound = || listener(https, true, true, Some(wire(true, Some(ClientCertificate::Required))));
        // The file's time and the clock, both after the start; the listener; whether there is a drift, or why not.
        let cases = [
            ("before the start", 0, 1000, gone(), Ok(0)),
            ("after it, by less than can be told", 60, 1000, gone(), Err(ErrorKind::Unsupported)),
            (
                "after it, by less than can be told, and nothing contradicts",
                60,
                1000,
                sound(),
                Err(ErrorKind::Unsupported),
            ),
            ("after it", 61, 1000, gone(), Ok(1)),
            ("in the future", 61, 60, gone(), Err(ErrorKind::Unsupported)),
        ];
        for (about, later, now, listener, want) in cases {
            let now = second(START + now);
            let got = configuration(&file(later), &process(), &[listener], Some(true), now);
            assert_eq!(got.map(|d| d.len()).map_err(|e| e.kind), want, "{about}");
        }
    }

    /// A CA of a name that others have as well.
    struct Ca {
        issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    }

    impl Ca {
        fn new(name: &str) -> Self {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.not_before = rcgen::date_time_ymd(1960, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
        }

        fn certificate(&self) -> Parsed {
            parsed(&self.issuer.pem())
        }

        /// Returns what a listener made of a certificate of this CA.
        fn shown(&self, let_in: Result<bool, ErrorKind>) -> Shown {
            let mut params = rcgen::CertificateParams::new(vec!["10.0.0.1".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(1960, 1, 1);
            let leaf = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &self.issuer).unwrap();
            Shown {
                path: "/peer.crt".to_owned(),
                chain: vec![parsed(&leaf.pem())],
                listener: "10.0.0.1:2380".to_owned(),
                let_in: let_in.map_err(|kind| EvidenceError::new(kind, "no answer")),
            }
        }
    }

    fn parsed(pem: &str) -> Parsed {
        let all = seaworthy_pki::certificates_from_pem(pem.as_bytes(), Origin::file("/x"), second(START));
        all.unwrap().remove(0)
    }

    /// Returns what is told of a CA file that was changed so many seconds after the start, by the names of the CAs that the
    /// listener sends and by what it was shown.
    fn ca_file(
        content: &[&Ca],
        sent: &[&str],
        later: Option<i64>,
        shown: impl FnOnce() -> Vec<Shown>,
    ) -> Result<Option<Drift>, EvidenceError> {
        let trusted_file = Content {
            path: "/ca.crt".to_owned(),
            origin: Origin::file("/ca.crt"),
            content: Ok(content.iter().map(|ca| ca.certificate()).collect()),
            refusal: Ok(None),
        };
        let files = Files {
            certificate: None,
            key: None,
            client_certificate: None,
            client_key: None,
            trusted: Some(trusted_file),
            revocations: None,
        };
        let mut seen = wire(true, Some(ClientCertificate::Required));
        if let Observed::Seen { value, .. } = &mut seen {
            value.acceptable_cas = Some(sent.iter().map(|name| (*name).to_owned()).collect());
        }
        let listener = listener("https://10.0.0.1:2380", true, true, Some(seen));
        let loaded = Loaded { files: &files, process: &process(), listeners: &[listener], what: "peer" };
        loaded.trusted(later.map(|later| second(START + later)), shown, second(START + 1000))
    }

    #[test]
    fn a_replaced_ca_file_of_the_same_names_is_told_by_the_certificates_that_are_let_in() {
        let (own, other) = (Ca::new("etcd-ca"), Ca::new("etcd-ca"));
        let unknown = Err("is unknown since the file was changed or replaced at 1970-01-12 13:47:41 UTC");
        // The CAs in the file, what is shown, and what is told.
        let cases = [
            ("the same content", vec![&own], vec![own.shown(Ok(true))], Ok("")),
            (
                "the CA alone",
                vec![&other],
                vec![own.shown(Ok(true))],
                Ok(
                    "it refuses /peer.crt, which the running etcd at 10.0.0.1:2380 accepts, so it holds another key",
                ),
            ),
            (
                "the CA and the certificate",
                vec![&other],
                vec![other.shown(Ok(false))],
                Ok("it accepts /peer.crt, which the running etcd at 10.0.0.1:2380 refuses"),
            ),
            ("a certificate of neither", vec![&other], vec![own.shown(Ok(false))], unknown),
            ("nothing to show", vec![&other], vec![], unknown),
            (
                "no answer",
                vec![&own],
                vec![own.shown(Err(ErrorKind::Timeout))],
                Err("proved nothing (no answer)"),
            ),
            (
                "one proves what another does not",
                vec![&own],
                vec![own.shown(Err(ErrorKind::Timeout)), own.shown(Ok(true))],
                Ok(""),
            ),
        ];
        for (about, content, shown, want) in cases {
            let got = ca_file(&content, &["CN=etcd-ca"], Some(61), || shown);
            match (got, want) {
                (Ok(got), Ok("")) => assert_eq!(got, None, "{about}"),
                (Ok(Some(got)), Ok(want)) => assert!(got.message.contains(want), "{about}: {}", got.message),
                (Err(got), Err(want)) => assert!(got.message.contains(want), "{about}: {got}"),
                (got, want) => panic!("{about}: {got:?} and not {want:?}"),
            }
        }
    }

    #[test]
    fn a_bundle_of_several_cas_of_one_name_is_counted() {
        let (own, new) = (Ca::new("etcd-ca"), Ca::new("etcd-ca"));
        let both = ["CN=etcd-ca", "CN=etcd-ca"];
        let drift = ca_file(&[&own, &new], &both[..1], None, Vec::new).unwrap().expect("a drift");
        assert!(drift.message.contains("holds CN=etcd-ca; CN=etcd-ca, but"), "{}", drift.message);
        assert_eq!(
            ca_file(&[&own, &own], &both[..1], None, Vec::new),
            Ok(None),
            "the same twice is loaded once"
        );
        // Each of them has to be proved.
        let one = || vec![own.shown(Ok(true))];
        assert!(ca_file(&[&own, &new], &both, Some(61), one).is_err());
        let two = || vec![own.shown(Ok(true)), new.shown(Ok(true))];
        assert_eq!(ca_file(&[&own, &new], &both, Some(61), two), Ok(None));
    }

    #[test]
    fn only_a_ca_file_that_changed_after_the_start_is_doubted() {
        let ca = Ca::new("etcd-ca");
        let cases = [
            ("long before", Some(-1000), None),
            ("shortly before", Some(0), None),
            ("at about the time", Some(60), Some("which was first cannot be told")),
            ("after it", Some(61), Some("is unknown since")),
            ("in the future", Some(1001), Some("which was first cannot be told")),
            ("no time", None, None),
        ];
        for (about, later, want) in cases {
            let got = ca_file(&[&ca], &["CN=etcd-ca"], later, Vec::new);
            let said = got.err().map(|e| e.message);
            assert_eq!(said.is_some(), want.is_some(), "{about}: {said:?}");
            assert!(said.unwrap_or_default().contains(want.unwrap_or_default()), "{about}");
        }
        let asked = ca_file(&[&ca], &["CN=etcd-ca"], Some(0), || panic!("nothing was to be asked"));
        assert_eq!(asked, Ok(None));
    }

    #[test]
    fn a_listener_that_serves_another_certificate_than_its_file_holds_contradicts_it() {
        let (own, other) = (Ca::new("m1").certificate(), Ca::new("m1").certificate());
        let told = |on_disk: &Parsed, changed: i64| {
            let file = Content {
                path: "/peer.crt".to_owned(),
                origin: Origin::file("/peer.crt"),
                content: Ok(vec![on_disk.clone()]),
                refusal: Ok(None),
            };
            let files = Files {
                certificate: Some(file),
                key: None,
                client_certificate: None,
                client_key: None,
                trusted: None,
                revocations: None,
            };
            let mut seen = wire(true, None);
            if let Observed::Seen { value, .. } = &mut seen {
                value.chain = vec![own.certificate.clone()];
            }
            let listener = listener("https://10.0.0.1:2380", true, true, Some(seen));
            let loaded = Loaded { files: &files, process: &process(), listeners: &[listener], what: "peer" };
            loaded.served(|| Some(second(changed)), second(START))
        };
        assert_eq!(told(&own, START - 1), None);
        let drift = told(&other, START - 1).expect("a drift");
        assert!(drift.message.contains("/peer.crt holds CN=m1 (serial number"), "{}", drift.message);
        assert_eq!(told(&other, START + 1), None, "it was renewed while we looked");
    }
}
