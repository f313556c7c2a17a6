//! The order of flags, environment and file, and what a token is never sent to.

use super::*;

fn env(pairs: &[(&str, &str)]) -> Environment {
    Environment::with(pairs)
}

struct Dir(PathBuf);

impl Dir {
    fn with_credentials(url: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("agentapi-config-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join(CREDENTIALS_FILE), format!(r#"{{"url":"{url}","token":"aa_local"}}"#)).unwrap();
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn args(dir: &Dir) -> GlobalArgs {
    GlobalArgs { data_dir: Some(dir.0.clone()), ..GlobalArgs::default() }
}

#[test]
fn flags_stand_above_environment_above_file() {
    let dir = Dir::with_credentials("http://127.0.0.1:3284");
    let variables = [("AGENTAPI_URL", "https://env.example"), ("AGENTAPI_TOKEN", "aa_env")];
    let token_file = dir.0.join("token");
    std::fs::write(&token_file, "aa_flag\n").unwrap();

    let from_file = server(&args(&dir), &env(&[])).unwrap();
    assert_eq!(
        (from_file.url.as_str(), from_file.token.bearer().as_str()),
        ("http://127.0.0.1:3284/", "Bearer aa_local")
    );

    let from_env = server(&args(&dir), &env(&variables)).unwrap();
    assert_eq!((from_env.url.as_str(), from_env.token.bearer().as_str()), ("https://env.example/", "Bearer aa_env"));

    let flags = GlobalArgs { url: Some("https://flag.example".into()), token_file: Some(token_file), ..args(&dir) };
    let from_flags = server(&flags, &env(&variables)).unwrap();
    assert_eq!(
        (from_flags.url.as_str(), from_flags.token.bearer().as_str()),
        ("https://flag.example/", "Bearer aa_flag")
    );
}

#[test]
fn the_local_token_goes_to_the_local_server_only() {
    let dir = Dir::with_credentials("http://127.0.0.1:3284");
    let elsewhere = GlobalArgs { url: Some("https://other.example".into()), ..args(&dir) };
    assert_eq!(exit_code(server(&elsewhere, &env(&[]))), 5);
    let same = GlobalArgs { url: Some("http://127.0.0.1:3284/".into()), ..args(&dir) };
    assert_eq!(server(&same, &env(&[])).unwrap().token.bearer(), "Bearer aa_local");
}

#[test]
fn no_token_in_the_clear_unless_asked() {
    let dir = Dir::with_credentials("http://127.0.0.1:3284");
    let variables = [("AGENTAPI_URL", "http://plane.example:3284"), ("AGENTAPI_TOKEN", "aa_env")];
    assert_eq!(exit_code(server(&args(&dir), &env(&variables))), 5);
    let asked = GlobalArgs { allow_plain_http: true, ..args(&dir) };
    assert!(server(&asked, &env(&variables)).is_ok());
    let check =
        |word: &str| server(&args(&dir), &env(&[variables[0], variables[1], ("AGENTAPI_ALLOW_PLAIN_HTTP", word)]));
    for word in ["1", "true", "yes", "on"] {
        assert!(check(word).is_ok(), "{word}");
    }
    for (word, code) in [("0", 5), ("false", 5), ("no", 5), ("", 5), ("perhaps", 2)] {
        assert_eq!(exit_code(check(word)), code, "{word}");
    }
}

#[test]
fn no_server_at_all_says_how_to_start_one() {
    let dir = Dir::with_credentials("http://127.0.0.1:3284");
    std::fs::remove_file(dir.0.join(CREDENTIALS_FILE)).unwrap();
    let failed = server(&args(&dir), &env(&[])).unwrap_err();
    assert!(failed.to_string().contains("agentapi up"), "{failed}");
    assert_eq!(exit_code(Err(failed)), 4);
}

#[test]
fn urls_with_credentials_or_other_schemes_are_refused() {
    for text in ["http://user:word@127.0.0.1", "ftp://127.0.0.1", "127.0.0.1:3284", "http://h/?token=x"] {
        assert!(parse_url(text).is_err(), "{text}");
    }
}

#[test]
fn data_dir_follows_flag_environment_user() {
    let none = GlobalArgs::default();
    let check = |args: &GlobalArgs, env: &Environment, wanted: &str| {
        assert_eq!(data_dir(args, env).unwrap(), PathBuf::from(wanted));
    };
    let home = [("HOME", "/home/a"), ("XDG_DATA_HOME", "relative")];
    check(&none, &env(&home), "/home/a/.local/share/agentapi");
    check(&none, &env(&[("HOME", "/home/a"), ("XDG_DATA_HOME", "/data")]), "/data/agentapi");
    check(&none, &env(&[("HOME", "/home/a"), ("AGENTAPI_DATA_DIR", "/else")]), "/else");
    let flag = GlobalArgs { data_dir: Some("/flag".into()), ..GlobalArgs::default() };
    check(&flag, &env(&[("AGENTAPI_DATA_DIR", "/else")]), "/flag");
    check(&none, &Environment { root: true, ..env(&home) }, "/var/lib/agentapi");
}

fn exit_code(result: Result<Server, Failure>) -> u8 {
    crate::failure::describe(&result.unwrap_err().into()).0
}
