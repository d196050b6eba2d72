"""Closed loops: each connection sends its next order as soon as the last one is answered."""

from . import bodies
from .bodies import ORDER_BYTES, SIZES
from .contestants import HYPER_FILE, HYPER_REDIS, QUIET, BareHyper, Fastify, Gateway, NginxLua, Webdis
from .load import CONNECTIONS
from .report import Bar, Section, mib, milliseconds, significant, table
from .rounds import measure, saturate


def field(lab):
    """All contestants, each as a function that makes it."""
    shop, programs = lab.shop, lab.programs
    makers = {
        "bare hyper": lambda: BareHyper(shop, programs),
        HYPER_REDIS: lambda: BareHyper(shop, programs, store="redis", name=HYPER_REDIS),
        HYPER_FILE: lambda: BareHyper(shop, programs, store="file", name=HYPER_FILE),
        "gateway, Redis": lambda: Gateway(shop, programs),
        "gateway, Redis, quiet log": lambda: Gateway(
            shop, programs, settings={"RETRIEVE_LOG": QUIET}, name="gateway, Redis, quiet log"
        ),
        "gateway, embedded": lambda: Gateway(shop, programs, queue="embedded", name="gateway, embedded"),
        "webdis, XADD": lambda: Webdis(shop, programs),
        "nginx, Lua": lambda: NginxLua(shop, programs),
        "fastify, ioredis, 1 process": lambda: Fastify(shop, programs),
        "fastify, ioredis, 2 processes": lambda: Fastify(shop, programs, workers=2),
    }
    return [(name, make) for name, make in makers.items() if lab.wants(name)]


def throughput(lab):
    body = bodies.ORDER

    def one(item, problems):
        name, make = item
        server = make().start()
        return name, saturate(server, server.request(body), CONNECTIONS, lab.seconds, problems)

    results, problems = measure(lab, field(lab), one)
    ours = "gateway, Redis"
    bars = [
        *results.ratio_bar("gateway on Redis, of bare hyper", ours, "bare hyper", 0.60),
        *results.ratio_bar("gateway on Redis, of webdis", ours, "webdis, XADD", 1.5),
        *results.ratio_bar("gateway on Redis, of nginx with Lua", ours, "nginx, Lua", 1.5),
        *best_fastify(results, ours),
        *results.ratio_bar("gateway embedded, of gateway on Redis", "gateway, embedded", ours, 0.70),
    ]
    words = (
        f"{CONNECTIONS} connections, an order of {ORDER_BYTES:,} bytes. Rates, latencies and CPU are medians of the rounds; ratios are "
        "medians of the rounds' ratios, with the smallest and the largest; p99.9 and memory are the worst of the rounds. CPU is "
        "µs for each request of the server's processes (of that in the kernel), of redis-server, and of the generator. Hyper and "
        "nothing else but the store appends the body as it came, by pipelined XADDs or in one piece with an fsync for all that wait."
    )
    tables = [table_of(results, base="bare hyper"), results.counts()]
    return Section("throughput", "Throughput", words, tables, bars, problems, results.rows)


def best_fastify(results, ours):
    """The bar against whichever of the two does better in the end."""
    names = [name for name in results.names() if name.startswith("fastify")]
    if not names:
        return []
    best = max(names, key=lambda name: results.median(name, "per_second"))
    return results.ratio_bar(f"gateway on Redis, of {best}", ours, best, 4)


def table_of(results, base=None):
    """The usual columns of a closed loop."""
    head = ["server", "requests/s"] + ([f"of {base}"] if base else []) + ["p50 ms", "p99 ms", "p99.9 ms"]
    head += ["CPU (kernel)", "Redis", "generator", "peak MiB"]
    rows = []
    for name in results.names():
        median = lambda column: results.median(name, column)
        cpu = f"{significant(median('cpu_us'))} ({significant(median('kernel_us'))})"
        row = [name, f"{median('per_second'):,.0f}"] + ([results.shown_ratio(name, base)] if base else [])
        row += [milliseconds(median("p50_us")), milliseconds(median("p99_us")), milliseconds(results.worst(name, "p99_9_us"))]
        row += [cpu, significant(median("redis_us")), significant(median("generator_us")), mib(results.worst(name, "peak_kib"))]
        rows.append(row)
    return table(head, rows)


def ours_and_bare(lab):
    """What is measured in more ways than one."""
    return [item for item in field(lab) if item[0] in ("bare hyper", "gateway, Redis", "gateway, embedded")]


