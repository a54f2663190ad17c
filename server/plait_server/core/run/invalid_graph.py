"""The failure of a sub-graph node whose graph came from an output and is not valid (N7)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from plait_server.core.json_text import splice_array
from plait_server.core.limits import INLINE_BYTES_MAX
from plait_server.core.run.failures import Failure, bounded_message
from plait_server.core.run.payload import Payload
from plait_server.errors import FieldViolation

INVALID_ARGUMENT: Final = "INVALID_ARGUMENT"
_OVERHEAD_BYTES: Final = 64


def invalid_graph(output_of: str, violations: Sequence[FieldViolation], violation_count: int) -> Failure:
    """Make the failure of a node whose graph is invalid.

    Its message has the first violation and the number of the others; its details are
    `{"violations": [{"field", "message"}], "violation_count"}`, with as many violations as fit into an inline
    payload.

    Args:
        output_of: The id of the node whose output is the graph.
        violations: What is wrong with it, at least one.
        violation_count: How many violations there are, kept or not.
    """
    texts: list[str] = []
    room = INLINE_BYTES_MAX - _OVERHEAD_BYTES
    for violation in violations:
        text = json.dumps({"field": violation.field, "message": violation.message}, ensure_ascii=False)
        room -= len(text.encode()) + 1
        if room < 0:
            break
        texts.append(text)
    first = violations[0]
    more = f" (and {violation_count - 1:,} more)" if violation_count > 1 else ""
    return Failure(
        code=INVALID_ARGUMENT,
        message=bounded_message(
            f'the output of "{output_of}" is no valid graph: {first.field}: {first.message}{more}'
        ),
        details=Payload(f'{{"violations":{splice_array(texts)},"violation_count":{violation_count}}}'),
    )
