//! The golden matrix: each route and each kind of caller, really called. A route that is not in the table fails, and so does a cell that is
//! not as `routes.txt` beside this file says.

use std::fmt::Write as _;

use agentapi_shared::OrgId;
use agentapi_shared::SessionId;
use agentapi_shared::api::Visibility;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::client::Harness;
use super::host::SimHost;
use super::people::Person;
use crate::auth::Secret;
use crate::capability::Role;
use crate::clock;
use crate::domain::audit;
use crate::store::records::{DEFAULT_ORG, LOCAL_HOST, NewLoginCode};

/// What a request is about, seen from the caller.
const ON_SESSIONS: &[&str] = &["own", "shared", "private", "foreign", "unknown"];
const ON_HOSTS: &[&str] = &["usable", "unknown"];
const ON_ORGANIZATIONS: &[&str] = &["own", "foreign", "unknown"];
const ON_MEMBERS: &[&str] = &["member", "owner", "foreign", "unknown"];
const ON_INVITATIONS: &[&str] = &["ours", "foreign", "unknown"];
const ON_KEYS: &[&str] = &["own", "member's", "foreign", "unknown"];
const TO_REVOKE: &[&str] = &["ours", "everybody's", "foreign", "unknown"];
const ON_NOTHING: &[&str] = &["-"];

/// In no organisation, where signing up is by invitation.
const NEWCOMER: &str = "newcomer";

/// Sessions that a route leaves as they are, stops, or starts again, so that no call changes what the next one finds.
#[derive(Debug, Clone, Copy)]
enum Set {
    Kept = 0,
    Stopped = 1,
    Restarted = 2,
}

struct Route {
    method: &'static str,
    /// As the OpenAPI document has it.
    path: &'static str,
    query: &'static str,
    body: Value,
    on: &'static [&'static str],
    set: Set,
}

fn route(method: &'static str, path: &'static str, on: &'static [&'static str]) -> Route {
    Route { method, path, query: "", body: Value::Null, on, set: Set::Kept }
}

