"""Open loops: orders come at a fixed rate, whether answers come or not."""

import os

from . import bodies, load
from .bodies import ORDER_BYTES
from .contestants import Gateway
from .journal import bring_back, fill, take_away
from .load import CONNECTIONS
from .machine import Failure, say
from .report import Bar, Results, Section, mib, milliseconds, table
from .rounds import in_turn

SHARES = (25, 50, 75)
SATURATION_SECONDS = 3

# What Redis answered must be there after a kill, or the counts couldn't be exact.
APPEND_ONLY = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
BACKLOG = 50_000

SIGNED = """
[[integration]]
id = "bench"
source = "shopify"
secrets = ["env:SECRET"]
"""


def matrix(lab):
    order, document = bodies.ORDER, bodies.XML_ORDER
    headers = bodies.shopify_headers(order)
    plain = lambda server: server.request(order)
    signed = lambda server: server.request(order, headers=headers)
    xml = lambda server: server.request(document, "bench/xml", {"content-type": "application/xml"})
    cases = {
        "Redis": (plain, {}, steady),
        "Redis, signature verified": (signed, {"integrations": SIGNED, "settings": {"SECRET": bodies.SECRET}}, steady),
        "Redis, XML": (xml, {}, steady),
        "embedded": (plain, {"queue": "embedded"}, steady),
        "Redis down": (plain, {"settings": {"RETRIEVE_JOURNAL_LIMIT": "64GiB"}}, down),
        "Redis back": (plain, {"settings": {"RETRIEVE_JOURNAL_LIMIT": "64GiB"}, "redis": APPEND_ONLY}, back),
    }
    names = [name for name in cases if lab.wants(name)]
    results, problems = Results(), []
    for number in range(lab.rounds):
        for name in in_turn(names, number):
            request, options, measure = cases[name]
            server = Gateway(lab.shop, lab.programs, name=name, **options).start()
            for share, result in measure(lab, server, request(server)):
                results.add(f"{name}, {share} %", number + 1, result)
                delay = milliseconds(result["p99_9_us"])
                say(f"round {number + 1} of {lab.rounds}: {name}, {share} %: {result['rate']:,} a second, p99.9 {delay} ms")
            load.count(server, problems)
            server.end()
            lab.shop.clear()
    return Section("open-loop", "Latency at a fixed rate", WORDS, [latencies(results)], matrix_bars(results), problems, results.rows)


WORDS = (
    f"An order of {ORDER_BYTES:,} bytes over {CONNECTIONS} connections; latency counts from the moment when an order was due. The rate "
    f"is a share of what wrk reached on the same process just before ({SATURATION_SECONDS} s). Redis down: all orders go to the "
    f"outage journal. Redis back: {BACKLOG:,} orders lie there when Redis and the load start together. p50 and p99 are medians of "
    "the rounds, the rest is the worst round; behind is how late orders were sent (p99.9), because all connections waited or the generator was late."
)


