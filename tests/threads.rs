//! Threads of the engine: on the cores that were asked for, and asleep when there is nothing to do.
//!
//! One test only, because it watches all threads of this process.

use std::ops::ControlFlow;
use std::time::Duration;

use plantain::pipeline::{Options, Pipeline, Request};
use plantain_tests::command::{pack, run};

/// A line of a thread's status.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().to_owned()
}

/// Cores that the workers which the engine started may use, by name.
fn workers() -> Vec<(String, String)> {
    let mut workers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(status) = std::fs::read_to_string(entry.unwrap().path().join("status")) else {
            continue;
        };
        let name = field(&status, "Name:");
        if name.starts_with("plantain-") {
            workers.push((name, field(&status, "Cpus_allowed_list:")));
        }
    }
    workers.sort();
    workers
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The first core and the last one that this process may use.
fn ends() -> [usize; 2] {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let mut cores = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let first = cores.next().unwrap();
    [first, cores.next_back().unwrap_or(first)]
}

#[test]
fn workers_stay_on_their_cores_and_sleep_when_idle() {
    let [first, last] = ends();
    // Drawn on a thread of its own, as the daemon does: the caller of `generate` is kept on the first core.
    let draw = |cores: Vec<usize>, threads: usize| {
        let options = Options { threads: Some(threads), cores, ..Options::default() };
        let mut pipeline = Pipeline::open(pack(), options).unwrap();
        let drawing = std::thread::spawn(move || {
            let mut own = String::new();
            let picture = pipeline.generate(&Request::new("a red apple").with_seed(7), &mut |_| {
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                own = field(&status, "Cpus_allowed_list:");
                ControlFlow::Continue(())
            });
            (pipeline, picture.unwrap().pixels, own)
        });
        let (pipeline, pixels, own) = drawing.join().unwrap();
        (pipeline, pixels, own)
    };

    let (pipeline, plain, _) = draw(Vec::new(), 3);
    assert_eq!(workers().len(), 2);
    let before = cpu_seconds();
    std::thread::sleep(Duration::from_secs(2));
    let idle = cpu_seconds() - before;
    println!("idle for 2 s: {:.2} ms of processor time", idle * 1e3);
    assert!(idle < 0.02, "{idle} s of processor time in 2 s of nothing to do");
    drop(pipeline);

    if first == last {
        println!("this process may use one core only: one thread is kept on it");
        let (_pipeline, pinned, own) = draw(vec![first], 1);
        assert_eq!((pinned, own), (plain.clone(), first.to_string()));
    } else {
        let (_pipeline, pinned, own) = draw(vec![last, first], 2);
        assert_eq!((pinned, own), (plain.clone(), last.to_string()));
        assert_eq!(workers(), [("plantain-1".to_owned(), first.to_string())]);
    }
    let here = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_ne!(field(&here, "Cpus_allowed_list:"), "", "this thread is left alone");

    for (cores, threads, words) in [
        (vec![1000], 1, "core 1000"),
        (vec![first, 1 << 20], 2, "core 1048576"),
        (vec![first], 2, "2 threads cannot be kept on 1 cores"),
    ] {
        let options = Options { threads: Some(threads), cores, ..Options::default() };
        let refused = Pipeline::open(pack(), options).err().unwrap().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("p.png");
    let draw = |more: &[&str]| {
        let words = ["generate", "a red apple", "--seed", "7", "-o", out.to_str().unwrap()];
        run(words.iter().chain(more))
    };
    let ended = draw(&["--pin", "auto"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let ended = draw(&["--pin", "0-999"]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    let ended = draw(&["--pin", "fast"]);
    assert!(ended.code == Some(2) && ended.err.contains("--pin"), "{}", ended.err);
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
}
