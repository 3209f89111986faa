//! Compiles `proto/` to Rust and to the descriptor sets that the server reads at start-up and shows by reflection.

use std::collections::HashSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_reflect::{DescriptorPool, MessageDescriptor, Value};

/// Responses that carry encoded execution events: the API forwards them without decoding them.
const EVENT_RESPONSES: [&str; 7] = [
    ".pgmoor.query.v1.ExecuteResponse",
    ".pgmoor.query.v1.ResumeExecutionResponse",
    ".pgmoor.pooler.v1.ResumeExecutionResponse",
    ".pgmoor.query.v1.FetchMoreResponse",
    ".pgmoor.pooler.v1.ExecuteResponse",
    ".pgmoor.pooler.v1.FetchMoreResponse",
    ".pgmoor.pooler.v1.RunScriptResponse",
];
const INTERNAL_PACKAGE: &str = "pgmoor.pooler.v1";

#[allow(
    clippy::disallowed_methods,
    reason = "how cargo tells a build script where to write"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    let files = proto_files(&proto)?;

    let mut compiler = protox::Compiler::new([&proto])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?;
    let set = compiler.file_descriptor_set();
    // protox keeps extension options (ours) in its own encoding of the set; the plain one would drop them.
    let encoded = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(encoded.as_slice())?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        without_source_info(&encoded, |_| true)?,
    )?;
    fs::write(
        out.join("public_descriptors.bin"),
        without_source_info(&encoded, |package| package != INTERNAL_PACKAGE)?,
    )?;

    let secretive = messages_with_secrets(&pool)?;
    let mut builder = tonic_prost_build::configure().bytes(".").build_transport(false);
    for response in EVENT_RESPONSES {
        builder = builder.extern_path(response, "crate::events::EncodedEvents");
    }
    builder = builder.skip_debug(secretive.iter().map(|message| format!(".{message}")));
    builder.compile_fds(set)?;
    fs::write(out.join("redacted.rs"), redacted_debug(&secretive)?)?;
    Ok(())
}

fn proto_files(directory: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(proto_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Comments are for readers of the source; reflection clients only pay for them. Works on raw bytes of the set, so that
/// options defined by extensions survive.
fn without_source_info(encoded: &[u8], keep: impl Fn(&str) -> bool) -> Result<Vec<u8>, Box<dyn Error>> {
    let pool = DescriptorPool::decode(encoded)?;
    let mut set = Vec::new();
    let names: HashSet<String> = pool
        .files()
        .filter(|file| keep(file.package_name()))
        .map(|file| file.name().to_owned())
        .collect();
    for file in pool.files().filter(|file| names.contains(file.name())) {
        // The decoded form has lost extension options; the pool's raw bytes have them.
        let raw = file.encode_to_vec();
        let bytes = strip_source_code_info(&raw)?;
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut set);
        prost::encoding::encode_varint(bytes.len() as u64, &mut set);
        set.extend_from_slice(&bytes);
    }
    Ok(set)
}

/// Drops field 9 (`source_code_info`) of an encoded FileDescriptorProto.
fn strip_source_code_info(raw: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    const SOURCE_CODE_INFO: u32 = 9;
    let mut rest = raw;
    let mut kept = Vec::with_capacity(raw.len());
    while !rest.is_empty() {
        let start = rest;
        let (tag, wire_type) = prost::encoding::decode_key(&mut rest)?;
        prost::encoding::skip_field(
            wire_type,
            tag,
            &mut rest,
            prost::encoding::DecodeContext::default(),
        )?;
        if tag != SOURCE_CODE_INFO {
            kept.extend_from_slice(&start[..start.len() - rest.len()]);
        }
    }
    Ok(kept)
}

fn messages_with_secrets(pool: &DescriptorPool) -> Result<Vec<String>, Box<dyn Error>> {
    let secret = pool
        .get_extension_by_name("pgmoor.options.v1.secret")
        .ok_or("proto/pgmoor/options/v1/options.proto does not define the option `secret`")?;
    let has_secret = |message: &MessageDescriptor| {
        message
            .fields()
            .any(|field| matches!(field.options().get_extension(&secret).as_ref(), Value::Bool(true)))
    };
    Ok(pool
        .all_messages()
        .filter(has_secret)
        .map(|message| message.full_name().to_owned())
        .collect())
}

/// `Debug` for messages with secrets says their name and nothing else, so that no log line can show one.
fn redacted_debug(messages: &[String]) -> Result<String, std::fmt::Error> {
    let mut code = String::new();
    for message in messages {
        let path = message.replace("pgmoor.", "crate::").replace('.', "::");
        let name = message.rsplit('.').next().unwrap_or(message);
        writeln!(
            code,
            "impl ::core::fmt::Debug for {path} {{\n    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> \
             ::core::fmt::Result {{\n        f.debug_struct(\"{name}\").finish_non_exhaustive()\n    }}\n}}"
        )?;
    }
    Ok(code)
}
