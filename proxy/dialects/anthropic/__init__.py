"""Chat completions for targets that speak Anthropic's Messages API, translated both ways (ADR 35)."""
