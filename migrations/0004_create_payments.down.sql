-- 0004_create_payments.down.sql
-- Rollback Migration: Remove payments table
-- Version: 0004
-- Description: Drops payments and its indexes
-- Data Loss: All payments

DROP INDEX IF EXISTS idx_payments_captured;
DROP INDEX IF EXISTS idx_payments_order;
DROP TABLE IF EXISTS payments;
