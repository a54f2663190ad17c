"""Graph files: what they may say, and what is said of those that say something else."""

import contextlib
import json
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from plait.v1 import graph_pb2
from plait_client import file_values
from plait_client.file_values import Value, read_json, read_yaml
from plait_client.graph_file import GraphFileError, load_graph, parse_graph

GRAPH = """
name: contact-sheet
nodes:
  - id: prompt
    task: {type: llm.prompt}
    input:
      topic: "{{ input.topic }}"
      count: 3
      ratio: 1.50
      tags: [on, 2024-01-01, ~, true]
    retry: {max_attempts: 3, initialBackoff: 500ms}
    timeouts: {attempt: 1h30m, node: 90}
    on_error: ignore
    priority: -5
  - id: check
    condition: {expression: input.ok}
    join: {mode: any, cancel_losers: false}
  - id: 17
    transform:
  - id: wait
    delay: {duration: 2m}
    locked: true
    locked_output: [1, 2]
edges:
  - {source: prompt, target: check}
  - {source: check, target: 17, handle: true}
  - {source: check, target: wait, handle: false, branch_name: No}
policy:
  on_failure: fail-fast
  timeout: 1.5
  min_success_rate: 1
scheduling: SCHEDULING_LEVELS
labels: {version: 1.10, code: 007}
"""


def refused(text: str) -> list[str]:
    with pytest.raises(GraphFileError) as caught:
        parse_graph(dedent(text).strip("\n"))
    return [str(problem) for problem in caught.value.problems]


def input_of(text: str) -> object:
    graph = parse_graph(f"nodes:\n- id: a\n  input: {text}\n")
    return json.loads(graph.nodes[0].input.json)


def test_a_graph_in_yaml() -> None:
    graph = parse_graph(GRAPH)
    prompt, check, transform, wait = graph.nodes
    assert json.loads(prompt.input.json) == {
        "topic": "{{ input.topic }}",
        "count": 3,
        "ratio": 1.5,
        "tags": ["on", "2024-01-01", None, True],
    }
    assert prompt.retry == graph_pb2.RetryPolicy(max_attempts=3, initial_backoff=Duration(nanos=500_000_000))
    assert prompt.timeouts == graph_pb2.Timeouts(attempt=Duration(seconds=5400), node=Duration(seconds=90))
    assert (prompt.on_error, prompt.priority) == (graph_pb2.ON_ERROR_IGNORE, -5)
    assert check.join == graph_pb2.Join(mode="JOIN_MODE_ANY", cancel_losers=False)
    assert (transform.id, transform.WhichOneof("kind")) == ("17", "transform")
    assert wait.delay.duration == Duration(seconds=120)
    assert (wait.locked, wait.locked_output.json) == (True, "[1,2]")
    assert [(edge.source, edge.target, edge.handle, edge.branch_name) for edge in graph.edges] == [
        ("prompt", "check", "", ""),
        ("check", "17", "true", ""),
        ("check", "wait", "false", "No"),
    ]
    assert graph.policy == graph_pb2.Policy(
        on_failure="ON_FAILURE_FAIL_FAST",
        timeout=Duration(seconds=1, nanos=500_000_000),
        min_success_rate=1,
    )
    assert graph.scheduling == graph_pb2.SCHEDULING_LEVELS
    assert dict(graph.labels) == {"version": "1.10", "code": "007"}


def test_json_says_the_same() -> None:
    """The proto JSON mapping of a graph is a graph file, its payloads included."""
    graph = parse_graph(GRAPH)
    assert parse_graph(json_format.MessageToJson(graph)) == graph
    assert parse_graph(json_format.MessageToJson(graph, preserving_proto_field_name=True)) == graph
    assert parse_graph(json_format.MessageToJson(graph), file_format="yaml") == graph


def test_input_is_the_value_itself_or_the_message_that_holds_its_text() -> None:
    assert input_of("{json: '1'}") == 1
    assert input_of('{json: \'{"json":"1"}\'}') == {"json": "1"}
    assert input_of("{json: one}") == {"json": "one"}
    assert input_of("{json: '1', more: 2}") == {"json": "1", "more": 2}
    assert input_of("null") is None
    assert input_of("") is None
    assert input_of("text") == "text"
    assert not parse_graph("nodes:\n- id: a\n").nodes[0].HasField("input")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("True", True),
        ("FALSE", False),
        ("Null", None),
        ("~", None),
        ("'~'", "~"),
        ('"true"', "true"),
        ("! 12", "12"),
        ("!!str 12", "12"),
        ("9007199254740993", 9007199254740993),
        ("{on: 1, 2: x, null: y}", {"on": 1, "2": "x", "null": "y"}),
        ("[&x {a: 1}, *x]", [{"a": 1}, {"a": 1}]),
        ("+", "+"),
        (".", "."),
    ],
)
def test_yaml_is_read_by_the_core_schema_of_1_2(text: str, expected: object) -> None:
    found = input_of(text)
    assert (found, type(found)) == (expected, type(expected))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_values_survive(value: object) -> None:
    text = json.dumps({"nodes": [{"id": "a", "input": value}]})
    assert json.loads(parse_graph(text).nodes[0].input.json) == value


