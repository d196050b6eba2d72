"""Two kinds of requests to one process, in short loads that alternate: what differs by a few per cent shows only so."""

from . import bodies, load
from .bodies import ORDER_BYTES
from .contestants import Gateway
from .load import CONNECTIONS
from .machine import say
from .report import Results, Section, significant, table

SECONDS = 2
PAIRS_PER_ROUND = 5
INTEGRATIONS = """
[[integration]]
id = "plain"
[[integration]]
id = "signed"
source = "shopify"
secrets = ["env:SECRET"]
"""


def paired(lab, first, second):
    """Alternates two named requests. Returns results, problems, and a name for both."""
    settings = {"SECRET": bodies.SECRET}
    server = Gateway(lab.shop, lab.programs, settings=settings, integrations=INTEGRATIONS, name=f"{first[0]}, {second[0]}")
    server.start()
    results, problems = Results(), []
    for name, make in (first, second):
        load.closed_loop(server, make(server), CONNECTIONS, 1)
    pairs = lab.rounds * PAIRS_PER_ROUND
    for number in range(1, pairs + 1):
        for name, make in (first, second) if number % 2 else (second, first):
            load.wait_idle(server)
            check(server, problems)
            result = load.closed_loop(server, make(server), CONNECTIONS, min(lab.seconds, SECONDS))
            results.add(name, number, result)
            load.require_acceptance(server, name, result["bad"], problems)
        last = [f"{row['name']} {row['per_second']:,.0f}" for row in results.rows[-2:]]
        say(f"pair {number} of {pairs}: {', '.join(last)} a second")
    load.wait_idle(server)
    check(server, problems)
    server.end()
    lab.shop.clear()
    return results, problems


def check(server, problems):
    """Counts what the last loads stored and empties the stream, or it would grow without end."""
    load.count(server, problems)
    server.loads.clear()
    server.redis.ask("XTRIM", server.stream, "MAXLEN", 0)


def section(key, title, words, results, problems, base, name, limit):
    bars = results.ratio_bar(f"throughput, {name}, of {base}", name, base, limit)
    rows = []
    for of in (base, name):
        median = lambda column: results.median(of, column)
        rates = [f"{median('per_second'):,.0f}", results.shown_ratio(of, base)]
        rows.append([of, *rates, significant(median("cpu_us")), f"{results.ratio(of, base, 'cpu_us'):.2f}", significant(median("redis_us"))])
    head = ["gateway on Redis", "requests/s", f"of {base}", "CPU µs", "of it", "Redis µs"]
    words += (
        f" One process takes both over {CONNECTIONS} connections, in alternating loads of {SECONDS} s at the most; ratios are medians "
        f"of {len(results.values(base, 'per_second'))} pairs, with the smallest and the largest."
    )
    return Section(key, title, words, [table(head, rows)], bars, problems, results.rows)


def signature(lab):
    body = bodies.ORDER
    # Both send the same bytes, so that nothing but the work differs.
    headers = bodies.shopify_headers(body)
    unsigned = ("unsigned", lambda server: server.request(body, "plain", headers))
    signed = ("signature verified", lambda server: server.request(body, "signed", headers))
    results, problems = paired(lab, unsigned, signed)
    words = f"An order of {ORDER_BYTES:,} bytes with Shopify's headers, to an integration that verifies the signature and to one that doesn't."
    return section("signature", "Signature", words, results, problems, unsigned[0], signed[0], 0.90)


def xml(lab):
    plain, document = bodies.ORDER, bodies.XML_ORDER
    headers = {"content-type": "application/xml"}
    json = ("JSON", lambda server: server.request(plain, "plain"))
    converted = ("XML", lambda server: server.request(document, "plain/xml", headers))
    results, problems = paired(lab, json, converted)
    words = f"An order of {ORDER_BYTES:,} bytes as JSON, and one of as many bytes as XML by the route `/xml`, which is converted and kept beside the JSON."
    return section("xml", "XML", words, results, problems, json[0], converted[0], 0.80)
