//! The files that put Lanekeeper into containers agree with each other, with its config and with its scripts.
//! No Docker is needed for this: what is compared is what is written.

#![expect(clippy::disallowed_types, reason = "it reads TOML of the container files")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

/// The default of `dispatch.drain_timeout`, for a config that does not set it.
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

#[test]
fn the_broker_url_names_the_compose_files_rabbitmq() {
    let url = text_at(&compose_config(), "broker.url").to_owned();
    let (host, port) = host_and_port(&url);
    let rabbitmq = service(&host);
    assert!(
        text(&rabbitmq["image"]).starts_with("rabbitmq:"),
        "broker.url {url} names the service {host}, which is not a RabbitMQ"
    );
    assert!(
        ports(&rabbitmq).iter().any(|published| published.container == port),
        "broker.url {url}: the service {host} publishes no port {port}"
    );
    assert_eq!(
        text(&service("lanekeeper")["depends_on"][host.as_str()]["condition"]),
        "service_healthy",
        "lanekeeper must wait until {host} is ready"
    );
    assert!(!rabbitmq["healthcheck"]["test"].is_badvalue(), "{host} needs a healthcheck for that");
}

#[test]
fn every_target_is_the_receiver_where_it_listens() {
    let config = compose_config();
    let targets = config["target"].as_array().expect("compose.toml has [[target]]");
    assert!(!targets.is_empty());
    for target in targets {
        let url = target["url"].as_str().expect("a target has a url");
        assert!(url.contains("{record_key}"), "{url} does not say which record");
        let (host, port) = host_and_port(url);
        let command = command_of(&service(&host));
        assert_eq!(command[0], "receiver", "{url} names the service {host}, which is not the receiver");
        let listen = value_after(&command, "--listen");
        assert_eq!(port_of(&listen), port, "{url}, but {host} listens on {listen}");
        assert!(!listen.starts_with("127."), "loopback inside a container is reached by nobody: {listen}");
    }
}

#[test]
fn the_admin_port_is_published_where_the_config_listens() {
    let config = compose_config();
    let listen = text_at(&config, "admin.listen");
    assert!(!listen.starts_with("127."), "loopback inside a container is reached by nobody: {listen}");
    let published = ports(&service("lanekeeper"));
    assert!(
        published.iter().any(|published| published.container == port_of(listen)),
        "admin.listen is {listen}, but lanekeeper publishes {published:?}"
    );
}

#[test]
fn the_door_is_published_where_its_config_listens_and_waits_longer_than_its_drain_takes() {
    let config = toml("config/compose-door.toml");
    let door = service("door");
    let published = ports(&door);
    for key in ["admin.listen", "ingest.listen"] {
        let listen = text_at(&config, key);
        assert!(!listen.starts_with("127."), "loopback inside a container is reached by nobody: {listen}");
        assert!(
            published.iter().any(|published| published.container == port_of(listen)),
            "{key} is {listen}, but door publishes {published:?}"
        );
    }
    assert_eq!(text_at(&config, "broker.url"), text_at(&compose_config(), "broker.url"));
    assert_eq!(text(&door["depends_on"]["rabbitmq"]["condition"]), "service_healthy");
    let command = command_of(&door);
    assert_eq!(command[0], "ingest");
    let path = value_after(&command, "--config");
    let mounts = texts(&door["volumes"]);
    assert!(mounts.contains(&format!("./config/compose-door.toml:{path}:ro")), "{path}: {mounts:?}");
    let grace = duration(text(&door["stop_grace_period"]));
    let drain = duration(text_at(&toml("config/default.toml"), "ingest.drain_timeout"));
    assert!(grace > drain + Duration::from_secs(5), "{grace:?} would cut a drain of {drain:?} short");
}

#[test]
fn the_health_checks_ask_where_the_processes_listen() {
    for (name, config) in [("lanekeeper", compose_config()), ("door", toml("config/compose-door.toml"))] {
        let test = texts(&service(name)["healthcheck"]["test"]).join(" ");
        let port = port_of(text_at(&config, "admin.listen"));
        assert!(test.contains(&format!("/dev/tcp/127.0.0.1/{port} ")), "{name}: {test}");
    }
}

#[test]
fn every_port_is_published_on_loopback_only() {
    let compose = compose();
    for (name, service) in compose["services"].as_hash().expect("services") {
        for published in ports(service) {
            assert_eq!(published.host, "127.0.0.1", "{name:?} publishes {published:?}");
        }
    }
}

