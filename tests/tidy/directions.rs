//! Which way dependencies point: between crates, and between the modules of one.

use crate::assert_none;
use crate::lexer::{below, code, modules, words};
use crate::repository::{TextFile, files, read};

/// A crate's folder and the crates of ours that it may link. Fuzz targets link what they feed.
const CRATES: [(&str, &[&str]); 10] = [
    ("shared", &[]),
    ("supervisor", &["agentapi-shared"]),
    ("supervisor/shim", &["agentapi-shared"]),
    ("supervisor/egress", &["agentapi-shared"]),
    // Its tests run the store on what the other tests run on.
    ("controlplane", &["agentapi-shared", "agentapi-test-postgres"]),
    ("cli", &["agentapi-shared"]),
    ("tests", &["agentapi-shared", "agentapi-test-postgres"]),
    ("tests/postgres", &[]),
    // What it shows, it shows without a line of ours.
    ("tests/database/independent", &[]),
    ("fuzz", &["agentapi-shared", "agentapi-shim"]),
];

/// Crates that make every process larger; the shim, of which there are many, does without.
const HEAVY: [&str; 9] = [
    "tokio",
    "tokio-util",
    "tokio-tungstenite",
    "hyper",
    "axum",
    "reqwest",
    "rustls",
    "rusqlite",
    "tracing-subscriber",
];

/// Types of HTTP.
const HTTP: [&str; 5] = ["axum", "http", "hyper", "tower", "tower_http"];

/// A module, and the modules of its own crate that it must not name.
const MODULES: [(&str, &[&str]); 35] = [
    // api -> domain -> store; hosts and viewers stand beside, below api.
    ("controlplane/src/domain", &["api", "server", "relay", "config", "credentials"]),
    ("controlplane/src/store", &["api", "domain", "fleet", "relay", "plane", "server", "events", "auth"]),
    ("controlplane/src/capability", &["api", "domain", "store", "fleet", "relay", "plane", "server", "events", "auth"]),
    // Who callers are: of the store it knows the token that a request is sent with.
    (
        "controlplane/src/identity",
        &["api", "domain", "fleet", "relay", "plane", "server", "events", "config", "credentials", "sqlite"],
    ),
    ("controlplane/src/audit", &["api", "server", "config", "fleet", "relay", "plane", "events"]),
    ("controlplane/src/request", &["api", "domain", "server", "config", "fleet", "relay", "plane"]),
    ("controlplane/src/fleet", &["api", "server", "config"]),
    ("controlplane/src/relay", &["api", "server", "config"]),
    ("controlplane/src/events", &["api", "domain", "fleet", "relay", "plane", "server"]),
    ("controlplane/src/api", &["server", "config", "credentials"]),
    // daemon -> {control, link} -> registry -> {session, questions} -> context -> {streams, shim client, outbox, versions} -> files.
    ("supervisor/src/control", &["daemon", "link"]),
    ("supervisor/src/link", &["daemon", "control", "questions"]),
    ("supervisor/src/registry", &["daemon", "control", "link", "questions"]),
    ("supervisor/src/questions", &["daemon", "control", "link", "registry"]),
    ("supervisor/src/context", &["daemon", "control", "link", "registry", "session", "questions", "launch"]),
    ("supervisor/src/versions", &["daemon", "registry", "session", "link", "context", "questions", "host", "agents"]),
    ("supervisor/src/streams", &["daemon", "registry", "session", "link", "context", "questions"]),
    ("supervisor/src/uplink", &["daemon", "registry", "session", "link", "context", "streams", "shim_client"]),
    ("supervisor/src/slots", &["daemon", "registry", "session", "link", "context"]),
    ("supervisor/src/files", &["daemon", "registry", "session", "link", "streams", "shim_client", "plan", "outbox"]),
    ("supervisor/src/outbox", &["daemon", "registry", "session", "link", "streams", "shim_client", "files"]),
    ("supervisor/src/workspace", &["daemon", "registry", "session", "link", "streams", "shim_client", "files"]),
    ("supervisor/src/plan", &["daemon", "registry", "session", "link", "streams", "shim_client", "files", "outbox"]),
    ("supervisor/src/launch", &["daemon", "registry", "session", "link", "streams", "shim_client", "plan"]),
    ("supervisor/src/shim_client", &["daemon", "registry", "session", "link", "context", "plan", "outbox"]),
    (
        "supervisor/src/canary",
        &["daemon", "registry", "session", "link", "context", "self_test", "plan", "launch", "host"],
    ),
    (
        "supervisor/src/self_test",
        &["daemon", "registry", "session", "link", "context", "control", "questions", "doctor"],
    ),
    ("supervisor/src/session", &["daemon", "registry", "link", "control", "questions"]),
    ("supervisor/src/gateway", &["daemon", "registry", "session", "link", "streams", "shim_client", "plan", "outbox"]),
    // service -> {streams, output, parser} -> terminal; sys at the bottom.
    ("supervisor/shim/src/terminal", &["service", "parser", "streams", "output", "connection", "jail", "sys", "pty"]),
    ("supervisor/shim/src/sys", &["service", "parser", "streams", "jail", "terminal", "start", "pty"]),
    ("supervisor/shim/src/jail", &["service", "parser", "streams", "output", "connection", "terminal", "start"]),
    ("supervisor/shim/src/parser", &["service", "streams", "output", "connection", "jail", "start"]),
    ("cli/src/client", &["up", "session", "attach", "doctor", "fleet", "open", "datadir"]),
    ("cli/src/args", &["up", "session", "client", "doctor", "fleet", "open", "datadir", "config"]),
];

