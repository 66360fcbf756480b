"""What the snapshot keeps of keys and routes is what it would work out anew, and goes for a reason only."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.config import ConfigChange, ConfigKind, ConfigRecord, WorkspaceState
from schemas.limits import LimitEnforcement
from tests.unit.proxy import directories
from tests.unit.proxy.directories import PREFIX, change, empty, end, endpoint, group, key, model, secret, workspace

SLUGS = ("lab/a", "lab/b")
_MODES = st.sampled_from(LimitEnforcement)


def _groups(id_: str) -> st.SearchStrategy[ConfigRecord]:
    models = st.lists(st.builds(model, st.sampled_from(SLUGS), day=st.integers(0, 3)), max_size=2, unique_by=_slug)
    return st.builds(lambda listed, mode: group(id_, *listed, limit_enforcement=mode), models, _MODES)


def _slug(listed: object) -> str:
    return str(getattr(listed, "slug", ""))


_ENDPOINTS = st.builds(
    endpoint,
    st.sampled_from(["e1", "e2"]),
    st.sampled_from(SLUGS),
    st.sampled_from(["ws", "other"]),
    target_model=st.sampled_from(["one", "two"]),
    secret_id=st.sampled_from([None, "s1", "s2"]),
)
_RECORDS = st.one_of(
    st.sampled_from(directories.TREE).flatmap(_groups),
    _ENDPOINTS,
    st.builds(workspace, st.sampled_from(WorkspaceState), st.sampled_from(["ws", "other"])),
    st.builds(secret, st.sampled_from(["sk-1", "sk-2"]), st.sampled_from(["s1", "s2"])),
    st.builds(key, st.sampled_from(directories.TREE), st.sampled_from(["ws", "other"])),
)
_ENDS = st.sampled_from(
    [
        *((ConfigKind.GROUP, id_) for id_ in directories.TREE),
        *((ConfigKind.ENDPOINT, id_) for id_ in ("e1", "e2")),
        (ConfigKind.SECRET, "s1"),
        (ConfigKind.WORKSPACE, "ws"),
        (ConfigKind.KEY, PREFIX),
    ]
)
_CHANGES = st.lists(st.one_of(_RECORDS, _RECORDS, _RECORDS, _ENDS), max_size=30)
_HOUSE: list[ConfigRecord] = [
    workspace(), endpoint(), secret(), group("root", model()), group("middle"), group("child"), key(),
]  # fmt: skip


def _seen(snapshot: object) -> list[object]:
    assert isinstance(snapshot, type(empty()))
    found = snapshot.key(PREFIX)
    return [found, *(None if found is None else snapshot.route(found, slug) for slug in SLUGS)]


@given(_CHANGES)
def test_what_is_kept_is_what_would_be_worked_out_anew(drawn: list[ConfigRecord | tuple[ConfigKind, str]]) -> None:
    kept = empty()
    history: list[ConfigChange] = []
    for version, each in enumerate([*_HOUSE, *drawn], 1):
        told = end(version, *each) if isinstance(each, tuple) else change(version, each)
        history.append(told)
        kept.apply(told)
        anew = empty()
        for earlier in history:
            anew.apply(earlier)
        assert _seen(kept) == _seen(anew)


def test_a_change_elsewhere_lets_go_of_nothing() -> None:
    made = directories.directory(endpoint("e2", "lab/b"), group("stranger", model("lab/b"), tree=("stranger",)))
    found = directories.the_route(made)
    key_of = directories.the_key(made)
    elsewhere: list[ConfigRecord] = [
        endpoint("e2", "lab/b", target_model="new"),
        group("stranger", tree=("stranger",)),
        workspace(id_="other"),
        secret(),
    ]
    for version, record in enumerate(elsewhere, 20):
        made.apply(change(version, record))
    made.apply(end(30, ConfigKind.GROUP, "stranger"))
    assert directories.the_route(made) is found
    assert directories.the_key(made) is key_of
    for _ in range(3):
        made.apply(change(31, group("middle", model(day=7))))
        assert directories.the_route(made) is not found
    made.apply(end(40, ConfigKind.WORKSPACE, "ws"))
    assert made.key(PREFIX) is None
    assert not made._routes._dependent, "nothing is left of what was let go of"
    assert not made._used_keys._dependent
