"""`/metrics` of the embedded server, as an operator scrapes it."""

from pathlib import Path

import httpx

from tests.faults import scene
from tests.faults.scene import Scene
from tests.support import processes, scraping
from tests.support.scraping import Samples

DELAY = "tollgate_config_propagation_seconds"


def shown(lab: Scene) -> Samples:
    assert lab.gateway is not None
    return scraping.samples(scraping.text(lab.gateway.announced["ops_url"]))


def test_what_a_lab_does_is_shown(tmp_path: Path) -> None:
    with scene.playing(tmp_path) as lab:
        lab.deliver_to(lab.receive())
        lab.start()
        assert lab.gateway is not None
        fresh = scraping.text(lab.gateway.announced["ops_url"])
        assert scraping.names(fresh) == scraping.documented()["embedded"]
        assert scraping.samples(fresh)[f"{DELAY}_count", ""] == 0  # what was there at start is no news
        lab.onboard()
        key = lab.customer("acme")
        scene.until(lambda: shown(lab)[f"{DELAY}_count", ""] == 3, "three changes")  # an endpoint, a group, a key
        found = shown(lab)
        assert found[f"{DELAY}_bucket", "1.0"] >= 2  # the machine is shared: one may be late
        assert found["tollgate_config_version", ""] == scraping.samples(fresh)["tollgate_config_version", ""] + 3
        assert lab.call(key).status_code == 200
        assert lab.call("sky_nobodyknows1.thiskeyatallatallatall").status_code == 401
        delivered = ("tollgate_webhook_deliveries_total", "delivered")
        scene.until(lambda: shown(lab)[delivered] == 1, "the delivery")
        found = shown(lab)
        assert (
            found.items()
            >= {
                ("tollgate_ready", ""): 1,
                ("tollgate_requests_total", "200"): 1,
                ("tollgate_requests_total", "401"): 1,
                ("tollgate_requests_in_flight", ""): 0,
                ("tollgate_usage_events_total", "complete"): 1,
                ("tollgate_usage_events_total", "upstream_error"): 0,
                ("tollgate_metering_events_total", ""): 1,
                ("tollgate_decisions_total", ""): 1,
                ("tollgate_feedback_lag_seconds", ""): 0,
                ("tollgate_webhook_attempts_total", "2xx"): 1,
                ("tollgate_webhook_deliveries_total", "dead"): 0,
            }.items()
        )
        assert found["process_resident_memory_bytes", ""] > 10e6


def test_the_public_port_shows_them_only_if_the_operator_says_so(tmp_path: Path) -> None:
    serve = ("serve", "--data", str(tmp_path / "data"), "--port", "0", "--ops-port", "0")
    for setting, status in (("false", 404), ("true", 200)):
        with processes.server(tmp_path / "serve.log", *serve, public_metrics=setting) as server:
            public = httpx.get(f"{server.announced['url']}/metrics", timeout=10)
            assert public.status_code == status
            assert ("tollgate_ready 1.0" in public.text) is (status == 200)
            assert scraping.samples(scraping.text(server.announced["ops_url"]))["tollgate_ready", ""] == 1
