"""How the API describes itself: the OpenAPI document and its page for people."""
