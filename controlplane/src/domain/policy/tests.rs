//! What each kind of caller may do, cell by cell: `y` allowed, `-` forbidden, `.` hidden.

use super::*;

const ME: UserId = UserId::from_u128(1);
const ANOTHER: UserId = UserId::from_u128(2);

fn letter(decision: Decision) -> char {
    match decision {
        Decision::Allowed => 'y',
        Decision::Forbidden => '-',
        Decision::Hidden => '.',
    }
}

fn row(actor: Actor, actions: &[Action], session: Option<SessionFacts>) -> String {
    actions.iter().map(|action| letter(decide(actor, *action, session))).collect()
}

#[test]
fn each_kind_of_caller_may_do_what_its_row_says_and_nothing_else() {
    const ON_SESSIONS: [Action; 7] = [
        Action::SessionView,
        Action::SessionManage,
        Action::TerminalView,
        Action::TerminalType,
        Action::SessionApprove,
        Action::SessionFiles,
        Action::SessionShell,
    ];
    const OTHERS: [Action; 17] = [
        Action::SessionCreate,
        Action::SessionList,
        Action::HostView,
        Action::HostManage,
        Action::Account,
        Action::Login,
        Action::OrganizationCreate,
        Action::OrganizationManage,
        Action::MemberView,
        Action::MemberManage,
        Action::OwnerGrant,
        Action::Membership,
        Action::ApiKeyView,
        Action::ApiKeyCreate,
        Action::ApiKeyRevoke,
        Action::Link,
        Action::Platform,
    ];
    let member = |role| Actor::Member { user: ME, role, reach: Reach::Everything };
    let key = |scopes| Actor::Member { user: ME, role: Role::Owner, reach: Reach::of(scopes) };
    let facts = |created_by, visibility| Some(SessionFacts { created_by, visibility });
    let own = facts(ME, Visibility::Private);
    let shared = facts(ANOTHER, Visibility::Organization);
    let private = facts(ANOTHER, Visibility::Private);
    let table = [
        (member(Role::Owner), ["yyyyyyy", "yyyyyyy", "yyyyyyy", ".......", "yyyyyyyyyyyyyyy--"]),
        (member(Role::Admin), ["yyyyyyy", "yyyyyyy", "yyyyyyy", ".......", "yyyyyy-yyy-yyyy--"]),
        (member(Role::Member), ["yyyyyyy", "y-yyyyy", ".......", ".......", "yyy-yy--y--yyyy--"]),
        (member(Role::ServiceAccount), ["yyyyyyy", "y-yyyyy", ".......", ".......", "yyy-yy--y--yyyy--"]),
        (member(Role::Viewer), ["y-y----", "y-y----", ".......", ".......", "-yy-yy--y--y-----"]),
        (member(Role::Auditor), ["y------", "y------", "y------", ".......", "-yy-yy--y--y-----"]),
        (key(&[KeyScope::Read]), ["y-y----", "y-y----", "y-y----", ".......", "-yy-y---y---y----"]),
        (key(&[KeyScope::Sessions]), ["yyyyyyy", "yyyyyyy", "yyyyyyy", ".......", "yyy-y---y---y----"]),
        (key(&[KeyScope::Organization]), ["y-y----", "y-y----", "y-y----", ".......", "-yyyy--yyyy-yyy--"]),
        (
            Actor::Newcomer { sign_up: SignUp::Invite },
            [".......", ".......", ".......", ".......", "-----------y-----"],
        ),
        (Actor::Newcomer { sign_up: SignUp::Open }, [".......", ".......", ".......", ".......", "------y----y-----"]),
        (Actor::Operator, [".......", ".......", ".......", ".......", "----y-----------y"]),
        (Actor::Host, [".......", ".......", ".......", ".......", "---------------y-"]),
    ];
    for (actor, expected) in table {
        let on_sessions = [own, shared, private, None].map(|session| row(actor, &ON_SESSIONS, session));
        let others = row(actor, &OTHERS, None);
        assert_eq!(on_sessions.into_iter().chain([others]).collect::<Vec<_>>(), expected, "{actor:?}");
    }
}
