import json
import os

from gen.api.api_keys import create_api_key
from gen.api.endpoints import create_endpoint, get_endpoint
from gen.api.groups import create_group, list_groups
from gen.client import AuthenticatedClient
from gen.models import (
    CreateApiKey,
    CreateEndpoint,
    CreateGroup,
    CreateGroupMetadata,
    LimitType,
    ModelConfigInput,
    Provider,
    Target,
    UsageLimit,
    UsageLimitUnit,
)

slug, customer = os.environ["SLUG"], os.environ["CUSTOMER"]
client = AuthenticatedClient(os.environ["BASE_URL"], os.environ["API_KEY"], prefix="Api-Key")
target = Target(Provider.OPENAI_COMPATIBLE, base_url="http://127.0.0.1:9/v1", target_model="model")
endpoint = create_endpoint.sync(client=client, body=CreateEndpoint(slug, [target]))
limit = UsageLimit(LimitType.TOKEN, UsageLimitUnit.DAY, 9007199254740992)
wanted = CreateGroup(CreateGroupMetadata(customer), [ModelConfigInput(slug, usage_limits=[limit])])
group = create_group.sync(client=client, body=wanted)
key = create_api_key.sync(group.id, client=client, body=CreateApiKey())
listed = list_groups.sync(client=client, external_entity_id=customer)
refused = get_endpoint.sync_detailed("nothing", client=client)
found = {"slug": endpoint.slug, "key": key.api_key[:4], "listed": len(listed.items)}
found["threshold"] = listed.items[0].effective_models[0].usage_limits[0].threshold
print(json.dumps(found | {"refused": refused.status_code.value}))
