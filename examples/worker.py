# pip install redis
import json, os, redis

STREAM, GROUP, NAME = "retrieve:{default}:jobs", "workers", "python-1"
client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), decode_responses=True)
try:
    client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
except redis.ResponseError as error:
    if "BUSYGROUP" not in str(error):  # the group is there already
        raise

start = "0"  # first what this worker took earlier and never acknowledged, then what is new
while True:
    for _, entries in client.xreadgroup(GROUP, NAME, {STREAM: start}, count=10, block=5000) or []:
        if not entries:
            start = ">"
        for entry, fields in entries:
            job = json.loads(fields["job"])
            print(job["integration"], json.dumps(job["data"]["data"]), flush=True)
            client.xack(STREAM, GROUP, entry)  # only after the work is done
