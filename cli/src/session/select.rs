//! Which session a word means: its whole id, the first or last characters of it, or its name.
//!
//! Ids are UUIDv7: those made within the same minute begin alike, so the characters that tell sessions apart are the last.

use agentapi_shared::SessionId;
use agentapi_shared::api::Session;

use crate::client::Client;
use crate::failure::{ExitKind, Failure};
use crate::output::clean;

/// Characters of an id in tables; more where these would not tell apart.
const SHORT_ID_CHARS: usize = 8;
/// Fewer characters than this are taken for a name only.
const PART_CHARS_MIN: usize = 4;
/// How many of several sessions are listed when a word fits them all.
const LISTED_MAX: usize = 5;

/// The session that a word means.
pub(super) async fn resolve(client: &Client, word: &str) -> Result<Session, Failure> {
    if let Ok(id) = word.parse::<SessionId>() {
        return client.session(id).await;
    }
    choose(word, client.sessions(&Vec::new()).await?)
}

/// Several, with one list for all of them.
pub(super) async fn resolve_all(client: &Client, words: &[String]) -> Result<Vec<Session>, Failure> {
    let mut sessions: Vec<Session> = Vec::with_capacity(words.len());
    for word in words {
        let found = resolve(client, word).await?;
        if !sessions.iter().any(|session| session.id == found.id) {
            sessions.push(found);
        }
    }
    Ok(sessions)
}

fn choose(word: &str, sessions: Vec<Session>) -> Result<Session, Failure> {
    // A name that was used again means the one that lives; names stand above ids, because people chose them.
    let named: Vec<&Session> = sessions.iter().filter(|session| session.name.as_deref() == Some(word)).collect();
    let living: Vec<&Session> = named.iter().copied().filter(|session| !session.state.is_ended()).collect();
    let by_id: Vec<&Session> = sessions.iter().filter(|session| has_part(session.id, word)).collect();
    let matches = [living, named, by_id].into_iter().find(|matches| !matches.is_empty()).unwrap_or_default();
    match matches[..] {
        [one] => Ok(one.clone()),
        [] => Err(Failure::new(
            ExitKind::NotFound,
            format!("no session {:?}: see `agentapi session list --all`", clean(word)),
        )),
        _ => {
            let ids: Vec<String> = matches.iter().take(LISTED_MAX).map(|session| session.id.to_string()).collect();
            let more = if matches.len() > LISTED_MAX { ", ..." } else { "" };
            let words = format!("{:?} fits {} sessions: {}{more}", clean(word), matches.len(), ids.join(", "));
            Err(Failure::new(ExitKind::Usage, words))
        }
    }
}

fn has_part(id: SessionId, word: &str) -> bool {
    let (id, word) = (id.to_string(), word.to_ascii_lowercase());
    word.len() >= PART_CHARS_MIN && (id.starts_with(&word) || id.ends_with(&word))
}

/// The shortest length at which the ends of these ids differ.
pub(super) fn short_id_chars(sessions: &[Session]) -> usize {
    let ids: Vec<String> = sessions.iter().map(|session| session.id.to_string()).collect();
    let whole = ids.first().map_or(SHORT_ID_CHARS, String::len);
    let differ = |chars: usize| {
        let mut ends: Vec<&str> = ids.iter().map(|id| &id[id.len() - chars..]).collect();
        ends.sort_unstable();
        ends.windows(2).all(|pair| pair[0] != pair[1])
    };
    (SHORT_ID_CHARS..whole).find(|chars| differ(*chars)).unwrap_or(whole)
}

/// The end of an id.
pub(super) fn short_id(id: SessionId, chars: usize) -> String {
    let id = id.to_string();
    id[id.len().saturating_sub(chars)..].to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use agentapi_shared::{SpawnState, UserId, WindowSize};

    /// A session with an id, a name and a state.
    pub(in crate::session) fn session(id: &str, name: Option<&str>, state: SpawnState) -> Session {
        Session {
            id: id.parse().unwrap(),
            revision: 1,
            name: name.map(str::to_owned),
            labels: Default::default(),
            agent: "custom".into(),
            command: vec!["bash".into()],
            state,
            state_reason: None,
            agent_status: None,
            unreachable: false,
            size: WindowSize::DEFAULT,
            workspace: Default::default(),
            sandbox: None,
            host_id: None,
            spawns: Vec::new(),
            created_by: UserId::from_u128(1),
            visibility: Default::default(),
            created_at: time::OffsetDateTime::UNIX_EPOCH,
            exit: None,
        }
    }

    const A: &str = "0197c1a2-7d4e-7c3b-9f52-00000000aaaa";
    const B: &str = "0197c1a2-7d4e-7c3b-9f52-00000000bbbb";
    const C: &str = "0297c1a2-7d4e-7c3b-9f52-10000000bbbb";

    fn all() -> Vec<Session> {
        vec![
            session(A, Some("build"), SpawnState::Exited),
            session(B, Some("build"), SpawnState::Running),
            session(C, Some("aaaa"), SpawnState::Exited),
        ]
    }

    #[test]
    fn words_mean_one_session_or_are_refused() {
        let check =
            |word: &str, wanted: &str| assert_eq!(choose(word, all()).unwrap().id.to_string(), wanted, "{word}");
        check("build", B);
        check("0297", C);
        check("0000aaaa", A);
        check("0000AAAA", A);
        // A name wins over the end of another's id.
        check("aaaa", C);
        let code = |word: &str| crate::failure::describe(&choose(word, all()).unwrap_err().into()).0;
        assert_eq!((code("0197"), code("bbbb"), code("nothing"), code("02")), (2, 2, 3, 3));
    }

    #[test]
    fn short_ids_tell_sessions_apart() {
        let sessions = all();
        let chars = short_id_chars(&sessions);
        assert_eq!(chars, 12);
        for session in &sessions {
            assert_eq!(choose(&short_id(session.id, chars), all()).unwrap().id, session.id);
        }
        assert_eq!(short_id_chars(&sessions[..2]), 8);
        assert_eq!(short_id_chars(&[]), 8);
    }
}
