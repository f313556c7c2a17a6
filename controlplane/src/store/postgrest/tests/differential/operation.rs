//! Operations of a store, as a case has them: people, hosts, sessions and secrets are places in a small world, so that operations meet.

use agentapi_shared::SpawnState;
use agentapi_shared::api::Visibility;
use agentapi_shared::egress::EgressVerdict;
use proptest::prelude::*;
use proptest::sample::select;

use crate::store::records::Desired;

/// A place in the world; taken modulo how many there are.
pub(super) type At = u8;

/// In whose name.
#[derive(Debug, Clone)]
pub(super) enum Who {
    Person(At),
    Host(At),
    System,
}

/// What is changed of a session.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) name: Option<Option<String>>,
    pub(super) labels: Option<Vec<(String, String)>>,
    pub(super) visibility: Option<Visibility>,
    pub(super) size: Option<(u16, u16)>,
    /// Placed on a host of its own organisation, by the control plane alone.
    pub(super) place: Option<At>,
    pub(super) desired: Option<Desired>,
    pub(super) stop: Option<(u32, bool)>,
    pub(super) purging: Option<bool>,
    pub(super) restarting: Option<bool>,
    /// The newest spawn, or the one before.
    pub(super) spawn: Option<(bool, SpawnState, Option<String>)>,
    pub(super) new_spawn: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Operation {
    Create {
        by: At,
        name: Option<String>,
        label: String,
        shared: bool,
        key: Option<At>,
    },
    Session {
        who: Who,
        session: At,
    },
    Sessions {
        by: At,
        state: Option<SpawnState>,
        agent: bool,
        host: Option<At>,
        label: Option<String>,
        before: Option<At>,
        limit: u32,
    },
    Unsettled {
        host: Option<At>,
    },
    Update {
        who: Who,
        session: At,
        stale: bool,
        change: Change,
        record: bool,
        seen: Option<u8>,
    },
    Purge {
        who: Who,
        session: At,
    },
    RecordEgress {
        host: At,
        session: At,
        decision: At,
        verdict: EgressVerdict,
        text: String,
        bytes: u64,
        seen: Option<u8>,
    },
    Egress {
        who: Who,
        session: At,
        verdict: Option<EgressVerdict>,
        before: Option<At>,
        limit: u32,
    },
    Hosts {
        by: At,
    },
    Host {
        host: At,
    },
    HostConnected {
        host: At,
        version: Option<String>,
        facts: bool,
    },
    HostSeen {
        host: At,
    },
    OutboxSeen {
        host: At,
    },
    RegisterToken {
        by: At,
        token: At,
    },
    RegisterHostToken {
        host: At,
        token: At,
    },
    Token {
        token: At,
        of_host: bool,
    },
    CreateCode {
        by: At,
        minutes: u8,
    },
    Redeem {
        code: At,
    },
    Browser {
        cookie: At,
    },
    EndBrowser {
        by: At,
        cookie: At,
    },
    Begin {
        by: At,
        key: At,
        body: u8,
    },
    Finish {
        by: At,
        key: At,
        text: String,
    },
    Release {
        by: At,
        key: At,
    },
    Audit {
        who: Who,
        session: Option<At>,
        again: bool,
        text: String,
        seen: Option<u8>,
    },
    Attach {
        by: At,
        session: At,
        replaces: Option<At>,
    },
    Detach {
        by: At,
        viewer: At,
    },
    Renew {
        viewer: At,
        over: bool,
    },
    /// How many viewers an organisation may have.
    Viewers {
        of: At,
        max: Option<u32>,
    },
    /// Time passes.
    Wait {
        minutes: u32,
    },
}

/// Text as people and programs send it, but for U+0000, which Postgres has no place for.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{0,6}".prop_map(String::from),
        2 => select(vec!["it's", "\"x\"", "a\\b", "%_*", "(a,b).c:d", "\u{1F600}\u{202E}", "{\"a\":1}", "null", "\u{1}\u{7f}\n"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,12}".prop_map(|text: String| text.replace('\0', "")),
    ]
}

/// One of few, so that filters find some.
fn label() -> impl Strategy<Value = String> {
    select(vec!["red", "it's \"blue\"; --", ""]).prop_map(str::to_owned)
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        4 => at().prop_map(Who::Person),
        3 => at().prop_map(Who::Host),
        3 => Just(Who::System),
    ]
}

fn at() -> impl Strategy<Value = At> {
    0..32_u8
}

fn state() -> impl Strategy<Value = SpawnState> {
    use SpawnState as S;
    select(vec![S::Pending, S::Starting, S::Running, S::Stopping, S::Exited, S::Failed, S::Lost])
}

fn verdict() -> impl Strategy<Value = EgressVerdict> {
    select(EgressVerdict::ALL.to_vec())
}

fn seen() -> impl Strategy<Value = Option<u8>> {
    proptest::option::of(any::<u8>())
}

