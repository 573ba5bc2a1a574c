-- The role of Grafana's data source: it reads what the tenants dashboard shows, and no row's text, no key,
-- no secret. Once, as the owner of the ledger:  psql "$ROWBEAM_DATABASE_URL" -f monitoring/grafana/reader.sql
-- Then give it a password:                      psql "$ROWBEAM_DATABASE_URL" -c '\password rowbeam_dashboards'
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rowbeam_dashboards') THEN
    CREATE ROLE rowbeam_dashboards LOGIN;
  END IF;
END
$$;
ALTER ROLE rowbeam_dashboards SET default_transaction_read_only = on;
ALTER ROLE rowbeam_dashboards SET statement_timeout = '30s';
GRANT USAGE ON SCHEMA rowbeam TO rowbeam_dashboards;
GRANT SELECT ON rowbeam.spaces, rowbeam.indexes, rowbeam.ranges, rowbeam.usage TO rowbeam_dashboards;
GRANT SELECT (incarnation, name, client_id, placement, state, limits) ON rowbeam.tenants TO rowbeam_dashboards;
GRANT SELECT (incarnation, table_name, vector_type, space_id, chunk, point_id, embedded_at)
  ON rowbeam.qdrant_vectors TO rowbeam_dashboards;
GRANT SELECT (incarnation, job_id, kind, state, created_at, started_at, finished_at)
  ON rowbeam.jobs TO rowbeam_dashboards;
GRANT SELECT
  (incarnation, table_name, vector_type, space_id, stage, error_class, attempts, state, first_at, last_at)
  ON rowbeam.dead_letters TO rowbeam_dashboards;
