-- 0004_create_payments.up.sql
-- Migration: Create payments table
-- Version: 0004
-- Description: Creates payments, at most one captured per order
-- Impact: New table, no existing rows
-- Rollback Impact: Table is dropped
-- Data Loss: All payments on rollback

CREATE TABLE IF NOT EXISTS payments (
  id BIGSERIAL PRIMARY KEY,
  order_id BIGINT NOT NULL REFERENCES orders (id),
  amount DECIMAL(10,2) NOT NULL CHECK (amount > 0),
  currency CHAR(3) NOT NULL DEFAULT 'EUR',
  state TEXT NOT NULL DEFAULT 'authorised' CHECK (state IN ('authorised', 'captured', 'refunded')),
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE INDEX IF NOT EXISTS idx_payments_order ON payments (order_id);
CREATE UNIQUE INDEX IF NOT EXISTS idx_payments_captured ON payments (order_id) WHERE state = 'captured';
