-- Who of an organisation sees a session beside whoever made it. Pages: of one person, and of what is shared.
ALTER TABLE user_sessions ADD COLUMN visibility TEXT NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'organization'));
CREATE INDEX user_sessions_by_maker ON user_sessions (org_id, created_by, id);
CREATE INDEX user_sessions_shared ON user_sessions (org_id, id) WHERE visibility = 'organization';

-- Organisations, people, their roles, and what they prove themselves with. The names are those of the other store's schema. Applied with
-- foreign keys off, since tables are replaced; they are checked as a whole before the commit.
ALTER TABLE organizations ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
-- Quotas; null: no limit. Sessions made on one day (UTC) are counted here, so that a purge frees no place of the day.
ALTER TABLE organizations ADD COLUMN sessions_max INTEGER;
ALTER TABLE organizations ADD COLUMN sessions_per_day_max INTEGER;
ALTER TABLE organizations ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE organizations ADD COLUMN sessions_day TEXT NOT NULL DEFAULT '';
ALTER TABLE organizations ADD COLUMN sessions_that_day INTEGER NOT NULL DEFAULT 0;
CREATE INDEX user_sessions_living ON user_sessions (org_id) WHERE state NOT IN ('exited', 'failed', 'lost');

CREATE TABLE memberships (
    org_id TEXT NOT NULL REFERENCES organizations (id), user_id TEXT NOT NULL REFERENCES users (id),
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer', 'auditor', 'service_account')),
    created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    PRIMARY KEY (org_id, user_id)
) STRICT;
CREATE INDEX memberships_by_user ON memberships (user_id, org_id);
INSERT INTO memberships (org_id, user_id, role, created_by, created_at) SELECT org_id, id, role, created_by, created_at FROM users;

CREATE TABLE users_new (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL DEFAULT 'person' CHECK (kind IN ('person', 'service')),
    issuer TEXT NOT NULL, subject TEXT NOT NULL, -- `local`: made here
    name TEXT, email TEXT, email_verified INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    disabled_at TEXT, -- whoever is disabled has no capability anywhere
    UNIQUE (issuer, subject)
) STRICT;
INSERT INTO users_new (id, issuer, subject, name, created_at) SELECT id, 'local', id, name, created_at FROM users;
DROP TABLE users;
ALTER TABLE users_new RENAME TO users;

-- A link that makes the owner of a verified address a member.
CREATE TABLE invitations (
    id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id), created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    email TEXT NOT NULL CHECK (email = lower(email)),
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer', 'auditor')),
    token_hash TEXT NOT NULL UNIQUE, expires_at TEXT NOT NULL,
    revoked_at TEXT, accepted_at TEXT, accepted_by TEXT REFERENCES users (id)
) STRICT;
CREATE INDEX invitations_by_org ON invitations (org_id, id);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id),
    user_id TEXT NOT NULL REFERENCES users (id), -- in whose name it acts
    created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    name TEXT NOT NULL, prefix TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL DEFAULT '[]', -- JSON; empty: all that its user may
    expires_at TEXT, revoked_at TEXT, last_used_at TEXT
) STRICT;
CREATE INDEX api_keys_by_org ON api_keys (org_id, id);
CREATE INDEX api_keys_by_user ON api_keys (user_id);
INSERT INTO api_keys (id, org_id, user_id, created_by, created_at, name, prefix, hash)
SELECT lower(printf('00000000-0000-7000-%s-%s', substr('89ab', 1 + abs(random() % 4), 1) || hex(randomblob(1)) || 'f', hex(randomblob(6)))),
       org_id, user_id, created_by, created_at, 'local', '', hash
FROM api_tokens WHERE kind = 'user';

ALTER TABLE hosts ADD COLUMN name TEXT;
UPDATE hosts SET name = 'local' WHERE id = '00000000-0000-7000-8000-000000000003';
ALTER TABLE hosts ADD COLUMN revoked_at TEXT;
CREATE INDEX hosts_by_org ON hosts (org_id, id);

CREATE TABLE host_credentials (
    hash TEXT PRIMARY KEY, host_id TEXT NOT NULL REFERENCES hosts (id), org_id TEXT REFERENCES organizations (id),
    created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    revoked_at TEXT -- from then on; a rotation sets a time to come
) STRICT;
CREATE INDEX host_credentials_by_host ON host_credentials (host_id);
INSERT INTO host_credentials (hash, host_id, org_id, created_by, created_at)
SELECT t.hash, h.id, h.org_id, t.created_by, t.created_at FROM api_tokens AS t JOIN hosts AS h ON h.id = t.host_id WHERE t.kind = 'host';
DROP TABLE api_tokens;

-- A token that a machine becomes a host with, once.
CREATE TABLE host_enrolments (
    hash TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id), created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    name TEXT NOT NULL, expires_at TEXT NOT NULL
) STRICT;
