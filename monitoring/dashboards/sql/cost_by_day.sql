-- What providers charged, in US dollars, by day and tenant.
SELECT u.day::timestamptz AS "time", t.name AS metric, sum(u.cost)::float AS value
FROM rowbeam.usage AS u JOIN rowbeam.tenants AS t USING (incarnation)
WHERE $__timeFilter(u.day::timestamptz) AND t.name IN (${tenant:sqlstring})
GROUP BY 1, 2 ORDER BY 1, 2
