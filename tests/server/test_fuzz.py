"""Requests made from the server's description, and texts of any characters."""

from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed (the extra `test`)")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (the extra `test`)")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from server.running import Running  # noqa: E402

BUSY = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(demo: Running) -> Any:
    return schemathesis.openapi.from_url(f"{demo.url}/openapi.json")


operations = schemathesis.pytest.from_fixture("schema")


@operations.parametrize()
@BUSY
def test_answers_are_as_described(case: Any, demo: Running):
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("input"), str):
        # Little work, and no deadline: one that passes cuts the sound off after its headers.
        body["max_duration_s"] = 0.1
        body.pop("deadline_s", None)
    response = case.call(timeout=120)
    speechless = response.status_code == 400 and response.json()["error"]["code"] == "invalid_input"
    # What has nothing to pronounce in it no schema can describe.
    checks = schemathesis.checks
    case.validate_response(response, excluded_checks=[checks.positive_data_acceptance] if speechless else [])
    assert demo.engine.healthy
    if response.status_code >= 400 and response.status_code not in (503,):
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(), max_size=30).map(lambda text: text + " yes"),
    st.sampled_from(
        ["a" * 4000, "a " * 2000, "ok. " * 30, "\0yes", "\u202eyes", "🙂 yes", "<b>yes</b>", "http://a.b/c?d yes"]
    ),
)


@given(TEXTS)
@settings(BUSY, max_examples=40)
def test_any_text_is_spoken_or_refused(demo: Running, text: str):
    import json

    body = json.dumps({"input": text, "max_duration_s": 0.05, "seed": 1, "response_format": "pcm"}).encode()
    response = demo.post(content=body)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["error"]["param"] == "input"
    else:
        assert len(response.content) % 2 == 0
    assert demo.engine.healthy
