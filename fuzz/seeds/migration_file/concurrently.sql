-- nexus: no-transaction
-- nexus: allow create-index-concurrently it is large
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS s.i ON t USING btree (lower(a), b) WHERE c;
REINDEX INDEX CONCURRENTLY i;
VACUUM (ANALYZE) t;
