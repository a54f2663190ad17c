"""Flags win over variables, those over the file, that over defaults; all problems are told together, with places."""

from __future__ import annotations

import tomllib

import pytest

from plait_server.config import OTHER_VARIABLES, ServerConfig, TypeOptions
from plait_server.configuration.example import example_of
from plait_server.configuration.options import options_of
from plait_server.configuration.reading import FILE_BYTES_MAX, Reading
from plait_server.core.namespace_settings import NamespaceSettings, QueueOrder


def reading() -> Reading:
    return Reading(options_of(ServerConfig))


def sources(read: Reading) -> dict[str, str]:
    return {".".join(each.path): each.source for each in read.effective()}


def problems(read: Reading) -> list[str]:
    return [str(problem) for problem in read.problems]


def test_nothing_given_is_the_default() -> None:
    assert ServerConfig(**reading().values()) == ServerConfig()  # type: ignore[arg-type]
    assert set(sources(reading()).values()) == {"default"}


def test_a_flag_wins_over_a_variable_and_that_over_the_file() -> None:
    read = reading()
    read.read_file("plait.toml", b'log_level = "debug"\nserver_limit = 1\nping_s = 2\n')
    read.read_variables({"PLAIT_SERVER_LIMIT": "2", "PLAIT_PING_S": "3", "PLAIT_STORE": ""}, OTHER_VARIABLES)
    read.read_flags({"ping_s": ["4", "5"]})
    assert problems(read) == []
    config = ServerConfig(**read.values())  # type: ignore[arg-type]
    assert config == ServerConfig(log_level="DEBUG", server_limit=2, ping_s=5.0)
    found = sources(read)
    assert found["log_level"] == "plait.toml, line 1"
    assert found["server_limit"] == "PLAIT_SERVER_LIMIT"
    assert found["ping_s"] == "--ping-s"
    assert found["store"] == "default"


def test_entries_of_a_table_come_from_all_sources() -> None:
    read = reading()
    read.read_file(
        "plait.toml", b'[types."gpu.render"]\nmax_concurrency = 1\n[types.draft]\nmax_concurrency = 2\n'
    )
    read.read_variables(
        {"PLAIT_TYPES": "draft.max_concurrency=3, other.max_concurrency = 4"}, OTHER_VARIABLES
    )
    read.read_flags({"types": ["a.b.max_concurrency=5", "other.max_concurrency=6"]})
    assert problems(read) == []
    limits = {name: options.max_concurrency for name, options in read_types(read).items()}
    assert limits == {"gpu.render": 1, "draft": 3, "other": 6, "a.b": 5}
    assert sources(read)["types.gpu.render.max_concurrency"] == "plait.toml, line 2"


def test_settings_of_namespaces_may_be_given_for_all() -> None:
    read = reading()
    read.read_file(
        "plait.toml",
        b"""\
[namespaces."*"]
running_max = 50
order = "priority"
[namespaces.shop]
queue_timeout_s = 60
""",
    )
    read.read_flags({"namespaces": ["*.running_max=60", "shop.weight=3"]})
    assert problems(read) == []
    settings = ServerConfig(**read.values()).namespace_settings  # type: ignore[arg-type]
    assert settings == {
        "*": NamespaceSettings(running_max=60, order=QueueOrder.PRIORITY),
        "shop": NamespaceSettings(queue_timeout_s=60.0, weight=3),
    }
    read.read_flags({"namespaces": ["a b.weight=1"]})
    assert problems(read)[0].endswith("is no name; it must match [A-Za-z0-9_.-]{1,128}, or be * for all")


def read_types(read: Reading) -> dict[str, TypeOptions]:
    return dict(ServerConfig(**read.values()).types)  # type: ignore[arg-type]


def test_all_problems_of_a_file_are_told_with_their_lines_and_no_foreign_value() -> None:
    read = reading()
    read.read_file(
        "plait.toml",
        b"""\
server_limt = 5
ping_s = "often"
types = 3
inline = {token = "plait_secret"}
[names]
x = '''
[types.b]
'''
""",
    )
    assert problems(read) == [
        'plait.toml, line 1: there is no option "server_limt"; did you mean server_limit?',
        'plait.toml, line 2: ping_s: "often" is not a number from 0.1 to 3,600',
        "plait.toml, line 3: types is a table of entries by name; write [types.NAME] and its options below",
        'plait.toml, line 4: there is no option "inline"; `plait config show-defaults` lists the options',
        'plait.toml, line 5: there is no option "names"; `plait config show-defaults` lists the options',
    ]


