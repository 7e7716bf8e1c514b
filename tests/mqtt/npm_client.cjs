// Asks for a picture with npm's mqtt, by request and response; prints what came as one line of JSON.
// node npm_client.cjs NODE_MODULES PORT
const [modules, port] = process.argv.slice(2);
const mqtt = require(`${modules}/mqtt`);
const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { protocolVersion: 5, clientId: "npm-client" });
const reply = "plantain/replies/npm-client";
let image = null;

client.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
client.on("connect", async () => {
  await client.subscribeAsync([reply, "plantain/bench/status"], { qos: 1 });
  const properties = { responseTopic: reply, correlationData: Buffer.from("npm-1"), contentType: "application/json" };
  const prompt = JSON.stringify({ prompt: "a red apple", seed: 7 });
  await client.publishAsync("plantain/bench/prompt", prompt, { qos: 1, properties });
});
client.on("message", (topic, payload, packet) => {
  if (topic !== reply || packet.properties.correlationData.toString() !== "npm-1") return;
  if (packet.properties.contentType === "image/png") {
    image = payload;
    return;
  }
  const hash = require("node:crypto").createHash("sha256").update(image).digest("hex");
  console.log(JSON.stringify({ hash, result: JSON.parse(payload) }));
  // The acknowledgement of this message leaves after this handler.
  setTimeout(() => client.end(), 200);
});