@given(json_values)
def test_yaml_reads_what_is_dumped_with_quotes(value: object) -> None:
    text = (
        yaml.safe_dump({"v": value}, default_style='"')
        if isinstance(value, str)
        else json.dumps({"v": value})
    )
    try:
        read = read_yaml(text, [])
    except ValueError:
        # YAML has no word for some control characters that JSON text holds as they are.
        return
    assert isinstance(read.content, dict)
    assert read.content["v"].plain() == value or "\x7f" in text


@given(st.text(alphabet=" -:[]{}&*!|>'\"%@`#,?\nab01.~<", max_size=40))
def test_whatever_text_there_is_a_graph_or_an_error_comes_of_it(text: str) -> None:
    for file_format in ("yaml", "json"):
        with contextlib.suppress(GraphFileError):
            parse_graph(text, file_format=file_format)


def test_all_problems_are_reported_together_by_line() -> None:
    assert refused(
        """
        nodes:
          - id: a
            taks: {type: x}
            task: {type: [x]}
            condition: {expression: x}
            join: {mode: evry}
            priority: high
            locked: yes
            id: b
            retry: {max_attempts: 99999999999, maxBackoff: true}
        edges: {a: b}
        label: x
        """
    ) == [
        'nodes[0], line 3: unknown key "taks"; did you mean "task"?',
        "nodes[0].task.type, line 4: expected a text, found a list",
        "nodes[0].condition, line 5: only one of `task` and `condition` can be given; remove one",
        'nodes[0].join.mode, line 6: there is no "evry" here; there are ALL, ANY, QUORUM, COLLECT',
        'nodes[0].priority, line 7: expected a whole number, found the text "high"',
        'nodes[0].locked, line 8: "yes" is a text in YAML 1.2; write true or false',
        "nodes[0].id, line 9: the key stands twice, first in line 2; remove one",
        "nodes[0].retry.max_attempts, line 10: the number does not fit into 32 bits",
        (
            "nodes[0].retry.maxBackoff, line 10: expected a duration such as 30s, 500ms, 2m or 1h, "
            "or a number of seconds, found true"
        ),
        "edges, line 11: expected a list, found an object",
        'line 12: unknown key "label"; did you mean "labels"?',
    ]


def test_json_problems_have_paths() -> None:
    text = '{"nodes": [{"id": "a", "id": "b", "handle": 1, "locked": 1}], "name": true, "policy": []}'
    assert refused(text) == [
        "nodes[0].id: the key stands twice; remove one",
        (
            'nodes[0]: unknown key "handle"; here may stand id, task, condition, switch, transform, delay, '
            "subgraph, input, join, retry, timeouts, on_error, on_timeout, priority, locked, locked_output, "
            "concurrency_key"
        ),
        "nodes[0].locked: expected true or false, found the number 1",
        'name: expected a text; write "true", found true',
        "policy: expected an object, found a list",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "on_error: tolerat",
            'there is no "tolerat" here; did you mean TOLERATE? there are FAIL, TOLERATE, IGNORE',
        ),
        ("on_error: 7", "expected one of FAIL, TOLERATE, IGNORE, found the number 7"),
        ("on_timeout: [x]", "expected one of ERROR, CONTINUE, CANCEL, found a list"),
        ("priority: 1.5", "expected a whole number, found the number 1.5"),
        ("priority: true", "expected a whole number, found true"),
        ("join: {rate: x}", 'expected a number, found the text "x"'),
        ("join: [1]", "expected an object, found a list"),
        ("delay: {duration: -5s}", "a duration cannot be negative"),
        ("delay: {duration: -5}", "a duration cannot be negative"),
        ("delay: {duration: 99999999999999}", "a duration is at most 315,576,000,000 seconds"),
        (
            "delay: {duration: 5 minutes}",
            (
                "expected a duration such as 30s, 500ms, 2m or 1h, or a number of seconds, "
                'found the text "5 minutes"'
            ),
        ),
        ("switch: {cases: [a, ~]}", "the list has an empty item; remove it"),
        ("switch: {cases: a}", 'expected a list, found the text "a"'),
    ],
)
def test_what_does_not_fit_is_described(text: str, problem: str) -> None:
    (found,) = refused(f"nodes:\n- id: a\n  {text}\n")
    assert found.partition(", line 3: ")[2] == problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", Duration(seconds=30)),
        ("500ms", Duration(nanos=500_000_000)),
        ("1.5h", Duration(seconds=5400)),
        ("1d2h3m4s", Duration(seconds=93_784)),
        ("10us", Duration(nanos=10_000)),
        ("1", Duration(seconds=1)),
        ("0.25", Duration(nanos=250_000_000)),
        ("'2.000000001s'", Duration(seconds=2, nanos=1)),
    ],
)
def test_durations(text: str, expected: Duration) -> None:
    graph = parse_graph(f"policy: {{timeout: {text}}}\n")
    assert graph.policy.timeout == expected


