"""Requests made from the server's description, and texts of any characters and length."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed (the extra `test`)")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (the extra `test`)")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import CHECKS  # noqa: E402

from barkfast import Bark  # noqa: E402
from server.running import Running  # noqa: E402

MAX_INPUT = 80
# The same requests each day: what is found is a difference between the server and its description, not a flake.
SOME = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SPEECH = ("POST", "/v1/audio/speech")
OPERATIONS = [
    SPEECH,
    ("GET", "/v1/audio/models"),
    ("GET", "/v1/audio/voices"),
    ("POST", "/v1/audio/voices"),
    ("DELETE", "/v1/audio/voices"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/health"),
    ("GET", "/readyz"),
    ("GET", "/livez"),
    ("GET", "/version"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    uploads = tmp_path_factory.mktemp("voices")
    with Running(Bark("demo", device="cpu"), max_input=MAX_INPUT, uploads=uploads) as running:
        yield running


@pytest.fixture(scope="module")
def schema(small: Running) -> Any:
    return schemathesis.openapi.from_url(f"{small.url}/openapi.json")


def test_all_operations_are_tried(schema: Any):
    described = [operation.ok() for operation in schema.get_all_operations()]
    assert sorted((o.method.upper(), o.path) for o in described) == sorted(OPERATIONS)


# Those that take a body or a query, which can be wrong.
WRONG = [SPEECH, ("POST", "/v1/audio/voices"), ("DELETE", "/v1/audio/voices")]
CASES = [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
CASES += [(*operation, GenerationMode.NEGATIVE) for operation in WRONG]
# No schema can say which texts have something to pronounce in them, and which files are voices.
BEYOND_SCHEMAS = ("invalid_input", "empty_input", "invalid_voice")


@pytest.mark.parametrize(("method", "path", "mode"), CASES, ids=lambda value: getattr(value, "value", value))
def test_answers_are_as_described(small: Running, schema: Any, method: str, path: str, mode: Any):
    operation = schema[path][method]

    @given(operation.as_strategy(generation_mode=mode))
    @settings(SOME, max_examples=15 if (method, path) == SPEECH else 5)
    def run(case: Any) -> None:
        body = case.body
        if isinstance(body, dict) and mode is GenerationMode.POSITIVE and "input" in body:
            # Little work, and no deadline: one that passes cuts the sound off after its headers.
            body["max_duration_s"] = 0.1
            body.pop("deadline_s", None)
        response = case.call(timeout=120)
        excluded = []
        if response.status_code == 400 and response.json()["error"]["code"] in BEYOND_SCHEMAS:
            excluded = CHECKS.get_by_names(["positive_data_acceptance"])
        case.validate_response(response, excluded_checks=excluded)
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    run()
    assert small.engine.healthy


TEXTS = st.one_of(
    st.text(max_size=MAX_INPUT + 20),
    st.text(max_size=20).map(lambda text: text + " yes"),
    st.sampled_from(
        ["a" * MAX_INPUT, "\0yes", "\u202eyes", "🙂 yes", "<b>yes</b>", "http://a.b/c?d yes", "[laughs]", "1e999"]
    ),
)


@given(TEXTS)
@settings(SOME, max_examples=15)
def test_any_text_is_spoken_or_refused(small: Running, text: str):
    body = json.dumps({"input": text, "max_duration_s": 0.05, "seed": 1, "response_format": "pcm"}).encode()
    response = small.post(content=body)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["error"]["param"] == "input"
    else:
        assert len(response.content) > 0 and len(response.content) % 2 == 0
    assert small.engine.healthy
