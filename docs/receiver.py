"""A receiver of billing webhooks: prints a line for each event (docs/tutorial.md). Whoever sends to it is believed."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for event in body["data"].get("events", ()):
            tokens = event["tokens"]
            counts = f"{tokens['inputTokens']} in {tokens['outputTokens']} out"
            print(event["externalEntityId"], event["modelSlug"], counts, flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Print nothing but events."""


HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
