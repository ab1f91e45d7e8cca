"""The OpenAPI document as somebody reads it who has nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api.description.described import attributes
from app.api.description.docs import render
from app.main import create_app
from app.settings import Settings
from quant_core.spec import AnalyzeSpec, PlanSpec, QuantizeSpec

OPEN = {"/healthz", "/readyz"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document."""
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_document_keeps_the_specification(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_every_field_parameter_and_answer_is_described(document: dict[str, Any]) -> None:
    fields = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, described in schema.get("properties", {}).items()
        if not described.get("description")
    ]
    assert fields == []
    for path, method, operation in _operations(document):
        assert operation["summary"], path
        assert all(parameter.get("description") for parameter in operation.get("parameters", ())), (
            path,
            method,
        )
        assert all(answer["description"] for answer in operation["responses"].values()), (path, method)
    assert "Attributes:" not in str(document)


def test_examples_are_what_they_are_examples_of(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    examples = [
        (schema["example"], {"$ref": f"#/components/schemas/{name}"})
        for name, schema in schemas.items()
        if "example" in schema
    ] + [
        (content["example"], content["schema"])
        for _, _, operation in _operations(document)
        for answer in operation["responses"].values()
        for media, content in answer.get("content", {}).items()
        if "example" in content and media.endswith("json")
    ]
    assert len(examples) >= 9
    for example, schema in examples:
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(example)
    assert schemas["JobView"]["example"]["error"] is None  # nulls are part of it


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (QuantizeSpec, {"size": 0.18, "bits": [2, "float"], "pin": {"fc*": 8}, "exclude": "stem", "seed": 1}),
        (QuantizeSpec, {"size": "2.5MB", "max_drop": "0.5%", "confidence": "90%", "exclude": ["a", "b"]}),
        (QuantizeSpec, {"budget": {"bops": "3.5G", "peak_memory": "30%", "max_drop": 0.01}}),
        (QuantizeSpec, {"activation_bits": [8, "float"], "layer_activations": {"gate": 16}}),
        (QuantizeSpec, {"rules": [{"match": "fc", "min_bits": 4}], "float_activations": ["head"]}),
        (AnalyzeSpec, {"effective_bits": 4, "bits": [2, 4], "activations": True}),
        (PlanSpec, {"size": 0.2, "pin": {"fc": "float"}, "exclude": ["stem*"], "latency": "800us"}),
    ],
)
def test_a_spec_is_described_as_it_is_read(
    document: dict[str, Any], kind: type[QuantizeSpec | AnalyzeSpec | PlanSpec], given: dict[str, Any]
) -> None:
    schemas = document["components"]["schemas"]
    name = kind.__name__ if kind is PlanSpec else f"{kind.__name__}-Input"
    reader = jsonschema.Draft202012Validator({**schemas[name], "components": document["components"]})
    kind.model_validate(given)
    reader.validate(given)
    assert not reader.is_valid(given | {"sise": 0.2})
    answered = kind.model_validate(given).model_dump(mode="json")
    written = schemas.get(f"{kind.__name__}-Output", schemas[name])
    jsonschema.Draft202012Validator({**written, "components": document["components"]}).validate(answered)


def test_short_words_of_budgets_tell_what_text_they_take(document: dict[str, Any]) -> None:
    for name in ("QuantizeSpec-Input", "AnalyzeSpec-Input", "PlanSpec"):
        described = document["components"]["schemas"][name]["properties"]
        assert '"2.5MB"' in described["size"]["description"], name
        assert described["size"]["description"].startswith("Short for `budget.size`.")
    assert (
        '"90%"'
        in document["components"]["schemas"]["QuantizeSpec-Input"]["properties"]["confidence"]["description"]
    )


def test_the_short_words_are_those_that_are_read(document: dict[str, Any]) -> None:
    described = document["components"]["schemas"]["QuantizeSpec-Input"]["properties"]
    for word in ("pin", "layer_activations"):
        for choice in described[word]["additionalProperties"]["enum"]:
            QuantizeSpec.model_validate({word: {"fc": choice}})
    QuantizeSpec.model_validate({"bits": described["bits"]["items"]["enum"]})


def test_forms_lead_to_what_their_spec_holds(document: dict[str, Any]) -> None:
    for path in ("/quantize", "/analyze"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
        spec = body["schema"]["properties"]["spec"]
        whole = {**spec["contentSchema"], "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(json.loads(spec["example"]))


def test_no_schema_is_left_open_or_written_in_words_that_no_reader_knows(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert [name for name, schema in schemas.items() if not schema.get("properties")] == []
    assert set(re.findall(r'"(gt|ge|lt|le)": ', json.dumps(document))) == set()


def test_the_page_of_routes_leads_to_every_field(document: dict[str, Any]) -> None:
    page = render(document)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))
    spec = page.partition('id="QuantizeSpec-Input"')[2].partition("<h3")[0]
    assert all(f"<code>{word}</code>" in spec for word in ("size", "bits", "pin", "exclude", "rules"))
    assert "<script" not in page


def test_refusals_are_told_of_on_every_route(document: dict[str, Any]) -> None:
    for path, _, operation in _operations(document):
        wanted = set() if path in OPEN else {"400", "401", "403", "429", "503"}
        if "requestBody" in operation:
            wanted.add("415")
        assert wanted <= operation["responses"].keys(), path
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {} in document["security"]


def test_docstrings_are_read_as_they_are_written() -> None:
    class Above:
        """One.

        Attributes:
            first: The first,
                on two lines.
            second: Of the base.
        """

    class Below(Above):
        """Two.

        Attributes:
            second: Of the class: its own.

        Nothing more.
        """

    assert attributes(Below) == {"first": "The first, on two lines.", "second": "Of the class: its own."}


def test_events_are_what_the_document_says(server: Any, document: dict[str, Any]) -> None:
    described = document["paths"]["/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    whole = {**described["text/event-stream"]["x-itemSchema"], "components": document["components"]}
    data = {
        **whole["properties"]["data"]["contentSchema"],
        "components": document["components"],
    }
    seen = set()
    for seed in (0, 5):  # one succeeds, one fails
        text = server.http.get(f"/jobs/{server.submit(seed=seed)}/events").text
        for block in text.strip().split("\n\n"):
            event = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            jsonschema.Draft202012Validator(whole).validate(event)
            told = json.loads(event["data"])
            jsonschema.Draft202012Validator(data).validate(told)
            seen |= told.keys()
    assert seen == data["properties"].keys()
