//! etcd's proxies: processes of the same program that are no members.

use seaworthy_components::etcd_proxy::{self, ProxySettings};
use seaworthy_evidence::{
    ErrorKind, EtcdProxy, EvidenceError, Instance, InstanceFiles, Listener, Observed, Origin, ProxyKind,
    Purpose,
};
use seaworthy_host::sockets::Sockets;

use super::super::Survey;
use super::super::listeners::{self, Answers};
use super::super::processes::{Found, Running};

/// One proxy process with what was read of it on the node.
pub(crate) struct Reading<'a> {
    pub(crate) running: &'a Running,
    pub(crate) sockets: Result<Sockets, EvidenceError>,
    settings: Option<ProxySettings>,
}

impl<'a> Reading<'a> {
    /// Reads the settings and sockets of one process.
    pub(crate) fn read(found: &Found, running: &'a Running) -> Self {
        let sockets = found.sockets(running);
        Self { running, sockets, settings: etcd_proxy::resolve(running.arguments()) }
    }

    /// Returns the proxy as evidence, joined with what its listeners said.
    pub(crate) fn finish(self, survey: &Survey<'_>, answers: &Answers) -> Instance {
        let pid = self.running.pid();
        let settings = self.settings.as_ref();
        let kind = settings.map_or(ProxyKind::Gateway, |s| s.kind);
        let name = match kind {
            ProxyKind::Gateway => "gateway",
            ProxyKind::GrpcProxy => "grpc-proxy",
        };
        let listeners =
            self.sockets.as_ref().map_err(Clone::clone).map(|s| self.listeners(survey, s, answers));
        let unread = || {
            let message = format!("of an etcd {name} nothing but its own listener is looked at");
            EvidenceError::new(ErrorKind::Unsupported, message)
        };
        Instance {
            id: format!("etcd {name} (pid {pid})"),
            component: etcd_proxy::COMPONENT.name.to_owned(),
            process: self.running.evidence(survey),
            version: Observed::failed(unread()),
            settings: Observed::failed(unread()),
            config_file: None,
            ignored_environment: Some(Observed::failed(unread())),
            declared: Observed::failed(unread()),
            drift: Observed::failed(unread()),
            listeners: Observed::from_result(listeners, Origin::proc(format!("/proc/{pid}/net/tcp"))),
            credentials: Vec::new(),
            files: InstanceFiles {
                manifest: None,
                manifest_open_to: Observed::failed(unread()),
                rival_manifests: Observed::failed(unread()),
                pki: Observed::failed(unread()),
                access: None,
                kubeconfigs: Observed::failed(unread()),
                authorities: Some(Observed::failed(unread())),
                config: Some(Observed::failed(unread())),
                unit: Some(Observed::failed(unread())),
            },
            etcd: None,
            kube_apiserver: None,
            etcd_proxy: Some(EtcdProxy {
                kind,
                endpoints: settings.map(|s| s.endpoints.clone()).unwrap_or_default(),
                has_client_identity: settings.is_some_and(|s| s.upstream.cert.is_some()),
                demands_client_certificate: Observed::seen(
                    settings.is_some_and(ProxySettings::demands_client_certificate),
                    Origin::proc(format!("/proc/{pid}/cmdline")),
                ),
            }),
        }
    }

    fn listeners(&self, survey: &Survey<'_>, sockets: &Sockets, answers: &Answers) -> Vec<Listener> {
        let settings = self.settings.as_ref();
        let listen = settings.map(|s| (s.listen.clone(), s.listen_origin.clone(), Purpose::Client));
        let metrics =
            settings.and_then(|s| s.metrics.clone()).map(|(url, origin)| (url, origin, Purpose::Metrics));
        let urls: Vec<_> = listen.into_iter().chain(metrics).collect();
        listeners::all(survey, self.running, &urls, sockets, answers)
    }
}
