//! What an etcd listener answers about its cluster: `GET /members` and `GET /version`.

use seaworthy_evidence::{ErrorKind, EvidenceError, Member};
use serde::Deserialize;

use crate::etcd::Version;

/// Size in bytes up to which an answer is read.
pub const MAX_ANSWER: usize = 1 << 20;

/// What `GET /version` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Release of the server that answered.
    pub server: String,
    /// Version of the cluster, which is that of its oldest member; `None` before it is agreed upon.
    pub cluster: Option<String>,
}

/// Returns the members in `body`, the answer to `GET /members` on a peer port, ordered as answered. None is
/// marked as the one that this is about.
pub fn members(body: &[u8]) -> Result<Vec<Member>, EvidenceError> {
    let members: Vec<Raw> = parse(body, "the member list")?;
    if members.len() > MAX_MEMBERS {
        return Err(EvidenceError::new(
            ErrorKind::TooLarge,
            "the member list has more members than etcd allows",
        ));
    }
    Ok(members.into_iter().map(|raw| raw.member()).collect())
}

/// Returns the versions in `body`, the answer to `GET /version`.
pub fn versions(body: &[u8]) -> Result<Versions, EvidenceError> {
    #[derive(Deserialize)]
    struct Answer {
        etcdserver: String,
        #[serde(default)]
        etcdcluster: String,
    }
    let Answer { etcdserver, etcdcluster } = parse(body, "the version")?;
    if Version::parse(&etcdserver).is_none() || etcdserver.len() > 64 {
        return Err(EvidenceError::new(ErrorKind::Malformed, "the version is none of etcd's"));
    }
    let cluster = Some(etcdcluster).filter(|v| v.len() <= 64 && Version::parse(v).is_some());
    Ok(Versions { server: etcdserver, cluster })
}

/// A member as etcd writes it, on the wire and in its database.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Raw {
    pub(crate) id: u64,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
    #[serde(default)]
    is_learner: bool,
}

impl Raw {
    pub(crate) fn member(self) -> Member {
        let urls = |urls: Option<Vec<String>>| {
            urls.unwrap_or_default().iter().map(|u| crate::etcd::url(u)).collect()
        };
        Member {
            id: format!("{:x}", self.id),
            name: self.name,
            peer_urls: urls(self.peer_urls),
            client_urls: urls(self.client_urls),
            learner: self.is_learner,
            this: false,
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, EvidenceError> {
    if body.len() > MAX_ANSWER {
        return Err(EvidenceError::new(ErrorKind::TooLarge, format!("{what} is larger than 1 MiB")));
    }
    serde_json::from_slice(body).map_err(|error| {
        let at = (error.line(), error.column());
        EvidenceError::new(
            ErrorKind::Malformed,
            format!("{what} is not what etcd answers: line {}, column {}", at.0, at.1),
        )
    })
}

/// More members than any cluster has.
pub(crate) const MAX_MEMBERS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn member_lists_are_those_of_etcd() {
        // Answered by etcd 3.5.1.
        let body = br#"[{"id":6662698563040693991,"peerURLs":["http://127.0.0.1:33380"],"name":"m1",
            "clientURLs":["http://127.0.0.1:33379"]},{"id":13481024896196180281,
            "peerURLs":["https://10.0.0.2:2380","https://10.0.0.3:2380"],"isLearner":true}]"#;
        let got = members(body).unwrap();
        let summary: Vec<_> =
            got.iter().map(|m| (m.id.as_str(), m.name.as_str(), m.peer_urls.len(), m.learner)).collect();
        assert_eq!(summary, [("5c76a90ae78bcee7", "m1", 1, false), ("bb1638b7b1f87939", "", 2, true)]);
    }

    #[test]
    fn other_answers_are_errors() {
        let cases: [&[u8]; 6] = [b"", b"404 page not found", b"{}", b"[{}]", b"[{\"id\":\"x\"}]", b"[1]"];
        for body in cases {
            assert_eq!(members(body).unwrap_err().kind, ErrorKind::Malformed);
        }
        assert_eq!(members(&vec![b' '; MAX_ANSWER + 1]).unwrap_err().kind, ErrorKind::TooLarge);
        assert!(members(b"null").is_err());
        assert_eq!(members(br#"[{"id":1,"peerURLs":null}]"#).unwrap().len(), 1);
    }

    #[test]
    fn versions_are_those_of_etcd() {
        let cases = [
            (r#"{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}"#, Some(("3.4.23", Some("3.4.0")))),
            (
                r#"{"etcdserver":"3.6.13","etcdcluster":"3.6.0","storage":"3.6.0"}"#,
                Some(("3.6.13", Some("3.6.0"))),
            ),
            (r#"{"etcdserver":"3.5.1","etcdcluster":"not_decided"}"#, Some(("3.5.1", None))),
            (r#"{"etcdserver":"nonsense"}"#, None),
            (r#"{"major":"1"}"#, None),
        ];
        for (body, want) in cases {
            let got = versions(body.as_bytes()).ok();
            let got = got.as_ref().map(|v| (v.server.as_str(), v.cluster.as_deref()));
            assert_eq!(got, want, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (members(&body), versions(&body));
        }
    }
}
