//! What a listener said on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Certificate, Observed};

/// The answers of one listening socket to a plaintext request and to TLS handshakes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wire {
    /// The address that was asked, `host:port` or a socket path.
    pub address: String,
    /// Whether it speaks TLS; an error where it did not answer in time.
    pub tls: Observed<bool>,
    /// Whether it serves requests without TLS; an error where it did not answer in time. Both can be true: etcd accepts TLS and
    /// plaintext on one client port.
    pub plaintext: Observed<bool>,
    /// True where every protocol version, cipher suite and group that is known here was tried, as far as it speaks TLS; an error
    /// says why not. What was accepted until then is listed all the same.
    pub complete: Observed<bool>,
    /// One clause: what it answered, for example `200 OK with the member list of cluster cdf818194e3a8c32`.
    pub spoke: String,
    /// Whether it is an etcd peer listener, known by its answer to `/members` or `/raft/probing`; null when that
    /// could not be asked (a client certificate is demanded).
    pub raft: Option<bool>,
    /// etcd's version from `/version`; null when it did not say.
    pub etcd_version: Option<String>,
    /// TLS protocol versions that were tried, lowest first; empty without TLS.
    pub protocols: Vec<ProtocolSupport>,
    /// Cipher suites it accepted, in the order of its preference within a protocol; empty without TLS.
    pub suites: Vec<Suite>,
    /// Key-exchange groups it accepted, IANA names, for example `X25519MLKEM768`; empty without TLS.
    pub groups: Vec<String>,
    /// What it wants from a client's certificate; null without TLS or when it could not be told.
    pub client_certificate: Option<ClientCertificate>,
    /// Distinguished names of the CAs it accepts client certificates from: the pool the process loaded when it
    /// started. Empty when it named none; null without TLS or when no certificate was requested.
    pub acceptable_cas: Option<Vec<String>>,
    /// The certificates it served, leaf first; empty without TLS.
    pub chain: Vec<Certificate>,
    /// How long the probe took, in milliseconds.
    pub milliseconds: u32,
    /// How many connections the probe made.
    pub connections: u32,
}

impl Wire {
    /// Returns whether it was seen to speak TLS.
    pub fn speaks_tls(&self) -> bool {
        self.tls.value() == Some(&true)
    }

    /// Returns whether it was seen to serve requests without TLS.
    pub fn serves_plaintext(&self) -> bool {
        self.plaintext.value() == Some(&true)
    }

    /// Returns whether it speaks only TLS (true), or only plaintext (false); `None` where it does both or neither, or where that is
    /// not known.
    pub fn speaks_only_tls(&self) -> Option<bool> {
        match (self.tls.value()?, self.plaintext.value()?) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    }
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// TLS 1.0 (RFC 2246).
    #[serde(rename = "TLS1.0")]
    Tls10,
    /// TLS 1.1 (RFC 4346).
    #[serde(rename = "TLS1.1")]
    Tls11,
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "TLS1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "TLS1.3")]
    Tls13,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tls10 => "TLS1.0",
            Self::Tls11 => "TLS1.1",
            Self::Tls12 => "TLS1.2",
            Self::Tls13 => "TLS1.3",
        })
    }
}

/// Whether a listener accepts one protocol version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtocolSupport {
    /// The version.
    pub version: Protocol,
    /// Whether a handshake with it was accepted.
    pub accepted: bool,
    /// Whether it is deprecated (TLS 1.0 and 1.1: RFC 8996).
    pub deprecated: bool,
}

/// A cipher suite that a listener accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The protocol version it was accepted with.
    pub protocol: Protocol,
    /// IANA name, or `0x1234` when it has none we know.
    pub name: String,
    /// IANA number.
    pub id: u16,
    /// Why it is weak (`no forward secrecy`, `CBC mode`, `64-bit block cipher`, `RC4`, `no encryption`, …); null when
    /// it is not.
    pub weak: Option<String>,
}

/// What a TLS listener wants from a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    /// It does not ask.
    NotRequested,
    /// It asks, and serves a client that has none.
    Requested,
    /// It refuses a client that has none.
    Required,
}

/// What was seen of one connection by passively looking at its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PassiveView {
    /// Segments with payload, none of which begins like a TLS record.
    Plaintext,
    /// Segments that begin with a TLS record header.
    Tls,
}