#[test]
fn docker_waits_longer_than_a_drain_takes() {
    let grace = text(&service("lanekeeper")["stop_grace_period"]).to_owned();
    let drain = compose_config()
        .pointer("/dispatch/drain_timeout")
        .map_or(DRAIN_TIMEOUT_DEFAULT, |value| duration(value.as_str().expect("drain_timeout is a string")));
    assert!(duration(&grace) > drain, "stop_grace_period {grace} would cut a drain of {drain:?} short");
}

#[test]
fn the_config_is_mounted_where_the_command_looks_for_it() {
    let lanekeeper = service("lanekeeper");
    let command = command_of(&lanekeeper);
    assert_eq!(command[0], "run");
    let path = value_after(&command, "--config");
    let mounts = texts(&lanekeeper["volumes"]);
    assert!(
        mounts.contains(&format!("./config/compose.toml:{path}:ro")),
        "nothing is mounted at {path}: {mounts:?}"
    );
}

#[test]
fn every_mounted_file_exists() {
    let compose = compose();
    for (name, service) in compose["services"].as_hash().expect("services") {
        for mount in texts(&service["volumes"]) {
            let source = mount.split(':').next().unwrap_or_default();
            if let Some(path) = source.strip_prefix("./") {
                // Docker makes a directory of what does not exist, and the program then finds no file.
                assert!(project().join(path).is_file(), "{name:?} mounts {source}, which is no file");
            } else {
                assert!(
                    !compose["volumes"][source].is_badvalue(),
                    "{name:?}: no volume {source} is declared"
                );
            }
        }
    }
}

#[test]
fn the_dockerfile_compiles_with_the_rust_that_the_tests_use() {
    let version_at = |file: &str, key: &str| {
        let value = toml(file).pointer(key).and_then(Value::as_str).map(version);
        value.unwrap_or_else(|| panic!("{file} has no {key}"))
    };
    let needed = version_at("Cargo.toml", "/workspace/package/rust-version");
    let dockerfile = read("Dockerfile");
    let image = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("FROM rust:"))
        .expect("the Dockerfile builds in a rust image");
    let used = version(image.split('-').next().unwrap_or_default());
    assert!(used >= needed, "Dockerfile: rust:{image}, but Cargo.toml needs {needed:?}");
    let toolchain = version_at("rust-toolchain.toml", "/toolchain/channel");
    assert_eq!(used, toolchain, "Dockerfile and rust-toolchain.toml name different versions of Rust");
    assert!(dockerfile.contains("--locked"), "the image must be built from the committed Cargo.lock");
}

#[test]
fn the_image_is_built_from_what_a_build_reads_and_from_nothing_private() {
    let rules = read(".dockerignore");
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "config/default.toml",
        "src/main.rs",
        "crates/core/Cargo.toml",
        "crates/ledger/src/sqlite/schema_1.sql",
        "docs/openapi.json",
        "src/admin/assets/style.css",
    ] {
        assert!(is_in_context(&rules, needed), "the build needs {needed}");
    }
    for private in [
        "lanekeeper.db",
        "lanekeeper.db-wal",
        "ledgers/eu.sqlite",
        "lanekeeper.toml",
        "production.toml",
        "config/production.toml",
        "config/default.toml.bak",
        "src/lanekeeper.db-shm",
        "crates/lab/lanekeeper.toml",
        "src/.env.local",
        "crates/key.pem",
        ".env",
        ".git/config",
        "target/debug/lanekeeper",
        "rust-toolchain.toml",
    ] {
        assert!(!is_in_context(&rules, private), "{private} must not get into the image's context");
    }
}

/// As Docker reads a .dockerignore: the last rule that matches the path, or a directory that holds it, decides.
fn is_in_context(rules: &str, path: &str) -> bool {
    let rules = rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rules.fold(true, |included, rule| {
        let (includes, pattern) = rule.strip_prefix('!').map_or((false, rule), |pattern| (true, pattern));
        let pattern: Vec<&str> = pattern.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        let matches = (1..=path.len()).any(|length| matches_path(&pattern, &path[..length]));
        if matches { includes } else { included }
    })
}

fn matches_path(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", pattern @ ..], _) => (0..=path.len()).any(|skipped| matches_path(pattern, &path[skipped..])),
        ([first, pattern @ ..], [name, path @ ..]) => {
            matches_name(first, name) && matches_path(pattern, path)
        }
        _ => false,
    }
}

