"""For those who test Plait or build on it: contract suites for stores, and the simulator. It ships with the server."""
