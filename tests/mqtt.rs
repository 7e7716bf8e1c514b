//! The daemon against a real mosquitto and clients that were not written here. The scripts in `mqtt/` say what each test
//! does; `python tests/mqtt/topics.py refusals` runs one by hand.

use std::path::Path;
use std::process::Command;

/// Runs a script, or one of its tests; what it printed is the failure's message.
fn script(name: &str, test: &str) {
    let variable = |name| std::env::var_os(name);
    let (Some(python), Some(binary)) = (variable("PLANTAIN_PYTHON"), variable("PLANTAIN_BIN"))
    else {
        println!("skipped: PLANTAIN_PYTHON and PLANTAIN_BIN are not set; run `cargo xtask test`");
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("mqtt").join(name);
    let output = Command::new(python)
        .arg(path)
        .args((!test.is_empty()).then_some(test))
        .env("PLANTAIN_BIN", binary)
        .output()
        .expect("the test's Python starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert!(output.status.success(), "{name} {test} failed");
}

macro_rules! scripts {
    ($($file:ident: $($test:ident)+;)+) => {
        $(mod $file { $(
            #[test]
            fn $test() {
                super::script(concat!(stringify!($file), ".py"), stringify!($test));
            }
        )+ })+
    };
}

scripts! {
    topics: plain_prompt json_prompt repeated_prompt request_response refusals cancel priorities set_defaults
        expired_prompt retained_prompt will_and_restart home_assistant one_instance mosquitto_clients npm_client;
    limits: deny_words deny_command rate_and_quota eink sizes previews step_cache small_broker;
    service: notify stop_requeues reload settings logs metrics;
    tls: client_certificates passwords;
    faults: accepted_is_never_lost killed_daemon killed_broker bad_connections duplicates full_disk clock_jumps;
    malformed: malformed;
    group: shared_prompts commands_pass_full_members;
    soak: soak;
}
