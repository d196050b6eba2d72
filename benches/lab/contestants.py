"""The servers that are compared. Each starts fresh in a folder of its own, answers orders, and counts its entries.

All of them but the bare server append the order to a stream of a redis-server of their own before they answer, and none
but the gateway does more: they store the body as it came. Access logs are off, where they exist; the gateway's is on
unless its name says otherwise.
"""

import dataclasses
import json
import os
import re
import time

from . import machine
from .machine import Failure, Process, Redis, get, wait_until

STREAM = "retrieve:{default}:jobs"
QUIET = "warn,retrieve_gateway::command=info"


@dataclasses.dataclass
class Request:
    """What a load generator sends."""

    path: str
    body: bytes
    method: str = "POST"
    headers: dict = dataclasses.field(default_factory=lambda: {"content-type": "application/json"})


class Server:
    """What all contestants have in common."""

    redis = None
    stream = "jobs"

    def __init__(self, shop, programs):
        self.shop, self.programs = shop, programs
        self.folder = shop.folder()
        self.loads = []

    def start_redis(self, *options):
        self.redis = Redis(self.folder, *options)
        self.shop.keep(self.redis)

    def run(self, *arguments, **options):
        self.process = self.shop.keep(Process(*arguments, **options))

    def request(self, body):
        return Request("/", body)

    def is_idle(self):
        """Nothing is being answered, as far as the server says."""
        return True

    def refusals(self):
        """What was refused since the start, and why, as far as the server says."""
        return ""

    def entries(self):
        """How many orders are stored. None if the server stores nothing."""
        return self.redis.ask("XLEN", self.stream) if self.redis else None

    def settled_entries(self):
        """The same, once nothing is on its way any more."""
        wait_until("the last answer", self.is_idle, process=self.process)
        before = self.entries()
        while True:
            time.sleep(0.1)
            now = self.entries()
            if now == before:
                return now
            before = now

    def end(self):
        self.process.end()


# What is left for a gateway in front of such a store.
HYPER_REDIS, HYPER_FILE = "hyper and XADD, nothing else", "hyper and fsync, nothing else"


class BareHyper(Server):
    """Hyper on the same runtime: it reads each body, stores it if it is told to where, and answers a constant."""

    name = "bare hyper"

    def __init__(self, shop, programs, store=None, name=None):
        super().__init__(shop, programs)
        self.store, self.name = store, name or self.name

    def start(self):
        options = []
        if self.store == "redis":
            self.start_redis()
            options = ["--redis", f"127.0.0.1:{self.redis.port}"]
        elif self.store == "file":
            options = ["--file", str(self.folder / "file")]
        if self.store:
            # As many as the gateway has, so that they differ by what they do alone.
            options += ["--workers", str(max(1, os.cpu_count() - 1))]
        self.run([self.programs["bare_hyper"], *options], self.folder, "bare.log", log_to="stdout")
        found = lambda: self.process.logged(r"^listening on (\S+)")
        self.address = wait_until("the start of the bare server", found, process=self.process)[0]
        return self


