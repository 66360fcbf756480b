import pytest

from control import auth, credentials
from control.core.records import ManagementKey, Scope, StoredApiKey
from control.core.refusals import ForbiddenError, UnauthorizedError
from schemas.config import KeyRecord, WorkspaceRecord, WorkspaceState
from tests.unit.control.fakes import NOW, FakeApiKeys, FakeCredentials, FakeWorkspaces

KEY = "tgm_abcdefghijkl." + "s" * 40
DEVELOPERS = "sky_abcdefghijkl." + "s" * 40


def known(scope: Scope = Scope.MANAGE, state: WorkspaceState = WorkspaceState.ACTIVE) -> FakeCredentials:
    workspaces, api_keys = FakeWorkspaces(), FakeApiKeys()
    workspaces.add(WorkspaceRecord(id="workspace", name="lab", state=state, operator_credential=False), NOW)
    workspaces.add_key(ManagementKey(KEY[:16], "workspace", state, credentials.digest(KEY), scope), NOW)
    sha256 = credentials.digest(DEVELOPERS)
    record = KeyRecord(prefix=DEVELOPERS[:16], workspace_id="workspace", group_id="g", sha256=sha256)
    api_keys.add(StoredApiKey("k", record, None, NOW))
    return FakeCredentials(workspaces, api_keys)


@pytest.mark.parametrize("header", [f"Api-Key {KEY}", f"Bearer {KEY}", f"bearer   {KEY} "])
def test_a_key_speaks_for_its_workspace(header: str) -> None:
    assert auth.identify(known(), header, "POST", "api.gateway.example") == auth.Caller("workspace", KEY[:16])


@pytest.mark.parametrize(
    "header",
    [None, "", "Api-Key", "Api-Key ", KEY, f"Basic {KEY}", f"Api-Key {KEY} x", f"Api-Key {KEY}x", f"Api-Key {KEY[:-1]}",
     "Api-Key ä", "Api-Key a\x7f", "Api-Key " + "x" * 257, f"Api-Key {DEVELOPERS}x", "Api-Key " + "0" * 64],
)  # fmt: skip
def test_everything_else_is_unauthorized(header: str | None) -> None:
    with pytest.raises(UnauthorizedError, match="Authorization"):
        auth.identify(known(), header, "GET", "api.gateway.example")


def test_a_developers_key_is_forbidden_only_when_it_is_whole() -> None:
    with pytest.raises(ForbiddenError) as refusal:
        auth.identify(known(), f"Api-Key {DEVELOPERS}", "GET", "api.gateway.example")
    assert refusal.value.code == "developer_key"
    assert DEVELOPERS not in str(refusal.value)


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_a_read_key_may_only_get(method: str) -> None:
    assert auth.identify(known(Scope.READ), f"Api-Key {KEY}", "GET", "api.gateway.example").workspace_id == "workspace"
    with pytest.raises(ForbiddenError) as refusal:
        auth.identify(known(Scope.READ), f"Api-Key {KEY}", method, "api.gateway.example")
    assert refusal.value.code == "insufficient_scope"


def test_a_suspended_workspace_is_forbidden() -> None:
    with pytest.raises(ForbiddenError) as refusal:
        auth.identify(known(state=WorkspaceState.SUSPENDED), f"Api-Key {KEY}", "GET", "api.gateway.example")
    assert refusal.value.code == "workspace_suspended"


def test_minted_keys_have_their_forms() -> None:
    for mint, kind in ((credentials.mint_management_key, "tgm_"), (credentials.mint_developer_key, "sky_")):
        keys = {mint() for _ in range(50)}
        assert len(keys) == 50
        for key in keys:
            assert key.startswith(kind)
            assert key.isascii()
            name, _, secret = key.partition(".")
            assert name == credentials.prefix(key)
            assert len(secret) >= 32
            assert credentials.matches(key, credentials.digest(key))
            assert not credentials.matches(key + "x", credentials.digest(key))


@pytest.mark.parametrize("at", [0, 31, 32, 63])
def test_every_character_of_a_digest_is_compared(at: int) -> None:
    digest = credentials.digest(KEY)
    other = digest[:at] + ("1" if digest[at] == "0" else "0") + digest[at + 1 :]
    assert credentials.matches(KEY, digest)
    assert not credentials.matches(KEY, other)
