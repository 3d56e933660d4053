//! What servers say while they run: one line each on standard error, as `SHARDWISE_LOG` (error, warn, info, debug) allows, and as
//! JSON with `SHARDWISE_LOG_FORMAT=json`.

use tracing::level_filters::LevelFilter;

/// Shows the log from now on.
pub(crate) fn show() {
    let level = std::env::var("SHARDWISE_LOG").ok().and_then(|level| level.parse::<LevelFilter>().ok());
    let lines =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level.unwrap_or(LevelFilter::INFO));
    let is_json = std::env::var("SHARDWISE_LOG_FORMAT").is_ok_and(|format| format == "json");
    let shown = if is_json { lines.json().try_init() } else { lines.try_init() };
    if let Err(error) = shown {
        super::note(format!("the log cannot be shown: {error}"));
    }
}
