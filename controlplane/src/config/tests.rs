//! Where settings come from, and that every mistake is named.

use super::*;

fn resolve(file: &str, change: impl FnOnce(&mut Options)) -> Result<Config, ConfigError> {
    let mut options = Options { config: Some("/c.toml".into()), ..Options::default() };
    change(&mut options);
    Config::resolve(options, |_| Ok(file.to_owned()))
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let config = resolve("data_dir = '/a'\nlisten = '127.0.0.1:1'", |_| {}).unwrap();
    assert_eq!((config.listen.port(), config.data_dir), (1, "/a".into()));
    let config = resolve("data_dir = '/a'\nlisten = '127.0.0.1:1'", |o| o.listen = Some("[::1]:0".to_owned()));
    assert_eq!(config.unwrap().listen.port(), 0);
    assert_eq!(resolve("data_dir = '/a'", |_| {}).unwrap().listen.to_string(), DEFAULT_LISTEN);
}

#[test]
fn every_mistake_is_named() {
    let error = resolve("listen = '0.0.0.0:1'", |_| {}).unwrap_err().to_string();
    assert!(error.contains("not a loopback") && error.contains("data-dir"), "{error}");
    assert!(resolve("lisen = 1", |_| {}).unwrap_err().to_string().contains("lisen"));
    assert!(resolve("data_dir = '/a'\nlisten = 'x'", |_| {}).is_err());
    let error = resolve("data_dir = '/a'\npublic_url = 'http://agents.example'", |_| {}).unwrap_err().to_string();
    assert!(error.contains("public-url http://agents.example") && error.contains("use https"), "{error}");
    let config = resolve("data_dir = '/a'\npublic_url = 'https://agents.example/'", |_| {}).unwrap();
    assert_eq!(config.public_url.unwrap().as_str(), "https://agents.example/");
    assert_eq!((config.foundings, config.client_address_header), (Foundings::DEFAULT, None));
    let open = "data_dir = '/a'\nsign_up = 'open'\nsign_up_sessions_max = 0\nsign_up_viewers_max = 7\nfounded_organizations_max = 1\nclient_address_header = 'X-Forwarded-For'\naddress_requests_per_minute = 7";
    let config = resolve(open, |_| {}).unwrap();
    assert_eq!((config.foundings.sign_up, config.rates.address), (SignUp::Open, 7));
    let quotas = Quotas { sessions_max: None, viewers_max: Some(7), ..Foundings::DEFAULT.quotas };
    assert_eq!((config.foundings.founded_max, config.foundings.quotas), (Some(1), quotas));
    assert_eq!(config.client_address_header.unwrap().as_str(), "x-forwarded-for");
    assert!(resolve("data_dir = '/a'\nclient_address_header = 'x y'", |_| {}).is_err());
    assert!(resolve("data_dir = '/a'\nsign_up = 'all'", |_| {}).is_err());
}
