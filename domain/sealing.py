"""The contexts that secrets are sealed in: a text that was sealed for one owner opens for no other."""


def webhook_context(workspace_id: str) -> str:
    """Return the context that a workspace's webhook secrets are sealed in."""
    return f"webhook:{workspace_id}"


def secret_context(workspace_id: str, secret_id: str) -> str:
    """Return the context that one secret of a workspace is sealed in."""
    return f"secret:{workspace_id}:{secret_id}"
