//! Errors of the server as words and exit codes.

use std::fmt::Write as _;

use agentapi_shared::api::Problem;

use crate::failure::{ExitKind, Failure};
use crate::output::clean;

/// Characters shown of an error that is not a problem document, such as a proxy's page.
const FOREIGN_CHARS_MAX: usize = 200;

/// The exit code for an HTTP status.
fn kind_of_status(status: u16) -> ExitKind {
    match status {
        400 | 413 | 415 | 422 => ExitKind::Usage,
        401 | 403 => ExitKind::Refused,
        404 | 410 => ExitKind::NotFound,
        409 | 412 => ExitKind::Conflict,
        408 | 504 => ExitKind::TimedOut,
        502 | 503 => ExitKind::Unreachable,
        _ => ExitKind::Failure,
    }
}

/// What to say of an answer that is an error.
pub(crate) fn refused(status: u16, body: &[u8]) -> Failure {
    let words = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => describe(&problem),
        Err(_) => {
            let shown: String = String::from_utf8_lossy(body).chars().take(FOREIGN_CHARS_MAX).collect();
            format!("the server answered {status}: {}", clean(shown.trim()))
        }
    };
    Failure::new(kind_of_status(status), words)
}

fn describe(problem: &Problem) -> String {
    let mut words = clean(&problem.detail);
    // A single field is usually what the detail speaks of already.
    for field in problem.errors.iter().filter(|field| !problem.detail.contains(&field.message)) {
        // Writing to a String cannot fail.
        let _infallible = write!(words, "\n  {}: {}", clean(&field.field), clean(&field.message));
    }
    match problem.status {
        401 => words.push_str("\nThe token is wrong or was replaced: see `agentapi help` for where it comes from."),
        500.. => {
            let _infallible =
                write!(words, "\nThe server's log has more under request id {}.", clean(&problem.request_id));
        }
        _ => {}
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_field_and_cause() {
        let body =
            br#"{"type":"about:blank","title":"Bad Request","status":400,"code":"invalid","detail":"no such size",
            "request_id":"r1","errors":[{"field":"size.cols","message":"0 is too small"}]}"#;
        let failure = refused(400, body);
        assert_eq!(failure.to_string(), "no such size\n  size.cols: 0 is too small");
        assert_eq!(crate::failure::describe(&failure.into()).0, 2);
    }

    #[test]
    fn anything_else_is_shown_short_and_harmless() {
        let failure = refused(502, format!("<html>\u{1b}]0;x\u{7}{}", "y".repeat(1000)).as_bytes());
        let words = failure.to_string();
        assert!(words.starts_with("the server answered 502: <html>"), "{words}");
        assert!(words.len() < 300 && !words.contains('\u{1b}'), "{words}");
    }
}