class Gateway(Server):
    """The gateway. Its settings are the defaults, but for addresses, the queue, and what `settings` says."""

    name = "gateway, Redis"
    stream = STREAM
    integrations = '[[integration]]\nid = "bench"\n'

    def __init__(self, shop, programs, queue="redis", settings=None, integrations=None, redis=(), name=None):
        super().__init__(shop, programs)
        self.queue, self.settings, self.redis_options = queue, settings or {}, redis
        self.integrations = integrations or Gateway.integrations
        self.name = name or self.name

    def start(self):
        if self.queue == "redis":
            self.start_redis(*self.redis_options)
        text = self.integrations
        if isinstance(text, str):
            text = [text]
        with open(self.folder / "integrations.toml", "w") as file:
            file.writelines(text)
        self.start_gateway()
        return self

    def start_gateway(self):
        queue = f"redis://127.0.0.1:{self.redis.port}" if self.redis else f"embedded:{self.folder}/data"
        environment = {
            "RETRIEVE_LISTEN": "127.0.0.1:0",
            "RETRIEVE_ADMIN_LISTEN": "127.0.0.1:0",
            "RETRIEVE_QUEUE": queue,
            "RETRIEVE_DATA_DIR": f"{self.folder}/data",
            "RETRIEVE_INTEGRATIONS_FILE": f"{self.folder}/integrations.toml",
            # Nobody acknowledges here.
            "RETRIEVE_EMBEDDED_LIMIT": "1TiB",
            **self.settings,
        }
        began = time.monotonic()
        self.run([self.programs["retrieve-gateway"]], self.folder, "gateway.log", environment)
        pattern = r" listening .*?public=(\S+).*? private=(\S+)"
        found = lambda: self.process.logged(pattern)
        self.address, self.private = wait_until("the gateway's start", found, 60, 0.005, self.process)
        wait_until("the gateway's readiness", lambda: get(self.private, "/ready")[0] == 200, 60, 0.005, self.process)
        self.start_seconds = time.monotonic() - began
        self.idle_kib = self.process.memory_kib()

    def request(self, body, integration="bench", headers=None):
        return Request(f"/integration/{integration}", body, headers={"content-type": "application/json", **(headers or {})})

    def metric(self, name):
        """The sum of a metric's values. `name` begins the line."""
        text = get(self.private, "/metrics")[2].decode()
        values = (line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name))
        return sum(map(float, values))

    def refusals(self):
        text = get(self.private, "/metrics")[2].decode()
        outcomes = re.findall(r'^retrieve_requests_total{outcome="(\w+)",status="(\d+)"} (\d+)', text, re.MULTILINE)
        return ", ".join(f"{count} × {status} {outcome}" for outcome, status, count in outcomes if status != "200" and count != "0")

    def is_idle(self):
        return self.metric("retrieve_requests_in_flight ") == 0 and self.metric("retrieve_connections_open ") == 0

    def entries(self):
        return super().entries() if self.redis else self.read_to_the_end()

    def read_to_the_end(self):
        """The embedded queue, read as a worker reads it, and counted."""
        after, count = "0", 0
        while True:
            status, headers, page = get(self.private, f"/api/jobs?limit=1000&after={after}")
            if status != 200:
                raise Failure(f"/api/jobs answered {status}")
            if not page:
                return count
            count += page.count(b"\n")
            after = headers["x-retrieve-last-id"]

    def settled_entries(self):
        if self.redis:
            return super().settled_entries()
        wait_until("the last answer", self.is_idle, process=self.process)
        return self.entries()

    def end(self):
        if status := self.process.end():
            raise Failure(f"{self.name} ended with {status}: {self.process.tail()}")


class Webdis(Server):
    """webdis: PUT makes the body the last argument of a command that stands in the URL."""

    name = "webdis, XADD"

    def start(self):
        self.start_redis()
        port = machine.free_port()
        settings = {
            "redis_host": "127.0.0.1",
            "redis_port": self.redis.port,
            "http_host": "127.0.0.1",
            "http_port": port,
            "threads": os.cpu_count(),
            "pool_size": 20,
            "daemonize": False,
            "database": 0,
            "acl": [{"disabled": ["DEBUG"]}],
            "verbosity": 1,
            "logfile": str(self.folder / "webdis.log"),
        }
        (self.folder / "webdis.json").write_text(json.dumps(settings))
        self.run(["webdis", self.folder / "webdis.json"], self.folder, "output.log")
        wait_until("the start of webdis", lambda: machine.accepts(port), process=self.process)
        self.address = f"127.0.0.1:{port}"
        return self

    def request(self, body):
        return Request("/XADD/jobs/*/job", body, method="PUT")


