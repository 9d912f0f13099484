//! Certificates, private keys and revocation lists: bytes in, facts out.
//!
//! This crate answers what an operator wants to know before the next restart: what is in these files, would
//! etcd accept it, and would its peers. etcd is written in Go, so *accept* means what Go's `crypto/tls` and
//! `crypto/x509` do, also where they are laxer or stricter than RFC 5280 or than other verifiers.
//!
//! * [`certificate`], [`certificates_from_pem`], [`private_key_from_pem`] and [`revocation_list`] read
//!   evidence from bytes; [`content`] says what kind of file the bytes are.
//! * [`chains_to`], [`names`], [`Allowed`] and [`acceptable_to`] predict the verdict of a Go peer; [`accepts_issuer`]
//!   predicts it of all that an authority issues.
//! * [`problems`] compares all the key material of one side of etcd with its use, and [`misuse`] one file of certificates with
//!   what any program does with it.
//!
//! Architecture invariant: no files, no network, no clock (time is an argument), and no byte of a private key
//! in any value that this crate returns.

mod certificate;
mod chain;
mod file;
mod key;
mod names;
#[cfg(test)]
mod oracle;
mod pem;
mod problems;
mod purpose;
#[cfg(test)]
mod testing;

pub use certificate::{Parsed, certificate, distinguished_name, organizations};
pub use chain::{ChainError, Usage, acceptable_to, accepts_issuer, chains_to, issuers, open_end};
pub use file::{
    MAX_BYTES, MAX_CERTIFICATES, certificates_from_pem, content, private_key_from_pem, revocation_list,
};
pub use names::{Allowed, names};
pub use pem::base64;
pub use problems::{Material, Side, Source, Use, User, problems};
pub use purpose::{Beside, Purpose, misuse};
