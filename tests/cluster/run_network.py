"""The network of a rig without Ray, in namespaces of its own: prints what is reached and what is not, as JSON."""

import json
import socket
import subprocess
import sys

from headrace.cluster.rig import Rig, address, lay_network

LISTEN = "import socket; s = socket.create_server(('0.0.0.0', 7000)); print(flush=True)\nwhile True: s.accept()"


def reaches(rig: Rig, node: str, host: str) -> bool:
    """Whether a connection from a node to port 7000 of an address comes about."""
    attempt = f"import socket; socket.create_connection(('{host}', 7000), timeout=1)"
    return subprocess.run(rig.inside([sys.executable, "-c", attempt], node), stderr=subprocess.DEVNULL).returncode == 0


def main() -> None:
    rig = Rig(("n1", "n2", "n3"), 1, "", "")
    lay_network(rig.nodes)
    listening = {node: rig.popen([sys.executable, "-c", LISTEN], node, stdout=subprocess.PIPE) for node in rig.nodes}
    for process in listening.values():
        process.stdout.readline()
    told = {"before": [reaches(rig, "n2", address("n3")), reaches(rig, "n3", address("n2"))]}
    socket.create_connection((address("n3"), 7000), timeout=5).close()  # from outside all nodes
    rig.cut("n3")
    told["cut"] = [reaches(rig, "n2", address("n3")), reaches(rig, "n3", address("n2")), reaches(rig, "n1", address("n2"))]
    rig.heal("n3")
    told["healed"] = [reaches(rig, "n2", address("n3")), reaches(rig, "n3", address("n2"))]
    rig.kill("n2")
    told["killed"] = [listening[node].wait(5) if node == "n2" else listening[node].poll() for node in rig.nodes]
    told["left"] = len(rig.processes("n2"))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