class NginxLua(Server):
    """nginx, a worker for each core, with a few lines of Lua and a pool of kept connections to Redis."""

    name = "nginx, Lua"

    def start(self):
        self.start_redis()
        port = machine.free_port()
        (self.folder / "nginx.conf").write_text(NGINX % {
            "folder": self.folder,
            "port": port,
            "redis": self.redis.port,
            "workers": os.cpu_count(),
            "user": "user root;" if os.geteuid() == 0 else "",
        })
        self.run(["nginx", "-p", self.folder, "-c", self.folder / "nginx.conf"], self.folder, "output.log")
        wait_until("the start of nginx", lambda: machine.accepts(port), process=self.process)
        self.address = f"127.0.0.1:{port}"
        return self


NGINX = """
%(user)s
daemon off;
worker_processes %(workers)s;
pid %(folder)s/nginx.pid;
error_log %(folder)s/error.log error;
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
    client_max_body_size 32m;
    client_body_buffer_size 1m;
    keepalive_requests 1000000000;
    lua_socket_log_errors off;
    server {
        listen 127.0.0.1:%(port)s;
        location / {
            default_type application/json;
            content_by_lua_block {
                local redis = require "nginx.redis"
                ngx.req.read_body()
                local connection = redis:new()
                connection:set_timeout(5000)
                local ok = connection:connect("127.0.0.1", %(redis)s)
                local id = ok and connection:xadd("jobs", "*", "job", ngx.req.get_body_data())
                if not id then
                    ngx.status = 503
                    ngx.print('{"result":false,"error":"queue"}')
                    return
                end
                connection:set_keepalive(60000, 512)
                ngx.print('{"result":true,"error":""}')
            }
        }
    }
}
"""


class Fastify(Server):
    """fastify and ioredis with automatic pipelining. The body stays text: nothing is parsed."""

    def __init__(self, shop, programs, workers=1):
        super().__init__(shop, programs)
        self.workers = workers
        self.name = f"fastify, ioredis, {workers} process" + ("es" if workers > 1 else "")

    def start(self):
        self.start_redis()
        port = machine.free_port()
        (self.folder / "server.cjs").write_text(FASTIFY)
        environment = {
            "PORT": str(port),
            "REDIS": str(self.redis.port),
            "WORKERS": str(self.workers),
            "NODE_PATH": str(self.programs["node"] / "node_modules"),
            "NODE_ENV": "production",
        }
        self.run(["node", self.folder / "server.cjs"], self.folder, "node.log", environment, log_to="stdout")
        ready = lambda: len(re.findall("^listening", self.process.log.read_text(), re.MULTILINE)) == self.workers
        wait_until("the start of fastify", ready, process=self.process)
        self.address = f"127.0.0.1:{port}"
        return self


FASTIFY = """
const cluster = require('node:cluster');
const workers = Number(process.env.WORKERS);
if (workers > 1 && cluster.isPrimary) {
    for (let i = 0; i < workers; i++) cluster.fork();
} else {
    const Redis = require('ioredis');
    const redis = new Redis({ host: '127.0.0.1', port: Number(process.env.REDIS), enableAutoPipelining: true });
    const app = require('fastify')({ logger: false, bodyLimit: 32 << 20 });
    app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => done(null, body));
    app.post('/', async (request) => {
        await redis.xadd('jobs', '*', 'job', request.body);
        return { result: true, error: '' };
    });
    app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) }).then(() => console.log('listening'));
}
"""


def versions(node):
    """What the contestants and tools of this machine are."""
    found = {
        "wrk": machine.version_of("wrk", "--version"),
        "redis-server": machine.version_of("redis-server", "--version"),
        # It doesn't say its version.
        "webdis": machine.version_of("dpkg-query", "-W", "-f", "${Version}", "webdis"),
        "nginx": machine.version_of("nginx", "-v"),
        "node": machine.version_of("node", "--version"),
        "valgrind": machine.version_of("valgrind", "--version"),
    }
    for name in ("fastify", "ioredis"):
        package = node / "node_modules" / name / "package.json"
        found[name] = json.loads(package.read_text())["version"] if package.exists() else "missing"
    return ", ".join(f"{name} {version}" for name, version in found.items() if version not in ("missing", "unknown"))

