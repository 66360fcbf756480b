import java.util.List;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.*;
import org.openapitools.client.model.*;

public class Main {
  public static void main(String[] words) throws Exception {
    String slug = System.getenv("SLUG"), customer = System.getenv("CUSTOMER");
    ApiClient client = new ApiClient();
    client.updateBaseUri(System.getenv("BASE_URL"));
    client.setRequestInterceptor(one -> one.header("Authorization", "Api-Key " + System.getenv("API_KEY")));
    Target target = new Target().provider(Provider.OPENAI_COMPATIBLE).baseUrl("http://127.0.0.1:9/v1").targetModel("model");
    EndpointsApi endpoints = new EndpointsApi(client);
    Endpoint endpoint = endpoints.createEndpoint(new CreateEndpoint().slug(slug).targets(List.of(target)), null);
    UsageLimit limit = new UsageLimit().type(LimitType.TOKEN).unit(UsageLimitUnit.DAY).threshold(9007199254740992L);
    CreateGroup wanted =
        new CreateGroup()
            .metadata(new CreateGroupMetadata().externalEntityId(customer))
            .models(List.of(new ModelConfigInput().slug(slug).usageLimits(List.of(limit))));
    GroupsApi groups = new GroupsApi(client);
    Group group = groups.createGroup(wanted, null);
    CreatedApiKey key = new ApiKeysApi(client).createApiKey(group.getId(), null, new CreateApiKey());
    List<Group> listed = groups.listGroups(null, null, customer).getItems();
    int refused = 0;
    try {
      endpoints.getEndpoint("nothing");
    } catch (ApiException error) {
      refused = error.getCode();
    }
    System.out.printf(
        "{\"slug\": \"%s\", \"key\": \"%s\", \"listed\": %d, \"threshold\": %d, \"refused\": %d}%n",
        endpoint.getSlug(),
        key.getApiKey().substring(0, 4),
        listed.size(),
        listed.get(0).getEffectiveModels().get(0).getUsageLimits().get(0).getThreshold(),
        refused);
  }
}