def steady(lab, server, request):
    rate = saturated_rate(server, request)
    for share in SHARES:
        yield share, at_rate(lab, server, request, rate * share // 100)


def down(lab, server, request):
    take_away(server)
    yield from steady(lab, server, request)
    bring_back(server)


def back(lab, server, request):
    rate = saturated_rate(server, request)
    for share in SHARES:
        take_away(server)
        fill(server, BACKLOG)
        server.redis.start()
        result = at_rate(lab, server, request, rate * share // 100)
        yield share, {**result, "left": server.metric("retrieve_journal_jobs ")}
        bring_back(server)


def saturated_rate(server, request):
    load.closed_loop(server, request, CONNECTIONS, 1)
    load.wait_idle(server)
    result = load.closed_loop(server, request, CONNECTIONS, SATURATION_SECONDS)
    load.wait_idle(server)
    return int(result["per_second"])


def at_rate(lab, server, request, rate):
    result = load.open_loop(server, request, rate, CONNECTIONS, lab.seconds)
    load.wait_idle(server)
    return result


def latencies(results):
    head = ["case", "orders/s", "p50 ms", "p99 ms", "p99.9 ms", "p99.99 ms", "max ms", "behind ms", "refused", "left in the journal"]
    rows = []
    for name in results.names():
        row = [name, f"{results.median(name, 'rate'):,.0f}"]
        row += [milliseconds(results.median(name, column)) for column in ("p50_us", "p99_us")]
        row += [milliseconds(results.worst(name, column)) for column in ("p99_9_us", "p99_99_us", "max_us", "send_delay_p99_9_us")]
        left = results.worst(name, "left")
        rows.append([*row, results.total(name, "bad"), "" if left is None else f"{left:,.0f}"])
    return table(head, rows)


def matrix_bars(results):
    name = "Redis, 50 %"
    if name not in results.names():
        return []
    figures = [
        ("p99", results.median(name, "p99_us"), 5),
        ("p99.9", results.worst(name, "p99_9_us"), 20),
        ("p99.99", results.worst(name, "p99_99_us"), 100),
    ]
    return [Bar(f"{what} on Redis at 50 %", value / 1000, limit, at_least=False, unit=" ms") for what, value, limit in figures]


# --- overload -------------------------------------------------------------------------------------------------

TIMES = 5
MANY_CONNECTIONS = 1000
# The gateway takes 256 connections from one address.
SOURCES = 8


def overload(lab):
    """The servers get one core and the generator another, because nothing sends five times what both cores can take."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failure("overload needs two cores")
    body = bodies.ORDER
    results, problems = Results(), []
    for number in range(lab.rounds):
        for queue in ("redis", "embedded"):
            name = "gateway, Redis" if queue == "redis" else "gateway, embedded"
            if not lab.wants(name):
                continue
            try:
                os.sched_setaffinity(0, cores[:1])
                server = Gateway(lab.shop, lab.programs, queue=queue, name=name).start()
                os.sched_setaffinity(0, cores[1:2])
                request = server.request(body)
                peak = saturated_rate(server, request)
                options = ("--drop", "--sources", SOURCES)
                # The same connections at a fifth of that rate: what their number costs isn't overload's.
                at_peak = load.open_loop(server, request, peak, MANY_CONNECTIONS, SATURATION_SECONDS, *options)
                load.wait_idle(server)
                result = load.open_loop(server, request, peak * TIMES, MANY_CONNECTIONS, lab.seconds, *options)
                load.count(server, problems)
                server.end()
            finally:
                os.sched_setaffinity(0, cores)
                lab.shop.clear()
            goodput, of_same = result["per_second"] / peak, result["per_second"] / at_peak["per_second"]
            results.add(name, number + 1, {**result, "peak_rate": peak, "goodput": goodput, "of_same": of_same, "same_rate": at_peak["per_second"]})
            rates = f"{result['per_second']:,.0f} of {peak:,} (64 connections) and {at_peak['per_second']:,.0f} (the same)"
            say(f"round {number + 1} of {lab.rounds}: {name}: {rates}, {result['statuses']}")
    rows, bars = [], []
    for name in results.names():
        median, worst = (lambda column: results.median(name, column)), (lambda column: results.worst(name, column))
        row = [name, *(f"{median(column):,.0f}" for column in ("peak_rate", "same_rate", "rate"))]
        row += [f"{results.total(name, 'sent') / lab.rounds / lab.seconds:,.0f}", f"{median('per_second'):,.0f}"]
        row += [f"{median('goodput'):.2f}", f"{median('of_same'):.2f}"]
        row += [f"{results.total(name, 'bad') - results.total(name, 'errors'):,}", results.total(name, "errors")]
        row += [milliseconds(worst(column)) for column in ("p50_us", "p99_us", "p99_9_us", "max_us")] + [mib(worst("peak_kib"))]
        rows.append(row)
        bars.append(Bar(f"{name}: goodput of the peak over {CONNECTIONS} connections", median("goodput"), 0.9))
        bars.append(Bar(f"{name}: goodput of what {MANY_CONNECTIONS:,} connections reach at the peak's rate", median("of_same"), 0.9))
        bars.append(Bar(f"{name}: answered or refused, p99.9", worst("p99_9_us") / 1000, 100, at_least=False, unit=" ms"))
        bars.append(Bar(f"{name}: peak memory", worst("peak_kib") / 1024, 128, at_least=False, unit=" MiB"))
        bars.append(Bar(f"{name}: neither answered nor refused", results.total(name, "errors"), 0, at_least=False))
    many = f"over {MANY_CONNECTIONS:,}"
    head = ["server", "peak/s", f"{many}/s", "due/s", "sent/s", "answered 200/s", "of the peak", f"of that {many}", "refused", "errors"]
    head += ["p50 ms", "p99 ms", "p99.9 ms", "max ms", "peak MiB"]
    words = (
        f"Gateway and Redis on one core, the generator on another. The peak is wrk's over {CONNECTIONS} connections; then as many "
        f"orders fall due over {MANY_CONNECTIONS:,} connections from {SOURCES} addresses, and then {TIMES} times as many. What falls due "
        "while all of them wait for an answer is never sent; latency counts from sending. Latencies and memory are the worst of the rounds."
    )
    return Section("overload", "Overload", words, [table(head, rows)], bars, problems, results.rows)
