//! Generates the `v1` module from `proto/` with protox, a protobuf compiler in pure Rust.

use prost::Message as _;
use std::path::PathBuf;

const FILES: [&str; 3] = [
    "keyfleet/v1/types.proto",
    "keyfleet/v1/agent.proto",
    "keyfleet/v1/operator.proto",
];

/// Messages that carry a secret: prost's derived `Debug` would print it.
const SECRET: [&str; 3] = [
    ".keyfleet.v1.EnrollRequest",
    ".keyfleet.v1.CreateTokenResponse",
    ".keyfleet.v1.ReplaceDeploymentResponse",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto_dir = PathBuf::from("../../proto");
    println!("cargo:rerun-if-changed={}", proto_dir.display());
    let descriptors = protox::compile(FILES, [&proto_dir])?;
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out_dir.join("keyfleet.bin"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .skip_debug(SECRET)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .build_transport(false)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