fn change() -> impl Strategy<Value = Change> {
    use proptest::option::weighted;
    let visibility = select(vec![Visibility::Private, Visibility::Organization]);
    let first = (
        weighted(0.3, proptest::option::of(text())),
        weighted(0.2, proptest::collection::vec((label(), text()), 0..3)),
        weighted(0.3, visibility),
        weighted(0.2, (1..400_u16, 1..200_u16)),
        weighted(0.6, at()),
    );
    let second = (
        weighted(0.2, select(vec![Desired::Run, Desired::Stop])),
        weighted(0.2, (0..100_000_u32, any::<bool>())),
        weighted(0.1, any::<bool>()),
        weighted(0.1, any::<bool>()),
        weighted(0.4, (prop::bool::weighted(0.8), state(), proptest::option::of(text()))),
        prop::bool::weighted(0.2),
    );
    (first, second).prop_map(
        |((name, labels, visibility, size, place), (desired, stop, purging, restarting, spawn, new_spawn))| Change {
            name,
            labels,
            visibility,
            size,
            place,
            desired,
            stop,
            purging,
            restarting,
            spawn,
            new_spawn,
        },
    )
}

fn on_sessions() -> impl Strategy<Value = Operation> {
    use Operation as O;
    use proptest::option::{of, weighted};
    let filter = (at(), weighted(0.3, state()), any::<bool>(), weighted(0.2, at()), weighted(0.3, label()));
    prop_oneof![
        4 => (at(), of(text()), label(), any::<bool>(), weighted(0.3, at()))
            .prop_map(|(by, name, label, shared, key)| O::Create { by, name, label, shared, key }),
        3 => (who(), at()).prop_map(|(who, session)| O::Session { who, session }),
        3 => (filter, weighted(0.3, at()), select(vec![0, 1, 2, 3, 200]))
            .prop_map(|((by, state, agent, host, label), before, limit)| O::Sessions { by, state, agent, host, label, before, limit }),
        1 => of(at()).prop_map(|host| O::Unsettled { host }),
        8 => (who(), at(), prop::bool::weighted(0.1), change(), any::<bool>(), seen())
            .prop_map(|(who, session, stale, change, record, seen)| O::Update { who, session, stale, change, record, seen }),
        1 => (who(), at()).prop_map(|(who, session)| O::Purge { who, session }),
        3 => (at(), at(), at(), verdict(), text(), prop_oneof![0..9_u64, any::<u64>()], seen())
            .prop_map(|(host, session, decision, verdict, text, bytes, seen)| O::RecordEgress { host, session, decision, verdict, text, bytes, seen }),
        2 => (who(), at(), weighted(0.3, verdict()), weighted(0.3, at()), select(vec![0, 1, 2, 200]))
            .prop_map(|(who, session, verdict, before, limit)| O::Egress { who, session, verdict, before, limit }),
    ]
}

fn on_viewers() -> impl Strategy<Value = Operation> {
    use Operation as O;
    use proptest::option::weighted;
    prop_oneof![
        6 => (at(), at(), weighted(0.3, at())).prop_map(|(by, session, replaces)| O::Attach { by, session, replaces }),
        2 => (at(), at()).prop_map(|(by, viewer)| O::Detach { by, viewer }),
        2 => (at(), prop::bool::weighted(0.3)).prop_map(|(viewer, over)| O::Renew { viewer, over }),
        1 => (at(), weighted(0.7, 0..3_u32)).prop_map(|(of, max)| O::Viewers { of, max }),
    ]
}

fn on_the_rest() -> impl Strategy<Value = Operation> {
    use Operation as O;
    use proptest::option::of;
    let accounts = prop_oneof![
        (at(), at()).prop_map(|(by, token)| O::RegisterToken { by, token }),
        (at(), at()).prop_map(|(host, token)| O::RegisterHostToken { host, token }),
        (at(), any::<bool>()).prop_map(|(token, of_host)| O::Token { token, of_host }),
        (at(), any::<u8>()).prop_map(|(by, minutes)| O::CreateCode { by, minutes }),
        at().prop_map(|code| O::Redeem { code }),
        at().prop_map(|cookie| O::Browser { cookie }),
        (at(), at()).prop_map(|(by, cookie)| O::EndBrowser { by, cookie }),
    ];
    let hosts = prop_oneof![
        at().prop_map(|by| O::Hosts { by }),
        at().prop_map(|host| O::Host { host }),
        (at(), of(text()), any::<bool>()).prop_map(|(host, version, facts)| O::HostConnected { host, version, facts }),
        at().prop_map(|host| O::HostSeen { host }),
        at().prop_map(|host| O::OutboxSeen { host }),
    ];
    prop_oneof![
        4 => accounts,
        3 => hosts,
        1 => (at(), at(), 0..2_u8).prop_map(|(by, key, body)| O::Begin { by, key, body }),
        1 => (at(), at(), text()).prop_map(|(by, key, text)| O::Finish { by, key, text }),
        1 => (at(), at()).prop_map(|(by, key)| O::Release { by, key }),
        2 => (who(), of(at()), prop::bool::weighted(0.2), text(), seen())
            .prop_map(|(who, session, again, text, seen)| O::Audit { who, session, again, text, seen }),
        1 => prop_oneof![1..90_u32, 1000..3000_u32].prop_map(|minutes| O::Wait { minutes }),
    ]
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![4 => on_sessions(), 1 => on_viewers(), 2 => on_the_rest()]
}
