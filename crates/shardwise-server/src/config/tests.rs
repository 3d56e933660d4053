use super::*;

fn load(file: &str, environment: &[(&str, &str)], options: &[(&str, &str)]) -> Result<ServeConfig, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serve.toml");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let options: Vec<_> = options.iter().map(|(field, value)| (*field, (*value).to_owned())).collect();
    ServeConfig::load(Some(&path), environment, &options)
}

#[test]
fn options_win_over_variables_and_these_over_the_file() {
    let file = "listen = '127.0.0.1:1'\nname = 'file'\nrouter = 'file'\n[limits]\nbatch = 1\nconnections = 1\n";
    let environment = [
        ("SHARDWISE_SERVE_NAME", "environment"),
        ("SHARDWISE_SERVE_ROUTER", "environment"),
        ("SHARDWISE_SERVE_ALIAS", "2024"),
        ("SHARDWISE_SERVE_WATCH_S", "3"),
        ("SHARDWISE_SERVE_LIMITS__BATCH", "2"),
        ("OTHER", "x"),
    ];
    let config = load(file, &environment, &[("router", "option")]).unwrap();
    let names = [&config.listen, &config.name, &config.router].map(String::as_str);
    assert_eq!(names, ["127.0.0.1:1", "environment", "option"]);
    assert_eq!((config.alias.as_str(), config.watch_s), ("2024", 3.0));
    assert_eq!((config.limits.batch, config.limits.connections), (2, 1));
    assert_eq!(config.limits.body_bytes, Limits::default().body_bytes);
}

#[test]
fn the_planner_has_a_table_of_its_own() {
    let file =
        "[planner.warm]\npressure = 0.5\nrelease = 0.7\n[planner.balance]\nmost_moves_hour = 3\nreactive = true\n";
    let variables = [
        ("SHARDWISE_SERVE_PLANNER__WARM__PRESSURE", "0.6"),
        ("SHARDWISE_SERVE_PLANNER__FORECASTS__HORIZONS_MINUTES", "[1, 2]"),
    ];
    let config = load(file, &variables, &[("planner.balance.most_moves_hour", "4")]).unwrap();
    let PlannerSettings { forecasts, balance, warm, .. } = &config.planner;
    assert_eq!((warm.pressure, warm.release, balance.most_moves_hour, balance.reactive), (0.6, 0.7, 4, true));
    assert_eq!((&forecasts.horizons_minutes, forecasts.coverage), (&vec![1, 2], 0.9));
    assert_eq!(
        warm.time_to_live_minutes,
        ServeConfig::default().planner.warm.time_to_live_minutes,
        "the rest is as usual"
    );
}

#[test]
fn what_it_writes_it_reads() {
    let mut config = ServeConfig { admin: Some("unix:admin.sock".to_owned()), ..ServeConfig::default() };
    config.planner.spike.words.risk.push("margin".to_owned());
    config.planner.warm.price_ms_per_gb_minute = 2.5;
    assert_eq!(load(&config.to_toml(), &[], &[]).unwrap(), config);
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    for (file, told) in [
        ("listen = 'here'", "host:port"),
        ("admin = 'unix:'", "unix:/run"),
        ("listne = 'x'", "listne"),
        ("log_share = 2.0", "between 0 and 1"),
        ("workers = 0", "workers"),
        ("policy = 'best'", "p2c_in_flight"),
        ("policy = 'prequal'", "probes"),
        ("name = ''", "name"),
        ("[limits]\nbody_bytes = 0", "limits.body_bytes"),
        ("[limits]\nshed_above_ms = -1.0", "above 0"),
        ("[limits]\nmodel_us = -1.0", "0 or more"),
        ("coordinator_at = 'https://a:1'", "access.ca_file"),
        ("[access]\ntls_key = 'k'", "needs both"),
        ("[traces]\nshare = 2.0", "between 0 and 1"),
        ("[traces]\nendpoint = 'collector'", "traces.endpoint"),
        ("[limits]\nmissing_share = 1.5", "limits.missing_share"),
        ("[strategies]\norder = ['luck']", "luck"),
        ("[planner.balance]\ncpu_threshold = 1.5", "planner.balance.cpu_threshold: 1.5 must be"),
        ("[planner.forecasts]\nhorizons_minutes = []", "planner.forecasts.horizons_minutes: must be rising"),
        ("[planner.warm]\ncpu_threshold = 0.9", "no planner.warm.cpu_threshold; there are horizon_minutes, "),
        ("[planner.warm]\npressure = 'low'", "expected f64; in `warm.pressure`"),
        ("planner.warm = 3", "planner.warm is a table"),
        ("listen = ", "serve.toml"),
    ] {
        let error = load(file, &[], &[]).unwrap_err().to_string();
        assert!(error.contains(told), "{file}: {error}");
    }
    let error = load("", &[("SHARDWISE_SERVE_WORKERS", "many")], &[]).unwrap_err().to_string();
    assert!(error.contains("workers"), "{error}");
    assert!(ServeConfig::load(Some(Path::new("/no/file")), [], &[]).unwrap_err().to_string().contains("cannot read"));
}
