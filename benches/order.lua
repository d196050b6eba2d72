-- What wrk sends, and one line for benches/run in place of wrk's own report, which rounds its figures.

local order = assert(io.open("benches/order.json", "rb"))
wrk.method = "POST"
wrk.body = order:read("*a")
wrk.headers["content-type"] = "application/json"
order:close()

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("result %d %d %d %d %d %d\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), errors.status,
        errors.connect + errors.read + errors.write + errors.timeout))
end