/// Control plane modules that know nothing of HTTP.
const WITHOUT_HTTP: [&str; 9] = [
    "controlplane/src/audit",
    "controlplane/src/request",
    "controlplane/src/domain",
    "controlplane/src/store",
    "controlplane/src/fleet",
    "controlplane/src/relay",
    "controlplane/src/events",
    "controlplane/src/identity",
    "controlplane/src/plane",
];

/// Control plane modules that `domain::sessions` stands on: of `domain` they use the rules, not what callers do with them.
const BELOW_WHAT_CALLERS_DO: [&str; 6] = [
    "controlplane/src/fleet",
    "controlplane/src/relay",
    "controlplane/src/plane",
    "controlplane/src/domain/rules",
    "controlplane/src/domain/change",
    "controlplane/src/domain/audit",
];

/// Files that are tests as a whole; they may look anywhere.
fn is_test(file: &TextFile) -> bool {
    file.path.ends_with("/tests.rs")
        || file.path.contains("/tests/")
        || file.path.ends_with("/contract.rs")
        || file.path.contains("/contract/")
}

fn product_sources() -> Vec<TextFile> {
    files(".rs").into_iter().filter(|file| !is_test(file)).collect()
}

/// The crates named in the manifest's normal dependencies.
fn dependencies(manifest: &str) -> Vec<String> {
    let table = manifest.split("\n[").find(|table| table.starts_with("dependencies]")).unwrap_or_default();
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    table.lines().skip(1).filter(|line| !line.starts_with('#')).map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn crates_link_only_what_lies_below_them() {
    let mut violations = Vec::new();
    for (dir, allowed) in CRATES {
        let manifest = read(&format!("{dir}/Cargo.toml"));
        // Of every kind of dependency: a test must not reach across either.
        let ours = manifest.lines().filter(|line| line.starts_with("agentapi-"));
        for line in ours {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if !allowed.contains(&name) {
                violations.push(format!("{dir} depends on {name}"));
            }
        }
    }
    let product = dependencies(&read("controlplane/Cargo.toml"));
    assert!(product.iter().any(|name| name == "agentapi-shared"), "the manifest is read: {product:?}");
    violations.extend(product.into_iter().filter(|name| name.starts_with("agentapi-test-")));
    assert_none("supervisor -> shared <- controlplane, cli -> shared, and nothing else", &violations);
}

#[test]
fn shims_stay_small() {
    let manifest = read("supervisor/shim/Cargo.toml");
    let names = dependencies(&manifest);
    assert!(names.iter().any(|name| name == "agentapi-shared"), "the manifest is read: {names:?}");
    let heavy: Vec<String> = names.into_iter().filter(|name| HEAVY.contains(&name.as_str())).collect();
    assert_none("the shim has no async runtime, no TLS and no database", &heavy);
    let with_features = manifest.lines().any(|line| line.starts_with("agentapi-shared") && line.contains("features"));
    assert!(!with_features, "the shim links `shared` without features");
}

#[test]
fn modules_name_only_what_lies_below_them() {
    let sources = product_sources();
    let mut violations = Vec::new();
    for (module, forbidden) in MODULES {
        let own: Vec<&TextFile> = sources.iter().filter(|file| file.is_of(module)).collect();
        assert!(!own.is_empty(), "{module} is gone: so is its rule");
        for file in own {
            let code = code(&file.text);
            let named = modules(&code);
            violations.extend(
                forbidden.iter().filter(|name| named.contains(*name)).map(|name| format!("{}: {name}", file.path)),
            );
        }
    }
    assert_none("imports point one way (see ARCHITECTURE.md)", &violations);
}

#[test]
fn what_callers_do_is_above_hosts_and_viewers() {
    let above = "sessions";
    let mut violations = Vec::new();
    for module in BELOW_WHAT_CALLERS_DO {
        let sources = product_sources();
        let own: Vec<&TextFile> = sources.iter().filter(|file| file.is_of(module)).collect();
        assert!(!own.is_empty(), "{module} is gone: so is its rule");
        let names = |file: &&&TextFile| below(&code(&file.text), "domain").contains(above);
        violations.extend(own.iter().filter(names).map(|file| format!("{}: domain::{above}", file.path)));
    }
    assert_none("callers -> hosts and viewers -> the rules of a session's life", &violations);
}

#[test]
fn only_the_api_speaks_http() {
    let mut violations = Vec::new();
    for file in product_sources().iter().filter(|file| WITHOUT_HTTP.iter().any(|module| file.is_of(module))) {
        let code = code(&file.text);
        let named = words(&code);
        violations
            .extend(HTTP.iter().filter(|name| named.contains(*name)).map(|name| format!("{}: {name}", file.path)));
    }
    assert_none("nothing below `api` names HTTP types", &violations);
}
