// The Vercel AI SDK with `@ai-sdk/openai-compatible`: text, plain and streamed, and an embedding.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, streamText } from "ai";

const { BASE_URL, API_KEY, MODEL } = process.env;
const tollgate = createOpenAICompatible({
  name: "tollgate",
  baseURL: `${BASE_URL}/v1`,
  headers: { Authorization: `Api-Key ${API_KEY}` },
  includeUsage: true,
});
const plain = await generateText({ model: tollgate(MODEL), prompt: "Say hi", maxRetries: 0 });
const stream = streamText({ model: tollgate(MODEL), prompt: "Say hi", maxRetries: 0 });
let text = "";
for await (const piece of stream.textStream) text += piece;
const counts = await stream.usage;
const vector = await embed({ model: tollgate.textEmbeddingModel(MODEL), value: "Hello", maxRetries: 0 });
console.log(
  JSON.stringify({
    chat: [plain.text, plain.usage.inputTokens, plain.usage.outputTokens],
    "streamed chat": [text, counts.inputTokens, counts.outputTokens],
    embeddings: [vector.embedding, vector.usage.tokens],
  }),
);
