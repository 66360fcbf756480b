"""Examples that each command's help ends with, by the command's words; a test holds that their options are there.

It imports nothing of the product: the whole command line waits for it.
"""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "audit": ("tollgate audit --workspace lab --limit 20",),
    "completion": (
        'eval "$(tollgate completion bash)"',
        "tollgate completion zsh > ~/.zfunc/_tollgate",
        "tollgate completion fish > ~/.config/fish/completions/tollgate.fish",
    ),
    "console link": ("tollgate console link",),
    "correct": ('tollgate correct --event 01KB7G4GDB3V8W2X5Y9Z1A4B6C --output -12 --reason "cut short"',),
    "dead-letters list": ("tollgate dead-letters list --workspace lab", "tollgate dead-letters list --not-due --json"),
    "dead-letters redrive": ("tollgate dead-letters redrive --workspace lab --from 2026-11-28T00:00:00Z",),
    "doctor": ("tollgate doctor",),
    "events tail": (
        "tollgate events tail --workspace lab",
        "tollgate events tail --workspace lab --since 2026-11-01 --once --json",
    ),
    "export": (
        "tollgate export --day 2026-11-28 --format parquet --out day.parquet",
        "tollgate export --from 2026-11-01 --to 2026-11-30 --out november.csv",
    ),
    "migrate": ("tollgate migrate",),
    "mock-upstream": ("tollgate mock-upstream --port 9001 --tokens 8 --account account.jsonl",),
    "quickstart": (
        "tollgate quickstart --server http://127.0.0.1:8080 --upstream http://127.0.0.1:9001/v1 "
        "--receiver http://127.0.0.1:9000",
    ),
    "reconcile": (
        "tollgate reconcile --upstream account.jsonl",
        "tollgate reconcile --from 2026-11-01 --to 2026-11-30 --proxy http://127.0.0.1:8081",
    ),
    "republish": ("tollgate republish --from 2026-11-01 --to 2026-11-30",),
    "request": ("tollgate request 019acf02-41ab-7c34-9a51-3d1c0f6b7e42",),
    "restore-done": ("tollgate restore-done",),
    "schemas export": ("tollgate schemas export schemas",),
    "serve": (
        "tollgate serve --data ./data",
        "tollgate serve proxy --workers 4 --data /var/lib/tollgate/proxy",
        "tollgate serve --check",
    ),
    "unreadable list": ("tollgate unreadable list",),
    "unreadable retry": ("tollgate unreadable retry --all", "tollgate unreadable retry --partition 3 --offset 1207"),
    "usage": (
        "tollgate usage --month 2026-11 --by customer,model",
        "tollgate usage --month 2026-11 --tree --prices prices.toml --format csv",
    ),
    "webhook listen": (
        "tollgate webhook listen --port 9000 --secret whsec_...",
        "tollgate webhook listen --secret whsec_... --forward-to http://127.0.0.1:3000/billing",
    ),
    "workspace add-host": ("tollgate workspace add-host --workspace lab --host api.your-lab.com",),
    "workspace add-prefix": ("tollgate workspace add-prefix --workspace lab --org-prefix your-other-org",),
    "workspace create": ("tollgate workspace create --name lab --org-prefix your-org",),
    "workspace issue-key": ("tollgate workspace issue-key --workspace lab --scope read",),
    "workspace list": ("tollgate workspace list",),
    "workspace remove-host": ("tollgate workspace remove-host --workspace lab --host api.your-lab.com",),
    "workspace resume": ("tollgate workspace resume --workspace lab",),
    "workspace revoke-key": ("tollgate workspace revoke-key --workspace lab --prefix tgm_abcdefghijkl",),
    "workspace rotate-secret": ("tollgate workspace rotate-secret --workspace lab --overlap 3600",),
    "workspace set-public-key": ("tollgate workspace set-public-key --workspace lab --file key.pem",),
    "workspace set-webhook": (
        "tollgate workspace set-webhook --workspace lab --url https://billing.your-lab.com/webhook",
        "tollgate workspace set-webhook --workspace lab --disable",
    ),
    "workspace show": ("tollgate workspace show --workspace lab",),
    "workspace suspend": ("tollgate workspace suspend --workspace lab",),
    "workspace test-webhook": ("tollgate workspace test-webhook --workspace lab",),
}
EXIT_CODES: dict[str, str] = {
    "doctor": "1: something is missing, and what to do is said.",
    "reconcile": "1: accounts differ; 2: a proxy is not named, or did not answer; 3: the only fault is that more is "
    "estimated than --max-apart allows.",
}
"""Beyond those that every command has."""


def epilog(words: str) -> str | None:
    """Return what the help of a command ends with."""
    examples = EXAMPLES.get(words)
    if examples is None:
        return None
    codes = f"Exit codes: 0 where it did what was asked. {EXIT_CODES.get(words, '1: it did not, and why is said.')} "
    shown = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExamples:\n{shown}\n\n{codes}{'' if words == 'reconcile' else '2: the command line is wrong.'}"
