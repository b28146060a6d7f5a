"""The first process of machines that are namespaces: makes them, then waits until it is to end.

usage, inside new network, mount and process namespaces: sandbox.py NODE...

It ends when its input does, or when it is killed, and with it every process, address and bridge.
"""

import contextlib
import os
import subprocess
import sys
import threading

NETWORK = "10.77.0"


def ip(*words: str) -> None:
    """Change addresses and links."""
    subprocess.run(["ip", *words], check=True)


def plug_together(nodes: list[str]) -> None:
    """Give every node an address of its own at one bridge, which is this machine."""
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run/netns"], check=True)
    ip("link", "set", "lo", "up")
    ip("link", "add", "switch", "type", "bridge")
    ip("addr", "add", f"{NETWORK}.254/24", "dev", "switch")
    ip("link", "set", "switch", "up")
    for number, node in enumerate(nodes, start=1):
        ip("netns", "add", node)
        ip("link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", node)
        ip("link", "set", node, "master", "switch", "up")
        ip("-n", node, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        ip("-n", node, "link", "set", "eth0", "up")
        ip("-n", node, "link", "set", "lo", "up")
        ip("-n", node, "route", "add", "default", "via", f"{NETWORK}.254")


def name(nodes: list[str], hosts: str) -> None:
    """Let names of nodes stand for their addresses."""
    with open(hosts, "w") as file:
        print("127.0.0.1 localhost", file=file)
        for number, node in enumerate(nodes, start=1):
            print(f"{NETWORK}.{number} {node}", file=file)
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


def main() -> None:
    """Be the process that all others are children of at last."""
    hosts, *nodes = sys.argv[1:]
    plug_together(nodes)
    name(nodes, hosts)
    print("ready", flush=True)
    over = threading.Thread(target=sys.stdin.read)
    over.start()
    while over.is_alive():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        over.join(0.2)


if __name__ == "__main__":
    main()
