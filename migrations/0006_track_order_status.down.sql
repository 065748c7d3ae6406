-- 0006_track_order_status.down.sql
-- Rollback Migration: Stop tracking order status
-- Version: 0006
-- Description: Drops the trigger, its function and the recorded changes
-- Data Loss: The recorded changes
-- nexus: lock-timeout 2s

DROP TRIGGER IF EXISTS orders_status_change ON orders;
DROP FUNCTION IF EXISTS record_order_status_change();
DROP INDEX IF EXISTS idx_order_status_changes_order;
DROP TABLE IF EXISTS order_status_changes;
