-- What the daemons of one service know together: operations with their leases, what happened in
-- them, and what one daemon asks of another.

create table operation (
    id uuid primary key,
    created timestamptz not null,
    -- When its last attempt ended; null while one is under way.
    ended timestamptz,
    -- Whether somebody has to be at work on it.
    is_active boolean not null,
    document jsonb not null,
    -- Counts the changes of the operation and of its databases.
    revision bigint not null,
    -- The instance that may change it, until when, and how often that has changed hands.
    owner text not null default '',
    lease_until timestamptz,
    fence bigint not null
);
create index operation_created on operation (created);
-- Not of the lease, which is renewed all the while.
create index operation_active on operation (created) where is_active;
create index operation_ended on operation (ended) where not is_active;

create table operation_database (
    operation uuid not null references operation on delete cascade,
    name text not null,
    document jsonb not null,
    revision bigint not null,
    primary key (operation, name)
);

create table operation_event (
    operation uuid not null references operation on delete cascade,
    number bigint not null,
    database text not null,
    -- What the event takes the place of when it is read: see fleet/operation/log.rs.
    class text not null,
    body bytea not null,
    primary key (operation, number)
);

-- What a daemon asks of the one that owns an operation, or that leads.
create table errand (
    id uuid primary key,
    -- Of whom: of the operation's owner; null: of the leader.
    operation uuid references operation on delete cascade,
    document jsonb not null,
    made timestamptz not null default clock_timestamp(),
    -- The instance that does it.
    taken_by text,
    answer jsonb
);
create index errand_open on errand (made) where taken_by is null;
