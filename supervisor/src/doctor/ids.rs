//! Whether the ids of sessions are nobody else's: if they are, the supervisor does not even start.

use std::path::Path;

use super::Check;
use crate::accounts;
use crate::host::Isolation;

/// Only root gives sessions ids of their own.
pub(super) fn check(isolation: Isolation) -> Option<Check> {
    let (ok, detail) = match (isolation, accounts::check(Path::new("/etc"))) {
        (Isolation::User | Isolation::None, _) => return None,
        (Isolation::Root, Ok(())) => (true, "no account, group or range of /etc has any of them".to_owned()),
        (Isolation::Root, Err(error)) => (false, crate::chain(&error)),
    };
    let fix = (!ok).then(|| "see usermod(8): --uid, --del-subuids, --del-subgids; groupmod(8): --gid".to_owned());
    Some(Check { name: "ids of sessions".to_owned(), ok, detail, fix })
}
