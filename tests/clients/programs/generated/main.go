package main

import (
	"context"
	"encoding/json"
	"os"

	api "tollgate/client"
)

func must[T any](value T, _ any, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	configuration := api.NewConfiguration()
	configuration.Servers = api.ServerConfigurations{{URL: os.Getenv("BASE_URL")}}
	configuration.AddDefaultHeader("Authorization", "Api-Key "+os.Getenv("API_KEY"))
	client, ctx := api.NewAPIClient(configuration), context.Background()
	slug := os.Getenv("SLUG")
	target := api.NewTarget(api.OPENAI_COMPATIBLE)
	target.SetBaseUrl("http://127.0.0.1:9/v1")
	target.SetTargetModel("model")
	endpoint := must(client.EndpointsAPI.CreateEndpoint(ctx).CreateEndpoint(*api.NewCreateEndpoint(slug, []api.Target{*target})).Execute())
	model := api.NewModelConfigInput(slug)
	model.SetUsageLimits([]api.UsageLimit{*api.NewUsageLimit(api.TOKEN, api.DAY, 9007199254740992)})
	wanted := api.NewCreateGroup(*api.NewCreateGroupMetadata(os.Getenv("CUSTOMER")), []api.ModelConfigInput{*model})
	group := must(client.GroupsAPI.CreateGroup(ctx).CreateGroup(*wanted).Execute())
	key := must(client.APIKeysAPI.CreateApiKey(ctx, group.Id).CreateApiKey(*api.NewCreateApiKey()).Execute())
	listed := must(client.GroupsAPI.ListGroups(ctx).ExternalEntityId(os.Getenv("CUSTOMER")).Execute())
	_, refused, _ := client.EndpointsAPI.GetEndpoint(ctx, "nothing").Execute()
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"slug":      endpoint.Slug,
		"key":       key.ApiKey[:4],
		"listed":    len(listed.Items),
		"threshold": listed.Items[0].EffectiveModels[0].UsageLimits[0].Threshold,
		"refused":   refused.StatusCode,
	})
}
