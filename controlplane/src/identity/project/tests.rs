//! Keys of a project: where each kind goes, what is refused and how it is said, and that a file is replaced without a restart.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const HOSTED: &str = "https://abcdefghijklmnop.supabase.co";
const PROJECT_SECRET: &str = "a-secret-of-a-project-with-enough-characters";
const PUBLISHABLE: &str = "sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_BBBBBBBB";
const SECRET: &str = "sb_secret_CCCCCCCCCCCCCCCCCCCCCC_DDDDDDDD";

fn signed(claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn legacy(role: &str) -> String {
    let exp = crate::clock::now().unix_timestamp() + 3600;
    signed(&json!({ "iss": "supabase", "ref": "abcdefghijklmnop", "role": role, "exp": exp }), PROJECT_SECRET)
}

fn open(variables: &[(&str, &str)]) -> Result<Option<ProjectKeys>, ProjectError> {
    let variables: BTreeMap<_, _> = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    ProjectKeys::open(|name| variables.get(name).cloned())
}

/// The one mistake of these variables.
fn mistake(variables: &[(&str, &str)]) -> ProjectMistake {
    let ProjectError(mut mistakes) = open(variables).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    mistakes.remove(0)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn no_variable_is_no_project_and_empty_ones_are_none() {
    assert!(open(&[]).unwrap().is_none());
    assert!(open(&[("SUPABASE_URL", ""), ("SUPABASE_ANON_KEY", "  ")]).unwrap().is_none());
}

#[test]
fn each_kind_of_key_is_sent_as_its_gateway_takes_it() {
    let caller = CallerToken::new("a.b.c");
    let keys =
        open(&[("SUPABASE_URL", HOSTED), ("SUPABASE_ANON_KEY", PUBLISHABLE), ("SUPABASE_SERVICE_ROLE_KEY", SECRET)]);
    let keys = keys.unwrap().unwrap();
    assert_eq!(keys.rest_url().as_str(), format!("{HOSTED}/rest/v1"));
    assert_eq!(keys.auth_url().unwrap().as_str(), format!("{HOSTED}/auth/v1"));
    assert_eq!(keys.issuer(), Some("https://abcdefghijklmnop.supabase.co/auth/v1"));
    let table = [
        (keys.service_headers(), Some(SECRET), None),
        (keys.anon_headers(), Some(PUBLISHABLE), None),
        (keys.caller_headers(&caller), Some(PUBLISHABLE), Some("Bearer a.b.c")),
        // What is no header is nobody's token, and never somebody else's.
        (keys.caller_headers(&CallerToken::new("a\nb")), Some(PUBLISHABLE), None),
    ];
    for (headers, apikey, bearer) in table {
        assert_eq!(header(&headers, "apikey").as_deref(), apikey);
        assert_eq!(header(&headers, "authorization").as_deref(), bearer);
    }

    let (anon, service) = (legacy("anon"), legacy("service_role"));
    let keys = open(&[("SUPABASE_URL", HOSTED), ("SUPABASE_ANON_KEY", &anon), ("SUPABASE_SERVICE_ROLE_KEY", &service)]);
    let keys = keys.unwrap().unwrap();
    let table = [
        (keys.service_headers(), &service, format!("Bearer {service}")),
        (keys.anon_headers(), &anon, format!("Bearer {anon}")),
        (keys.caller_headers(&caller), &anon, "Bearer a.b.c".to_owned()),
    ];
    for (headers, apikey, bearer) in table {
        assert_eq!(header(&headers, "apikey").as_ref(), Some(apikey));
        assert_eq!(header(&headers, "authorization"), Some(bearer));
    }
}

#[test]
fn without_a_gateway_jobs_have_a_token_signed_with_the_secret() {
    let keys = open(&[("SUPABASE_REST_URL", "http://127.0.0.1:3000/"), ("SUPABASE_JWT_SECRET", PROJECT_SECRET)]);
    let keys = keys.unwrap().unwrap();
    assert_eq!((keys.rest_url().as_str(), keys.auth_url()), ("http://127.0.0.1:3000/", None));
    let headers = keys.service_headers();
    assert_eq!(header(&headers, "apikey"), None);
    let bearer = header(&headers, "authorization").unwrap();
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let key = jsonwebtoken::DecodingKey::from_secret(PROJECT_SECRET.as_bytes());
    let claims = jsonwebtoken::decode::<Value>(token, &key, &jsonwebtoken::Validation::new(Algorithm::HS256)).unwrap();
    assert_eq!(claims.claims["role"], "service_role");
    // Signing is not done for each request.
    assert_eq!(keys.service_headers(), headers);
}

#[test]
fn a_key_in_the_wrong_place_is_named_with_what_to_do() {
    let (anon, service) = (legacy("anon"), legacy("service_role"));
    let (user, over) = (legacy("authenticated"), signed(&json!({ "role": "anon", "exp": 1000 }), PROJECT_SECRET));
    let elsewhere = signed(&json!({ "role": "anon", "ref": "zzzz" }), PROJECT_SECRET);
    let forged = signed(&json!({ "role": "service_role" }), "another-secret-with-enough-characters");
    let table: [(&str, &str, &str); 12] = [
        (SECRET, SECRET, "SUPABASE_ANON_KEY holds the secret key"),
        (&service, &service, "SUPABASE_ANON_KEY holds the service_role key"),
        (PUBLISHABLE, PUBLISHABLE, "SUPABASE_SERVICE_ROLE_KEY holds the publishable key"),
        (&anon, &anon, "SUPABASE_SERVICE_ROLE_KEY holds the anon key"),
        (&user, SECRET, "role \"authenticated\""),
        (&over, SECRET, "SUPABASE_ANON_KEY is over since 1970"),
        (&elsewhere, SECRET, "a key of the project zzzz"),
        (PUBLISHABLE, &forged, "SUPABASE_SERVICE_ROLE_KEY is not signed with"),
        ("hello", SECRET, "SUPABASE_ANON_KEY is no key"),
        ("eyJh.eyJi", SECRET, "SUPABASE_ANON_KEY is no key"),
        ("sb_publishable_a\nb", SECRET, "SUPABASE_ANON_KEY is no key"),
        ("", SECRET, "SUPABASE_ANON_KEY is not set"),
    ];
    for (anon, service, said) in table {
        let variables = [
            ("SUPABASE_URL", HOSTED),
            ("SUPABASE_ANON_KEY", anon),
            ("SUPABASE_SERVICE_ROLE_KEY", service),
            ("SUPABASE_JWT_SECRET", PROJECT_SECRET),
        ];
        let text = mistake(&variables).to_string();
        assert!(text.contains(said), "{text:?} does not say {said:?}");
        assert!(!text.contains(PROJECT_SECRET) && !text.contains("eyJh"), "{text}");
    }
    // The control: every one of them where it belongs.
    for (anon, service) in [(PUBLISHABLE, SECRET), (&anon, &service), (PUBLISHABLE, &service), (&anon, SECRET)] {
        let variables = [
            ("SUPABASE_URL", HOSTED),
            ("SUPABASE_ANON_KEY", anon),
            ("SUPABASE_SERVICE_ROLE_KEY", service),
            ("SUPABASE_JWT_SECRET", PROJECT_SECRET),
        ];
        assert!(open(&variables).unwrap().is_some());
    }
}

#[test]
fn what_does_not_belong_together_is_named() {
    let rest = ("SUPABASE_REST_URL", "http://127.0.0.1:3000");
    let table: [(&[(&str, &str)], &str); 9] = [
        (&[("SUPABASE_ANON_KEY", PUBLISHABLE)], "neither SUPABASE_URL nor SUPABASE_REST_URL"),
        (&[rest, ("SUPABASE_SERVICE_ROLE_KEY", SECRET)], "takes JWTs alone"),
        (&[rest], "takes JWTs alone"),
        (&[rest, ("SUPABASE_JWT_SECRET", "short")], "fewer than 32"),
        (&[rest, ("SUPABASE_JWT_SECRET", PROJECT_SECRET), ("SUPABASE_JWT_SECRET_FILE", "/x")], "both set"),
        (&[rest, ("SUPABASE_JWT_SECRET_FILE", "/nowhere/at/all")], "cannot read /nowhere/at/all"),
        (&[("SUPABASE_URL", "supabase.co")], "SUPABASE_URL is not a URL"),
        (&[("SUPABASE_URL", "http://abcdefghijklmnop.supabase.co")], "use https"),
        (&[("SUPABASE_URL", "https://user:password@host.example")], "a user or a password"),
    ];
    for (variables, said) in table {
        let text = mistake(variables).to_string();
        assert!(text.contains(said), "{text:?} does not say {said:?}");
    }
    // Every mistake at once.
    let error = open(&[("SUPABASE_URL", HOSTED), ("SUPABASE_JWT_SECRET", "short")]).unwrap_err().to_string();
    for name in ["SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_JWT_SECRET"] {
        assert!(error.contains(name), "{error}");
    }
}

struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("project-{}", agentapi_shared::EventId::generate()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// Replaces a file, as whoever gives out secrets does. Gives its path.
    fn put(&self, name: &str, text: &str) -> String {
        let (path, beside) = (self.0.join(name), self.0.join("new"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, &path).unwrap();
        path.display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_replaced_by_replacing_their_files() {
    let files = Files::new();
    let (anon, service) = (files.put("anon", PUBLISHABLE), files.put("service", &format!("{SECRET}\n")));
    let variables =
        [("SUPABASE_URL", HOSTED), ("SUPABASE_ANON_KEY_FILE", &*anon), ("SUPABASE_SERVICE_ROLE_KEY_FILE", &*service)];
    let keys = open(&variables).unwrap().unwrap();
    let sent = || header(&keys.service_headers(), "apikey").unwrap();
    assert_eq!(sent(), SECRET);

    files.put("service", "sb_secret_another");
    tokio::time::advance(LOOK_INTERVAL).await;
    assert_eq!(sent(), "sb_secret_another");

    // What is wrong is not used, and neither is what is not there.
    for wrong in [PUBLISHABLE, "", "nonsense"] {
        files.put("service", wrong);
        tokio::time::advance(LOOK_INTERVAL).await;
        assert_eq!(sent(), "sb_secret_another", "{wrong:?}");
    }
    fs::remove_file(files.0.join("service")).unwrap();
    tokio::time::advance(LOOK_INTERVAL).await;
    assert_eq!(sent(), "sb_secret_another");

    files.put("service", "sb_secret_third");
    tokio::time::advance(LOOK_INTERVAL).await;
    assert_eq!(sent(), "sb_secret_third");
}

#[test]
fn nothing_shows_a_key() {
    let service = legacy("service_role");
    let variables = [
        ("SUPABASE_URL", HOSTED),
        ("SUPABASE_ANON_KEY", PUBLISHABLE),
        ("SUPABASE_SERVICE_ROLE_KEY", &service),
        ("SUPABASE_JWT_SECRET", PROJECT_SECRET),
    ];
    let keys = open(&variables).unwrap().unwrap();
    let shown = format!("{keys:?} {:?} {:?} {:?}", keys.0, keys.service_headers(), keys.jwt_secret());
    for secret in [PUBLISHABLE, &service, PROJECT_SECRET] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
