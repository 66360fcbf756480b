import pytest
from hypothesis import given
from hypothesis import strategies as st

from control import addresses
from control.core import rules
from control.core.refusals import InvalidError
from schemas.limits import LimitType, ModelConfig, RateLimit, RateLimitUnit, UsageLimit, UsageLimitUnit


@pytest.mark.parametrize(
    "url",
    [
        "https://up.example/v1",
        "https://up.example",
        "https://1.1.1.1/v1",
        "https://[2606:4700::1111]/v1",
        "https://127.example.com/v1",
        "https://localhost.example.com/",
    ],
)
def test_public_https_urls_pass(url: str) -> None:
    assert addresses.problem(url, allow_private=False, allow_query=False) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "up.example/v1",
        "https://",
        "https:///v1",
        "http://up.example/v1",
        "ftp://up.example/v1",
        "https://up.example:443/v1",
        "https://up.example:8443/v1",
        "https://up.example:x/v1",
        "https://user@up.example/v1",
        "https://user:pass@up.example/v1",
        "https://up.example/v1?a=b",
        "https://up.example/v1#a",
        "https://up.example/v1?",
        "https://up.example/a b",
        "https://up.example\\@127.0.0.1/",
        "https://up.example/\n",
        "https://[::1",
        "https://localhost/v1",
        "https://LOCALHOST./v1",
        "https://api.localhost/v1",
        "https://127.0.0.1/v1",
        "https://10.0.0.1/v1",
        "https://169.254.169.254/latest",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://[::1]/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://[fe80::1]/v1",
        "https://127.1/v1",
        "https://2130706433/v1",
        "https://0x7f000001/v1",
        "https://0x7f.1/v1",
        "https://up.example/" + "a" * 2048,
    ],
)
def test_other_urls_do_not(url: str) -> None:
    assert addresses.problem(url, allow_private=False, allow_query=False)


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "https://10.0.0.1:8443/v1", "http://[::1]:9/v1"])
def test_private_places_pass_where_they_are_allowed(url: str) -> None:
    assert addresses.problem(url, allow_private=True, allow_query=False) is None
    assert addresses.problem(url, allow_private=False, allow_query=False)


def test_only_receivers_may_have_a_query() -> None:
    assert addresses.problem("https://hooks.example/in?a=b", allow_private=False, allow_query=True) is None
    assert addresses.problem("https://hooks.example/in?a=b#c", allow_private=False, allow_query=True)


@given(st.text(max_size=40), st.booleans(), st.booleans())
def test_any_text_is_judged_without_an_error(text: str, private: bool, query: bool) -> None:
    for url in (text, f"https://{text}/v1"):
        assert addresses.problem(url, allow_private=private, allow_query=query) != ""


@pytest.mark.parametrize("prefix", ["a", "your-org", "A1._-", "x" * 253])
def test_org_prefixes_that_can_begin_a_slug(prefix: str) -> None:
    rules.check_org_prefix(prefix)
    assert rules.org_prefix(f"{prefix}/m") == prefix


@pytest.mark.parametrize("prefix", ["", "-a", "a/b", "a b", "ä", "a\n", "x" * 254])
def test_org_prefixes_that_cannot(prefix: str) -> None:
    with pytest.raises(InvalidError, match="org_prefix"):
        rules.check_org_prefix(prefix)


@pytest.mark.parametrize("name", ["", " ", "x" * 256, "a\nb", "a\0"])
def test_workspace_names_are_printable(name: str) -> None:
    rules.check_workspace_name("Ünïcode lab")
    with pytest.raises(InvalidError, match="name"):
        rules.check_workspace_name(name)


def usage(slug: str, threshold: int, type_: LimitType = LimitType.TOKEN) -> ModelConfig:
    return ModelConfig(slug=slug, usage_limits=(UsageLimit(type=type_, unit=UsageLimitUnit.DAY, threshold=threshold),))


def rate(slug: str, threshold: int, unit: RateLimitUnit) -> ModelConfig:
    return ModelConfig(slug=slug, rate_limits=(RateLimit(type=LimitType.TOKEN, unit=unit, threshold=threshold),))


@pytest.mark.parametrize(
    ("child", "ancestor", "above"),
    [
        (usage("a/m", 11), usage("a/m", 10), True),
        (usage("a/m", 10), usage("a/m", 10), False),
        (usage("a/m", 11), usage("a/n", 10), False),
        (usage("a/m", 11), usage("a/m", 10, LimitType.REQUEST), False),
        (rate("a/m", 11, RateLimitUnit.SECOND), rate("a/m", 10, RateLimitUnit.SECOND), True),
        (rate("a/m", 11, RateLimitUnit.SECOND), rate("a/m", 10, RateLimitUnit.MINUTE), False),
        (rate("a/m", 11, RateLimitUnit.MINUTE), usage("a/m", 10), False),
    ],
)
def test_limits_are_compared_by_slug_type_and_unit(child: ModelConfig, ancestor: ModelConfig, above: bool) -> None:
    assert (rules.exceeds([child], [ancestor]) is not None) is above
    assert not rules.exceeds([child], [])
    assert not rules.exceeds([], [ancestor])


@pytest.mark.parametrize("prefix", ["test", "Test", "TEST"])
def test_the_prefix_of_test_deliveries_is_nobodys(prefix: str) -> None:
    with pytest.raises(InvalidError) as refused:
        rules.check_org_prefix(prefix)
    assert refused.value.code == "org_prefix_reserved"
    rules.check_org_prefix("testing")


@pytest.mark.parametrize(
    ("after", "before", "is_lowered"),
    [
        (usage("a/m", 9), usage("a/m", 10), True),
        (usage("a/m", 10), usage("a/m", 10), False),
        (usage("a/m", 11), usage("a/m", 10), False),
        (usage("a/m", 9), usage("a/n", 9), True),
        (usage("a/m", 9), usage("a/m", 9, LimitType.REQUEST), True),
        (ModelConfig(slug="a/m"), usage("a/m", 10), False),
    ],
)
def test_only_what_is_lower_or_new_can_leave_a_child_above(
    after: ModelConfig, before: ModelConfig, *, is_lowered: bool
) -> None:
    assert list(rules.lowered([after], [before])) == ([after] if is_lowered else [])
