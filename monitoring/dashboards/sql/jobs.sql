-- The latest fifty jobs of the time shown, with the sums of their ranges.
SELECT t.name AS tenant, j.job_id AS job, j.kind, j.state, j.created_at AS created,
       extract(epoch FROM coalesce(j.finished_at, now()) - j.started_at) AS duration, r.expected, r.read,
       r.embedded, r.unchanged, r.no_text, r.dead, r.deleted, u.cost
FROM rowbeam.jobs AS j
JOIN rowbeam.tenants AS t USING (incarnation)
LEFT JOIN LATERAL (
  SELECT sum(expected) AS expected, sum(read) AS read, sum(embedded) AS embedded,
         sum(unchanged) AS unchanged, sum(no_text) AS no_text, sum(dead) AS dead, sum(deleted) AS deleted
  FROM rowbeam.ranges WHERE job_id = j.job_id
) AS r ON true
LEFT JOIN LATERAL (
  SELECT sum(cost) AS cost FROM rowbeam.usage WHERE incarnation = j.incarnation AND job_id = j.job_id
) AS u ON true
WHERE $__timeFilter(j.created_at) AND t.name IN (${tenant:sqlstring})
ORDER BY j.created_at DESC LIMIT 50
