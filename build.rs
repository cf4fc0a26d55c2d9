//! Compiles `proto/` without a system protoc, and keeps the descriptor set for reflection and for the tests.

use std::{env, error::Error, fs, path::PathBuf};
use tonic_prost_build::manual::{Builder, Method, Service};

const PROTOS: &[&str] = &[
    "consent/v1/consent_service.proto",
    "consent/v1/decision_service.proto",
    "consent/v1/error_reason.proto",
    "consent/v1/policy_service.proto",
    "consent/v1/sidecar_service.proto",
    "consent/v1/sync_service.proto",
    "consent/v1/types.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files = protox::compile(PROTOS, ["proto"])?;
    for file in &mut files.file {
        // Its comments have examples in JSON, which rustdoc would compile.
        if file.name() == "consent/v1/error_reason.proto" {
            file.source_code_info = None;
        }
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // With source info: a test walks it, and nothing may stand without a comment.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(PROTOS)?;
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    // `bytes` fields share the received buffer instead of being copied out of it.
    // Rare and large; without it every message of a sidecar would be as large.
    let rare = ".consent.v1.Hello.unfinished";
    tonic_prost_build::configure()
        .bytes(".")
        .boxed(rare)
        .extern_path(".consent.v1.IdColumn", "crate::column::IdColumn")
        .extern_path(".consent.v1.StreamCanTrainResponse", "crate::column::StreamCanTrainResponse")
        .codec_path("crate::codec::WholeCodec")
        .compile_fds(files)?;
    Builder::new().build_client(false).compile(&[sync_service()]);
    Ok(())
}

/// The server's half of SyncService once more, with responses that may have been encoded before.
fn sync_service() -> Service {
    let sync = Method::builder()
        .name("sync")
        .route_name("Sync")
        .input_type("crate::pb::SyncRequest")
        .output_type("crate::said::Said")
        .codec_path("crate::said::SaidCodec")
        .client_streaming()
        .server_streaming()
        .build();
    Service::builder().name("SyncService").package("consent.v1").method(sync).build()
}
