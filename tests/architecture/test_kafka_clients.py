"""Whoever makes a client of aiokafka's has it create no topic, and connect as the settings say."""

import ast

import pytest

from tests.architecture import sources

CLIENTS = {"AIOKafkaAdminClient", "AIOKafkaClient", "AIOKafkaConsumer", "AIOKafkaConsumerThread", "AIOKafkaProducer"}


def named(expression: ast.expr) -> str:
    """Return the last part of a dotted name."""
    return ast.unparse(expression).rpartition(".")[2]


def made(text: str) -> set[str]:
    """Return the clients that a module makes or derives from, unless it denies them topics and gives them `options`."""
    nodes = list(ast.walk(ast.parse(text)))
    called = {named(node.func) for node in nodes if isinstance(node, ast.Call)}
    derived = {named(base) for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases}
    return set() if {"never_create_topics", "options"} <= called else CLIENTS & (called | derived)


def test_no_client_of_ours_may_create_topics() -> None:
    packages = set(sources.project()["tool"]["coverage"]["run"]["source_pkgs"]) | {"infra"}
    ours = [
        path
        for path in sources.modules()
        if path.parts[0] in packages and path.as_posix() != "runtime/kafka/clients.py"
    ]
    assert {str(path): found for path in ours if (found := made((sources.ROOT / path).read_text("utf-8")))} == {}


@pytest.mark.parametrize("made_by", ["aiokafka.AIOKafkaConsumer()", "class A(AIOKafkaProducer): pass"])
def test_a_client_is_seen_however_it_is_made(made_by: str) -> None:
    assert made(made_by)
    assert made(f"{made_by}\nkafka_clients.never_create_topics(a)")
    assert made(f"{made_by}\nkafka_clients.options(where)")
    assert not made(f"{made_by}\nkafka_clients.never_create_topics(a)\nkafka_clients.options(where)")
