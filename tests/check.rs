//! The built binary, `lanekeeper check`: exit codes, and what goes where.

use assert_cmd::Command;

const CONFIG: &str = "[[target]]\nname = \"crm\"\ntypes = [\"*\"]\nurl = \"http://h/{record_key}\"\n";

/// Exit code, standard output, standard error.
fn check(config: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("lk.toml"), config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lanekeeper"))
        .current_dir(&directory)
        .env_clear()
        .envs(variables.iter().copied())
        .arg("check")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_sound_config_is_shown_with_origins_and_exit_code_0() {
    let (code, out, error) = check(CONFIG, &["--config", "lk.toml"], &[("LANEKEEPER_LOG__FORMAT", "json")]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(out.contains("\"json\"   # environment variable LANEKEEPER_LOG__FORMAT"), "{out}");
    assert!(out.contains("= \"crm\"") && out.contains("# lk.toml"), "{out}");
}

#[test]
fn the_file_may_be_named_by_a_variable_and_the_report_be_json() {
    let (code, out, _) = check(CONFIG, &["--json"], &[("LANEKEEPER_CONFIG", "lk.toml")]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    let values = report["values"].as_array().unwrap();
    let url = values.iter().find(|value| value["section"] == "broker" && value["key"] == "url").unwrap();
    assert_eq!(url["value"], "amqp://guest:***@127.0.0.1:5672/%2f");
    assert_eq!(report["schedule"]["attempts"][1]["wait_ms_max"], 500);
    assert_eq!(report["schedule"]["end"]["limit"], "retry.elapsed_max");
}

#[test]
fn faults_go_to_standard_error_with_exit_code_2() {
    let (code, out, error) =
        check("[brokr]\n", &["-c", "lk.toml"], &[("LANEKEEPER_BROKER__HEARTBEAT", "0s")]);
    assert_eq!((code, out.as_str()), (2, ""));
    for part in ["3 faults", "brokr (lk.toml)", "variable LANEKEEPER_BROKER__HEARTBEAT", "[[target]]"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let (code, _, error) = check(CONFIG, &["-c", "gone.toml"], &[]);
    assert!(code == 2 && error.contains("gone.toml\n  cannot read"), "{error}");
}
