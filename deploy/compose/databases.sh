#!/usr/bin/env bash
# Run once by the image of PostgreSQL, on a new volume: the role that nexusd is, and its two databases.
set -euo pipefail

psql --no-psqlrc --set=ON_ERROR_STOP=1 --quiet --username="${POSTGRES_USER:-postgres}" --dbname=postgres <<'SQL'
\getenv password NEXUS_PASSWORD
create role nexus login password :'password';
grant pg_read_all_stats to nexus;
create database shop_eu owner nexus;
create database shop_us owner nexus;
SQL
