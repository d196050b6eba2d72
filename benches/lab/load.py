"""The load generators: wrk, which sends as fast as answers come, and our own open_loop, which keeps to a rate."""

import json
import resource
import subprocess
import time

from .machine import ENVIRONMENT, Failure, cpu_nanos, wait_until

# Unless a scenario is about their number.
CONNECTIONS = 64

WRK_SCRIPT = """
wrk.method = "%(method)s"
wrk.body = assert(io.open("%(body)s", "rb")):read("*a")
%(headers)s
function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format('{"requests":%%d,"duration_us":%%d,"p50_us":%%d,"p99_us":%%d,"p99_9_us":%%d,"max_us":%%d,' ..
        '"refused":%%d,"failed":%%d}\\n', summary.requests, summary.duration, latency:percentile(50),
        latency:percentile(99), latency:percentile(99.9), latency.max, errors.status, failed))
end
"""


class Meter:
    """What a server and its Redis spend between two moments."""

    def __init__(self, server):
        self.server = server
        self.before = self.read()

    def read(self):
        generator = resource.getrusage(resource.RUSAGE_CHILDREN)
        total, kernel = self.server.process.cpu()
        redis = self.server.redis.process if self.server.redis else None
        return {
            "at": time.monotonic(),
            "server": total,
            "kernel": kernel,
            "redis": cpu_nanos(redis.child.pid) if redis and redis.is_alive() else 0,
            "generator": int((generator.ru_utime + generator.ru_stime) * 1e9),
        }

    def spent(self, requests):
        """Microseconds of CPU for a request, and how many cores the generator kept busy."""
        after = self.read()
        spent = {name: after[name] - value for name, value in self.before.items()}
        each = max(requests, 1) * 1000
        return {
            "cpu_us": spent["server"] / each,
            "kernel_us": spent["kernel"] / each,
            "redis_us": max(spent["redis"], 0) / each if self.server.redis else None,
            "generator_us": spent["generator"] / each,
            "generator_cores": spent["generator"] / (spent["at"] * 1e9),
        }


def closed_loop(server, request, connections, seconds):
    """wrk, one thread: each connection sends its next order when the last one is answered."""
    body = server.folder / "order"
    body.write_bytes(request.body)
    headers = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in request.headers.items())
    script = server.folder / "order.lua"
    script.write_text(WRK_SCRIPT % {"method": request.method, "body": body, "headers": headers})
    url = f"http://{server.address}{request.path}"
    # Answers that take long are waited for: a time-out would be a lost count.
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
    meter = Meter(server)
    output = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if output.returncode or not (lines := output.stdout.strip().splitlines()):
        raise Failure(f"wrk: {output.stderr or output.stdout}")
    result = json.loads(lines[-1])
    answered = result["requests"] - result["refused"]
    result.update(answered=answered, unanswered=result["failed"], seconds=result["duration_us"] / 1e6)
    result["bad"] = result["refused"] + result["failed"]
    # It hangs up at the end: one order on each connection may be stored and not counted.
    return finish(server, meter, result, slack=connections)


def open_loop(server, request, rate, connections, seconds, *options):
    """Our generator: so many orders a second, whether answers come or not."""
    body = server.folder / "order"
    body.write_bytes(request.body)
    command = [server.programs["open_loop"], "--address", server.address, "--path", request.path, "--body", body]
    command += ["--rate", int(rate), "--connections", connections, "--seconds", seconds, *options]
    for name, value in request.headers.items():
        command += ["--header", f"{name}: {value}"]
    meter = Meter(server)
    output = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=ENVIRONMENT)
    if output.returncode:
        raise Failure(f"open_loop: {output.stderr}")
    result = json.loads(output.stdout)
    answered = sum(count for status, count in result["statuses"].items() if status.startswith("2"))
    result.update(answered=answered, unanswered=result["errors"], bad=result["sent"] - answered)
    return finish(server, meter, result, slack=0)


def finish(server, meter, result, slack):
    if not server.process.is_alive():
        raise Failure(f"{server.name} ended under load: {server.process.tail()}")
    if not result["answered"]:
        raise Failure(f"{server.name} answered nothing: {result}; {server.process.tail()}")
    result.update(meter.spent(result["answered"]), per_second=result["answered"] / result["seconds"], slack=slack)
    result.update(rss_kib=server.process.memory_kib("VmRSS"), peak_kib=server.process.memory_kib("VmHWM"))
    server.loads.append(result)
    return result


def require_acceptance(server, name, bad, problems):
    """Nothing may have been refused; if something was, the server's own words say why."""
    if bad:
        problems.append(f"{name}: {bad} requests were refused or failed; {server.refusals() or 'the server counts none'}")


def count(server, problems):
    """Compares what the clients counted as accepted with what is stored. Nothing may be missing, there twice, or there
    although it was refused; of what got no answer nobody knows."""
    stored = server.settled_entries()
    if stored is None:
        return {}
    answered, slack = (sum(load[key] for load in server.loads) for key in ("answered", "slack"))
    slack += sum(load["unanswered"] for load in server.loads)
    if not answered <= stored <= answered + slack:
        problems.append(f"{server.name}: {answered} answered 200, but {stored} stored (up to {slack} more allowed)")
    return {"answered_in_all": answered, "stored": stored, "slack_in_all": slack}


def wait_idle(server):
    """Between two loads: until the connections of the first one are gone."""
    wait_until("the last answer", server.is_idle, process=server.process)