/// `*` stands for any characters.
fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|at| matches_name(after, &rest[at..]))
        }),
    }
}

#[test]
fn the_container_runs_lanekeeper_as_nobody_special_and_drains_on_stop() {
    let dockerfile = read("Dockerfile");
    let runtime = dockerfile.rsplit("\nFROM ").next().unwrap_or_default();
    let has = |line: &str| assert!(runtime.lines().any(|found| found == line), "Dockerfile: no line {line}");
    has("USER lanekeeper");
    has("STOPSIGNAL SIGTERM");
    // The list form: a shell in between would get the signal and not pass it on.
    has(r#"ENTRYPOINT ["lanekeeper"]"#);
}

#[test]
fn compose_and_the_private_broker_share_plugins_and_settings() {
    let plugins = read("config/rabbitmq/enabled_plugins");
    let listed: Vec<&str> = plugins
        .trim()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix("]."))
        .expect("an Erlang list, closed by a full stop")
        .split(',')
        .map(str::trim)
        .collect();
    for plugin in ["rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_sharding"] {
        assert!(listed.contains(&plugin), "{plugin} is not enabled: {listed:?}");
    }
    let script = read("scripts/broker");
    let mounts = texts(&service("rabbitmq")["volumes"]);
    for file in ["config/rabbitmq/enabled_plugins", "config/rabbitmq/rabbitmq.conf"] {
        assert!(script.contains(&format!("\"$PROJECT/{file}\"")), "scripts/broker does not use {file}");
        assert!(
            mounts.iter().any(|mount| mount.starts_with(&format!("./{file}:"))),
            "docker-compose.yml does not use {file}"
        );
    }
}

// What the tests above read.

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let path: PathBuf = project().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn toml(path: &str) -> Value {
    Figment::from(Toml::string(&read(path))).extract().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose_config() -> Value {
    toml("config/compose.toml")
}

fn compose() -> Yaml {
    let mut documents = YamlLoader::load_from_str(&read("docker-compose.yml"))
        .unwrap_or_else(|error| panic!("docker-compose.yml: {error}"));
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

fn service(name: &str) -> Yaml {
    let service = compose()["services"][name].clone();
    assert!(!service.is_badvalue(), "docker-compose.yml has no service {name}");
    service
}

fn text(value: &Yaml) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value:?}"))
}

/// A list of strings; nothing is an empty one.
fn texts(value: &Yaml) -> Vec<String> {
    value.as_vec().map(|list| list.iter().map(|item| text(item).to_owned()).collect()).unwrap_or_default()
}

fn text_at<'a>(config: &'a Value, key: &str) -> &'a str {
    let pointer = format!("/{}", key.replace('.', "/"));
    config.pointer(&pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("the config has no {key}"))
}

fn command_of(service: &Yaml) -> Vec<String> {
    let command = texts(&service["command"]);
    assert!(!command.is_empty(), "no command: {service:?}");
    command
}

fn value_after(command: &[String], option: &str) -> String {
    command
        .iter()
        .skip_while(|argument| *argument != option)
        .nth(1)
        .unwrap_or_else(|| panic!("{command:?} has no {option}"))
        .clone()
}

#[derive(Debug)]
struct Published {
    host: String,
    container: u16,
}

/// `ADDRESS:PORT:PORT`, where the middle one may be `${NAME:-DEFAULT}`.
fn ports(service: &Yaml) -> Vec<Published> {
    texts(&service["ports"])
        .iter()
        .map(|port| Published {
            host: port.split(':').next().unwrap_or_default().to_owned(),
            container: port_of(port),
        })
        .collect()
}

fn port_of(address: &str) -> u16 {
    address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("no port at the end of {address}"))
}

/// The host and the port of a URL that states both.
fn host_and_port(url: &str) -> (String, u16) {
    let (_, rest) = url.split_once("://").unwrap_or_else(|| panic!("not a URL: {url}"));
    let authority = rest.split('/').next().unwrap_or_default();
    let address = authority.rsplit('@').next().unwrap_or_default();
    let (host, _) = address.split_once(':').unwrap_or_else(|| panic!("no port in {url}"));
    (host.to_owned(), port_of(address))
}

fn duration(written: &str) -> Duration {
    humantime::parse_duration(written).unwrap_or_else(|error| panic!("{written}: {error}"))
}

fn version(written: &str) -> (u32, u32) {
    let mut parts =
        written.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("not a version: {written}")));
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}
