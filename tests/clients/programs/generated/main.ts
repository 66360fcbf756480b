import { APIKeysApi, Configuration, EndpointsApi, GroupsApi, ResponseError } from "./gen";

declare const process: { env: Record<string, string> };

async function main() {
  const { BASE_URL, API_KEY, SLUG: slug, CUSTOMER: customer } = process.env;
  const configuration = new Configuration({ basePath: BASE_URL, headers: { Authorization: `Api-Key ${API_KEY}` } });
  const endpoints = new EndpointsApi(configuration), groups = new GroupsApi(configuration);
  const target = { provider: "OPENAI_COMPATIBLE" as const, baseUrl: "http://127.0.0.1:9/v1", targetModel: "model" };
  const endpoint = await endpoints.createEndpoint({ createEndpoint: { slug, targets: [target] } });
  const limit = { type: "TOKEN" as const, unit: "DAY" as const, threshold: 9007199254740992 };
  const createGroup = { metadata: { externalEntityId: customer }, models: [{ slug, usageLimits: [limit] }] };
  const group = await groups.createGroup({ createGroup });
  const key = await new APIKeysApi(configuration).createApiKey({ groupId: group.id, createApiKey: {} });
  const listed = await groups.listGroups({ externalEntityId: customer });
  const refused = await endpoints.getEndpoint({ endpointId: "nothing" }).catch((error: ResponseError) => error.response.status);
  console.log(
    JSON.stringify({
      slug: endpoint.slug,
      key: key.apiKey.slice(0, 4),
      listed: listed.items.length,
      threshold: listed.items[0].effectiveModels[0].usageLimits![0].threshold,
      refused,
    }),
  );
}

main();
