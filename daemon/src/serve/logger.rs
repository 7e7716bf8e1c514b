//! The log: lines of text for people, of JSON for machines, on standard error.

use std::io::Write;

use log::LevelFilter;

/// Starts the log. A second call changes nothing.
pub fn start(level: &str, format: &str) {
    let json = format == "json";
    let mut builder = env_logger::Builder::new();
    // Everything passes here; `set_level` decides, so that it can change while the daemon runs.
    builder.filter_level(LevelFilter::Trace);
    for noisy in ["rumqttc", "rustls", "mio", "tokio"] {
        builder.filter_module(noisy, LevelFilter::Warn);
    }
    // The demo's broker tells every packet, as errors; what matters shows at its clients.
    for silent in ["rumqttd", "tracing"] {
        builder.filter_module(silent, LevelFilter::Off);
    }
    builder.format(move |out, record| {
        if json {
            let line = serde_json::json!({
                "time_ms": super::clock::unix_ms(),
                "level": record.level().as_str().to_ascii_lowercase(),
                "target": record.target(),
                "message": record.args().to_string(),
            });
            writeln!(out, "{line}")
        } else {
            writeln!(out, "{:<5} {}", record.level().as_str().to_ascii_lowercase(), record.args())
        }
    });
    let _ = builder.try_init();
    set_level(level);
}

/// Changes the level: error, warn, info, debug or trace.
pub fn set_level(level: &str) {
    log::set_max_level(level.parse().unwrap_or(LevelFilter::Info));
}
