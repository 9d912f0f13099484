//! The messages of etcd's `api/etcdserverpb/rpc.proto` that are used, with its field numbers.
//!
//! Fields that are not used are left out; protobuf skips what it does not know. All fields exist since etcd
//! 3.4 unless it says otherwise.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
}

/// For an answer of which only the header matters.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderOnly {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
}

impl HeaderOnly {
    pub(crate) fn revision(&self) -> i64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberListRequest {
    /// Since 3.5; before, every list is the member's own.
    #[prost(bool, tag = "1")]
    pub(crate) linearizable: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberListResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) members: Vec<Member>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Member {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) peer_urls: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) client_urls: Vec<String>,
    #[prost(bool, tag = "5")]
    pub(crate) is_learner: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberUpdateRequest {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, repeated, tag = "2")]
    pub(crate) peer_urls: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(int64, tag = "3")]
    pub(crate) db_size: i64,
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) raft_index: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) raft_term: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) raft_applied_index: u64,
    #[prost(string, repeated, tag = "8")]
    pub(crate) errors: Vec<String>,
    #[prost(bool, tag = "10")]
    pub(crate) is_learner: bool,
}

/// An empty one asks for all alarms of all members.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlarmRequest {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlarmResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) alarms: Vec<AlarmMember>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AlarmMember {
    #[prost(uint64, tag = "1")]
    pub(crate) member_id: u64,
    #[prost(int32, tag = "2")]
    pub(crate) alarm: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MoveLeaderRequest {
    #[prost(uint64, tag = "1")]
    pub(crate) target_id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HashKvRequest {
    #[prost(int64, tag = "1")]
    pub(crate) revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HashKvResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(uint32, tag = "2")]
    pub(crate) hash: u32,
    #[prost(int64, tag = "3")]
    pub(crate) compact_revision: i64,
    /// Since 3.6.
    #[prost(int64, tag = "4")]
    pub(crate) hash_revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotResponse {
    #[prost(uint64, tag = "2")]
    pub(crate) remaining_bytes: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) blob: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) limit: i64,
    #[prost(bool, tag = "9")]
    pub(crate) count_only: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
}

/// `mvccpb.KeyValue` of `api/mvccpb/kv.proto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(crate) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(crate) mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) value: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub(crate) lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteRangeResponse {
    #[prost(int64, tag = "2")]
    pub(crate) deleted: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) success: Vec<RequestOp>,
}

/// Compares for equality, the default of field 1.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Compare {
    /// 1: the revision that created the key; 2: that of its last change.
    #[prost(int32, tag = "2")]
    pub(crate) target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key: Vec<u8>,
    #[prost(oneof = "Revision", tags = "5, 6")]
    pub(crate) revision: Option<Revision>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Revision {
    #[prost(int64, tag = "5")]
    Create(i64),
    #[prost(int64, tag = "6")]
    Mod(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestOp {
    #[prost(message, optional, tag = "2")]
    pub(crate) put: Option<PutRequest>,
    #[prost(message, optional, tag = "3")]
    pub(crate) delete: Option<DeleteRangeRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(bool, tag = "2")]
    pub(crate) succeeded: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    pub(crate) ttl: i64,
}

/// The answer to granting a lease, and to keeping it alive.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseResponse {
    #[prost(int64, tag = "2")]
    pub(crate) id: i64,
    #[prost(int64, tag = "3")]
    pub(crate) ttl: i64,
}