@pytest.mark.parametrize("word", ["any", "ANY", "Any", "JOIN_MODE_ANY", "join-mode-any", "2"])
def test_enums_may_be_short_and_in_any_case(word: str) -> None:
    assert parse_graph(f"nodes:\n- join: {{mode: {word}}}\n").nodes[0].join.mode == graph_pb2.JOIN_MODE_ANY


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "line 2: this is no YAML: did not find expected node content"),
        ("a: b: c", "line 1: this is no YAML: mapping values are not allowed in this context"),
        ("a: \x00", "this is no YAML: unacceptable character #x0000: control characters are not allowed"),
        ("a: *x", 'line 1: no value before this one is anchored as "x"'),
        ("a: &x [*x]", 'line 1: no value before this one is anchored as "x"'),
        ("a: &x b\n*x : c", "line 2: an alias cannot be a key; write the key out"),
        ("? [a]\n: b", "line 1: a list or object cannot be a key"),
        ("<<: {a: 1}", "line 1: YAML 1.2 has no merge keys (`<<`); write the keys out"),
        ("a: !!set {b}", 'line 1: the tag "tag:yaml.org,2002:set" is not supported; remove it'),
        (
            "a: !!python/object/apply:os.system [ls]",
            'line 1: the tag "tag:yaml.org,2002:python/object/apply:os.system" is not supported; remove it',
        ),
        ("a: !x 1", 'line 1: the tag "!x" is not supported; remove it'),
        ("a: 1\n---\nb: 2", "line 2: a second document begins here; a file holds one graph"),
        ("a: .nan", 'line 1: JSON has no ".nan"; write null, or a text in quotes'),
        ("a: -.inf", 'line 1: JSON has no "-.inf"; write null, or a text in quotes'),
        ("a: 1e999", 'line 1: the number "1e999" is beyond the range of a double'),
        ("a: " + "9" * 5000, "line 1: an integer has more than 4,300 digits"),
        ("a: " + "[" * 141 + "]" * 141, "line 1: lists and objects nest deeper than 140 levels"),
        ("- a", "line 1: expected an object, found a list"),
        ("", "expected an object, found nothing"),
    ],
)
def test_yaml_that_cannot_be_read(text: str, problem: str) -> None:
    with pytest.raises(GraphFileError) as caught:
        parse_graph(text, file_format="yaml")
    assert [str(found) for found in caught.value.problems] == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"nodes":[', "line 1: this is no JSON: expecting value, column 11"),
        ('{\n"a" 1}', "line 2: this is no JSON: expecting ':' delimiter, column 5"),
        ('{"a": NaN}', "NaN is no JSON; write null or a text"),
        ('{"a": -Infinity}', "-Infinity is no JSON; write null or a text"),
        ('{"a": 1e999}', 'the number "1e999" is beyond the range of a double'),
        ('{"a":' * 200 + "1" + "}" * 200, "lists and objects nest deeper than 140 levels"),
        ('{"a":' * 100_000, "lists and objects nest deeper than 140 levels"),
        ('{"name": "\\ud800"}', "name: half of a surrogate pair stands alone; remove it"),
        (
            '{"nodes": [{"input": ["\\ud800"]}]}',
            "nodes[0].input: half of a surrogate pair stands alone; remove it",
        ),
    ],
)
def test_json_that_cannot_be_read(text: str, problem: str) -> None:
    assert refused(text) == [problem]


def test_a_long_integer_in_json_is_refused() -> None:
    (problem,) = refused('{"a": ' + "9" * 5000 + "}")
    assert "4300" in problem


def test_aliases_of_aliases_do_not_explode() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join(['*' + below] * 10)}]"
        for below, name in zip("abcdefg", "bcdefgh", strict=True)
    ]
    assert refused("\n".join(lines)) == [
        "line 5: the aliases stand for more than 100,000 values; write fewer"
    ]


def test_many_aliases_of_a_small_value_are_fine() -> None:
    lines = ["nodes:", "- &first {id: a, retry: &often {max_attempts: 3}}"]
    lines += [f"- {{id: n{number}, retry: *often}}" for number in range(1000)]
    assert parse_graph("\n".join(lines)).nodes[1000].retry.max_attempts == 3


