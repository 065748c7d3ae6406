-- 0009_index_orders_by_user.down.sql
-- Rollback Migration: Remove the index on orders by user
-- Version: 0009
-- Description: Drops the index while the shop goes on writing
-- Data Loss: None
-- nexus: no-transaction

DROP INDEX CONCURRENTLY IF EXISTS idx_orders_user_placed;