/// Revokes a lease, or keeps it alive.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseRequest {
    #[prost(int64, tag = "1")]
    pub(crate) id: i64,
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::proptest;

    use super::*;

    const ID: u64 = 0x8e9e_05c5_2164_694d;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes: Vec<u8>) {
            fn read<M: Message + Default>(bytes: &[u8]) -> bool {
                M::decode(bytes).is_ok()
            }
            for read in [
                read::<AlarmResponse>, read::<DeleteRangeResponse>, read::<HashKvResponse>,
                read::<HeaderOnly>, read::<LeaseResponse>, read::<MemberListResponse>,
                read::<RangeResponse>, read::<SnapshotResponse>, read::<StatusResponse>,
                read::<TxnResponse>,
            ] {
                read(&bytes);
            }
        }
    }

    /// What etcd 3.6.13's own Go code (`go.etcd.io/etcd/api/v3`) makes of the same values.
    #[test]
    fn questions_are_encoded_as_etcd_encodes_them() {
        fn check(message: &(impl Message + Debug), golden: &str) {
            assert_eq!(message.encode_to_vec(), bytes(golden), "{message:?}");
        }
        let (key, value) = (b"k".to_vec(), b"v".to_vec());
        let peer_urls = vec!["http://a:1".to_string(), "http://b:2".to_string()];
        check(&Empty {}, "");
        check(&MemberListRequest { linearizable: true }, "0801");
        check(
            &MemberUpdateRequest { id: ID, peer_urls },
            "08cdd2918bd2b881cf8e01120a687474703a2f2f613a31120a687474703a2f2f623a32",
        );
        check(&AlarmRequest {}, "");
        check(&MoveLeaderRequest { target_id: 5 }, "0805");
        check(&HashKvRequest { revision: 300 }, "08ac02");
        check(
            &RangeRequest { key: key.clone(), range_end: b"l".to_vec(), limit: 5, count_only: true },
            "0a016b12016c18054801",
        );
        let put = PutRequest { key: key.clone(), value, lease: 0x1234 };
        check(&put, "0a016b12017618b424");
        check(&DeleteRangeRequest { key: key.clone() }, "0a016b");
        let created = Compare { target: 1, key, revision: Some(Revision::Create(300)) };
        let modified = Compare { target: 2, key: b"m".to_vec(), revision: Some(Revision::Mod(0)) };
        check(
            &TxnRequest {
                compare: vec![created, modified],
                success: vec![RequestOp { put: Some(put), delete: None }],
            },
            "0a0810011a016b28ac020a0710021a016d3000120b12090a016b12017618b424",
        );
        let delete = Some(DeleteRangeRequest { key: b"k".to_vec() });
        check(&RequestOp { put: None, delete }, "1a030a016b");
        check(&LeaseGrantRequest { ttl: 10 }, "080a");
        check(&LeaseRequest { id: 0x1234 }, "08b424");
    }

    /// Likewise. Each has fields that are left out here.
    #[test]
    fn answers_are_decoded_as_etcd_encodes_them() {
        fn check<M: Message + Default + Debug + PartialEq>(golden: &str, message: &M) {
            let golden = bytes(&golden.replace('H', "0a12080110cdd2918bd2b881cf8e0118ac022004"));
            assert_eq!(M::decode(golden.as_slice()).unwrap(), *message);
        }
        let header = Some(ResponseHeader { member_id: ID, revision: 300 });
        let peer_urls = vec!["http://a:1".to_string(), "http://b:2".to_string()];
        let client_urls = vec!["http://c:3".to_string()];
        let member = Member { id: ID, name: "m1".into(), peer_urls, client_urls, is_learner: true };
        check(
            "H123508cdd2918bd2b881cf8e0112026d311a0a687474703a2f2f613a311a0a687474703a2f2f623a32\
             220a687474703a2f2f633a332801",
            &MemberListResponse { members: vec![member] },
        );
        check(
            "H1206332e362e31331880a001200728083009380a42074e4f53504143454880205001",
            &StatusResponse {
                header: header.clone(),
                version: "3.6.13".into(),
                db_size: 20480,
                leader: 7,
                raft_index: 8,
                raft_term: 9,
                raft_applied_index: 10,
                errors: vec!["NOSPACE".into()],
                is_learner: true,
            },
        );
        let alarms = vec![AlarmMember { member_id: 5, alarm: 1 }, AlarmMember { member_id: 6, alarm: 2 }];
        check("H120408051001120408061002", &AlarmResponse { alarms });
        let hash = HashKvResponse {
            header: header.clone(),
            hash: 0xdead_beef,
            compact_revision: 5,
            hash_revision: 299,
        };
        check("H10effdb6f50d180520ab02", &hash);
        check(
            "108080041a030102032205332e362e30",
            &SnapshotResponse { remaining_bytes: 65536, blob: vec![1, 2, 3].into() },
        );
        let (key, value) = (b"k".to_vec(), b"v".to_vec());
        let kv = KeyValue { key, create_revision: 2, mod_revision: 300, value, lease: 0x1234 };
        check(
            "H12100a016b100218ac0220032a017630b42418012002",
            &RangeResponse { header: header.clone(), kvs: vec![kv] },
        );
        check("H", &HeaderOnly { header: header.clone() });
        check("H1002", &DeleteRangeResponse { deleted: 2 });
        check("H10011a021200", &TxnResponse { header, succeeded: true });
        check("H10b424180a220178", &LeaseResponse { id: 0x1234, ttl: 10 });
        check("H10b424180a", &LeaseResponse { id: 0x1234, ttl: 10 });
    }
}
