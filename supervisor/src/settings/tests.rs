//! Settings as operators write them, with and without mistakes.

use std::os::unix::fs::PermissionsExt as _;

use agentapi_shared::api::{Limits, NetworkMode};
use agentapi_shared::egress::ListenerRole;

use super::*;

fn keys(text: &str) -> Vec<String> {
    match Settings::parse(text, "test") {
        Err(SettingsError::Refused { mistakes, .. }) => mistakes.into_iter().map(|mistake| mistake.key).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_shipped_is_sound_and_every_example_in_it_too() {
    let shipped = Settings::parse(SHIPPED, "shipped").unwrap();
    assert_eq!(shipped.allow_degraded, (1..6).map(Missing::LandlockAbi).collect());
    assert_eq!(shipped.profiles.keys().collect::<Vec<_>>(), ["dev", "strict"]);
    let (dev, strict) = (&shipped.profiles["dev"], &shipped.profiles["strict"]);
    assert!(dev.debuggers && !strict.debuggers && !dev.egress.is_empty() && strict.egress.is_empty());
    assert_eq!((dev.network, strict.network), (NetworkMode::Filtered, NetworkMode::Filtered));
    for profile in [dev, strict] {
        assert!(profile.limits.memory_bytes.is_some() && profile.limits.pids.is_some());
    }
    // The examples name directories and a key that are not here: nothing else may be wrong with them.
    let uncommented = SHIPPED.lines().map(|line| match line.strip_prefix('#') {
        Some(example) if !example.starts_with(' ') => example,
        _ => line,
    });
    let found = keys(&uncommented.collect::<Vec<_>>().join("\n"));
    assert_eq!(found, ["mounts[0].path", "profiles.build.read_only_paths[0]", "models.anthropic.key_file"]);
}

#[test]
fn every_mistake_is_told_at_once_with_its_key() {
    let text = r#"
        allow_degraded = ["landlock", "seccomp"]
        allow_degradd = []
        mounts = [{ path = "relative", mode = "ro" }, { path = "/", mode = "rwx", uid = 3 }]
        [profiles."not a name"]
        [profiles.dev]
        extends = "strict"
        limits = { memory = 5 }
        [profiles.mine]
        extends = "theirs"
        network = "open"
        egress = ["com", "*.example.com:443", "https://example.com"]
        [profiles.small]
        limits = { pids = 1 }
        [egress]
        mode = "off"
        allow = ["*", "10.0.0.1:443", "a.com:0"]
        limits = { connections_max = -1 }
        [models.a]
        upstream = "http://a.com"
        key = "sk-in-the-wrong-place"
    "#;
    assert_eq!(
        keys(text),
        [
            "allow_degraded[1]",
            "mounts[0].path",
            "mounts[1].mode",
            "mounts[1].path",
            "mounts[1].uid",
            "profiles.dev.extends",
            "profiles.dev.limits.memory",
            "profiles.mine.extends",
            "profiles.mine.network",
            "profiles.mine.egress[0]",
            "profiles.mine.egress[2]",
            "profiles.not a name",
            "profiles.small.limits.pids",
            "egress.mode",
            "egress.allow[0]",
            "egress.allow[1]",
            "egress.allow[2]",
            "egress.limits.connections_max",
            "models.a.header",
            "models.a.key_file",
            "models.a.upstream",
            "models.a.key",
            "allow_degradd",
        ]
    );
    let words = Settings::parse(text, "test").unwrap_err().to_string();
    assert!(!words.contains("sk-in-the-wrong-place"), "{words}");
    assert!(matches!(Settings::parse("a = ", "test"), Err(SettingsError::Syntax { .. })));
}

#[test]
fn a_profile_is_what_it_extends_with_what_it_says_otherwise() {
    let text = "[profiles.dev]\nlimits = { pids = 100 }\n[profiles.mine]\nnetwork = \"off\"\n[profiles.open]\nextends = \"dev\"";
    let settings = Settings::parse(text, "test").unwrap();
    let shipped = Settings::parse(SHIPPED, "shipped").unwrap();
    let dev = &settings.profiles["dev"];
    assert_eq!(dev.limits, Limits { pids: Some(100), ..shipped.profiles["dev"].limits });
    let mine = &settings.profiles["mine"];
    assert_eq!((mine.network, mine.limits), (NetworkMode::Off, shipped.profiles["strict"].limits));
    // From the shipped one, whatever the operator made of it.
    assert_eq!(settings.profiles["open"], shipped.profiles["dev"]);
}

#[test]
fn a_key_is_read_only_from_a_file_of_its_owner_alone_and_never_shown() {
    let dir = std::env::temp_dir().join(format!("agentapi-settings-{}", agentapi_shared::SessionId::generate()));
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("key");
    std::fs::write(&file, "sk-secret\n").unwrap();
    let text = format!(
        "[models.a]\nupstream = \"https://api.a.com/v1\"\nheader = \"authorization\"\nprefix = \"Bearer \"\nkey_file = {file:?}"
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(keys(&text), ["models.a.key_file"]);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = Settings::parse(&text, "test").unwrap();
    let role = settings.models["a"].role("a").unwrap();
    assert!(!format!("{settings:?} {role:?}").contains("sk-secret"));
    let ListenerRole::Model { value, .. } = role else { panic!("no model") };
    assert_eq!(value.expose(), "Bearer sk-secret");
    for bad in ["", "\n", "two\nlines\n", "t\u{e4}x"] {
        std::fs::write(&file, bad).unwrap();
        assert!(matches!(settings.models["a"].role("a"), Err(KeyError::Content(_))), "{bad:?}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
