-- Every tenant: what it has in the index, waits for and has spent this month (UTC).
SELECT t.name AS tenant, t.client_id, t.placement, t.state,
       coalesce(v.records, 0) AS records, coalesce(v.points, 0) AS points, v.embedded_at AS "last embedded",
       coalesce(d.letters, 0) AS "dead letters", coalesce(u.tokens, 0) AS "tokens this month",
       coalesce(u.cost, 0) AS "spent this month", (t.limits->>'monthly_cost')::numeric AS budget,
       u.cost / nullif((t.limits->>'monthly_cost')::numeric, 0) AS "of budget"
FROM rowbeam.tenants AS t
LEFT JOIN (
  SELECT incarnation, count(*) FILTER (WHERE chunk = 0) AS records, count(*) AS points,
         max(embedded_at) AS embedded_at
  FROM rowbeam.qdrant_vectors
  JOIN rowbeam.indexes USING (incarnation, table_name, vector_type, space_id)
  GROUP BY incarnation
) AS v USING (incarnation)
LEFT JOIN (
  SELECT incarnation, count(*) AS letters FROM rowbeam.dead_letters
  JOIN rowbeam.indexes USING (incarnation, table_name, vector_type, space_id)
  WHERE state = 'open' GROUP BY incarnation
) AS d USING (incarnation)
LEFT JOIN (
  SELECT incarnation, sum(tokens) AS tokens, sum(cost) AS cost FROM rowbeam.usage
  WHERE day >= date_trunc('month', now() AT TIME ZONE 'UTC')::date GROUP BY incarnation
) AS u USING (incarnation)
WHERE t.state <> 'deleted' AND t.name IN (${tenant:sqlstring})
ORDER BY t.name
