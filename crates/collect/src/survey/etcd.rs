//! What a survey does for etcd alone: its members and links, whom it lets in, its proxies, and etcds inside other programs.

pub(super) mod allowed;
pub(super) mod clients;
pub(super) mod embedded;
pub(super) mod membership;
pub(super) mod proxy;
pub(super) mod server;
pub(super) mod trust;

mod links;

use seaworthy_evidence::{EtcdClient, EvidenceError, Instance};

use super::Survey;
use super::attribution::Attributions;
use super::declarations::Declarations;
use super::listeners::Answers;
use super::processes::Found;
use proxy::Reading;
use server::Server;
use trust::Trust;

/// The etcds of a node, with their proxies and clients, as they are read before anything is asked.
pub(super) struct Etcds<'a> {
    /// The members, and what may be one inside another program.
    pub(super) servers: Vec<Server<'a>>,
    pub(super) proxies: Vec<Reading<'a>>,
    pub(super) clients: Vec<EtcdClient>,
    /// Why there may be others.
    doubts: Vec<EvidenceError>,
}

impl<'a> Etcds<'a> {
    pub(super) fn read(survey: &Survey<'_>, found: &'a Found) -> Self {
        let mut servers: Vec<Server<'_>> =
            found.servers.iter().map(|running| Server::read(found, running)).collect();
        let clients = clients::read(survey, found.api_servers(), &servers);
        let doubts = embedded::find(found, &mut servers);
        let proxies = found.proxies.iter().map(|running| Reading::read(found, running)).collect();
        Self { servers, proxies, clients, doubts }
    }

    /// Takes out the programs that turned out to run no etcd, and returns why there may be others.
    pub(super) fn settle(&mut self, answers: &Answers) -> Vec<EvidenceError> {
        let mut doubts = std::mem::take(&mut self.doubts);
        doubts.extend(embedded::retain(&mut self.servers, answers));
        doubts
    }

    /// Returns the etcds, those that are only declared among them, and the proxies.
    pub(super) fn finish(
        self,
        survey: &Survey<'_>,
        declared: &Declarations,
        attributions: &Attributions<'_>,
        trust: &Trust,
        answers: &Answers,
    ) -> (Vec<Instance>, Vec<Instance>) {
        let mut etcds = server::finish_all(survey, self.servers, declared, attributions, trust, answers);
        etcds.extend(declared.without_process(survey, &etcds));
        let proxies = self.proxies.into_iter().map(|proxy| proxy.finish(survey, answers)).collect();
        (etcds, proxies)
    }
}
