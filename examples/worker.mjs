// One of any number of workers that handle a gateway's jobs. docs/workers.md says why it does what it does.
// npm install redis; REDIS_URL=redis://127.0.0.1:6379 node worker.mjs
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "redis";

const env = process.env;
const app = env.APP ?? "default";
const group = env.GROUP ?? "workers";
const name = env.NAME ?? `${hostname()}-${process.pid}`;
const maxTries = Number(env.MAX_TRIES ?? 5);
const claimIdleMs = Number(env.CLAIM_IDLE_MS ?? 60000); // longer than any job takes
const workSeconds = Number(env.WORK_SECONDS ?? 0);
const key = (rest) => `retrieve:{${app}}:${rest}`;
const jobs = key("jobs");
const doneSeconds = 24 * 3600;

let stopping = false; // the job in hand is finished first
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => (stopping = true));

// Your work. It may run twice for one job, so let job.id be the key of what it does. Throw if it fails.
async function handle(job) {
  const order = job.data.data.order.id; // JSON.parse rounds numbers above 2^53
  await sleep(workSeconds * 1000);
  return `order ${order} handled`;
}

function read(text) {
  try {
    return { id: "", ...JSON.parse(text) };
  } catch {
    return { id: "" }; // an entry that is no job was put there by somebody else; handling it fails
  }
}

async function workOn(client, entry, text) {
  const [pending] = await client.xPendingRange(jobs, group, entry, entry, 1);
  if (pending?.consumer !== name) return; // another worker has it
  const tries = pending.deliveriesCounter;
  const job = read(text);
  if (await client.exists(key(`done:${job.id}`))) {
    await client.xAck(jobs, group, entry); // done before, by a worker that was too slow to say so
    return;
  }
  let status, message;
  try {
    if (tries > maxTries) throw new Error(`given up after ${maxTries} tries that ended without a word`);
    [status, message] = ["done", await handle(job)];
  } catch (error) {
    [status, message] = [tries >= maxTries ? "parked" : "failed", String(error)];
  }
  const result = { job_id: job.id, jobStatus: status, message };
  const transaction = client.multi();
  transaction.xAdd(key("results"), "*", result, {
    TRIM: { strategy: "MAXLEN", strategyModifier: "~", threshold: 100000 },
  });
  if (status === "parked") {
    transaction.xAdd(key("parked"), "*", { job: text ?? "", entry, tries: String(tries), message });
  }
  if (status === "done") transaction.set(key(`done:${job.id}`), "1", { EX: doneSeconds });
  // What failed stays pending, and is claimed again after claimIdleMs.
  if (status !== "failed") transaction.xAck(jobs, group, entry);
  await transaction.exec();
}

// A lost connection ends the worker; whatever started it starts it again.
const client = createClient({
  url: env.REDIS_URL ?? "redis://127.0.0.1:6379",
  socket: { reconnectStrategy: false },
});
client.on("error", (error) => console.error(error.message));
await client.connect();
await client.xGroupCreate(jobs, group, "0", { MKSTREAM: true }).catch((error) => {
  if (!error.message.includes("BUSYGROUP")) throw error; // the group is there already
});

let cursor = "0-0";
let nextClaim = 0;
while (!stopping) {
  let entries = [];
  if (Date.now() >= nextClaim) {
    // First what a dead worker left, and what failed before.
    const claimed = await client.xAutoClaim(jobs, group, name, claimIdleMs, cursor, { COUNT: 1 });
    cursor = claimed.nextId;
    entries = claimed.messages.filter((message) => message !== null);
    if (entries.length === 0 && cursor === "0-0") nextClaim = Date.now() + Math.min(1000, claimIdleMs);
  }
  if (entries.length === 0) {
    const reply = await client.xReadGroup(group, name, { key: jobs, id: ">" }, { COUNT: 1, BLOCK: 1000 });
    entries = reply?.[0]?.messages ?? [];
  }
  for (const { id, message } of entries) await workOn(client, id, message?.job);
}
if ((await client.xPendingRange(jobs, group, "-", "+", 1, { consumer: name })).length === 0) {
  await client.xGroupDelConsumer(jobs, group, name); // safe, since nothing is left under this name
}
await client.close();
