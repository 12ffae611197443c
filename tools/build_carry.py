"""Writes the graph that carries the history on a device (needs the [train] extra).

    python tools/build_carry.py

To be run after a change of videonst/export/carry.py or of the constants in videonst/temporal/carry.py.
"""

from videonst.export.carry import carry_graph
from videonst.temporal.carry import GRAPH

if __name__ == "__main__":
    GRAPH.write_bytes(carry_graph().SerializeToString(deterministic=True))
    print(f"{GRAPH}: {GRAPH.stat().st_size} bytes")