def connections(lab):
    body = bodies.ORDER
    items = [(name, make, number) for number in (1, 8, 64, 256) for name, make in ours_and_bare(lab)]

    def one(item, problems):
        name, make, number = item
        server = make().start()
        server.name = f"{name}, {number}"
        return server.name, saturate(server, server.request(body), number, lab.seconds, problems)

    results, problems = measure(lab, items, one)
    words = f"An order of {ORDER_BYTES:,} bytes over 1, 8, 64 and 256 connections."
    return Section("connections", "Connections", words, [table_of(results), results.counts()], [], problems, results.rows)


def sizes(lab):
    items = [(name, make, size) for size in SIZES for name, make in ours_and_bare(lab)]

    def one(item, problems):
        name, make, size = item
        server = make().start()
        server.name = f"{name}, {size:,} bytes"
        # What is stored of large orders lies in memory, in redis-server's.
        seconds = lab.seconds if size < 100_000 else min(lab.seconds, 4)
        result = saturate(server, server.request(bodies.json_order(size)), CONNECTIONS, seconds, problems)
        return server.name, result

    results, problems = measure(lab, items, one)
    words = f"{CONNECTIONS} connections; orders of {', '.join(f'{size:,}' for size in SIZES)} bytes (the largest for 4 s at the most)."
    return Section("sizes", "Sizes", words, [table_of(results), results.counts()], [], problems, results.rows)


def shards(lab):
    body = bodies.ORDER

    def one(number, problems):
        name = f"{number} stream" + ("s" if number > 1 else "")
        settings = {"RETRIEVE_SHARDS": str(number)}
        text = '[[integration]]\nid = "bench"\nkeep_order = false\n'
        server = Gateway(lab.shop, lab.programs, settings=settings, integrations=text, name=name).start()
        if number > 1:
            keys = [f"retrieve:{{default.{shard}}}:jobs" for shard in range(number)]
            server.entries = lambda: sum(server.redis.ask("XLEN", key) for key in keys)
        return name, saturate(server, server.request(body), CONNECTIONS, lab.seconds, problems)

    results, problems = measure(lab, [1, 2, 4, 8], one)
    words = (
        f"One redis-server, one integration with `keep_order = false`, so that its jobs go to all streams; {CONNECTIONS} "
        "connections."
    )
    return Section("shards", "Shards", words, [table_of(results, "1 stream"), results.counts()], [], problems, results.rows)


# --- scale ----------------------------------------------------------------------------------------------------


def scale_configuration(integrations, entries):
    """The lines of an integrations.toml: the caller's address is the last entry of the list of the last integration."""
    for number in range(integrations - 1):
        yield f'[[integration]]\nid = "shop-{number:07}"\n'
    addresses = [f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(entries - 1)]
    listed = ", ".join(f'"{address}"' for address in [*addresses, "127.0.0.1"])
    yield f'[[integration]]\nid = "bench"\nallowed_list = [{listed}]\n'


def scale(lab):
    body = bodies.ORDER
    small = "10 integrations, 10 entries"
    items = [(10, 10), (10_000, 10), (1_000_000, 10), (10, 100_000), (1_000_000, 100_000)]

    def one(item, problems):
        integrations, entries = item
        name = f"{integrations:,} integrations, {entries:,} entries"
        # Nobody is on the app's own list, so the integration's decides.
        settings = {"RETRIEVE_ALLOWED_LIST": "192.0.2.1"}
        server = Gateway(lab.shop, lab.programs, settings=settings, name=name)
        server.integrations = scale_configuration(integrations, entries)
        server.start()
        result = saturate(server, server.request(body), CONNECTIONS, lab.seconds, problems)
        return name, {**result, "start_s": server.start_seconds, "idle_kib": server.idle_kib}

    results, problems = measure(lab, items, one)
    largest = "1,000,000 integrations, 100,000 entries"
    bars = results.ratio_bar("throughput of the largest configuration, of the smallest", largest, small, 0.95)
    if start := results.worst(largest, "start_s"):
        bars.append(Bar("start of the largest configuration", start, 5, at_least=False, unit=" s"))
    head = ["configuration", "requests/s", "of the smallest", "CPU µs", "start s", "idle MiB", "peak MiB"]
    rows = []
    for name in results.names():
        median = lambda column: results.median(name, column)
        rate = f"{median('per_second'):,.0f}"
        row = [name, rate, results.shown_ratio(name, small), significant(median("cpu_us")), significant(results.worst(name, "start_s"))]
        rows.append([*row, mib(results.worst(name, "idle_kib")), mib(results.worst(name, "peak_kib"))])
    words = (
        f"The allowlist is the integration's own, the caller's address its last entry. {CONNECTIONS} connections. The start "
        "counts from the process's beginning until `/ready` answers 200; it and memory are the worst of the rounds."
    )
    return Section("scale", "Integrations and allowlist entries", words, [table(head, rows), results.counts()], bars, problems, results.rows)
