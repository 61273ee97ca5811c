"""A node stays a member while its host's network changes under it (protocol section 9). Nothing is restarted."""

from __future__ import annotations

import json
import signal
import sys
import time

import pytest
from netlab.devices import Device, Listener, wait_for_event
from netlab.firewall import block_membership_queries
from netlab.lab import Host, Lab, wait_until
from netlab.probes import wait_until_selective
from netlab.topologies import one_switch, two_hosts

pytestmark = pytest.mark.network

BOTH = pytest.mark.parametrize("transport", ["v4", "v6"])

HASTY = """
import sys
from mp2p_udp import upkeep
upkeep.REJOIN_EVERY = 5.0
from mp2p.__main__ import main
sys.argv[0] = "mp2p"
main()
"""

MANY = """
import sys, anyio, mp2p
from contextlib import AsyncExitStack
async def main():
    async with AsyncExitStack() as stack:
        opening = [mp2p.open_node(mp2p.Identity.generate(), allow="any", transports=[sys.argv[1]]) for _ in range(25)]
        nodes = [await stack.enter_async_context(each) for each in opening]
        print(*(node.contact for node in nodes), flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def reaches(host: Host, listener: Listener, transport: str) -> bool:
    """Tell whether a new caller gets through within 5 seconds."""
    caller = Device(host, "caller")
    return caller.send(listener.key, "hello", "--transport", transport, "--timeout", "5").code == 0


@BOTH
def test_an_interface_that_was_removed_and_made_anew(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    listener = Device(ends.right).listen("--transport", transport)
    (old,) = ends.right.interfaces
    was = old.name
    old.unplug()
    _, new = lab.link(ends.left, ends.right)
    ends.right.ip(f"link set {new.name} down", f"link set {new.name} name {was}", f"link set {was} up")
    new.name = was
    new.wait_ready()
    ends.right.wait_joined(listener.group(), was)
    assert reaches(ends.left, listener, transport)
    assert len(listener.stop()) == 1


@BOTH
def test_a_second_interface_that_appears_later(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    listener = Device(ends.right).listen("--transport", transport)
    late = lab.host("late")
    _, new = lab.link(late, ends.right)
    ends.right.wait_joined(listener.group(), new.name)
    assert reaches(late, listener, transport)
    assert reaches(ends.left, listener, transport)
    assert len(listener.stop()) == 2


@BOTH
def test_an_address_that_changed(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    listener = Device(ends.right).listen("--transport", transport)
    subnet = lab.subnet()
    for end in (ends.left_port, ends.right_port):
        end.assign(subnet)
    ends.right.wait_joined(listener.group())
    assert reaches(ends.left, listener, transport)
    assert len(listener.stop()) == 1


@BOTH
def test_a_link_that_was_down(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    listener = Device(ends.right).listen("--transport", transport)
    ends.right_port.down()
    wait_until(
        lambda: (ends.right_port.name, listener.group()) not in ends.right.memberships(),
        "the group to be left",
    )
    ends.right_port.up()
    ends.right.wait_joined(listener.group())
    assert reaches(ends.left, listener, transport)
    assert len(listener.stop()) == 1


@BOTH
@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_one_session_goes_on_through_all_of_it(lab: Lab, transport: str, seconds: int) -> None:
    ends = two_hosts(lab)
    listener = Device(ends.right).listen("--transport", transport)
    pinging = Device(ends.left).start(
        "ping", "-c", "1000000", "-i", "0.02", "--transport", transport, "--timeout", "2", listener.key
    )

    def goes_on() -> None:
        """Wait until a ping is answered that has been sent from now on."""
        done = [json.loads(line) for line in pinging.stdout]
        last = max((record["number"] for record in done if "number" in record), default=0)
        wait_for_event(pinging, "reply", lambda record: record["number"] > last + 1)

    goes_on()
    ends.right_port.down()
    time.sleep(seconds)  # as long as the link is to be down
    ends.right_port.up()
    goes_on()
    subnet = lab.subnet()
    for end in (ends.left_port, ends.right_port):
        end.assign(subnet)
    goes_on()
    ends.right_port.unplug()
    lab.link(ends.left, ends.right)
    goes_on()
    pinging.stop(signal.SIGINT)
    assert sum('"connected"' in line for line in pinging.stdout) == 1
    assert listener.stop() == []


@BOTH
def test_a_switch_that_forgot_is_reminded(lab: Lab, transport: str) -> None:
    shared = one_switch(lab, 3, snooping=True, querier=True)
    host, caller, bystander = shared.hosts[:3]
    device = Device(host)
    block_membership_queries(host)
    process = host.start(
        *(sys.executable, "-c", HASTY, "listen", "--json", "--key", str(device._key_file)),
        *("--allow", "any", "--transport", transport),
        label="a hasty mp2p listen",
        env={"HOME": str(device._home)},
    )
    listener = Listener(process)
    (port,) = host.interfaces
    wait_until_selective(caller.interfaces[0], bystander.interfaces[0], listener.group())
    # Forgotten after the 3 seconds that the switch remembers what nobody reports, known again after 5.
    shared.switch.wait_registered(port, listener.group(), gone=True)
    shared.switch.wait_registered(port, listener.group())
    assert reaches(caller, listener, transport)
    assert len(listener.stop()) == 1


@BOTH
def test_25_groups_in_one_process(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    process = ends.right.start(sys.executable, "-W", "error", "-c", MANY, transport, label="25 nodes")
    contacts = process.wait_for_line("mp2p:").split()
    assert len(contacts) == 25
    caller = Device(ends.left)
    for contact in (contacts[0], contacts[24]):
        outcome = caller.ping(contact, "--transport", transport, count=1)
        assert outcome.code == 0, json.dumps(outcome.error)
