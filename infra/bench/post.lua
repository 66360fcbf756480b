-- One chat completion over and over; prints what was measured as one line of JSON.
-- With BENCH_KEYS, each request has one of that many keys, by chance (infra/bench/role.py makes them the same way).
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = os.getenv("BENCH_AUTHORIZATION")
wrk.body = os.getenv("BENCH_BODY")

local keys = tonumber(os.getenv("BENCH_KEYS") or "0")
if keys > 0 then
  request = function()
    local n = math.random(0, keys - 1)
    wrk.headers["Authorization"] = string.format("Api-Key sky_%012d.%032d", n, n)
    return wrk.format()
  end
end

function done(summary, latency, requests)
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print(string.format(
    'BENCH {"answers": %d, "refused": %d, "lost": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d}',
    summary.requests, summary.errors.status, lost, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
