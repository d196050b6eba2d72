"""The bodies that are sent: made here, the same in every run."""

import base64
import hashlib
import hmac
import json

from .machine import ROOT

ORDER_BYTES = 2048
ORDER = (ROOT / "benches/order.json").read_bytes()
XML_ORDER = (ROOT / "benches/order.xml").read_bytes()
SIZES = (ORDER_BYTES, 20_000, 200_000)
SECRET = "benchmark-secret"


def json_order(size_bytes):
    """An order of exactly this size: the one of benches/order.json, or as many of them as it takes."""
    if size_bytes == ORDER_BYTES:
        return ORDER
    copies = size_bytes // (ORDER_BYTES + 64) - 1
    body = b'{"orders":[' + b",".join([ORDER.strip()] * copies) + b'],"note":"%s"}'
    return body % (b"x" * (size_bytes - len(body) + 2))


def shopify_headers(body):
    """What Shopify sends along."""
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).digest()
    return {"x-shopify-topic": "orders/create", "x-shopify-hmac-sha256": base64.b64encode(digest).decode()}


def check():
    """Sizes are exact and the JSON is JSON."""
    for size in SIZES:
        assert len(json_order(size)) == size and json.loads(json_order(size))
    assert len(XML_ORDER) == ORDER_BYTES
