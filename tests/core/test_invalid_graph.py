"""N7: the graph that an output is not."""

import json

from plait_server.core.limits import INLINE_BYTES_MAX
from plait_server.core.run.invalid_graph import invalid_graph
from plait_server.errors import FieldViolation


def test_n7_the_failure_names_the_first_violation_and_holds_all() -> None:
    violations = [FieldViolation(field=f"graph.nodes[{n}].id", message=f'"é {n}" is no id') for n in range(2)]
    failure = invalid_graph("plan", violations, 2)
    assert (failure.code, failure.retryable) == ("INVALID_ARGUMENT", False)
    assert failure.message == (
        'the output of "plan" is no valid graph: graph.nodes[0].id: "é 0" is no id (and 1 more)'
    )
    assert failure.details is not None
    assert json.loads(failure.details.json) == {
        "violations": [{"field": each.field, "message": each.message} for each in violations],
        "violation_count": 2,
    }
    assert invalid_graph("plan", violations[:1], 1).message.endswith('"é 0" is no id')


def test_n7_violations_that_do_not_fit_are_counted_only() -> None:
    violations = [FieldViolation(field=f"graph.{'x' * 2_000}", message="é" * n) for n in range(50)]
    failure = invalid_graph("plan", violations, 70)
    assert failure.details is not None
    assert len(failure.details.json.encode()) <= INLINE_BYTES_MAX
    details = json.loads(failure.details.json)
    assert (len(details["violations"]), details["violation_count"]) == (15, 70)
