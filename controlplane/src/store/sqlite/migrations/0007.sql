-- What keeps a browser's login at its issuer alive, encrypted by the control plane. Whoever uses it says until when; a taking that is over
-- is none.
CREATE TABLE login_refreshes (
    hash TEXT PRIMARY KEY REFERENCES browser_sessions (hash) ON DELETE CASCADE,
    org_id TEXT NOT NULL, created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    key_id TEXT NOT NULL, ciphertext BLOB NOT NULL,
    taken_until TEXT
) STRICT;
