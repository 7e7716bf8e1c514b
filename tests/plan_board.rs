//! `plantain plan --board`, as a person and a script see it.

use plantain_tests::command::{root, run};
use serde_json::Value;

/// A profile in which words are replaced.
fn own_board(changes: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let mut text = std::fs::read_to_string(root().join("boards/profiles/rpi-zero2w.toml")).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "the profile has no {from}");
        text = text.replacen(from, to, 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn estimate(arguments: &[&str]) -> Value {
    let ended = run(["plan", "--json"].iter().chain(arguments));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    json["estimate"].clone()
}

#[test]
fn every_board_has_an_estimate_that_says_what_it_is() {
    for board in plantain_boards::all() {
        let estimate = estimate(&["--board", &board.name]);
        assert_eq!(estimate["estimated"], true);
        assert_eq!(estimate["fits"], true, "{}", board.name);
        let seconds = estimate["picture_s"].as_f64().unwrap();
        assert!(seconds > 0.0 && seconds < 60.0, "{}: {seconds} s", board.name);
    }
    let text = run(["plan", "--board", "rpi-zero2w"]).out;
    assert!(text.contains("Raspberry Pi Zero 2 W (rpi-zero2w): fits"), "{text}");
    assert!(text.contains("ESTIMATE, not measured: "), "{text}");
    assert!(!run(["plan"]).out.contains("ESTIMATE"));
}

#[test]
fn a_slower_clock_and_slower_storage_take_longer() {
    let (_folder, slow) =
        own_board(&[("mhz = 1000", "mhz = 500"), ("read_mb_per_s = 21", "read_mb_per_s = 7")]);
    let (fast, slow) = (estimate(&["--board", "rpi-zero2w"]), estimate(&["--board", &slow]));
    let ratio = |key: &str| slow[key].as_f64().unwrap() / fast[key].as_f64().unwrap();
    assert!((ratio("compute_s") - 2.0).abs() < 1e-6, "{}", ratio("compute_s"));
    assert!((ratio("first_read_s") - 3.0).abs() < 1e-6, "{}", ratio("first_read_s"));
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let ended = run(["plan", "--board", "rpi-zero2w", "--budget", "10M"]);
    assert_eq!(ended.code, Some(2));
    let error = &ended.err;
    assert!(error.contains("does not fit on Raspberry Pi Zero 2 W"), "{error}");
    assert!(error.contains("10.00 MiB") && error.contains("give --budget "), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}

#[test]
fn a_bad_board_file_is_one_sentence() {
    for (from, to, word) in [
        ("mhz = 1000", "mhz = 0", "has a zero"),
        ("mhz = 1000", "mhzz = 1000", "unknown field `mhzz`"),
        ("int8_share = 0.25", "int8_share = 2", "int8_share"),
    ] {
        let (_folder, path) = own_board(&[(from, to)]);
        let ended = run(["plan", "--board", &path]);
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains(word) && ended.err.contains("own.toml"), "{}", ended.err);
        assert_eq!(ended.err.trim_end().lines().count(), 1, "{}", ended.err);
    }
}
