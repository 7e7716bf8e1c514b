//! The budget is a promise about the whole process, page cache included: a memory cgroup with that limit is never hit.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use plantain_tests::cgroup::MemoryGroup;
use plantain_tests::command::{pack, plantain, root};

/// The smallest budget that the bundled pack is promised for.
const SMALLEST_MIB: u64 = 24;

/// Lets the page cache go of the pack, so that reading it is charged to the group.
fn evict(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn draws_within(budget_mib: u64, threads: &str) {
    let folder = tempfile::tempdir().unwrap();
    // Copies of binary and pack, so that nothing else on this machine keeps their pages alive.
    let (binary, model) = (folder.path().join("plantain"), folder.path().join("pack.safetensors"));
    std::fs::copy(plantain(), &binary).unwrap();
    // What is installed has no symbols; a file that is six times as large is read ahead further.
    let stripped = Command::new("strip").arg("-s").arg(&binary).status();
    assert!(stripped.is_ok_and(|status| status.success()), "strip is missing; install binutils");
    std::fs::copy(pack(), &model).unwrap();
    let group = match MemoryGroup::new(budget_mib << 20) {
        Ok(group) => group,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    evict(&model);
    evict(&binary);
    let output = folder.path().join("p.png");
    let processes = group.processes();
    let mut command = Command::new(&binary);
    command
        .args(["generate", "a red apple", "--seed", "7", "--threads", threads, "--budget"])
        .arg(format!("{budget_mib}M"))
        .arg("--pack")
        .arg(&model)
        .arg("-o")
        .arg(&output);
    // The shell joins the group before it becomes plantain, so that the group sees all of it.
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("echo $$ > {} && exec \"$0\" \"$@\"", processes.display()));
    shell.arg(command.get_program()).args(command.get_args());
    let ended = shell.process_group(0).output().unwrap();
    assert!(ended.status.success(), "{budget_mib}M: {}", String::from_utf8_lossy(&ended.stderr));
    let hits = group.limit_hits().unwrap();
    println!(
        "budget {budget_mib} MiB: peak {:?} bytes charged, limit hit {hits} times",
        group.peak_bytes()
    );
    assert_eq!(hits, 0, "a limit of {budget_mib} MiB was hit {hits} times");
    assert!(output.is_file());
}

/// Bytes that `generate` read from storage for so many pictures, none of the pack in memory before.
fn read_from_storage(binary: &Path, model: &Path, pictures: &str, output: &Path) -> u64 {
    evict(model);
    // A process's counters include those of the children that it has waited for.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "\"$@\" > /dev/null && cat /proc/$$/io", "sh"]).arg(binary);
    shell.args(["generate", "a red apple", "--seed", "7", "--threads", "1", "--budget", "24M"]);
    shell.args(["--count", pictures, "--pack"]).arg(model).arg("-o").arg(output);
    let ended = shell.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let text = String::from_utf8(ended.stdout).unwrap();
    let read = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    read.expect("the kernel counts what a process reads").parse().unwrap()
}

#[test]
fn no_more_is_read_from_storage_than_planned() {
    let folder = tempfile::tempdir_in(root().join("target")).unwrap();
    let (model, output) = (folder.path().join("pack.safetensors"), folder.path().join("p.png"));
    std::fs::copy(pack(), &model).unwrap();
    let binary = plantain();
    let plan = Command::new(&binary)
        .args(["plan", "--json", "--threads", "1", "--budget", "24M"])
        .arg(&model)
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    let networks = plan["memory"]["networks"].as_array().unwrap();
    // The text is encoded once for all pictures of a prompt.
    let planned: u64 = networks
        .iter()
        .filter(|network| network["network"] != "text_encoder")
        .map(|network| network["read_bytes"].as_u64().unwrap())
        .sum();
    let read = |pictures| read_from_storage(&binary, &model, pictures, &output);
    // The first run brings the binary into memory.
    read("1");
    let (one, three) = (read("1"), read("3"));
    if one == 0 {
        println!("skipped: the file system of target/ does not count reads");
        return;
    }
    let size = std::fs::metadata(&model).unwrap().len();
    println!("read: {one} bytes of {size} for one picture, {planned} planned for each after it");
    assert!(one * 100 <= size * 105, "{one} bytes were read of a pack of {size}");
    let later = (three - one) / 2;
    assert!(later * 100 <= planned * 105, "a picture read {later} bytes, planned {planned}");
    assert!(later * 100 >= planned * 95, "{later} bytes of {planned}: weights stayed in memory");
}

#[test]
fn a_picture_fits_its_budget_with_the_page_cache_counted() {
    for budget_mib in [64, 40, SMALLEST_MIB] {
        draws_within(budget_mib, "1");
    }
}

#[test]
fn two_threads_fit_too() {
    draws_within(40, "2");
}