fn routes() -> Vec<Route> {
    const ONE: &str = "/api/v1/sessions/{id}";
    let bash = json!({ "agent": "custom", "command": ["bash"] });
    vec![
        route("GET", "/api/v1/sessions", ON_NOTHING),
        Route { body: bash, ..route("POST", "/api/v1/sessions", ON_NOTHING) },
        route("GET", ONE, ON_SESSIONS),
        Route { body: json!({ "labels": {} }), ..route("PATCH", ONE, ON_SESSIONS) },
        Route { query: "?force=true", set: Set::Stopped, ..route("DELETE", ONE, ON_SESSIONS) },
        Route {
            body: json!({ "stop": true }),
            set: Set::Restarted,
            ..route("POST", "/api/v1/sessions/{id}/restart", ON_SESSIONS)
        },
        route("GET", "/api/v1/sessions/{id}/screen", ON_SESSIONS),
        route("GET", "/api/v1/sessions/{id}/egress", ON_SESSIONS),
        Route { body: json!({ "text": "x" }), ..route("POST", "/api/v1/sessions/{id}/input", ON_SESSIONS) },
        Route { body: json!({ "cols": 80, "rows": 24 }), ..route("POST", "/api/v1/sessions/{id}/resize", ON_SESSIONS) },
        Route { query: "?mode=ro", ..route("GET", "/api/v1/sessions/{id}/terminal", ON_SESSIONS) },
        Route { query: "?mode=rw", ..route("GET", "/api/v1/sessions/{id}/terminal", ON_SESSIONS) },
        route("GET", "/api/v1/events", ON_NOTHING),
        route("GET", "/api/v1/hosts", ON_NOTHING),
        route("GET", "/api/v1/hosts/{id}", ON_HOSTS),
        route("DELETE", "/api/v1/hosts/{id}", TO_REVOKE),
        route("POST", "/api/v1/hosts/credential", ON_NOTHING),
        route("POST", "/api/v1/hosts/credential/confirm", ON_NOTHING),
        Route { body: json!({ "name": "x" }), ..route("POST", "/api/v1/host-enrolments", ON_NOTHING) },
        route("POST", "/api/v1/host-enrolments/redeem", ON_NOTHING),
        route("GET", "/api/v1/agents", ON_NOTHING),
        route("GET", "/api/v1/audit", ON_NOTHING),
        route("GET", "/api/v1/audit/export", ON_NOTHING),
        route("GET", "/api/v1/audit/key", ON_NOTHING),
        route("GET", "/api/v1/organizations", ON_NOTHING),
        Route { body: json!({ "name": "x" }), ..route("POST", "/api/v1/organizations", ON_NOTHING) },
        route("GET", "/api/v1/organizations/{org}", ON_ORGANIZATIONS),
        Route { body: json!({ "name": "x" }), ..route("PATCH", "/api/v1/organizations/{org}", ON_ORGANIZATIONS) },
        route("GET", "/api/v1/members", ON_NOTHING),
        Route { body: json!({ "role": "viewer" }), ..route("PATCH", "/api/v1/members/{user}", ON_MEMBERS) },
        route("DELETE", "/api/v1/members/{user}", ON_MEMBERS),
        route("GET", "/api/v1/invitations", ON_NOTHING),
        Route {
            body: json!({ "email": "ada@example.com", "role": "member" }),
            ..route("POST", "/api/v1/invitations", ON_NOTHING)
        },
        Route {
            body: json!({ "email": "ada@example.com", "role": "owner" }),
            query: "?",
            ..route("POST", "/api/v1/invitations", &["-of-an-owner"])
        },
        route("DELETE", "/api/v1/invitations/{id}", ON_INVITATIONS),
        route("POST", "/api/v1/invitations/accept", ON_NOTHING),
        route("POST", "/api/v1/invitations/lookup", ON_NOTHING),
        route("GET", "/api/v1/api-keys", ON_NOTHING),
        route("POST", "/api/v1/api-keys", ON_NOTHING),
        route("DELETE", "/api/v1/api-keys/{id}", ON_KEYS),
        route("GET", "/api/v1/me", ON_NOTHING),
        route("POST", "/api/v1/login-codes", ON_NOTHING),
        route("POST", "/api/v1/login", ON_NOTHING),
        route("GET", "/api/v1/login/methods", ON_NOTHING),
        // Nobody judges passwords here, and there is no issuer.
        Route {
            body: json!({ "email": "ada@example.com", "password": "x" }),
            ..route("POST", "/api/v1/login/password", ON_NOTHING)
        },
        route("GET", "/api/v1/login/issuer", ON_NOTHING),
        route("GET", "/api/v1/login/issuer/callback", ON_NOTHING),
        route("POST", "/api/v1/logout", ON_NOTHING),
        route("GET", "/api/v1/link", ON_NOTHING),
        route("GET", "/api/v1/openapi.json", ON_NOTHING),
        route("GET", "/livez", ON_NOTHING),
        route("GET", "/readyz", ON_NOTHING),
    ]
}

/// Routes that are served and are no part of the document.
const UNDOCUMENTED: [&str; 2] = ["/api/v1/link", "/api/v1/openapi.json"];

/// Somebody who calls.
struct Caller {
    name: &'static str,
    token: Option<String>,
    /// Of a browser, whose pages are ours.
    cookie: Option<String>,
    person: Option<Person>,
    /// Sessions of theirs, one for each set.
    own: Vec<SessionId>,
}

struct World {
    harness: Harness,
    callers: Vec<Caller>,
    maker: Person,
    elsewhere: Person,
    shared: Vec<SessionId>,
    private: Vec<SessionId>,
    foreign: Vec<SessionId>,
}

async fn three(harness: &Harness, of: &Person, visibility: Visibility) -> Vec<SessionId> {
    let mut made = Vec::new();
    for _ in [Set::Kept, Set::Stopped, Set::Restarted] {
        made.push(of.running_session(harness, visibility).await.id);
    }
    made
}

