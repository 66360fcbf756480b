// The Node package `openai`: chat completions, responses and embeddings.
import OpenAI from "openai";

const { BASE_URL, API_KEY, MODEL } = process.env;
const client = new OpenAI({
  baseURL: `${BASE_URL}/v1`,
  apiKey: "unused",
  defaultHeaders: { Authorization: `Api-Key ${API_KEY}` },
  maxRetries: 0,
});
const messages = [{ role: "user", content: "Say hi" }];
const plain = await client.chat.completions.create({ model: MODEL, messages });
let text = "";
let counts;
for await (const piece of await client.chat.completions.create({
  model: MODEL,
  messages,
  stream: true,
  stream_options: { include_usage: true },
})) {
  text += piece.choices[0]?.delta.content ?? "";
  counts = piece.usage ?? counts;
}
const response = await client.responses.create({ model: MODEL, input: "Say hi" });
let streamed;
for await (const event of await client.responses.create({ model: MODEL, input: "Say hi", stream: true })) {
  if (event.type === "response.completed") streamed = event.response;
}
const vectors = await client.embeddings.create({ model: MODEL, input: "Hello" });
console.log(
  JSON.stringify({
    chat: [plain.choices[0].message.content, plain.usage.prompt_tokens, plain.usage.completion_tokens],
    "streamed chat": [text, counts.prompt_tokens, counts.completion_tokens],
    responses: [response.output_text, response.usage.input_tokens, response.usage.output_tokens],
    "streamed responses": [streamed.model, streamed.usage.input_tokens, streamed.usage.output_tokens],
    embeddings: [vectors.data[0].embedding, vectors.usage.prompt_tokens],
  }),
);
