-- 0009_index_orders_by_user.up.sql
-- Migration: Index orders by user
-- Version: 0009
-- Description: Indexes a user's orders, newest first, while the shop goes on writing
-- Impact: Reads orders twice; writers are not blocked
-- Rollback Impact: Index is dropped; writers are not blocked
-- Data Loss: None
-- nexus: no-transaction

CREATE INDEX CONCURRENTLY idx_orders_user_placed ON orders (user_id, placed_at DESC);
