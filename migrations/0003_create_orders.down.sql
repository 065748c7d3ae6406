-- 0003_create_orders.down.sql
-- Rollback Migration: Remove orders tables
-- Version: 0003
-- Description: Drops order items, orders and the status type
-- Data Loss: All orders

DROP TABLE IF EXISTS order_items;
DROP TABLE IF EXISTS orders;
DROP TYPE IF EXISTS order_status;
