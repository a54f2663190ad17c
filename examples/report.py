"""The worker of report.yaml: it plans a report, and the plan is a graph that the server runs.

plait worker examples.report:worker --connect 127.0.0.1:7480
"""

from __future__ import annotations

from typing import Any, TypedDict

from plait_client import GraphBuilder, cel, collect, graph_value
from plait_worker import Context, NodeFailure, Worker

worker = Worker()


class PlanInput(TypedDict):
    """The input of a plan."""

    topic: str
    """What it is about."""
    headings: list[str]
    """Its sections."""


class SectionInput(TypedDict):
    """The input of a section."""

    topic: str
    """What the report is about."""
    heading: str
    """What the section is about."""


@worker.node("report.plan")
async def plan(context: Context, input: PlanInput) -> dict[str, Any]:
    """Plan a report: its sections are written side by side, and those that come to nothing are left out."""
    if not input["headings"]:
        raise NodeFailure("NO_HEADINGS", "a report has at least one heading")
    context.log(f"planning {len(input['headings'])} sections")
    graph = GraphBuilder("sections", output="nodes.whole.output.results.filter(r, r.success).map(r, r.data)")
    sections = [
        graph.task(
            f"section-{number}",
            "report.section",
            # The texts come by the input of the graph. Written into it, a `{{` in them would be an expression.
            input={"topic": cel("input.topic"), "heading": cel(f"input.headings[{number}]")},
        )
        for number in range(len(input["headings"]))
    ]
    graph.transform("whole", after=sections, join=collect(min_success_rate=0.5))
    return graph_value(graph)


@worker.node("report.section")
async def write_section(context: Context, input: SectionInput) -> str:
    """Write a section; a model could do it as well."""
    heading = " ".join(input["heading"].split())
    context.log(f"writing about {heading!r}")
    if not heading:
        raise NodeFailure("NO_HEADING", "a section needs a heading")
    return f"{heading}: what is to be said of {input['topic']}"
