//! Compiles the contract without a `protoc` program.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/watchline/v1/uplink.proto";
    println!("cargo:rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["proto"])?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::BoundedCodec") // counts before it decodes
        .bytes(".")
        .btree_map(".")
        .build_transport(false) // connections are made by node/uplink, with its own TLS
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
