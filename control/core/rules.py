"""Rules that need no other records: slugs, addresses, targets, and limits along a tree (spec 2.1, 2.2, 5).

Never resolves a name: the proxy and the dispatcher check the address they connect to.
"""

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from control.core.refusals import InvalidError
from schemas.limits import ModelConfig, RateLimit, UsageLimit
from schemas.targets import Target

MAX_URL_LENGTH = 2048
MAX_NAME_LENGTH = 255

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_URL_CHARACTERS = re.compile(r"[!-\[\]-~]+")  # printable ASCII without the space and the backslash
_NUMERIC_HOST = re.compile(r"(?:.*\.)?(?:0[xX][0-9a-fA-F]*|[0-9]+)\.?")


def org_prefix(slug: str) -> str:
    """Give a slug's part before the slash."""
    return slug.partition("/")[0]


def check_org_prefix(prefix: str) -> None:
    """Raise InvalidError where `prefix` could not begin a slug."""
    if not _PREFIX.fullmatch(prefix) or len(prefix) > MAX_NAME_LENGTH - 2:
        raise InvalidError(
            "org_prefix: letters, digits, '.', '_' and '-' are allowed, beginning with a letter or digit, "
            f"at most {MAX_NAME_LENGTH - 2} characters",
            param="org_prefix",
        )


def check_workspace_name(name: str) -> None:
    """Raise InvalidError where `name` is empty, too long or not printable."""
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidError(f"name: 1 to {MAX_NAME_LENGTH} printable characters are allowed", param="name")


def normal_target(target: Target, *, allow_private: bool) -> Target:
    """Give an OPENAI_COMPATIBLE target as it is kept: checked, only the fields that were set. Raises InvalidError."""
    base_url = (target.base_url or "").rstrip("/")
    required = {"base_url": base_url, "target_model": target.target_model}
    for name, value in required.items():
        if not value:
            raise InvalidError(f"targets[0].{name}: required for {target.provider}", param=f"targets[0].{name}")
    problem = url_problem(target.base_url or "", allow_private=allow_private, allow_query=False)
    if problem:
        raise InvalidError(f"targets[0].base_url: {problem}", param="targets[0].base_url")
    if target.secret_id is not None:
        # None exist yet; an unknown one and one of another workspace answer the same (spec section 2).
        raise InvalidError("targets[0].secret_id: must name a secret of this workspace", param="targets[0].secret_id")
    return Target.model_validate(target.model_dump(exclude_none=True) | {"base_url": base_url})


def url_problem(url: str, *, allow_private: bool, allow_query: bool) -> str | None:
    """Say what is wrong with the form of an upstream's or receiver's URL; None where nothing is (spec 2.1, 5)."""
    if len(url) > MAX_URL_LENGTH or not _URL_CHARACTERS.fullmatch(url):
        return f"must be 1 to {MAX_URL_LENGTH} printable ASCII characters without spaces and backslashes"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    schemes = ("http", "https") if allow_private else ("https",)
    problems = {
        f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host": (
            parts.scheme not in schemes or not parts.hostname
        ),
        "must not hold a user name or password": "@" in parts.netloc,
        "must not hold a fragment": "#" in url,
        "must not hold a query": "?" in url and not allow_query,
        "must not hold a port": not allow_private and (port is not None or parts.netloc.endswith(":")),
        "must name a public host": not allow_private and not _public_form(parts),
    }
    return next((text for text, found in problems.items() if found), None)


def _public_form(parts: SplitResult) -> bool:
    host = (parts.hostname or "").rstrip(".")
    if not host or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # 127.1, 0x7f000001 and 2130706433 are addresses to a resolver, so no name may look like one.
        return not _NUMERIC_HOST.fullmatch(host)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_global and not mapped.is_multicast


def exceeds(child: Sequence[ModelConfig], ancestor: Sequence[ModelConfig]) -> bool:
    """Tell whether a limit of `child` is above the ancestor's for the same (slug, type, unit) (spec 2.2, CASCADING)."""
    allowed = _thresholds(ancestor)
    return any(threshold > allowed.get(name, threshold) for name, threshold in _thresholds(child).items())


def _limits(model: ModelConfig) -> tuple[RateLimit | UsageLimit, ...]:
    return (*model.rate_limits, *model.usage_limits)


def _thresholds(models: Sequence[ModelConfig]) -> dict[tuple[str, str, str], int]:
    return {
        (model.slug, limit.type.value, limit.unit.value): limit.threshold
        for model in models
        for limit in _limits(model)
    }
