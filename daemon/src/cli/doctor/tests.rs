use super::*;
use std::path::PathBuf;

/// A folder that looks like a Raspberry Pi 5 with a Hailo-8L whose library is missing.
fn raspberry_pi_5(mem_total_kib: u64) -> (tempfile::TempDir, Machine) {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path: PathBuf = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0");
    let core = "processor : 0\nFeatures : fp asimd asimdhp asimddp crc32\n\n";
    put("proc/cpuinfo", &core.repeat(4));
    put(
        "proc/meminfo",
        &format!("MemTotal: {mem_total_kib} kB\nMemAvailable: {} kB\n", mem_total_kib / 2),
    );
    put("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "2400000\n");
    put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
    put("sys/class/thermal/thermal_zone0/temp", "48300\n");
    put("sys/class/hwmon/hwmon2/in0_lcrit_alarm", "0\n");
    put("dev/hailo0", "");
    let machine = Machine::read(dir.path());
    (dir, machine)
}

fn verdict(checks: &[Check], what: &str) -> Verdict {
    checks
        .iter()
        .find(|check| check.what == what)
        .unwrap_or_else(|| panic!("no check {what}"))
        .verdict
}

#[test]
fn a_machine_like_its_profile_is_good() {
    let (_dir, machine) = raspberry_pi_5(1 << 20);
    let checks = compare(plantain_boards::find("rpi-5").unwrap(), &machine);
    for check in checks.iter().filter(|check| check.what != "architecture") {
        assert_eq!(check.verdict, Verdict::Good, "{check:?}");
    }
    let temperature = checks.iter().find(|check| check.what == "temperature").unwrap();
    assert_eq!(temperature.found, "48.3 C");
}

#[test]
fn what_is_missing_is_told_with_what_to_do() {
    let (_dir, machine) = raspberry_pi_5(400 << 10);
    let board = plantain_boards::find("rpi-5-hailo8l").unwrap();
    let checks = compare(board, &machine);
    assert_eq!(verdict(&checks, "RAM"), Verdict::Note);
    assert_eq!(verdict(&checks, "memory for the budget"), Verdict::Problem);
    assert_eq!(verdict(&checks, "accelerator hailo-8l"), Verdict::Note);
    let report = Report { board: &board.name, title: &board.title, model: None, checks };
    let text = text(&report);
    assert!(text.contains("PROBLEM  memory for the budget"), "{text}");
    assert!(text.contains("use --budget 100M"), "{text}");
    assert!(text.contains("install its library"), "{text}");
}

#[test]
fn fewer_features_and_cores_are_found() {
    let (dir, _) = raspberry_pi_5(1 << 20);
    std::fs::write(dir.path().join("proc/cpuinfo"), "processor : 0\nFeatures : fp asimd\n")
        .unwrap();
    let machine = Machine::read(dir.path());
    let checks = compare(plantain_boards::find("rpi-5").unwrap(), &machine);
    assert_eq!(verdict(&checks, "cores"), Verdict::Problem);
    let features = checks.iter().find(|check| check.what == "processor features").unwrap();
    assert_eq!(features.found, "without asimdhp asimddp");
}

#[test]
fn the_model_names_the_board() {
    assert_eq!(guess(Some("Raspberry Pi Zero 2 W Rev 1.0")).name, "rpi-zero2w");
    assert_eq!(guess(Some("Raspberry Pi 4 Model B Rev 1.4")).name, "rpi-4");
    assert!(guess(Some("Toaster")).name.starts_with("generic-"));
    assert!(guess(None).name.starts_with("generic-"));
}
