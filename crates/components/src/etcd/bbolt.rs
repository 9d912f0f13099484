//! The membership in a data directory, read from `member/snap/db` while etcd runs, without locking it.
//!
//! bbolt writes copy-on-write: a transaction leaves the pages of the one before it alone until the next
//! begins to write. So pages that were reached from a meta page are good when that meta page is still the
//! newest afterwards; if it is not, the walk is done again. The format is that of bbolt 1.3 and 1.4
//! (little-endian machines): pages of `id u64, flags u16, count u16, overflow u32`, then elements. etcd lags
//! behind its log by a fraction of a second.

use std::collections::BTreeSet;
use std::io;

use seaworthy_evidence::{ErrorKind, EvidenceError, Member};

use crate::etcd::Version;
use crate::etcd::members::{MAX_MEMBERS, Raw};

/// The membership that a database holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// All members that were not removed, learners and unstarted ones included. None is marked
    /// as the one whose database this is, which the database does not say.
    pub members: Vec<Member>,
    /// Version of the cluster, for example `3.5.0`; `None` before it is agreed upon.
    pub cluster_version: Option<String>,
}

/// Returns the membership in the database that `read` reads: it fills a buffer from an offset, or fails (with
/// `UnexpectedEof` beyond the end).
///
/// Nothing is trusted: offsets, sizes and references are checked, each page is visited once, and no more than
/// a few MiB are read. Errors do not name the file, which only the caller knows.
pub fn membership(
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<Membership, EvidenceError> {
    let mut result = Err(malformed("the database was changed by every attempt to read it"));
    for _ in 0..ATTEMPTS {
        let before = Meta::newest(&mut read)?;
        let mut database = Database { read: &mut read, meta: before, seen: BTreeSet::new(), bytes: 0 };
        let outcome = database.membership();
        let changed = Meta::newest(&mut read)? != before;
        match outcome {
            Ok(membership) if !changed => return Ok(membership),
            Ok(_) => {}
            Err(error) if !changed => return Err(error),
            Err(error) => result = Err(error),
        }
    }
    result
}

/// The part of a meta page that a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meta {
    page_size: u64,
    root: u64,
    /// The first page id that was never allocated.
    end: u64,
    transaction: u64,
}

