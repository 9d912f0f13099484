//! Saving a member's database.

use std::io::Write;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use crate::{
    Client, Endpoint, Error,
    grpc::Method,
    message::{Empty, SnapshotResponse},
};

/// A snapshot that was saved whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// How many bytes were written: the database and 32 bytes of checksum.
    pub bytes: u64,
    /// The SHA-256 of the database, which is also what the last 32 bytes are.
    pub sha256: [u8; SHA256_OUTPUT_LEN],
}

impl Client {
    /// Writes the database of the member at `endpoint` to `writer`, as `etcdctl snapshot save` does, and
    /// checks that it is what the member sent: the SHA-256 that etcd sends last must be that of what came
    /// before.
    ///
    /// Every message must come within the deadline; the whole takes as long as it takes. What was written
    /// when an error is returned is not a snapshot. `writer` is neither flushed nor synced.
    pub fn save_snapshot(&self, endpoint: &Endpoint, mut writer: impl Write) -> Result<SnapshotInfo, Error> {
        let damaged = |why: String| Error::Snapshot { place: SNAPSHOT.at(endpoint), why };
        let mut check = Check::default();
        SNAPSHOT.stream(self, endpoint, &Empty {}, |part| {
            check.take(&part.blob, part.remaining_bytes).map_err(damaged)?;
            let failed = |source| Error::System { what: "write the snapshot", source };
            writer.write_all(&part.blob).map_err(failed)
        })?;
        check.finish().map_err(damaged)
    }
}

const SNAPSHOT: Method<Empty, SnapshotResponse> = Method::local("/etcdserverpb.Maintenance/Snapshot");

/// Hashes all but the last 32 bytes of what it takes.
struct Check {
    hash: Context,
    /// The last bytes taken, at most 32.
    tail: Vec<u8>,
    bytes: u64,
    /// How many bytes the first message announced, the checksum included.
    announced: Option<u64>,
}

impl Default for Check {
    fn default() -> Self {
        Self { hash: Context::new(&SHA256), tail: Vec::new(), bytes: 0, announced: None }
    }
}

impl Check {
    fn take(&mut self, part: &[u8], remaining: u64) -> Result<(), String> {
        let length = part.len() as u64;
        let total = length.saturating_add(remaining).saturating_add(SHA256_OUTPUT_LEN as u64);
        let announced = *self.announced.get_or_insert(total);
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > announced {
            return Err(format!("it has more than the {announced} bytes that were announced"));
        }
        self.tail.extend_from_slice(part);
        let hashed = self.tail.len().saturating_sub(SHA256_OUTPUT_LEN);
        self.hash.update(self.tail.drain(..hashed).as_slice());
        Ok(())
    }

    fn finish(self) -> Result<SnapshotInfo, String> {
        let (bytes, announced) = (self.bytes, self.announced.unwrap_or_default());
        if bytes != announced {
            return Err(format!("{bytes} of {announced} bytes came"));
        }
        let hash = self.hash.finish();
        match self.tail.try_into() {
            Ok(sha256) if hash.as_ref() == sha256 => Ok(SnapshotInfo { bytes, sha256 }),
            _ => Err("its SHA-256 is not the one that etcd sent with it".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;

    use super::*;

    /// Feeds a snapshot in parts of `size`, with the checksum in a message of its own, as etcd does.
    fn check(database: &[u8], checksum: &[u8], size: usize) -> Result<SnapshotInfo, String> {
        let mut check = Check::default();
        let mut remaining = database.len();
        for part in database.chunks(size) {
            remaining -= part.len();
            check.take(part, remaining as u64)?;
        }
        check.take(checksum, 0)?;
        check.finish()
    }

    #[test]
    fn a_snapshot_is_verified_by_its_last_32_bytes() {
        let database: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let digest = digest(&SHA256, &database);
        let sha256: [u8; 32] = digest.as_ref().try_into().unwrap();
        for size in [1, 31, 32, 33, 4096, 100_000] {
            let info = check(&database, &sha256, size).unwrap();
            assert_eq!(info, SnapshotInfo { bytes: 10_032, sha256 });
            assert!(check(&database, &sha256[..31], size).unwrap_err().contains("10031 of 10032 bytes"));
            assert!(check(&database, &[7; 32], size).unwrap_err().contains("SHA-256"));
            assert!(check(&database, &[7; 33], size).unwrap_err().contains("more than the 10032"));
            let mut flipped = database.clone();
            flipped[5000] ^= 1;
            assert!(check(&flipped, &sha256, size).unwrap_err().contains("SHA-256"));
        }
        assert!(Check::default().finish().is_err());
    }
}
