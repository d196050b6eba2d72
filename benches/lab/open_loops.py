"""Open loops: orders come at a fixed rate, whether answers come or not."""

import os

from . import bodies, load
from .bodies import ORDER_BYTES
from .contestants import HYPER_FILE, HYPER_REDIS, BareHyper, Gateway
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
LARGE_JOURNAL = {"RETRIEVE_JOURNAL_LIMIT": "64GiB"}

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
    bare = lambda name: BareHyper(lab.shop, lab.programs)
    gateway = lambda **options: lambda name: Gateway(lab.shop, lab.programs, name=name, **options)
    signed = lambda server: server.request(order, headers=headers)
    xml = lambda server: server.request(document, "bench/xml", {"content-type": "application/xml"})
    cases = {
        # What the machine and the generator do by themselves at about the same rates.
        BareHyper.name: (plain, bare, steady),
        "Redis": (plain, gateway(), steady),
        "Redis, signature verified": (signed, gateway(integrations=SIGNED, settings={"SECRET": bodies.SECRET}), steady),
        "Redis, XML": (xml, gateway(), steady),
        "embedded": (plain, gateway(queue="embedded"), steady),
        "Redis down": (plain, gateway(settings=LARGE_JOURNAL), down),
        "Redis back": (plain, gateway(settings=LARGE_JOURNAL, redis=APPEND_ONLY), back),
    }
    names = [name for name in cases if lab.wants(name)]
    results, problems = Results(), []
    for number in range(lab.rounds):
        for name in in_turn(names, number):
            request, make, measure = cases[name]
            server = make(name).start()
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
    f"outage journal. Redis back: {BACKLOG:,} orders lie there when Redis and the load start together. Bare hyper answers without doing "
    "anything: what of a latency is the machine's and the generator's. p50 and p99 are medians of "
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


def saturated_rate(server, request, connections=CONNECTIONS):
    load.closed_loop(server, request, connections, 1)
    load.wait_idle(server)
    result = load.closed_loop(server, request, connections, SATURATION_SECONDS)
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
# Servers that refuse nothing. What 1,000 connections cost them is what connections cost by themselves.
BARE = (BareHyper.name, HYPER_REDIS, HYPER_FILE)
MANY_CONNECTIONS = 1000
# All of them come from one address, and the gateway takes 256 from one.
MANY_FROM_ONE = {"RETRIEVE_MAX_CONNECTIONS_PER_ADDRESS": str(MANY_CONNECTIONS)}


def overload(lab):
    """The servers get one core and the generator another, because nothing sends five times what both cores can take."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failure("overload needs two cores")
    body = bodies.ORDER
    gateway = lambda **options: Gateway(lab.shop, lab.programs, settings=MANY_FROM_ONE, **options)
    servers = {
        BareHyper.name: lambda name: BareHyper(lab.shop, lab.programs),
        HYPER_REDIS: lambda name: BareHyper(lab.shop, lab.programs, store="redis", name=name),
        HYPER_FILE: lambda name: BareHyper(lab.shop, lab.programs, store="file", name=name),
        "gateway, Redis": lambda name: gateway(name=name),
        "gateway, embedded": lambda name: gateway(queue="embedded", name=name),
    }
    results, problems = Results(), []
    for number in range(lab.rounds):
        for name, make in servers.items():
            if not lab.wants(name):
                continue
            try:
                os.sched_setaffinity(0, cores[:1])
                server = make(name).start()
                os.sched_setaffinity(0, cores[1:2])
                request = server.request(body)
                peak, many = (saturated_rate(server, request, connections) for connections in (CONNECTIONS, MANY_CONNECTIONS))
                result = {"peak_rate": peak, "many_rate": many, "many_share": many / peak}
                if name not in BARE:
                    result.update(load.open_loop(server, request, peak * TIMES, MANY_CONNECTIONS, lab.seconds, "--drop"))
                    result.update(goodput=result["per_second"] / peak, of_many=result["per_second"] / many)
                load.count(server, problems)
                server.end()
            finally:
                os.sched_setaffinity(0, cores)
                lab.shop.clear()
            results.add(name, number + 1, result)
            answered = f", {result['per_second']:,.0f} in overload, {result['statuses']}" if "statuses" in result else ""
            say(f"round {number + 1} of {lab.rounds}: {name}: {peak:,} over {CONNECTIONS} connections, {many:,} over {MANY_CONNECTIONS:,}{answered}")
    head = ["server", f"over {CONNECTIONS}/s", f"over {MANY_CONNECTIONS:,}/s", "of the first", "due/s", "sent/s", "answered 200/s"]
    head += [f"of the peak over {CONNECTIONS}", f"over {MANY_CONNECTIONS:,}", "refused", "errors"]
    head += ["p50 ms", "p99 ms", "p99.9 ms", "max ms", "peak MiB"]
    rows, bars = [], []
    for name in results.names():
        median, worst = (lambda column: results.median(name, column)), (lambda column: results.worst(name, column))
        row = [name, f"{median('peak_rate'):,.0f}", f"{median('many_rate'):,.0f}", f"{median('many_share'):.2f}"]
        if name in BARE:
            rows.append(row + [""] * (len(head) - len(row)))
            continue
        row += [f"{median('rate'):,.0f}", f"{results.total(name, 'sent') / lab.rounds / lab.seconds:,.0f}", f"{median('per_second'):,.0f}"]
        row += [f"{median('goodput'):.2f}", f"{median('of_many'):.2f}"]
        row += [f"{results.total(name, 'bad') - results.total(name, 'errors'):,}", results.total(name, "errors")]
        row += [milliseconds(worst(column)) for column in ("p50_us", "p99_us", "p99_9_us", "max_us")] + [mib(worst("peak_kib"))]
        rows.append(row)
        bars.append(Bar(f"{name}: goodput of the peak over {CONNECTIONS} connections", median("goodput"), 0.9))
        bars.append(Bar(f"{name}: goodput of the peak over {MANY_CONNECTIONS:,} connections", median("of_many"), 0.9))
        bars.append(Bar(f"{name}: answered or refused, p99.9", worst("p99_9_us") / 1000, 100, at_least=False, unit=" ms"))
        bars.append(Bar(f"{name}: peak memory", worst("peak_kib") / 1024, 128, at_least=False, unit=" MiB"))
        bars.append(Bar(f"{name}: neither answered nor refused", results.total(name, "errors"), 0, at_least=False))
    words = (
        f"The server, and Redis, on one core, the generator on another. First wrk's rates over {CONNECTIONS} and over {MANY_CONNECTIONS:,} "
        f"connections; then {TIMES} times as many orders as the first fall due over {MANY_CONNECTIONS:,}. What falls due while all of them "
        "wait for an answer is never sent; latency counts from sending. Latencies and memory are the worst of the rounds."
    )
    return Section("overload", "Overload", words, [table(head, rows)], bars, problems, results.rows)
