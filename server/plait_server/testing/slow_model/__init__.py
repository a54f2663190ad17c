"""SEMANTICS.md written down a second time: a slow, plain model of an execution, to hold the engine against.

It shares nothing with the engine but the words for graphs, states and failures. Where the engine counts, it searches;
what the engine keeps up to date, it works out anew at every step. So it is quadratic at best and made for small graphs,
and each of its rules can be read beside the sentence that it quotes.

- `paths`: what follows from a graph's edges alone: levels, remaining paths, guarded nodes, branches;
- `expressions`: what it asks of whoever can evaluate expressions;
- `nodes`: what it knows of nodes, edges and failures;
- `edges`: the table of section 5;
- `joins`: the table of section 6: verdicts, inputs, causes;
- `races`: J1, the losers;
- `scopes`: section 10: the tree of scopes, and which rules reach into those inside;
- `changes`: what becomes of nodes and scopes, as events would tell it;
- `starts`: R2, R4 and T1: what starts when;
- `outcome`: E5, E1 and S2.3: how a scope ends, and what it names;
- `model`: the execution: J5's order, failures, retries, timeouts, stops.
"""

from plait_server.testing.slow_model.edges import without_words
from plait_server.testing.slow_model.expressions import Expressions, NoValue
from plait_server.testing.slow_model.model import SlowModel
from plait_server.testing.slow_model.nodes import Change, Outcome, ScopeEnd

__all__ = ["Change", "Expressions", "NoValue", "Outcome", "ScopeEnd", "SlowModel", "without_words"]