def test_problems_within_tables_name_the_entry() -> None:
    read = reading()
    read.read_file(
        "plait.toml",
        b"""\
types.flat = 1
[types."gpu.render"]
max_concurrency = 0
max_concurency = 1
[types."no name"]
max_concurrency = 1
""",
    )
    assert problems(read) == [
        'plait.toml, line 1: types."flat" is no table; write [types."flat"] and options',
        'plait.toml, line 3: types."gpu.render".max_concurrency: 0 is not an integer from 1 to 1,000,000',
        (
            'plait.toml, line 4: there is no option "max_concurency" in [types."gpu.render"]; '
            "did you mean max_concurrency?"
        ),
        'plait.toml, line 5: "no name" in types is no name; it must match [A-Za-z0-9_.-]{1,128}',
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"listen = \n", "f: is not TOML: Invalid value (at line 1, column 10)"),
        (b"a = 1\na = 2\n", "f: is not TOML: Cannot overwrite a value (at line 2, column 6)"),
        (b"\xff", "f: is not UTF-8 at byte 0"),
        (b"#" * (FILE_BYTES_MAX + 1), "f: is larger than 1,048,576 bytes"),
        (b"a = " + b"[" * 100_000, "f: is not TOML: it is nested too deeply"),
        (b"a = " + b"9" * 6_000, "f: is not TOML: a number is too long"),
    ],
    ids=["no value", "twice", "no text", "large", "deep", "long number"],
)
def test_a_file_that_is_no_toml_is_one_problem(content: bytes, problem: str) -> None:
    read = reading()
    read.read_file("f", content)
    assert problems(read) == [problem]


def test_variables_that_are_no_options_are_refused_unless_others_own_them() -> None:
    read = reading()
    read.read_variables(
        {
            "PLAIT_LISTN": "plait_secret",
            "PLAIT_TOTALLY_ELSE": "x",
            "PLAIT_PING_S": "0",
            "PLAIT_NAMESPACE": "shop",
            "PATH": "/bin",
            # What Kubernetes defines in each pod for a service called plait.
            "PLAIT_SERVICE_HOST": "10.0.0.1",
            "PLAIT_SERVICE_PORT": "7480",
            "PLAIT_SERVICE_PORT_GRPC": "7480",
            "PLAIT_PORT": "tcp://10.0.0.1:7480",
            "PLAIT_PORT_7480_TCP": "tcp://10.0.0.1:7480",
            "PLAIT_PORT_7480_TCP_ADDR": "10.0.0.1",
            "PLAIT_JAEGER_SERVICE_HOST": "10.0.0.2",
        },
        OTHER_VARIABLES,
    )
    assert problems(read) == [
        "PLAIT_LISTN: there is no such variable; did you mean PLAIT_LISTEN?",
        'PLAIT_PING_S: ping_s: "0" is not a number from 0.1 to 3,600',
        "PLAIT_TOTALLY_ELSE: there is no such variable; `plait config show-defaults` lists the options",
    ]


def test_a_port_that_somebody_hoped_for_is_refused() -> None:
    read = reading()
    read.read_variables({"PLAIT_PORT": "9000"}, OTHER_VARIABLES)
    assert [problem.source for problem in read.problems] == ["PLAIT_PORT"]


@pytest.mark.parametrize(
    "text", ["draft", "draft=4", "max_concurrency=4", "a.b=1", "a.max_concurrency=", ","]
)
def test_flags_of_tables_that_are_malformed_are_refused(text: str) -> None:
    read = reading()
    read.read_flags({"types": [text]})
    assert problems(read)
    assert all(problem.startswith("--types: ") for problem in problems(read))


def test_the_example_without_its_comment_signs_is_the_default() -> None:
    text = example_of(options_of(ServerConfig), "Head.")
    lines = [
        line.removeprefix("#")
        for line in text.splitlines()
        if line.startswith("#") and not line.startswith("# ") and not line.rstrip().endswith("=")
    ]
    document = tomllib.loads("\n".join(lines))
    read = reading()
    read.read_file("example", "\n".join(lines).encode())
    assert problems(read) == []
    assert {each.name for each in options_of(ServerConfig)} == document.keys()
    assert {**read.values(), "types": {}} == {**reading().values(), "types": {}}
