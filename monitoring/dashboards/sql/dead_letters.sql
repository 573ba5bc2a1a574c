-- Records that could not be embedded, by reason.
SELECT t.name AS tenant, d.table_name AS "table", d.vector_type AS "vector type", d.stage,
       d.error_class AS error, count(*) AS letters, sum(d.attempts) AS attempts,
       min(d.first_at) AS "first", max(d.last_at) AS "last"
FROM rowbeam.dead_letters AS d JOIN rowbeam.tenants AS t USING (incarnation)
JOIN rowbeam.indexes USING (incarnation, table_name, vector_type, space_id)
WHERE d.state = 'open' AND t.name IN (${tenant:sqlstring})
GROUP BY t.name, d.table_name, d.vector_type, d.stage, d.error_class
ORDER BY letters DESC, t.name LIMIT 100