impl World {
    async fn new(harness: Harness) -> Self {
        let maker = Person::new(&harness, DEFAULT_ORG, Role::Member);
        let elsewhere = Person::new(&harness, OrgId::generate(), Role::Owner);
        let nobody = |name, token| Caller { name, token, cookie: None, person: None, own: Vec::new() };
        let mut callers = vec![nobody("anonymous", None), nobody("host", Some(harness.host_token.clone()))];
        for role in Role::ALL {
            callers.push(Self::caller(&harness, role.as_str(), DEFAULT_ORG, role).await);
        }
        let mut reader = Self::caller(&harness, "read-key", DEFAULT_ORG, Role::Owner).await;
        reader.token = reader.person.as_ref().map(|person| person.key(&harness, r#"["read"]"#).1);
        callers.push(reader);
        // Stands for one who is made anew for each call: whoever comes into an organisation is one no longer.
        callers.push(nobody(NEWCOMER, None));
        callers.push(Self::caller(&harness, "stranger", OrgId::generate(), Role::Owner).await);
        let shared = three(&harness, &maker, Visibility::Organization).await;
        let private = three(&harness, &maker, Visibility::Private).await;
        let foreign = three(&harness, &elsewhere, Visibility::Organization).await;
        Self { harness, callers, maker, elsewhere, shared, private, foreign }
    }

    async fn caller(harness: &Harness, name: &'static str, org: OrgId, role: Role) -> Caller {
        let person = Person::new(harness, org, role);
        let own = three(harness, &person, Visibility::Private).await;
        Caller { name, token: Some(person.token.clone()), cookie: None, person: Some(person), own }
    }

    async fn newcomer(&self) -> Caller {
        let (person, cookie) = Person::newcomer(&self.harness, true).await;
        Caller { name: NEWCOMER, token: None, cookie: Some(cookie), person: Some(person), own: Vec::new() }
    }

    /// The path as it is called.
    async fn path(&self, route: &Route, on: &str, caller: &Caller) -> String {
        let id = match route.on {
            found if found == ON_SESSIONS => self.session(on, route.set as usize, caller),
            found if found == ON_ORGANIZATIONS => self.organization(on, caller),
            found if found == ON_NOTHING => String::new(),
            _ => self.fresh(route.path, on, caller).await,
        };
        let id = if on == "unknown" { SessionId::generate().to_string() } else { id };
        ["{id}", "{org}", "{user}"].iter().fold(route.path.to_owned(), |path, name| path.replace(name, &id))
            + route.query
    }

    fn session(&self, on: &str, set: usize, caller: &Caller) -> String {
        let of = match on {
            "own" => caller.own.get(set).unwrap_or(&self.private[set]),
            "shared" => &self.shared[set],
            "foreign" => &self.foreign[set],
            _ => &self.private[set],
        };
        of.to_string()
    }

    fn organization(&self, on: &str, caller: &Caller) -> String {
        let own = caller.person.as_ref().map_or(DEFAULT_ORG, |person| person.tenant.org);
        if on == "own" { own } else { self.elsewhere.tenant.org }.to_string()
    }

    /// Something that a call may end: made for it.
    async fn fresh(&self, path: &str, on: &str, caller: &Caller) -> String {
        let harness = &self.harness;
        let owner = self.callers.iter().find(|caller| caller.name == "owner").and_then(|caller| caller.person.as_ref());
        let org = if on == "foreign" { self.elsewhere.tenant.org } else { DEFAULT_ORG };
        let by = if on == "foreign" { &self.elsewhere } else { owner.unwrap() };
        match (path, on) {
            ("/api/v1/members/{user}", _) => {
                let role = if on == "owner" { Role::Owner } else { Role::Member };
                Person::new(harness, org, role).tenant.user.to_string()
            }
            ("/api/v1/invitations/{id}", _) => {
                by.invites(harness, "somebody@example.com", Role::Member).await.0.to_string()
            }
            ("/api/v1/api-keys/{id}", "own") => {
                caller.person.as_ref().unwrap_or(&self.maker).key(harness, "[]").0.to_string()
            }
            ("/api/v1/api-keys/{id}", "member's") => self.maker.key(harness, "[]").0.to_string(),
            ("/api/v1/api-keys/{id}", _) => self.elsewhere.key(harness, "[]").0.to_string(),
            (_, "usable" | "everybody's") => LOCAL_HOST.to_string(),
            _ => by.host(harness).await.to_string(),
        }
    }

    /// What a request says.
    async fn body(&self, route: &Route, caller: &Caller) -> Value {
        let owner = self.callers.iter().find_map(|caller| caller.person.as_ref()).unwrap();
        match (route.method, route.path) {
            ("POST", "/api/v1/login") => json!({ "code": self.login_code(owner).await }),
            ("POST", "/api/v1/host-enrolments/redeem") => json!({ "token": owner.enrolment(&self.harness).await }),
            ("POST", "/api/v1/api-keys") => json!({ "name": SessionId::generate().to_string() }),
            ("POST", "/api/v1/invitations/accept" | "/api/v1/invitations/lookup") => {
                let user = caller.person.as_ref().unwrap_or(&self.maker).tenant.user;
                let email = format!("{user}@example.com");
                let (_, token) = self.elsewhere.invites(&self.harness, &email, Role::Member).await;
                json!({ "organization_id": self.elsewhere.tenant.org, "token": token })
            }
            _ => route.body.clone(),
        }
    }

    async fn cell(&self, route: &Route, on: &str, caller: &Caller) -> String {
        let newcomer;
        let caller = if caller.name == NEWCOMER {
            newcomer = self.newcomer().await;
            &newcomer
        } else {
            caller
        };
        let path = self.path(route, on, caller).await;
        let status = if route.path.ends_with("/terminal") {
            self.upgrade(&path, caller).await
        } else {
            let mut request = self.harness.request(route.method, &path);
            if let Some(token) = &caller.token {
                request = request.bearer_auth(token);
            }
            if let Some(cookie) = &caller.cookie {
                request = request.header("cookie", cookie).header("origin", &self.harness.base);
            }
            let body = self.body(route, caller).await;
            if !body.is_null() {
                request = request.json(&body);
            }
            // Of a stream, that it began.
            request.send().await.unwrap().status().as_u16()
        };
        match status {
            // 426: the host's link would be opened now.
            101 | 200..300 | 426 => "200".to_owned(),
            other => other.to_string(),
        }
    }

    async fn upgrade(&self, path: &str, caller: &Caller) -> u16 {
        let bearer = caller.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers: Vec<(&'static str, &str)> =
            bearer.iter().map(|value| ("authorization", value.as_str())).collect();
        if let Some(cookie) = &caller.cookie {
            headers.extend([("cookie", cookie.as_str()), ("origin", self.harness.base.as_str())]);
        }
        match self.harness.open_socket(path, &headers).await {
            Ok(_open) => 101,
            Err(SocketError::Http(refused)) => refused.status().as_u16(),
            Err(other) => panic!("{path}: {other}"),
        }
    }

    async fn login_code(&self, person: &Person) -> String {
        let (code, at) = (Secret::generate(""), clock::now() + time::Duration::HOUR);
        let entry = audit::of_account("api", "login_code.create");
        let new = NewLoginCode { hash: code.hash(), expires_at: at, made_by: None };
        self.harness.plane.store.create_login_code(person.tenant.clone(), new, entry).await.unwrap();
        code.expose().to_owned()
    }
}

#[tokio::test]
async fn each_route_answers_each_kind_of_caller_as_the_golden_matrix_says() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let world = World::new(harness).await;
    let routes = routes();
    every_route_is_listed(&routes);
    let mut found = format!("{:<52}", "route, and what it is about");
    for caller in &world.callers {
        write!(found, " {}", caller.name).unwrap();
    }
    for route in &routes {
        for on in route.on {
            let line = format!("{} {}{} {on}", route.method, route.path, route.query.trim_end_matches('?'));
            write!(found, "\n{line:<52}").unwrap();
            for caller in &world.callers {
                let cell = world.cell(route, on, caller).await;
                write!(found, " {cell:<width$}", width = caller.name.len()).unwrap();
            }
            found.truncate(found.trim_end().len());
        }
    }
    found.push('\n');
    let expected = include_str!("routes.txt");
    if found == expected {
        return;
    }
    let copy = std::env::temp_dir().join("agentapi-routes.txt");
    std::fs::write(&copy, &found).unwrap();
    let differs = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    panic!("the matrix is not as expected; found is in {}; the first line that differs: {differs:#?}", copy.display());
}

fn every_route_is_listed(routes: &[Route]) {
    let document: Value = serde_json::from_str(&crate::api::openapi_json()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let listed = routes.iter().any(|route| route.method.eq_ignore_ascii_case(method) && route.path == path);
            assert!(listed, "{method} {path} is not in the matrix");
        }
    }
    for route in routes.iter().filter(|route| !UNDOCUMENTED.contains(&route.path)) {
        let documented = paths.get(route.path).is_some_and(|methods| !methods[route.method.to_lowercase()].is_null());
        assert!(documented, "{} {} is not in the document", route.method, route.path);
    }
}

#[tokio::test]
async fn lists_and_events_carry_what_the_caller_may_see() {
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let maker = Person::new(&harness, DEFAULT_ORG, Role::Member);
    let theirs = OrgId::generate();
    let elsewhere = Person::new(&harness, theirs, Role::Owner);
    let shared = maker.running_session(&harness, Visibility::Organization).await;
    let private = maker.running_session(&harness, Visibility::Private).await;
    let foreign = elsewhere.running_session(&harness, Visibility::Organization).await;
    let last_here = maker.running_session(&harness, Visibility::Organization).await;
    let last_there = elsewhere.running_session(&harness, Visibility::Organization).await;
    let mut callers = Vec::new();
    for role in Role::ALL {
        let all = matches!(role, Role::Owner | Role::Admin | Role::Auditor);
        callers.push((Person::new(&harness, DEFAULT_ORG, role), all, last_here.id));
    }
    callers.push((Person::new(&harness, theirs, Role::Member), false, last_there.id));
    for (person, all, last) in &callers {
        let own = person.running_session(&harness, Visibility::Private).await;
        let mut follows = person.follow(&harness).await;
        let expected: Vec<SessionId> = if *last == last_there.id {
            vec![foreign.id, own.id]
        } else if *all {
            vec![shared.id, private.id, own.id]
        } else {
            vec![shared.id, own.id]
        };
        for record in [&shared, &private, &foreign, &own, &last_here, &last_there] {
            harness.plane.publish(record);
        }
        let told: Vec<SessionId> = follows.until(*last).await.into_iter().map(|(_, id)| id).collect();
        assert_eq!(told, expected, "{:?}", person.tenant.role);
        let known = [&shared, &private, &foreign, &own].map(|record| record.id);
        let mut listed = person.listed(&harness).await;
        listed.retain(|id| known.contains(id));
        listed.reverse();
        assert_eq!(listed, expected, "{:?}", person.tenant.role);
    }
}

#[tokio::test]
async fn a_session_that_is_shared_no_longer_goes_from_lists_events_and_terminals() {
    use super::client::Got;
    use agentapi_shared::viewer::{ServerMessage, close};
    let harness = Harness::start().await;
    let (_host, _connection) = SimHost::connect(&harness).await;
    let maker = Person::new(&harness, DEFAULT_ORG, Role::Member);
    let [member, viewer, auditor] =
        [Role::Member, Role::Viewer, Role::Auditor].map(|role| Person::new(&harness, DEFAULT_ORG, role));
    let id = maker.running_session(&harness, Visibility::Private).await.id;
    let last = maker.running_session(&harness, Visibility::Organization).await;
    let one = format!("/api/v1/sessions/{id}");
    let show = async |to: &str| {
        let (status, session) = maker.call(&harness, "PATCH", &one, json!({ "visibility": to })).await;
        assert_eq!((status, &session["visibility"]), (200, &json!(to)), "{session}");
    };
    assert_eq!(member.call(&harness, "GET", &one, Value::Null).await.0, 404);
    show("organization").await;
    assert_eq!(member.call(&harness, "GET", &one, Value::Null).await.0, 200);
    assert_eq!(member.call(&harness, "PATCH", &one, json!({ "visibility": "private" })).await.0, 403);
    let (refused, problem) = maker.call(&harness, "PATCH", &one, json!({ "visibility": "public" })).await;
    assert_eq!((refused, &problem["errors"][0]["field"]), (422, &json!("visibility")));
    let mut terminals = [
        maker.view(&harness, id, "mode=rw").await.unwrap(),
        member.view(&harness, id, "mode=rw").await.unwrap(),
        viewer.view(&harness, id, "mode=ro").await.unwrap(),
    ];
    for terminal in &mut terminals {
        terminal.until("keyframe", |_, got| matches!(got, Got::Keyframe { .. }).then_some(())).await;
    }
    let mut streams = Vec::new();
    for person in [&maker, &auditor, &member, &viewer] {
        streams.push(person.follow(&harness).await);
    }
    show("private").await;
    harness.plane.publish(&last);
    for (stream, expected) in streams.iter_mut().zip(["session", "session", "session_hidden", "session_hidden"]) {
        assert_eq!(stream.until(last.id).await, [(expected.to_owned(), id)]);
        assert!(stream.is_silent());
    }
    let closed = |_: &super::client::Viewer, got: &Got| match got {
        Got::Closed(code) => Some(*code),
        _ => None,
    };
    let [mine, others @ ..] = &mut terminals;
    for other in others {
        assert_eq!(other.until("close", closed).await, close::SESSION_GONE);
    }
    // The maker's goes on.
    mine.input(1, b"x").await;
    let acked = |got: &Got| matches!(got, Got::Said(ServerMessage::InputAck { seq: 1 }));
    mine.until("ack", |_, got| acked(got).then_some(())).await;
    assert!(!member.listed(&harness).await.contains(&id) && maker.listed(&harness).await.contains(&id));
    assert_eq!(member.call(&harness, "GET", &one, Value::Null).await.0, 404);
}
