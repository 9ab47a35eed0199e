-- Identity's database as the release before left it: schema version 1, made by that release, with a user.
CREATE TABLE schema_versions (
    service TEXT NOT NULL, version BIGINT NOT NULL, checksum BIGINT NOT NULL,
    applied_at BIGINT NOT NULL, PRIMARY KEY (service, version));
CREATE TABLE identity_users (
    id TEXT PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO schema_versions VALUES ('identity', 1, 4459436426559141328, 1795289235661);
INSERT INTO identity_users VALUES
    ('01a1ff93-c0ce-71f9-ab5c-ddd60452fd7f', 'from-before', '$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', 'User', 1795289235662);
