//! Packs of every format version that was ever released open forever; `data/packs/README.md` says how they
//! were made.

use std::path::{Path, PathBuf};

use plantain::graph::{Node, Op};
use plantain::pack::{Pack, PackFault, PublicKey};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/packs").join(name)
}

fn key(name: &str) -> PublicKey {
    PublicKey::parse(&std::fs::read_to_string(data(name)).unwrap()).unwrap()
}

#[test]
fn a_pack_of_version_1_opens() {
    let pack = Pack::open(data("v1.safetensors")).unwrap();
    pack.verify_all().unwrap();
    assert_eq!(pack.version(), 1);
    let names: Vec<&str> = pack.graphs().iter().map(|graph| &*graph.name).collect();
    assert_eq!(names, ["text_encoder", "denoiser", "decoder"]);
    assert_eq!(pack.pipeline().unwrap().styles[0].name, "plain");
    assert_eq!(pack.golden()[0].inputs["latent"], "golden.latent");
    assert_eq!(pack.report().unwrap().unwrap().layers[0].node, "v");
    assert_eq!(pack.provenance().licence, "MIT OR Apache-2.0");
}

#[test]
fn a_pack_of_version_2_opens() {
    let pack = Pack::open(data("v2.safetensors")).unwrap();
    pack.verify_all().unwrap();
    assert_eq!(pack.version(), 2);
    let int8 = |node: &Node| matches!(node.op, Op::AttentionI8 { heads: 2, .. });
    assert!(pack.graph("text_encoder").unwrap().nodes.iter().any(int8));
}

#[test]
fn a_signature_holds_for_its_key_and_its_bytes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v1.safetensors");
    let signature = folder.path().join("v1.safetensors.minisig");
    std::fs::copy(data("v1.safetensors"), &path).unwrap();
    let open = |key: &PublicKey| Pack::open_signed(&path, key);
    let fault = |key: &PublicKey| *open(key).unwrap_err().fault;
    assert!(matches!(fault(&key("key.pub")), PackFault::NoSignature(_)));
    std::fs::copy(data("v1.safetensors.minisig"), &signature).unwrap();
    open(&key("key.pub")).unwrap();
    assert!(matches!(fault(&key("other.pub")), PackFault::Signature(_)));
    let good = std::fs::read_to_string(&signature).unwrap();
    for bad in ["", "x", &good.replace("trusted comment: ", "trusted comment: not ")] {
        std::fs::write(&signature, bad).unwrap();
        assert!(matches!(fault(&key("key.pub")), PackFault::Signature(_)), "{bad:?}");
    }
    std::fs::write(&signature, &good).unwrap();
    // A change of the data, which opening alone does not read.
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    Pack::open(&path).unwrap();
    assert!(matches!(fault(&key("key.pub")), PackFault::Signature(_)));
}

/// Writes this version's pack where `PLANTAIN_WRITE_PACK` says: how `data/packs` grows.
#[test]
fn writes_a_pack_to_keep() {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PLANTAIN_WRITE_PACK")
        .map_or_else(|| folder.path().join("pack.safetensors"), PathBuf::from);
    plantain_tests::packs::every_op().write(&path).unwrap();
    Pack::open(&path).unwrap().verify_all().unwrap();
}
