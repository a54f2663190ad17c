"""Graphs whose traces are looked at, and the trace of the largest as a tree."""

EVERYTHING = """
    name: everything
    nodes:
      - {id: start, task: {type: echo}}
      - {id: left, task: {type: echo}}
      - {id: deep, task: {type: echo}}
      - {id: deeper, task: {type: echo}}
      - {id: both, task: {type: echo}}
      - {id: fast, task: {type: staged}}
      - {id: slow, task: {type: staged}}
      - {id: winner, transform: , join: {mode: any}}
      - {id: flaky, task: {type: fail}, input: 2, retry: {max_attempts: 3, initial_backoff: 10ms}}
      - {id: risky, task: {type: raise}, input: broken}
      - {id: rescue, task: {type: echo}}
      - {id: lazy, task: {type: staged}, timeouts: {attempt: 1s}, on_timeout: continue}
      - {id: choose, condition: {expression: "false"}}
      - {id: never, task: {type: echo}}
      - {id: chosen, task: {type: echo}}
      - {id: locked, task: {type: echo}, locked: true, locked_output: 7}
      - {id: pause, delay: {duration: 5ms}}
      - {id: first, task: {type: stubborn}}
      - {id: second, task: {type: stubborn}}
      - {id: end, transform: , join: {mode: collect}}
    edges:
      - {source: start, target: left, branch_name: left side}
      - {source: left, target: deep}
      - {source: left, target: deeper}
      - {source: deep, target: both}
      - {source: deeper, target: both}
      - {source: both, target: end}
      - {source: start, target: fast}
      - {source: start, target: slow}
      - {source: fast, target: winner}
      - {source: slow, target: winner}
      - {source: winner, target: end}
      - {source: start, target: flaky}
      - {source: flaky, target: end}
      - {source: start, target: risky}
      - {source: risky, target: end}
      - {source: risky, target: rescue, handle: error}
      - {source: rescue, target: end}
      - {source: start, target: lazy}
      - {source: lazy, target: end}
      - {source: start, target: choose}
      - {source: choose, target: never, handle: "true"}
      - {source: choose, target: chosen, handle: "false"}
      - {source: never, target: end}
      - {source: chosen, target: end}
      - {source: start, target: locked}
      - {source: locked, target: end}
      - {source: start, target: pause}
      - {source: pause, target: end}
      - {source: start, target: first}
      - {source: start, target: second}
      - {source: first, target: end}
      - {source: second, target: end}
    """

NESTED = """
    name: nested
    nodes:
      - {id: first, task: {type: echo}}
      - id: outer
        subgraph:
          graph:
            nodes:
              - {id: left, task: {type: echo}}
              - id: right
                subgraph:
                  graph:
                    nodes:
                      - id: flaky
                        task: {type: fail}
                        input: 2
                        retry: {max_attempts: 2, initial_backoff: 1ms}
              - {id: join, transform: }
            edges:
              - {source: left, target: join}
              - {source: right, target: join}
    edges:
      - {source: first, target: outer}
    """

TREE = """
    order
      execution everything SUCCEEDED
        branch 0-001 left side
          branch 0-001-001
            node echo: deep SUCCEEDED
              attempt echo: 1 SUCCEEDED
                handle echo
          branch 0-001-002
            node echo: deeper SUCCEEDED
              attempt echo: 1 SUCCEEDED
                handle echo
          node echo: both SUCCEEDED <- deep deeper
            attempt echo: 1 SUCCEEDED
              handle echo
          node echo: left SUCCEEDED
            attempt echo: 1 SUCCEEDED
              handle echo
        branch 0-002
          node staged: fast SUCCEEDED
            attempt staged: 1 SUCCEEDED
              handle staged
        branch 0-003
          node staged: slow CANCELLED RACE_LOST
            attempt staged: 1 CANCELLED
              handle staged
        branch 0-004
          node fail: flaky SUCCEEDED
            attempt fail: 1 FAILED ! UNAVAILABLE
              handle fail ! UNAVAILABLE
            attempt fail: 2 SUCCEEDED
              handle fail
        branch 0-005
          branch 0-005-002
            node echo: rescue SUCCEEDED
              attempt echo: 1 SUCCEEDED
                handle echo
          node raise: risky FAILED UNKNOWN ! UNKNOWN
            attempt raise: 1 FAILED ! UNKNOWN
              handle raise ! UNKNOWN
        branch 0-006
          node staged: lazy TIMED_OUT DEADLINE_EXCEEDED ! DEADLINE_EXCEEDED
            attempt staged: 1 TIMED_OUT ! DEADLINE_EXCEEDED
              handle staged ! DEADLINE_EXCEEDED
        branch 0-007
          branch 0-007-001
            node echo: never SKIPPED DEAD_PATH
          branch 0-007-002
            node echo: chosen SUCCEEDED
              attempt echo: 1 SUCCEEDED
                handle echo
          node condition: choose SUCCEEDED
        branch 0-008
          node echo: locked SKIPPED LOCKED
        branch 0-009
          node delay: pause SUCCEEDED
        branch 0-010
          node stubborn: first SUCCEEDED
            attempt stubborn: 1 SUCCEEDED
              handle stubborn
        branch 0-011
          node stubborn: second SUCCEEDED
            attempt stubborn: 1 SUCCEEDED
              handle stubborn
        node echo: start SUCCEEDED
          attempt echo: 1 SUCCEEDED
            handle echo
        node transform: end SUCCEEDED <- both winner flaky rescue lazy chosen locked pause first second
        node transform: winner SUCCEEDED <- fast
    """

SIDE_BY_SIDE = """
    name: side-by-side
    nodes:
      - {id: one, task: {type: staged}}
      - {id: other, task: {type: staged}}
      - {id: after, task: {type: echo}}
    edges:
      - {source: one, target: after}
    """
