"""The OpenAPI description of the server, made from the shapes that check what is sent.

Does not belong here: serving it (`server`).
"""

from __future__ import annotations

from typing import Any

from stepwell import __doc__ as about
from stepwell.live.shapes import SHAPE

MOST_EVENTS = 10_000
"""Events of one request."""
_REF = "#/components/schemas/"
_ERROR = {
    "type": "object", "required": ["error"], "additionalProperties": False,
    "properties": {"error": {
        "type": "object", "required": ["status", "message"], "additionalProperties": False,
        "properties": {"status": {"type": "integer"}, "message": {"type": "string"}},
    }},
}  # fmt: skip
_REJECTED = {
    "type": "object", "required": ["index", "reason", "detail"], "additionalProperties": False,
    "properties": {
        "index": {"type": "integer", "description": "0-based place in the request."},
        "reason": {"type": "string", "enum": ["malformed", "bad_line"]},
        "detail": {"type": "string", "description": "What is wrong, and where."},
    },
}  # fmt: skip
_TAKEN = {
    "type": "object", "required": ["taken", "event_ids", "rejected"], "additionalProperties": False,
    "properties": {
        "taken": {"type": "integer", "minimum": 0, "description": "Events that are on disk now."},
        "event_ids": {
            "type": "array", "items": {"type": ["string", "null"]},
            "description": "Id of every event sent, in order; null for one that was rejected.",
        },
        "rejected": {"type": "array", "items": {"$ref": f"{_REF}Rejected"}},
    },
}  # fmt: skip
_STATUS = {
    "type": "object", "required": ["waiting", "open", "full", "failing"], "additionalProperties": {"type": "integer"},
    "properties": {
        "waiting": {"type": "integer", "description": "Events on disk that are not in the lake yet."},
        "open": {"type": "integer", "description": "Trajectories that began here and have not ended."},
        "full": {"type": "boolean"},
        "failing": {"type": ["string", "null"], "description": "Why the lake takes nothing."},
    },
}  # fmt: skip
_OTLP = {
    "type": "object", "required": ["resourceSpans"],
    "properties": {"resourceSpans": {"type": "array", "items": {"type": "object"}}},
}  # fmt: skip


def _answer(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"$ref": f"{_REF}{schema}"}}}}


_REFUSED = {
    "400": _answer("The body is not what its content type says.", "Error"),
    "401": _answer("The token is missing or wrong.", "Error"),
    "403": _answer("The request was made by a web page.", "Error"),
    "408": _answer("The body did not come in time.", "Error"),
    "413": _answer("The body, once unpacked, is too large.", "Error"),
    "415": _answer("The content type is none of those described.", "Error"),
    "429": {
        **_answer("As much waits for the lake as may; send it again later.", "Error"),
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    },
    "500": _answer("Nothing can be kept any more; the server stops.", "Error"),
}


def _described() -> dict[str, Any]:
    shape = SHAPE.json_schema(ref_template=f"{_REF}{{model}}")
    defined = shape.pop("$defs")
    many = {"type": "array", "maxItems": MOST_EVENTS, "items": {"$ref": f"{_REF}Event"}}
    named = {"Event": shape, "Error": _ERROR, "Rejected": _REJECTED, "Taken": _TAKEN, "Status": _STATUS, "Otlp": _OTLP}
    events = {
        "operationId": "addEvents", "summary": "Add events; the same event sent again adds nothing.",
        "description": "An answer says that events are on disk; they are in the lake within seconds. With status 422 the "
        "events that are not named in `rejected` were taken all the same.",
        "requestBody": {"required": True, "content": {
            "application/json": {"schema": many},
            "application/x-ndjson": {"schema": {"type": "string", "description": "An event a line."}},
        }},
        "responses": {
            "200": _answer("All were taken.", "Taken"), "422": _answer("Some were not taken.", "Taken"), **_REFUSED,
        },
    }  # fmt: skip
    empty = {"schema": {"type": "object", "properties": {"partialSuccess": {"type": "object"}}}}
    traces = {
        "operationId": "addTraces", "summary": "Add spans of model calls, as OpenTelemetry exporters send them.",
        "requestBody": {"required": True, "content": {
            "application/json": {"schema": {"$ref": f"{_REF}Otlp"}},
            "application/x-protobuf": {"schema": {"type": "string", "contentEncoding": "binary"}},
        }},
        "responses": {
            "200": {"description": "They are on disk.", "content": {
                "application/json": empty, "application/x-protobuf": {"schema": {"type": "string"}},
            }},
            **_REFUSED,
        },
    }  # fmt: skip
    open_to_all: dict[str, Any] = {"security": []}
    health = {
        **open_to_all, "operationId": "health", "summary": "Whether events can be kept.",
        "responses": {
            "200": {"description": "They can.", "content": {"application/json": {"schema": {
                "type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}},
            }}}},
            "503": _answer("They cannot.", "Error"), "403": _REFUSED["403"],
        },
    }  # fmt: skip
    status = {
        "operationId": "status",
        "summary": "Counts since the start, and what waits.",
        "responses": {"200": _answer("The counts.", "Status"), "401": _REFUSED["401"], "403": _REFUSED["403"]},
    }
    described = {
        **open_to_all, "operationId": "openapi", "summary": "This description.",
        "responses": {
            "200": {"description": "It.", "content": {"application/json": {"schema": {"type": "object"}}}},
            "403": _REFUSED["403"],
        },
    }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stepwell", "version": "1", "description": (about or "").strip().partition("\n")[0]},
        "paths": {
            "/v1/events": {"post": events}, "/v1/traces": {"post": traces}, "/v1/status": {"get": status},
            "/healthz": {"get": health}, "/openapi.json": {"get": described},
        },
        "components": {"schemas": {**defined, **named}},
    }  # fmt: skip


def openapi(token: bool) -> dict[str, Any]:
    """The description; with `token` it says that one is required."""
    told = _described()
    if token:
        told["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        told["security"] = [{"token": []}]
    return told
