//! What a peer may send over the wire: bytes, which are taken for a frame of envelopes, a greeting,
//! or answers to what was forwarded.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| raft_grpc::hostile::bytes(input));
