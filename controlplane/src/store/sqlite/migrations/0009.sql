-- How many viewers an organisation may have at once; null: no limit. Each is a lease, which the control plane renews while it serves it. One that is
-- over tells when its session was last watched, and is good again once it is renewed.
ALTER TABLE organizations ADD COLUMN viewers_max INTEGER;
CREATE TABLE viewers (
    id TEXT PRIMARY KEY, org_id TEXT NOT NULL REFERENCES organizations (id), created_by TEXT NOT NULL, created_at TEXT NOT NULL,
    session_id TEXT NOT NULL,
    leased_until TEXT NOT NULL
) STRICT;
CREATE INDEX viewers_by_org ON viewers (org_id);
CREATE INDEX viewers_by_session ON viewers (session_id);
