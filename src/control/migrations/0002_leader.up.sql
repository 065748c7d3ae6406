-- Who leads, and what the leader knows for all: observations, alerts, audits, discovered databases.

create table leader (
    -- There is one row.
    single boolean primary key default true check (single),
    instance text not null,
    -- The session that holds the lock.
    pid integer not null,
    beat timestamptz not null
);

create table document (
    kind text not null,
    key text not null,
    body jsonb not null,
    changed timestamptz not null default clock_timestamp(),
    primary key (kind, key)
);
create index document_changed on document (kind, changed);
