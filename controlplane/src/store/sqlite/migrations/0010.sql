-- Logins at an issuer that are shown as tokens: SHA-256 of issuer and session. A row goes ninety days after it was last of use.
CREATE TABLE seen_sessions (
    hash TEXT PRIMARY KEY, org_id TEXT NOT NULL, created_by TEXT NOT NULL, seen_at TEXT NOT NULL
) STRICT;
CREATE INDEX seen_sessions_by_time ON seen_sessions (seen_at);

-- A credential that a host was given and has not used yet: those before are good until it does.
ALTER TABLE host_credentials ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;
