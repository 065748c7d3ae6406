-- 0010_add_products.down.sql
-- Rollback Migration: Remove products table
-- Version: 0010
-- Description: Drops products table and related objects

-- Drop indexes
DROP INDEX IF EXISTS idx_products_price;
DROP INDEX IF EXISTS idx_products_name;

-- Drop table
DROP TABLE IF EXISTS products;