impl Meta {
    /// Returns the valid meta page with the highest transaction id.
    fn newest(read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> Result<Self, EvidenceError> {
        let mut at = |offset: u64| -> Result<Option<Self>, EvidenceError> {
            let mut bytes = [0; META_SIZE];
            match read(offset + PAGE_HEADER as u64, &mut bytes) {
                Ok(()) => Ok(Self::parse(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(EvidenceError::from_io(&error, "the database")),
            }
        };
        let first = at(0)?;
        // The second meta page begins at the page size, which only the first one tells when it is valid.
        let second = match first {
            Some(meta) => at(meta.page_size)?,
            None => {
                let mut second = None;
                for shift in 9..=16 {
                    second = second.or(at(1 << shift)?.filter(|meta| meta.page_size == 1 << shift));
                }
                second
            }
        };
        let newest = first.into_iter().chain(second).max_by_key(|meta| meta.transaction);
        newest.ok_or_else(|| malformed("it is not a bbolt database: no valid meta page"))
    }

    fn parse(bytes: &[u8; META_SIZE]) -> Option<Self> {
        let (checked, checksum) = bytes.split_at_checked(META_SIZE - 8)?;
        let known = u32_at(bytes, 0)? == MAGIC && u32_at(bytes, 4)? == FORMAT;
        let page_size = u64::from(u32_at(bytes, 8)?);
        let sound = page_size.is_power_of_two() && (512..=65_536).contains(&page_size);
        let meta = Self {
            page_size,
            root: u64_at(bytes, 16)?,
            end: u64_at(bytes, 40)?,
            transaction: u64_at(bytes, 48)?,
        };
        (known && sound && fnv1a(checked) == u64_at(checksum, 0)?).then_some(meta)
    }
}

struct Database<'a, R> {
    read: &'a mut R,
    meta: Meta,
    /// Pages that were visited: a tree has none twice.
    seen: BTreeSet<u64>,
    bytes: u64,
}

/// An element of a leaf page.
struct Element {
    bucket: bool,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<R: FnMut(u64, &mut [u8]) -> io::Result<()>> Database<'_, R> {
    fn membership(&mut self) -> Result<Membership, EvidenceError> {
        let mut root = Vec::new();
        self.tree(self.meta.root, 0, &mut root)?;
        let mut bucket = |name: &[u8]| {
            let entry = root.iter().find(|element| element.bucket && element.key == name);
            entry.map_or(Ok(Vec::new()), |element| self.bucket(&element.value))
        };
        let removed: BTreeSet<_> =
            bucket(b"members_removed")?.into_iter().map(|element| element.key).collect();
        let mut members = Vec::new();
        for Element { key, value, .. } in bucket(b"members")? {
            if !removed.contains(&key) {
                let member = serde_json::from_slice::<Raw>(&value);
                members.push(member.map_err(|_| malformed("the entry of a member is not etcd's"))?.member());
            }
        }
        if members.is_empty() {
            return Err(EvidenceError::new(ErrorKind::NotFound, "the database holds no membership yet"));
        }
        if members.len() > MAX_MEMBERS {
            return Err(malformed("the database has more members than etcd allows"));
        }
        let cluster = bucket(b"cluster")?.into_iter().find(|element| element.key == b"clusterVersion");
        let version = cluster.and_then(|element| String::from_utf8(element.value).ok());
        let cluster_version = version.filter(|text| text.len() <= 64 && Version::parse(text).is_some());
        Ok(Membership { members, cluster_version })
    }

    /// Returns the pairs of the bucket with this entry in its parent: root page and sequence number, and the
    /// page itself when it is small enough to stand inline.
    fn bucket(&mut self, entry: &[u8]) -> Result<Vec<Element>, EvidenceError> {
        let mut pairs = Vec::new();
        match u64_at(entry, 0) {
            Some(0) => pairs = leaf(entry.get(16..).unwrap_or_default())?,
            Some(root) => self.tree(root, 0, &mut pairs)?,
            None => return Err(malformed("a bucket's entry is cut off")),
        }
        Ok(pairs)
    }

    /// Adds the elements of the tree below page `id` to `elements`.
    fn tree(&mut self, id: u64, depth: u32, elements: &mut Vec<Element>) -> Result<(), EvidenceError> {
        let page = self.page(id)?;
        match u16_at(&page, 8) {
            Some(LEAF) => elements.extend(leaf(&page)?),
            Some(BRANCH) if depth < MAX_DEPTH => {
                for index in 0..count(&page) {
                    let child = u64_at(&page, PAGE_HEADER + index * 16 + 8);
                    let child = child.ok_or_else(|| malformed(format!("page {id} is cut off")))?;
                    self.tree(child, depth + 1, elements)?;
                }
            }
            _ => return Err(malformed(format!("page {id} is neither branch nor leaf"))),
        }
        Ok(())
    }

    /// Returns page `id` with the pages it overflows into.
    fn page(&mut self, id: u64) -> Result<Vec<u8>, EvidenceError> {
        if id < 2 || id >= self.meta.end || !self.seen.insert(id) {
            return Err(malformed(format!("page {id} is referred to where it cannot be")));
        }
        let size = self.meta.page_size;
        let offset = id.checked_mul(size).ok_or_else(|| malformed("a page lies beyond any file"))?;
        let mut header = [0; PAGE_HEADER];
        self.fill(offset, &mut header)?;
        let overflow = u64::from(u32_at(&header, 12).unwrap_or(0));
        let length = (overflow + 1) * size;
        self.bytes += length;
        if u64_at(&header, 0) != Some(id) || self.bytes > MAX_BYTES {
            return Err(malformed(format!("page {id} is not what it should be")));
        }
        let mut page = vec![0; usize::try_from(length).unwrap_or(0)];
        self.fill(offset, &mut page)?;
        Ok(page)
    }

    fn fill(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), EvidenceError> {
        (self.read)(offset, buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => malformed("the database is cut off"),
            _ => EvidenceError::from_io(&error, "the database"),
        })
    }
}

/// Returns the elements of the leaf `page`.
fn leaf(page: &[u8]) -> Result<Vec<Element>, EvidenceError> {
    if u16_at(page, 8) != Some(LEAF) {
        return Err(malformed("a bucket's page is no leaf"));
    }
    let mut left = page.len();
    let element = |index: usize| {
        let at = PAGE_HEADER + index * 16;
        let number = |offset| u32_at(page, at + offset);
        let start = at.checked_add(number(4)? as usize)?;
        let middle = start.checked_add(number(8)? as usize)?;
        let end = middle.checked_add(number(12)? as usize)?;
        // Elements do not overlap, so together they are no larger than the page.
        left = left.checked_sub(end.checked_sub(start)?)?;
        Some(Element {
            bucket: number(0)? & BUCKET != 0,
            key: page.get(start..middle)?.to_vec(),
            value: page.get(middle..end)?.to_vec(),
        })
    };
    let elements: Option<Vec<_>> = (0..count(page)).map(element).collect();
    elements.ok_or_else(|| malformed("an element reaches beyond its page"))
}

fn count(page: &[u8]) -> usize {
    u16_at(page, 10).unwrap_or(0).into()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns the 64-bit FNV-1a hash of `bytes`.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn malformed(message: impl Into<String>) -> EvidenceError {
    EvidenceError::new(ErrorKind::Malformed, message)
}

const ATTEMPTS: usize = 4;
const MAX_BYTES: u64 = 16 << 20;
const MAX_DEPTH: u32 = 16;

const MAGIC: u32 = 0xed0c_daed;
const FORMAT: u32 = 2;
const META_SIZE: usize = 64;
const PAGE_HEADER: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
/// Flag of a leaf element that is a bucket.
const BUCKET: u32 = 0x01;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIXTURES: [(&str, &[u8], &str, &str); 3] = [
        ("3.4", include_bytes!("../../tests/data/etcd-3.4.db"), "50840421e7163201", "3.4.0"),
        ("3.5", include_bytes!("../../tests/data/etcd-3.5.db"), "bb1638b7b1f87939", "3.5.0"),
        ("3.6", include_bytes!("../../tests/data/etcd-3.6.db"), "b9a2272c0bf3feb3", "3.6.0"),
    ];

    fn of(bytes: &[u8]) -> Result<Membership, EvidenceError> {
        membership(|offset, buffer| fill(bytes, offset, buffer))
    }

    fn fill(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Each was copied from a running etcd with the member m1, a learner that was added and removed, and one
    /// that was added and has not started.
    #[test]
    fn databases_of_real_releases_are_read() {
        for (release, bytes, learner, version) in FIXTURES {
            let got = of(bytes).unwrap();
            let mut summary: Vec<_> = got
                .members
                .iter()
                .map(|m| (m.id.as_str(), m.name.as_str(), m.peer_urls.len(), m.learner))
                .collect();
            summary.sort_by_key(|m| m.3);
            assert_eq!(summary, [("5c76a90ae78bcee7", "m1", 1, false), (learner, "", 2, true)], "{release}");
            let learner = got.members.iter().find(|m| m.learner).unwrap();
            assert_eq!(learner.peer_urls[1].text, "https://10.0.0.3:2380", "{release}");
            assert_eq!(got.cluster_version.as_deref(), Some(version), "{release}");
        }
    }

    #[test]
    fn one_torn_meta_page_is_survived() {
        for (release, bytes, ..) in FIXTURES {
            for meta in [0, 4096] {
                let mut torn = bytes.to_vec();
                torn[meta + 16 + 50] ^= 1;
                // The older transaction may predate the membership, but it is a database.
                let kind = of(&torn).err().map(|error| error.kind);
                assert!(matches!(kind, None | Some(ErrorKind::NotFound | ErrorKind::Malformed)), "{release}");
            }
            let mut both = bytes.to_vec();
            both[16 + 50] ^= 1;
            both[4096 + 16 + 50] ^= 1;
            assert_eq!(of(&both).unwrap_err().kind, ErrorKind::Malformed, "{release}");
        }
    }

    #[test]
    fn a_database_that_changes_is_read_again() {
        let (_, old, ..) = FIXTURES[0];
        let new = synthetic();
        let mut reads = 0;
        let got = membership(|offset, buffer| {
            reads += 1;
            fill(if reads < 5 { old } else { &new }, offset, buffer)
        });
        assert_eq!(ids(&got.unwrap()), ["a", "b"]);
        let mut transaction = 100;
        let never = membership(|offset, buffer| {
            fill(old, offset, buffer)?;
            if offset == 16 {
                transaction += 1;
                buffer.copy_from_slice(&meta(4096, 4, 100, transaction)[16..16 + META_SIZE]);
            }
            Ok(())
        });
        assert!(never.is_err());
    }

    #[test]
    fn branches_overflow_pages_and_inline_buckets_are_followed() {
        assert_eq!(ids(&of(&synthetic()).unwrap()), ["a", "b"]);
    }

    #[test]
    fn a_tree_that_bites_its_tail_ends() {
        let mut bytes = synthetic();
        // The branch's second child becomes the branch itself.
        let child = 3 * 512 + PAGE_HEADER + 16 + 8;
        bytes[child] = 3;
        assert_eq!(of(&bytes).unwrap_err().kind, ErrorKind::Malformed);
    }

    #[test]
    fn no_file_and_other_files_are_errors() {
        assert_eq!(of(b"").unwrap_err().kind, ErrorKind::Malformed);
        assert_eq!(of(&[0; 8192]).unwrap_err().kind, ErrorKind::Malformed);
        let denied = membership(|_, _| Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(denied.unwrap_err().kind, ErrorKind::PermissionDenied);
        for (_, bytes, ..) in FIXTURES {
            for length in (0..bytes.len()).step_by(512) {
                let _ = of(&bytes[..length]);
            }
        }
    }

    proptest! {
        #[test]
        fn a_damaged_database_is_survived(
            which in 0..4_usize,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = FIXTURES.get(which).map_or_else(synthetic, |f| f.1.to_vec());
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = of(&bytes);
            bytes.truncate(length.index(bytes.len()));
            let _ = of(&bytes);
        }

        #[test]
        fn a_forged_meta_page_is_survived(
            which in 0..3_usize,
            shift in 0..32_u32,
            root in 0..20_u64,
            end in any::<u64>(),
            huge in any::<bool>(),
        ) {
            let mut bytes = FIXTURES[which].1.to_vec();
            let root = if huge { u64::MAX - root } else { root };
            let forged = meta(1 << shift, root, end, u64::MAX);
            bytes[16..16 + META_SIZE].copy_from_slice(&forged[16..16 + META_SIZE]);
            let _ = of(&bytes);
        }
    }

    fn ids(membership: &Membership) -> Vec<&str> {
        membership.members.iter().map(|m| m.id.as_str()).collect()
    }

    /// A database with pages of 512 bytes: `members` is a branch with two leaves, the first of which
    /// overflows; `members_removed` stands inline and names member c.
    fn synthetic() -> Vec<u8> {
        let name = "x".repeat(600);
        let big = format!(r#"{{"id":10,"peerURLs":["https://a:1"],"name":"{name}"}}"#);
        let first = elements(&[(0, b"a", big.as_bytes())]);
        let second = elements(&[(0, b"b", br#"{"id":11}"#), (0, b"c", br#"{"id":12}"#)]);
        let mut branch = Vec::new();
        for child in [4_u64, 6] {
            branch.extend([0_u32, 0].iter().flat_map(|n| n.to_le_bytes()));
            branch.extend(child.to_le_bytes());
        }
        let mut removed = [0; 16].to_vec();
        removed.extend(&page(0, LEAF, 1, 0, &elements(&[(0, b"c", b"removed")]), 0));
        let members = [3_u64, 0].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let root = elements(&[(BUCKET, b"members", &members), (BUCKET, b"members_removed", &removed)]);
        let mut bytes = meta(512, 2, 7, 1);
        bytes.extend(meta(512, 2, 7, 2));
        bytes.extend(page(2, LEAF, 2, 0, &root, 512));
        bytes.extend(page(3, BRANCH, 2, 0, &branch, 512));
        bytes.extend(page(4, LEAF, 1, 1, &first, 1024));
        bytes.extend(page(6, LEAF, 2, 0, &second, 512));
        bytes
    }

    fn page(id: u64, flags: u16, count: u16, overflow: u32, body: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = id.to_le_bytes().to_vec();
        bytes.extend(flags.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(overflow.to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().max(size), 0);
        bytes
    }

    fn elements(pairs: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
        let (mut heads, mut data) = (Vec::new(), Vec::new());
        for (index, (flags, key, value)) in pairs.iter().enumerate() {
            let position = (pairs.len() - index) * 16 + data.len();
            let head = [*flags, position as u32, key.len() as u32, value.len() as u32];
            heads.extend(head.iter().flat_map(|n| n.to_le_bytes()));
            data.extend([*key, *value].concat());
        }
        heads.extend(data);
        heads
    }

    fn meta(page_size: u32, root: u64, end: u64, transaction: u64) -> Vec<u8> {
        let mut body: Vec<u8> = [MAGIC, FORMAT, page_size, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        body.extend([root, 0, 0, end, transaction].iter().flat_map(|n| n.to_le_bytes()));
        body.extend(fnv1a(&body).to_le_bytes());
        page(0, 4, 0, 0, &body, 512)
    }
}
