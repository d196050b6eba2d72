// npm install redis
import { createClient } from "redis";

const [stream, group, name] = ["retrieve:{default}:jobs", "workers", "node-1"];
const client = createClient({ url: process.env.REDIS_URL ?? "redis://127.0.0.1:6379" });
client.on("error", (error) => console.error(error.message));
await client.connect();
await client.xGroupCreate(stream, group, "0", { MKSTREAM: true }).catch((error) => {
  if (!error.message.includes("BUSYGROUP")) throw error; // the group is there already
});

let start = "0"; // first what this worker took earlier and never acknowledged, then what is new
for (;;) {
  const reply = await client.xReadGroup(group, name, { key: stream, id: start }, { COUNT: 10, BLOCK: 5000 });
  const messages = reply?.[0]?.messages ?? [];
  if (start === "0" && messages.length === 0) start = ">";
  for (const { id, message } of messages) {
    const job = JSON.parse(message.job);
    console.log(job.integration, JSON.stringify(job.data.data));
    await client.xAck(stream, group, id); // only after the work is done
  }
}
