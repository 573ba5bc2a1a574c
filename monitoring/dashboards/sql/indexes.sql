-- Every index: what is embedded of a table.
SELECT t.name AS tenant, i.table_name AS "table", i.vector_type AS "vector type", s.spec->>'model' AS model,
       i.preference, count(v.point_id) FILTER (WHERE v.chunk = 0) AS records, count(v.point_id) AS points,
       min(v.embedded_at) AS "first embedded", max(v.embedded_at) AS "last embedded"
FROM rowbeam.indexes AS i
JOIN rowbeam.tenants AS t USING (incarnation)
JOIN rowbeam.spaces AS s USING (space_id)
LEFT JOIN rowbeam.qdrant_vectors AS v USING (incarnation, table_name, vector_type, space_id)
WHERE t.state <> 'deleted' AND t.name IN (${tenant:sqlstring})
GROUP BY t.name, i.table_name, i.vector_type, s.spec, i.preference
ORDER BY t.name, i.table_name, i.vector_type
