//! ClientHellos that no modern library makes: one old version, suites and groups of our choice.

use seaworthy_evidence::Protocol;

/// A ClientHello for exactly one protocol version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientHello<'a> {
    pub(crate) version: Protocol,
    pub(crate) suites: &'a [u16],
    pub(crate) groups: &'a [u16],
    pub(crate) server_name: Option<&'a str>,
    pub(crate) random: [u8; 32],
}

impl ClientHello<'_> {
    /// Returns the record to send.
    ///
    /// For TLS 1.3 it has no key share, so that the server answers with a HelloRetryRequest that names the suite and
    /// the group it would use, and computes nothing.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let modern = self.version == Protocol::Tls13;
        let mut record = vec![22, 3, 1];
        prefixed::<2>(&mut record, |record| {
            record.push(1);
            prefixed::<3>(record, |hello| {
                hello.extend(number(self.version.min(Protocol::Tls12)).to_be_bytes());
                hello.extend(self.random);
                hello.push(0); // no session to resume
                numbers::<2>(hello, self.suites);
                hello.extend([1, 0]); // no compression
                prefixed::<2>(hello, |extensions| {
                    if let Some(name) = self.server_name {
                        extension(extensions, 0, |e| {
                            prefixed::<2>(e, |list| {
                                list.push(0);
                                prefixed::<2>(list, |n| n.extend(name.as_bytes()));
                            });
                        });
                    }
                    extension(extensions, 10, |e| numbers::<2>(e, self.groups));
                    if self.version >= Protocol::Tls12 {
                        extension(extensions, 13, |e| numbers::<2>(e, SIGNATURE_SCHEMES));
                    }
                    if modern {
                        extension(extensions, 43, |e| numbers::<1>(e, &[number(self.version)]));
                        extension(extensions, 51, |e| numbers::<2>(e, &[]));
                    } else {
                        extension(extensions, 11, |e| e.extend([1, 0])); // uncompressed points
                        extension(extensions, 23, |_| {}); // extended master secret
                        extension(extensions, 0xff01, |e| e.push(0)); // secure renegotiation
                    }
                });
            });
        });
        record
    }
}

/// Returns the number of `version` on the wire.
pub(crate) fn number(version: Protocol) -> u16 {
    match version {
        Protocol::Tls10 => 0x0301,
        Protocol::Tls11 => 0x0302,
        Protocol::Tls12 => 0x0303,
        Protocol::Tls13 => 0x0304,
    }
}

/// ECDSA, EdDSA, RSA-PSS, RSA PKCS#1 and DSA with SHA-2, then SHA-1 (RFC 8446 §4.2.3): whatever the server's key is,
/// it can sign.
const SIGNATURE_SCHEMES: &[u16] = &[
    0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804, 0x0805, 0x0806, 0x0809, 0x080a, 0x080b, 0x0401, 0x0501,
    0x0601, 0x0402, 0x0203, 0x0201, 0x0202,
];

fn extension(out: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    out.extend(kind.to_be_bytes());
    prefixed::<2>(out, content);
}

/// Appends `values` as a vector whose length has `N` bytes.
fn numbers<const N: usize>(out: &mut Vec<u8>, values: &[u16]) {
    prefixed::<N>(out, |out| out.extend(values.iter().flat_map(|v| v.to_be_bytes())));
}

/// Appends what `content` appends, with its length in `N` bytes before it.
fn prefixed<const N: usize>(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; N]);
    content(out);
    let length = (out.len() - start - N) as u64;
    for (at, byte) in out.iter_mut().skip(start).take(N).zip(length.to_be_bytes().iter().skip(8 - N)) {
        *at = *byte;
    }
}
