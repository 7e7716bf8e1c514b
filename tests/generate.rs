//! `plantain generate` as a user runs it: same bytes everywhere, refusals, no network, a full disk.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use plantain::hash::sha256;
use plantain_tests::command::{Ended, pack, plantain, root, run, run_with};

const PROMPT: &str = "a red apple";

fn draw(words: &[OsString], folder: &Path, more: &[&str]) -> String {
    let path = folder.join("picture.png");
    let args: Vec<&OsStr> = ["generate", PROMPT, "--seed", "7", "-o"]
        .iter()
        .map(OsStr::new)
        .chain([path.as_os_str()])
        .chain(more.iter().map(OsStr::new))
        .collect();
    let ended = run_with(words, args);
    assert_eq!(ended.code, Some(0), "{more:?}: {}", ended.err);
    sha256(std::fs::read(path).unwrap())
}

/// The smallest budget that works with so many threads, as the refusal of a smaller one states it.
fn smallest_budget(folder: &Path, threads: &str) -> String {
    let path = folder.join("none.png");
    let out = path.to_str().unwrap();
    let ended = run(["generate", PROMPT, "--budget", "1M", "--threads", threads, "-o", out]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(!path.exists(), "a refused picture was written");
    let words: Vec<&str> = ended.err.split_whitespace().collect();
    let at = words.iter().position(|&word| word == "--budget").expect("the refusal names a budget");
    words[at + 1].trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[test]
fn same_bytes_with_any_threads_budget_and_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let native = [plantain().into_os_string()];
    let golden = draw(&native, folder.path(), &[]);
    for threads in ["1", "2", "3"] {
        assert_eq!(draw(&native, folder.path(), &["--threads", threads]), golden, "{threads}");
        let smallest = smallest_budget(folder.path(), threads);
        println!("smallest budget with {threads} threads: {smallest}");
        let budgeted = ["--threads", threads, "--budget", &smallest];
        assert_eq!(draw(&native, folder.path(), &budgeted), golden, "{threads} in {smallest}");
    }
    assert_eq!(draw(&native, folder.path(), &["--budget", "1G"]), golden, "1G");
    let scalar = ["env".into(), "PLANTAIN_KERNELS=scalar".into(), plantain().into_os_string()];
    assert_eq!(draw(&scalar, folder.path(), &[]), golden, "scalar kernels");
}

#[test]
fn the_golden_picture_is_the_same_on_every_processor() {
    let folder = tempfile::tempdir().unwrap();
    let file = root().join("tests/golden/apple.sha256");
    let hash = draw(&[plantain().into_os_string()], folder.path(), &["--threads", "1"]);
    if std::env::var_os("PLANTAIN_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, format!("{hash}\n")).unwrap();
    }
    if std::env::var_os("PLANTAIN_PACK").is_none() {
        let golden = std::fs::read_to_string(&file).expect("tests/golden/apple.sha256 is there");
        assert_eq!(
            hash,
            golden.trim(),
            "x86-64; after a change of pack or numbers run with PLANTAIN_BLESS=1"
        );
    }
    let (Some(binary), Some(emulator)) =
        (std::env::var_os("PLANTAIN_AARCH64_BIN"), std::env::var_os("PLANTAIN_QEMU_AARCH64"))
    else {
        println!("skipped on ARM: PLANTAIN_AARCH64_BIN is not set; run `cargo xtask test`");
        return;
    };
    for cpu in ["cortex-a53", "cortex-a76", "max"] {
        let words = [emulator.clone(), "-cpu".into(), cpu.into(), binary.clone()];
        assert_eq!(draw(&words, folder.path(), &["--threads", "1"]), hash, "{cpu}");
    }
}

#[test]
fn draws_without_any_network() {
    let folder = tempfile::tempdir().unwrap();
    let isolated: Vec<OsString> =
        ["unshare", "-r", "-n"].iter().map(OsString::from).chain([plantain().into()]).collect();
    let usable = Command::new("unshare")
        .args(["-r", "-n", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !usable {
        println!("skipped: this machine lets nobody make a network namespace");
        return;
    }
    draw(&isolated, folder.path(), &[]);
}

fn refused(args: &[&str], part: &str) {
    let ended = run(args);
    assert_refused(&ended, part, &format!("{args:?}"));
}

fn assert_refused(ended: &Ended, part: &str, what: &str) {
    assert!(matches!(ended.code, Some(1 | 2)), "{what} ended with {:?}: {}", ended.code, ended.err);
    assert!(ended.err.contains(part), "{what}: {:?} lacks {part:?}", ended.err);
    assert!(!ended.err.contains("panicked"), "{what}: {}", ended.err);
    let sentences = ended.err.trim().lines().filter(|line| line.starts_with("plantain:")).count();
    assert!(sentences <= 1, "{what}: {}", ended.err);
}

#[test]
fn bad_requests_are_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.png");
    let out = path.to_str().unwrap();
    let nowhere = folder.path().join("no/such/folder/p.png");
    refused(&["generate", "", "-o", out], "empty");
    refused(&["generate", "   ", "-o", out], "empty");
    refused(&["generate", "a cat", "-o", out, "--size", "100x100"], "100x100");
    refused(&["generate", "a cat", "-o", out, "--size", "big"], "big");
    refused(&["generate", "a cat", "-o", out, "--steps", "0"], "0");
    refused(&["generate", "a cat", "-o", out, "--guidance", "-1"], "-1");
    refused(&["generate", "a cat", "-o", out, "--style", "baroque"], "baroque");
    refused(&["generate", "a cat", "-o", out, "--budget", "much"], "much");
    refused(&["generate", "a cat", "-o", nowhere.to_str().unwrap()], "does not exist");
    refused(&["generate", "a cat", "-o", folder.path().to_str().unwrap()], "is a folder");
    refused(&["generate", "a cat", "-o", folder.path().join("p.gif").to_str().unwrap()], "gif");
    refused(&["generate", "a cat", "-o", out, "--board", "toaster"], "toaster");
    let binary = [plantain().into_os_string()];
    let garbage = OsStr::from_bytes(b"a \xff\xfe cat");
    let ended =
        run_with(&binary, [OsStr::new("generate"), garbage, OsStr::new("-o"), path.as_os_str()]);
    assert_refused(&ended, "UTF-8", "a prompt that is not UTF-8");
    assert!(!path.exists(), "a refused picture was written");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}

/// Runs `generate -` with this on standard input.
fn draw_stdin(input: &[u8], path: &Path) -> Ended {
    let mut command = Command::new(plantain());
    command.args(["generate", "-", "--seed", "7", "-o"]).arg(path).env("PLANTAIN_PACK", pack());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_prompt_may_come_from_standard_input_and_a_huge_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.png");
    assert_refused(&draw_stdin(&vec![b'a'; 10 << 20], &path), "10485760 bytes", "10 MiB");
    assert_refused(&draw_stdin(b"\xff\xfe\n", &path), "UTF-8", "binary");
    assert_refused(&draw_stdin(b"\n", &path), "empty", "an empty line");
    assert!(!path.exists(), "a refused picture was written");
    let ended = draw_stdin(format!("{PROMPT}\n").as_bytes(), &path);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let hash = sha256(std::fs::read(path).unwrap());
    assert_eq!(hash, draw(&[plantain().into_os_string()], folder.path(), &[]));
}

#[test]
fn bad_packs_are_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (out, bad) = (folder.path().join("p.png"), folder.path().join("bad.safetensors"));
    let whole = std::fs::read(pack()).unwrap();
    let attempt = |what: &str, part: &str| {
        let ended =
            run(["generate", PROMPT, "-o", out.to_str().unwrap(), "--pack", bad.to_str().unwrap()]);
        assert_refused(&ended, part, what);
        assert!(!out.exists(), "{what}: a picture was written");
    };
    attempt("a missing pack", "bad.safetensors");
    for (what, cut) in
        [("an empty pack", 0), ("half a header", 1000), ("a truncated pack", whole.len() - 100)]
    {
        std::fs::write(&bad, &whole[..cut]).unwrap();
        attempt(what, "bad.safetensors");
    }
    std::fs::write(
        &bad,
        b"\x89PNG\r\n\x1a\n and more of a foreign file, long enough to be read as a header",
    )
    .unwrap();
    attempt("a foreign file", "bad.safetensors");
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut flipped = whole.clone();
    let place = 8 + header + (whole.len() - header) / 2;
    flipped[place] ^= 1;
    std::fs::write(&bad, &flipped).unwrap();
    attempt("a flipped bit", "SHA-256");
}

#[test]
fn a_full_disk_leaves_no_half_picture() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |words: &[&str]| {
        Command::new(words[0])
            .args(&words[1..])
            .arg(folder.path())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs"]) {
        println!("skipped: a small file system needs root");
        return;
    }
    let path = folder.path().join("p.png");
    let ended = run(["generate", PROMPT, "-o", path.to_str().unwrap()]);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(mount(&["umount"]), "the small file system is still mounted");
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("cannot be written"), "{}", ended.err);
    assert!(ended.err.contains("free some space"), "{}", ended.err);
    assert_eq!(left, 0, "half a picture was left behind");
}

#[test]
fn json_says_what_it_cost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.webp");
    let ended = run([
        "generate",
        PROMPT,
        "-o",
        path.to_str().unwrap(),
        "--json",
        "--count",
        "2",
        "--seed",
        "5",
        "--budget",
        "64M",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let pictures = value["pictures"].as_array().unwrap();
    assert_eq!(pictures.len(), 2);
    for (index, picture) in pictures.iter().enumerate() {
        assert_eq!(picture["seed"], 5 + index);
        for key in [
            "steps",
            "size",
            "tokens",
            "seconds",
            "peak_rss_bytes",
            "arena_bytes",
            "budget_bytes",
            "cpu_seconds",
            "pack_sha256",
        ] {
            assert!(!picture[key].is_null(), "{key} is missing");
        }
        let file = std::fs::read(picture["file"].as_str().unwrap()).unwrap();
        assert_eq!(picture["image_sha256"], sha256(&file));
        assert!(plantain::image::find_xmp(&file).unwrap().contains("trainedAlgorithmicMedia"));
    }
}
