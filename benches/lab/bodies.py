"""The bodies that are sent: made here, the same in every run."""

import base64
import hashlib
import hmac
import json

from .machine import ROOT

ORDER = (ROOT / "benches/order.json").read_bytes()
SECRET = "benchmark-secret"

XML_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<order xmlns:xsi="http://example.com/instance" id="123">
  <increment_id>000000123</increment_id>
  <status>processing</status>
  <customer_email><![CDATA[roni_cost@example.com]]></customer_email>
  <grand_total currency="USD">110.0000</grand_total>
  <items>
"""
XML_ITEM = """    <item id="{0}" type="simple">
      <sku>24-MB{0:02}</sku>
      <name>Push It Messenger &amp; Bag, größe {0}</name>
      <qty_ordered>1.0000</qty_ordered>
      <price currency="USD">34.0000</price>
      <tax_amount>2.8900</tax_amount>
      <options/>
      <description>A duffle bag for the gym, with a strap and two pockets.</description>
    </item>
"""
XML_TAIL = "  </items>\n  <note>{}</note>\n</order>\n"


def json_order(size_bytes):
    """An order of exactly this size: the one of benches/order.json, or as many of them as it takes."""
    if size_bytes == len(ORDER):
        return ORDER
    copies = max(1, size_bytes // (len(ORDER) + 64) - 1)
    body = b'{"orders":[' + b",".join([ORDER.strip()] * copies) + b'],"note":"%s"}'
    return body % (b"x" * (size_bytes - len(body) + 2))


def xml_order(size_bytes):
    """The like as XML, as shop systems export it."""
    items = 1
    while len(_xml(items + 1, 0)) <= size_bytes:
        items += 1
    return _xml(items, size_bytes - len(_xml(items, 0)))


def _xml(items, note):
    text = XML_HEAD + "".join(XML_ITEM.format(number) for number in range(1, items + 1)) + XML_TAIL.format("x" * note)
    return text.encode()


def shopify_headers(body):
    """What Shopify sends along."""
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).digest()
    return {"x-shopify-topic": "orders/create", "x-shopify-hmac-sha256": base64.b64encode(digest).decode()}


def check():
    """Sizes are exact and the JSON is JSON."""
    for size in (2048, 20_000, 200_000):
        assert len(json_order(size)) == size and json.loads(json_order(size))
    assert len(xml_order(2048)) == 2048