def test_many_problems_are_cut_in_the_text_and_kept_in_the_list() -> None:
    with pytest.raises(GraphFileError) as caught:
        parse_graph("\n".join(f"key{number}: 1" for number in range(60)))
    assert len(caught.value.problems) == 60
    assert str(caught.value).splitlines()[0] == "graph:"
    assert str(caught.value).splitlines()[-1] == "  and 10 more"


def test_a_file_is_told_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text("\ufeffname: é\n", encoding="utf-8")
    assert load_graph(file).name == "é"
    assert load_graph(str(file)).name == "é"
    file = tmp_path / "graph.JSON"
    file.write_text("name: x", encoding="utf-8")
    with pytest.raises(GraphFileError, match=r"graph.JSON: line 1: this is no JSON"):
        load_graph(file)


def test_text_is_told_by_its_looks() -> None:
    assert load_graph("name: x\n").name == "x"
    assert load_graph('{"name": "x"}').name == "x"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    with pytest.raises(GraphFileError) as caught:
        load_graph(missing)
    assert str(caught.value) == f"{missing}: No such file or directory"
    assert caught.value.name == str(missing)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(GraphFileError, match="the file is not UTF-8"):
        load_graph(binary)


def test_a_file_beyond_its_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_client.graph_file.FILE_BYTES_MAX", 10)
    file = tmp_path / "graph.yaml"
    file.write_text("name: longer", encoding="utf-8")
    with pytest.raises(GraphFileError, match="the file has more than 10 bytes"):
        load_graph(file)


def test_without_pyyaml_json_is_read_and_yaml_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    assert parse_graph('{"name": "x"}').name == "x"
    with pytest.raises(GraphFileError) as caught:
        parse_graph("name: x")
    assert (
        str(caught.value) == 'graph: reading YAML needs PyYAML: pip install "plait[cli]"; JSON needs nothing'
    )


def test_the_slow_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = parse_graph(GRAPH)
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert parse_graph(GRAPH) == quick


def test_values_know_their_lines() -> None:
    value = read_yaml("a:\n  - b\n  - c\n", [])
    assert isinstance(value.content, dict)
    inner = value.content["a"]
    assert isinstance(inner.content, list)
    assert [item.line for item in inner.content] == [2, 3]
    assert read_json("[1]", []) == Value([Value(1)])
    assert file_values.quote("x" * 100) == '"' + "x" * 80 + '…"'


# Graphs in graphs.


def nested_text(depth: int, innermost: str) -> str:
    text = innermost
    for _ in range(depth):
        text = f'{{"nodes": [{{"id": "s", "subgraph": {{"graph": {text}}}}}]}}'
    return text


def test_a_graph_stands_in_a_sub_graph_node() -> None:
    graph = parse_graph(
        """
        nodes:
          - id: plan
            task: {type: t}
          - id: sub
            input: {x: 1}
            timeouts: {node: 2m}
            subgraph:
              graph:
                policy: {on_failure: continue}
                nodes: [{id: a, transform: , input: "{{ input.x }}"}]
          - {id: run, subgraph: {output_of: plan}}
        """
    )
    inner = graph.nodes[1].subgraph.graph
    assert inner.policy.on_failure == graph_pb2.ON_FAILURE_CONTINUE
    assert inner.nodes[0].input.json == '"{{ input.x }}"'
    assert graph.nodes[1].input.json == '{"x":1}'
    assert graph.nodes[2].subgraph.output_of == "plan"


def test_problems_in_an_inner_graph_have_their_whole_path() -> None:
    with pytest.raises(GraphFileError) as caught:
        parse_graph(nested_text(2, '{"nodes": [{"id": "a", "tsk": {}}]}'))
    assert [problem.path for problem in caught.value.problems] == [
        "nodes[0].subgraph.graph.nodes[0].subgraph.graph.nodes[0]"
    ]


def test_only_one_source_of_a_sub_graph_can_be_given() -> None:
    with pytest.raises(GraphFileError, match="only one of `graph` and `output_of` can be given"):
        parse_graph('{"nodes": [{"id": "a", "subgraph": {"graph": {}, "output_of": "b"}}]}')


@pytest.mark.parametrize("is_yaml", [False, True])
def test_graphs_are_nested_16_deep_with_the_deepest_values_in_them(is_yaml: bool) -> None:
    value = "[" * 64 + "]" * 64
    text = nested_text(16, f'{{"nodes": [{{"id": "a", "transform": {{}}, "input": {value}}}]}}')
    graph = parse_graph(text, file_format="yaml" if is_yaml else "json")
    for _ in range(16):
        graph = graph.nodes[0].subgraph.graph
    assert graph.nodes[0].input.json == value
    with pytest.raises(GraphFileError, match="graphs are nested more than 16 deep; nest them less"):
        parse_graph(nested_text(17, "{}"))
