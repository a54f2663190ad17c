"""The simulator: random graphs on the whole server and the real worker session, in virtual time, from one seed.

`run.simulate` runs one seed, `plait_server.testing.sim` many. What is real: everything that `bootstrap.assemble` puts
together, the journals, the expressions, the worker's session. What is simulated: clock, ids, chance, the network, the
handlers, the clients, and what goes wrong.

- `world`: the seed, its clock and chance, and trio made deterministic;
- `store`: the stores, a tap on what became durable, and where appends break;
- `network`: streams that carry frames as bytes, late, stalled or cut;
- `host`: the machine that the server runs on, which crashes and starts it again;
- `workers` and `scripts`: worker processes around `plait_worker.session`, and what their handlers do;
- `graphs`: random graphs, of expressions whose values are known without CEL;
- `clients`: submitters, watchers and others, who check what they are told; `callers`: whose trace they submit in;
- `collector`: where spans are sent, and the tracing of each start of the server, with a tap;
- `faults`: what goes wrong, and when;
- `judge` and `checks`: each journal, held against `plait_server.testing.slow_model`, and what clients were promised;
- `span_law`, `span_compare` and `span_checks`: what spans there must be, whether they are right, and whether they came;
- `coverage`: which rows of the tables were seen.
"""
