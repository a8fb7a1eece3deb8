//! What a client may send: bytes, which are taken for requests over one connection.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| leaderboard_app::hostile::requests(input));
