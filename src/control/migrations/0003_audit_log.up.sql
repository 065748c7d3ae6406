-- The audit logs of the daemons, a copy of each record: rows are added, and never changed or taken away.

create table audit_log (
    chain uuid not null,
    sequence bigint not null,
    -- A file that was rewritten has another record of the same number: both are kept.
    hash text not null,
    -- The record as it stands in the file: what it says has its hash.
    line text not null,
    copied_at timestamptz not null default clock_timestamp(),
    primary key (chain, sequence, hash)
);
create index audit_log_copied_at on audit_log (copied_at);

create function audit_log_stays() returns trigger language plpgsql as $$
begin
    raise exception 'the audit log is only ever added to';
end
$$;
create trigger audit_log_stays before update or delete or truncate on audit_log
    for each statement execute function audit_log_stays();
