-- 0006_track_order_status.up.sql
-- Migration: Track order status
-- Version: 0006
-- Description: Records every change of an order's status by a trigger
-- Impact: New table; each change of a status writes one row more
-- Rollback Impact: Trigger, function and table are dropped
-- Data Loss: The recorded changes on rollback; orders keep their present status
-- nexus: lock-timeout 2s

CREATE TABLE IF NOT EXISTS order_status_changes (
  id BIGSERIAL PRIMARY KEY,
  order_id BIGINT NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
  old_status order_status NOT NULL,
  new_status order_status NOT NULL,
  changed_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE INDEX IF NOT EXISTS idx_order_status_changes_order ON order_status_changes (order_id);

CREATE OR REPLACE FUNCTION record_order_status_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO order_status_changes (order_id, old_status, new_status)
  VALUES (NEW.id, OLD.status, NEW.status);
  RETURN NULL;
END;
$$;

CREATE TRIGGER orders_status_change
  AFTER UPDATE OF status ON orders
  FOR EACH ROW
  WHEN (OLD.status IS DISTINCT FROM NEW.status)
  EXECUTE FUNCTION record_order_status_change();
