//! What a peer may send over the wire: bytes, which are taken for a frame of envelopes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| raft_grpc::hostile::frame(input));
