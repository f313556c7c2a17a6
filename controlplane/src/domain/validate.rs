//! What a request may contain. Every fault is named with its field, and all of them at once.

mod organization;

use std::collections::BTreeMap;

use agentapi_shared::api::{
    COMMAND_BYTES_MAX, COMMAND_WORDS_MAX, CUSTOM_AGENT, CreateSession, ENV_MAX, FieldError, INPUT_BYTES_MAX,
    LABEL_CHARS_MAX, LABELS_MAX, Limits, MOUNTS_MAX, NAME_CHARS_MAX, PATH_BYTES_MAX, PROFILE_CHARS_MAX, SandboxRequest,
    SendInput, UpdateSession, Workspace, WorkspaceSource, is_profile_name,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{DomainError, keys};

pub use organization::{
    api_key, email_address, enrolment, invitation, later, organization_name, role, update_organization,
};

/// Faults found so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<FieldError>);

impl Faults {
    /// Notes one.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    /// Notes one if it is so.
    fn check(&mut self, is_fault: bool, field: &str, message: impl FnOnce() -> String) {
        if is_fault {
            self.add(field, message());
        }
    }

    /// Passes only if none was found.
    pub fn finish(self) -> Result<(), DomainError> {
        if self.0.is_empty() { Ok(()) } else { Err(DomainError::Invalid(self.0)) }
    }
}

/// One fault as an error.
#[must_use]
pub fn fault(field: &str, message: impl Into<String>) -> DomainError {
    DomainError::Invalid(vec![FieldError { field: field.to_owned(), message: message.into() }])
}

/// A request for a session. `agents` are the names that are known.
pub fn create(request: &CreateSession, agents: &[&str]) -> Result<(), DomainError> {
    let mut faults = Faults::default();
    let custom = request.agent == CUSTOM_AGENT;
    let known = custom || agents.contains(&request.agent.as_str());
    faults.check(!known, "agent", || {
        format!("unknown agent; known are {CUSTOM_AGENT} (with a command) and {}", agents.join(", "))
    });
    faults.check(custom && request.command.is_empty(), "command", || {
        "required for the agent `custom`: the program and its arguments".to_owned()
    });
    faults.check(known && !custom && !request.command.is_empty(), "command", || {
        "only for the agent `custom`; pass `args` to other agents".to_owned()
    });
    faults.check(custom && !request.args.is_empty(), "args", || {
        "not for the agent `custom`; put the arguments into `command`".to_owned()
    });
    words(&mut faults, "command", &request.command);
    faults.check(request.command.first().is_some_and(String::is_empty), "command[0]", || {
        "the program is an empty word".to_owned()
    });
    words(&mut faults, "args", &request.args);
    name(&mut faults, request.name.as_deref());
    labels(&mut faults, &request.labels);
    environment(&mut faults, &request.env);
    workspace(&mut faults, request.workspace.as_ref());
    sandbox(&mut faults, request.sandbox.as_ref());
    faults.finish()
}

/// A change of name and labels.
pub fn update(request: &UpdateSession) -> Result<(), DomainError> {
    let mut faults = Faults::default();
    name(&mut faults, request.name.as_ref().and_then(Option::as_deref));
    labels(&mut faults, request.labels.as_ref().unwrap_or(&BTreeMap::new()));
    faults.finish()
}

/// The bytes of an input.
pub fn input(request: &SendInput) -> Result<Vec<u8>, DomainError> {
    let given = [request.text.is_some(), request.keys.is_some(), request.bytes_base64.is_some()];
    if given.into_iter().filter(|is| *is).count() != 1 {
        return Err(fault("text", "pass exactly one of `text`, `keys` and `bytes_base64`"));
    }
    let (field, bytes) = if let Some(text) = &request.text {
        ("text", text.clone().into_bytes())
    } else if let Some(names) = &request.keys {
        let mut bytes = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let unknown = || fault(&format!("keys[{index}]"), "unknown key; examples: Enter, C-c, M-x, Up, F5, a");
            bytes.extend(keys::bytes_of(name).ok_or_else(unknown)?);
        }
        ("keys", bytes)
    } else {
        let text = request.bytes_base64.as_deref().unwrap_or_default();
        (
            "bytes_base64",
            STANDARD.decode(text).map_err(|_| fault("bytes_base64", "not base64 (RFC 4648, with padding)"))?,
        )
    };
    if bytes.len() > INPUT_BYTES_MAX {
        return Err(fault(field, format!("more than {INPUT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn words(faults: &mut Faults, field: &str, words: &[String]) {
    let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
    faults.check(words.len() > COMMAND_WORDS_MAX, field, || format!("more than {COMMAND_WORDS_MAX} words"));
    faults.check(bytes > COMMAND_BYTES_MAX, field, || format!("more than {COMMAND_BYTES_MAX} bytes together"));
    if let Some(index) = words.iter().position(|word| word.contains('\0')) {
        faults.add(format!("{field}[{index}]"), "contains a NUL byte");
    }
}

fn name(faults: &mut Faults, name: Option<&str>) {
    let Some(name) = name else { return };
    faults.check(name.trim().is_empty(), "name", || "empty; leave it out instead".to_owned());
    faults.check(name.chars().count() > NAME_CHARS_MAX, "name", || format!("longer than {NAME_CHARS_MAX} characters"));
    faults.check(name.chars().any(char::is_control), "name", || "contains control characters".to_owned());
}

fn labels(faults: &mut Faults, labels: &BTreeMap<String, String>) {
    faults.check(labels.len() > LABELS_MAX, "labels", || format!("more than {LABELS_MAX}"));
    for (key, value) in labels.iter().take(LABELS_MAX) {
        // The key itself may be what is wrong: it is shown only as far as it is harmless.
        let shown: String = key.chars().filter(|c| !c.is_control()).take(LABEL_CHARS_MAX).collect();
        let field = format!("labels.{shown}");
        // A filter is written `key:value`.
        faults.check(key.is_empty() || key.contains(':'), &field, || "a key is not empty and has no colon".to_owned());
        let long = key.chars().count() > LABEL_CHARS_MAX || value.chars().count() > LABEL_CHARS_MAX;
        faults.check(long, &field, || format!("key or value longer than {LABEL_CHARS_MAX} characters"));
        let control = key.chars().chain(value.chars()).any(char::is_control);
        faults.check(control, &field, || "contains control characters".to_owned());
    }
}

/// Names of variables may be shown in an error, values never.
fn environment(faults: &mut Faults, env: &BTreeMap<String, String>) {
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    faults.check(env.len() > ENV_MAX, "env", || format!("more than {ENV_MAX} variables"));
    faults.check(bytes > COMMAND_BYTES_MAX, "env", || format!("more than {COMMAND_BYTES_MAX} bytes together"));
    for (index, (name, value)) in env.iter().take(ENV_MAX).enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let sound = !name.is_empty() && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit());
        if !sound {
            faults.add("env", format!("the name of variable {} is not made of letters, digits and _", index + 1));
        } else if value.contains('\0') {
            faults.add(format!("env.{name}"), "contains a NUL byte");
        }
    }
}

fn path(faults: &mut Faults, field: &str, path: &str) {
    faults.check(!path.starts_with('/'), field, || "not absolute".to_owned());
    faults.check(path.split('/').any(|part| part == ".."), field, || "contains `..`".to_owned());
    faults.check(path.contains('\0') || path.len() > PATH_BYTES_MAX, field, || "not a path".to_owned());
}

fn workspace(faults: &mut Faults, workspace: Option<&Workspace>) {
    let Some(workspace) = workspace else { return };
    let field = "workspace.path";
    match (workspace.source, workspace.path.as_deref()) {
        (WorkspaceSource::Empty, Some(_)) => faults.add(field, "only with the source `path`"),
        (WorkspaceSource::Path, None) => faults.add(field, "required with the source `path`"),
        (WorkspaceSource::Path, Some(asked)) => path(faults, field, asked),
        (WorkspaceSource::Empty, None) => {}
    }
}

/// Forms only: what a host allows, only the host can say.
fn sandbox(faults: &mut Faults, sandbox: Option<&SandboxRequest>) {
    let Some(sandbox) = sandbox else { return };
    if let Some(name) = &sandbox.profile {
        profile(faults, "sandbox.profile", name);
    }
    faults.check(sandbox.mounts.len() > MOUNTS_MAX, "sandbox.mounts", || format!("more than {MOUNTS_MAX}"));
    for (index, mount) in sandbox.mounts.iter().take(MOUNTS_MAX).enumerate() {
        path(faults, &format!("sandbox.mounts[{index}].source"), &mount.source);
        if let Some(target) = &mount.target {
            path(faults, &format!("sandbox.mounts[{index}].target"), target);
        }
    }
    limits(faults, "sandbox.limits", &sandbox.limits);
}

fn profile(faults: &mut Faults, field: &str, name: &str) {
    faults.check(!is_profile_name(name), field, || {
        format!("not 1 to {PROFILE_CHARS_MAX} letters, digits, hyphens and underscores")
    });
}

fn limits(faults: &mut Faults, fields: &str, limits: &Limits) {
    for (name, least, value) in limits.named() {
        let field = format!("{fields}.{name}");
        faults.check(value.is_some_and(|value| value < least), &field, || format!("less than {least}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentapi_shared::api::MountRequest;

    fn custom() -> CreateSession {
        CreateSession { agent: "custom".to_owned(), command: vec!["bash".to_owned()], ..CreateSession::default() }
    }

    /// Creates with one thing changed and checks that exactly `field` is named.
    fn check(field: &str, change: impl FnOnce(&mut CreateSession)) {
        let mut request = custom();
        change(&mut request);
        match create(&request, &["claude", "codex"]) {
            Err(DomainError::Invalid(errors)) => {
                let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
                assert_eq!(fields, [field]);
            }
            other => panic!("{field}: {other:?}"),
        }
    }

    #[test]
    fn faults_of_a_create_are_named_by_field() {
        assert!(create(&custom(), &[]).is_ok());
        check("agent", |r| r.agent = "gpt".to_owned());
        check("command", |r| r.command.clear());
        check("command", |r| r.agent = "claude".to_owned());
        check("command", |r| r.command = vec!["x".to_owned(); 257]);
        check("command", |r| r.command.push("x".repeat(200_000)));
        check("command[0]", |r| r.command[0].clear());
        check("command[1]", |r| r.command.push("a\0b".to_owned()));
        check("args", |r| r.args.push("x".to_owned()));
        check("name", |r| r.name = Some("x".repeat(101)));
        check("name", |r| r.name = Some(" ".to_owned()));
        check("name", |r| r.name = Some("a\nb".to_owned()));
        check("labels", |r| r.labels = (0..33).map(|i| (i.to_string(), String::new())).collect());
        check("labels.a:b", |r| r.labels = [("a:b".to_owned(), String::new())].into());
        check("labels.k", |r| r.labels = [("k".to_owned(), "x".repeat(129))].into());
        check("env", |r| r.env = [("1A".to_owned(), String::new())].into());
        check("env", |r| r.env = [("A".to_owned(), "x".repeat(200_000))].into());
        check("env.A", |r| r.env = [("A".to_owned(), "\0".to_owned())].into());
        let path = |path: &str| Some(Workspace { source: WorkspaceSource::Path, path: Some(path.to_owned()) });
        check("workspace.path", |r| r.workspace = path("relative"));
        check("workspace.path", |r| r.workspace = path("/a/../b"));
        check("workspace.path", |r| r.workspace = Some(Workspace { source: WorkspaceSource::Path, path: None }));
        check("workspace.path", |r| {
            r.workspace = Some(Workspace { source: WorkspaceSource::Empty, path: Some("/a".to_owned()) });
        });
    }

    #[test]
    fn faults_of_a_sandbox_are_named_by_field() {
        let ask = |change: &dyn Fn(&mut SandboxRequest)| {
            let mut sandbox = SandboxRequest::default();
            change(&mut sandbox);
            Some(sandbox)
        };
        let mount = |source: &str, target: Option<&str>| MountRequest {
            source: source.to_owned(),
            target: target.map(str::to_owned),
            writable: false,
        };
        check("sandbox.profile", |r| r.sandbox = ask(&|s| s.profile = Some("../dev".to_owned())));
        check("sandbox.profile", |r| r.sandbox = ask(&|s| s.profile = Some(String::new())));
        check("sandbox.mounts", |r| r.sandbox = ask(&|s| s.mounts = vec![mount("/a", None); 33]));
        check("sandbox.mounts[0].source", |r| r.sandbox = ask(&|s| s.mounts = vec![mount("a", None)]));
        check("sandbox.mounts[1].target", |r| {
            r.sandbox = ask(&|s| s.mounts = vec![mount("/a", None), mount("/a", Some("/b/../c"))]);
        });
        check("sandbox.limits.memory_bytes", |r| r.sandbox = ask(&|s| s.limits.memory_bytes = Some(1024)));
        check("sandbox.limits.pids", |r| r.sandbox = ask(&|s| s.limits.pids = Some(0)));
        let sound = ask(&|s| s.mounts = vec![mount("/a", Some("/b"))]);
        assert!(create(&CreateSession { sandbox: sound, ..custom() }, &[]).is_ok());
    }

    #[test]
    fn values_of_the_environment_are_in_no_fault() {
        let mut request = custom();
        request.env = [("A".to_owned(), "s3cret\0".to_owned()), ("b-c".to_owned(), "s3cret".to_owned())].into();
        let error = format!("{:?}", create(&request, &[]));
        assert!(error.contains("env.A") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn input_is_exactly_one_of_its_kinds() {
        let text = SendInput { text: Some("ls\n".to_owned()), ..SendInput::default() };
        assert_eq!(input(&text).ok(), Some(b"ls\n".to_vec()));
        let keys = SendInput { keys: Some(vec!["C-c".to_owned(), "Enter".to_owned()]), ..SendInput::default() };
        assert_eq!(input(&keys).ok(), Some(b"\x03\r".to_vec()));
        let both = SendInput { keys: Some(Vec::new()), ..text };
        assert!(input(&both).is_err() && input(&SendInput::default()).is_err());
        let bad = SendInput { bytes_base64: Some("*".to_owned()), ..SendInput::default() };
        assert!(input(&bad).is_err());
    }
}
