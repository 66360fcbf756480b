-- One chat completion over and over; prints what was measured as one line of JSON.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = os.getenv("BENCH_AUTHORIZATION")
wrk.body = os.getenv("BENCH_BODY")

function done(summary, latency, requests)
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  print(string.format(
    'BENCH {"answers": %d, "refused": %d, "lost": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d}',
    summary.requests, summary.errors.status, lost, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
