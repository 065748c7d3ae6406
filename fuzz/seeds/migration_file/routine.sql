-- Description: a body that holds statements of its own
-- nexus: lock-timeout 2s
BEGIN;
CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a > 0 THEN 1 END; END;
DO $body$ BEGIN RAISE NOTICE 'a;b'; END $body$;
INSERT INTO t VALUES (E'it\'s', U&'\0061', $1$;$1$, "x;y"); /* ; /* nested */ ; */
COMMIT;
