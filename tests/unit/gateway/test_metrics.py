"""The metrics of all processes on one page."""

import httpx2

from services.gateway.metrics import merged
from tests.unit.gateway.garden import OWN_JWT

OWN = """# HELP baton_calls_total calls
# TYPE baton_calls_total counter
baton_calls_total{method="a",service_name="baton-gateway"} 2.0
# HELP process_open_fds files
# TYPE process_open_fds gauge
process_open_fds 7.0
"""
OTHER = """# HELP baton_calls_total calls
# TYPE baton_calls_total counter
baton_calls_total{method="a",service_name="baton-shed"} 5.0
# HELP baton_wait_seconds waits
# TYPE baton_wait_seconds histogram
baton_wait_seconds_bucket{le="1.0",service_name="baton-shed"} 1.0
baton_wait_seconds_bucket{le="+Inf",service_name="baton-shed"} 2.0
baton_wait_seconds_count{service_name="baton-shed"} 2.0
baton_wait_seconds_sum{service_name="baton-shed"} 3.5
# HELP process_open_fds files
# TYPE process_open_fds gauge
process_open_fds 9.0
"""


def test_each_metric_is_one_family_whose_samples_say_whose_they_are() -> None:
    lines = merged({"gateway": OWN, "shed": OTHER, "barn": None}).decode().splitlines()
    assert lines.count("# TYPE baton_calls_total counter") == 1
    start = lines.index("# TYPE baton_calls_total counter")
    assert lines[start + 1 : start + 3] == [
        'baton_calls_total{method="a",service_name="baton-gateway"} 2.0',
        'baton_calls_total{method="a",service_name="baton-shed"} 5.0',
    ]
    assert 'process_open_fds{service_name="baton-gateway"} 7.0' in lines
    assert 'process_open_fds{service_name="baton-shed"} 9.0' in lines
    assert 'baton_wait_seconds_bucket{le="+Inf",service_name="baton-shed"} 2.0' in lines
    assert 'baton_metrics_source_up{service_name="baton-shed"} 1.0' in lines
    assert 'baton_metrics_source_up{service_name="baton-barn"} 0.0' in lines


async def test_metrics_are_for_those_who_may_read_them(client: httpx2.AsyncClient) -> None:
    nobody = await client.get("/metrics", headers={"Authorization": ""})
    assert (nobody.status_code, nobody.json()["reason"]) == (401, "TOKEN_MISSING")
    # What nobody has checked proves nothing.
    unchecked = await client.get("/metrics", headers={"Authorization": f"Bearer {OWN_JWT}"})
    assert (unchecked.status_code, unchecked.json()["reason"]) == (401, "TOKEN_INVALID")
    lacking = await client.get("/metrics")
    assert (lacking.status_code, lacking.json()["reason"]) == (403, "SCOPE_MISSING")
