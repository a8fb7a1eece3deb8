//! Compiles `proto/raft.proto` in pure Rust: no system package is needed. The file is a link to that of the
//! repository, of which a package has a copy.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/raft.proto");
    let descriptors = protox::compile(["raft.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Commands stay slices of the frame that they arrived in: they are never copied.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
