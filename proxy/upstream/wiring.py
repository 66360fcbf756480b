"""Makes what calls the models' servers, as the settings say."""

from proxy.core import targets
from proxy.upstream.access_tokens import AccessTokens
from proxy.upstream.pool import Upstreams
from proxy.upstream.providers import Providers
from runtime.clock import Clock
from runtime.deadlines import Deadlines
from runtime.lookups import Lookups
from runtime.settings import Settings


def providers(settings: Settings, deadlines: Deadlines, clock: Clock) -> Providers:
    """Return what calls the servers of every provider."""
    upstreams = Upstreams(
        deadlines,
        allow_private=settings.allow_private_upstreams,
        lookups=Lookups(share=settings.share_lookups),
        connect_timeout_s=settings.upstream_connect_timeout_s,
        read_timeout_s=max(settings.upstream_first_byte_timeout_s, settings.upstream_idle_timeout_s),
    )
    return Providers(
        upstreams,
        AccessTokens(settings.vertex_token_url),
        default_max_tokens=settings.anthropic_max_tokens,
        now_s=lambda: clock().timestamp(),
    )


def places(settings: Settings) -> targets.ProviderUrls:
    """Return where the providers are whose targets name no place."""
    operators = settings.baseten_api_key
    return targets.ProviderUrls(
        openai=settings.openai_base_url,
        baseten=settings.baseten_url_template,
        baseten_model=settings.baseten_model_url_template,
        baseten_model_api=settings.baseten_model_api_url,
        baseten_credential=None if operators is None else operators.get_secret_value(),
        anthropic=settings.anthropic_base_url,
        vertex=settings.vertex_base_url,
    )
