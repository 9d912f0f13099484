//! PEM as Go's `encoding/pem` reads it, with line numbers.
//!
//! Text outside of blocks is ignored, lines may end with CRLF or trailing blanks, and blocks may have
//! headers. Unlike Go, which silently skips a block that it cannot decode, a broken block is reported.

use zeroize::Zeroizing;

/// One complete block.
pub(crate) struct Block<'a> {
    /// The label between `-----BEGIN ` and `-----`.
    pub(crate) label: &'a [u8],
    /// 1-based line of the header.
    pub(crate) line: u32,
    /// Whether its headers say that its content is encrypted (RFC 1421 `Proc-Type`).
    pub(crate) encrypted: bool,
    body: &'a [u8],
}

impl Block<'_> {
    /// Returns the decoded content, or `None` when it is not base64.
    pub(crate) fn der(&self) -> Option<Zeroizing<Vec<u8>>> {
        base64(self.body)
    }

    /// Returns whether Go's `tls.X509KeyPair` takes it for the private key.
    pub(crate) fn is_private_key(&self) -> bool {
        self.label == b"PRIVATE KEY" || self.label.ends_with(b" PRIVATE KEY")
    }
}

/// A block that has no proper end.
pub(crate) struct Broken {
    /// 1-based line of the header.
    pub(crate) line: u32,
}

/// Returns the blocks of `bytes` in order.
pub(crate) fn blocks(bytes: &[u8]) -> Vec<Result<Block<'_>, Broken>> {
    let mut found = Vec::new();
    // The open block, and where its body starts.
    let mut open: Option<(Block<'_>, usize)> = None;
    let mut offset = 0;
    for (line, number) in bytes.split_inclusive(|b| *b == b'\n').zip(1u32..) {
        let (start, end) = (offset, offset + line.len());
        offset = end;
        let line = line.trim_ascii_end();
        if let Some(label) = marker(line, b"-----BEGIN ") {
            if let Some((block, _)) = open.take() {
                found.push(Err(Broken { line: block.line }));
            }
            open = Some((Block { label, line: number, encrypted: false, body: &[] }, end));
        } else if let Some(label) = marker(line, b"-----END ") {
            if let Some((block, body)) = open.take() {
                found.push(if block.label == label {
                    Ok(Block { body: bytes.get(body..start).unwrap_or_default(), ..block })
                } else {
                    Err(Broken { line: block.line })
                });
            }
        } else if let Some((block, body)) = &mut open
            && *body == start
            && line.contains(&b':')
        {
            *body = end;
            block.encrypted |= line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
        }
    }
    found.extend(open.map(|(block, _)| Err(Broken { line: block.line })));
    found
}

fn marker<'a>(line: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(prefix)?.strip_suffix(b"-----")
}

/// Decodes base64 with padding; white space is ignored. The result is not reallocated, so that no copy of a
/// key is left behind.
pub fn base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
    let (mut group, mut digits, mut padding) = (0u32, 0u32, 0u32);
    for byte in text.iter().filter(|b| !b.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if padding < 2 => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        group = group << 6 | u32::from(value);
        digits += 1;
        if digits == 4 {
            out.extend_from_slice(group.to_be_bytes().get(1..)?);
            (group, digits) = (0, 0);
        }
    }
    match (digits, padding) {
        (0, 0) => {}
        (2, 2) => out.extend_from_slice((group << 12).to_be_bytes().get(1..2)?),
        (3, 1) => out.extend_from_slice((group << 6).to_be_bytes().get(1..3)?),
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_and_without_padding() {
        let cases: [(&str, Option<&[u8]>); 12] = [
            ("", Some(b"")),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9v\r\nYmFy\n", Some(b"foobar")),
            ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
            ("Zg", None),
            ("Zg=", None),
            ("Zg===", None),
            ("Z===", None),
            ("Zg==Zg==", None),
            ("Zm9*", None),
        ];
        for (text, want) in cases {
            assert_eq!(base64(text.as_bytes()).as_deref().map(Vec::as_slice), want, "{text:?}");
        }
    }

    #[test]
    fn blocks_are_found_as_go_finds_them() {
        // label, line, encrypted, content; or the line of a broken block.
        type Want<'a> = &'a [Result<(&'a str, u32, bool, Option<&'a [u8]>), u32>];
        let cases: [(&str, Want<'_>); 9] = [
            ("", &[]),
            ("text\n\n-----BEGIN A-----\nZm9v\n-----END A-----\nmore", &[Ok(("A", 3, false, Some(b"foo")))]),
            ("-----BEGIN A-----\r\nZm9v\r\n-----END A-----\r\n", &[Ok(("A", 1, false, Some(b"foo")))]),
            ("-----BEGIN A----- \t\nZm9v\n-----END A-----", &[Ok(("A", 1, false, Some(b"foo")))]),
            ("x-----BEGIN A-----\nZm9v\n-----END A-----\n", &[]),
            (
                "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nZm9v\n-----END A-----\n",
                &[Ok(("A", 1, true, Some(b"foo")))],
            ),
            (
                "-----BEGIN A-----\nZm9v\n-----BEGIN B-----\n*\n-----END B-----\n",
                &[Err(1), Ok(("B", 3, false, None))],
            ),
            ("-----BEGIN A-----\nZm9v\n-----END B-----\n", &[Err(1)]),
            ("-----BEGIN A-----\nZm9v\n-----BEGIN A---\n", &[Err(1)]),
        ];
        for (text, want) in cases {
            let found = blocks(text.as_bytes());
            assert_eq!(found.len(), want.len(), "{text:?}");
            for (found, want) in found.iter().zip(want) {
                match (found, want) {
                    (Ok(block), Ok((label, line, encrypted, content))) => {
                        assert_eq!((block.label, block.line), (label.as_bytes(), *line), "{text:?}");
                        assert_eq!(block.encrypted, *encrypted, "{text:?}");
                        assert_eq!(block.der().as_deref().map(Vec::as_slice), *content, "{text:?}");
                    }
                    (Err(broken), Err(line)) => assert_eq!(broken.line, *line, "{text:?}"),
                    _ => panic!("{text:?}"),
                }
            }
        }
    }
}
