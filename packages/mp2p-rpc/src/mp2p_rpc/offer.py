"""What one `Node.serve` offers: services, to whom, and how many calls at once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import anyio

from mp2p_core import UsageError
from mp2p_core.boundary import Boundary
from mp2p_rpc.access import OWN
from mp2p_rpc.interface import Function, Interface, interface_of, interfaces_of
from mp2p_rpc.workers import Work, Workers

if TYPE_CHECKING:
    from mp2p_core import PublicKey
    from mp2p_rpc.access import Policy
    from mp2p_rpc.call import Interceptor
    from mp2p_rpc.limits import Limits

__all__ = ["Binding", "Job", "Offer", "bindings_for"]


_log = logging.getLogger("mp2p.rpc")


class Binding(NamedTuple):
    """An interface, and the object that serves it."""

    interface: Interface
    target: Any


class Job(Work, Protocol):
    """A call that is ready for its handler. Done by a worker; `Offer.leave` follows."""

    def stop(self) -> None:
        """Cancel the handler, or never run it, and tell the caller."""


class Offer:
    """Services of one `serve`, which share a policy, limits and interceptors."""

    def __init__(
        self,
        bindings: Iterable[Binding],
        *,
        policy: Policy,
        limits: Limits,
        interceptors: Sequence[Interceptor],
        workers: Workers,
    ) -> None:
        self.policy = policy
        self._own_policy = isinstance(policy, OWN)
        self.limits = limits
        self.interceptors = interceptors
        self._workers = workers
        self.stopped = False
        # Those that run now, also for nobody any more, until they end: so giving calls up does not make room.
        self._running: set[Job] = set()
        self._ended = anyio.Event()
        self._waiting: deque[Job] = deque()
        self._bindings = list(bindings)

    @property
    def bindings(self) -> Sequence[Binding]:
        """The services, in the order they were given."""
        return self._bindings

    def allows(self, key: PublicKey, method: str) -> bool:
        """Ask the policy whether this key may call the method of that full name."""
        if self._own_policy:
            return self.policy.may_call(key, method)
        return self._ask(self.policy.may_call, key, method)

    def knows(self, key: PublicKey) -> bool:
        """Ask the policy whether this key may call anything here."""
        return self._ask(self.policy.may_connect, key)

    def _ask(self, question: Callable[..., bool], *about: PublicKey | str) -> bool:
        """Nothing but True lets anybody in; a policy that fails lets nobody in."""
        answer = False
        with Boundary() as boundary:
            answer = question(*about) is True
        if boundary.error is not None:
            _log.error("the allow= of serve failed; whoever it fails for is refused", exc_info=boundary.error)
        return answer

    @property
    def full(self) -> bool:
        """Whether one more call would be too many."""
        return len(self._running) >= self.limits.running and len(self._waiting) >= self.limits.waiting

    def enter(self, job: Job) -> bool:
        """Start a job, now or when another has ended, in the order they came; False when it would be too many."""
        if len(self._running) < self.limits.running:
            self._running.add(job)
            self._workers.add(job)
        elif self.full:
            return False
        else:
            self._waiting.append(job)
        return True

    def withdraw(self, job: Job) -> bool:
        """Take back a job that waits; False when it does not."""
        if job not in self._waiting:
            return False
        self._waiting.remove(job)
        return True

    def leave(self, job: Job) -> None:
        """Note that a handler has ended."""
        self._running.discard(job)
        if self._waiting:
            self.enter(self._waiting.popleft())
        elif self.stopped and not self._running:
            self._ended.set()

    async def stop(self) -> None:
        """Start nothing more, cancel what runs, and wait until it has ended, unless cancelled."""
        self.stopped = True
        waiting = list(self._waiting)
        self._waiting.clear()
        for job in (*waiting, *self._running):
            job.stop()
        if self._running:
            await self._ended.wait()


def bindings_for(services: Iterable[object], interface: type | None) -> list[Binding]:
    """Find what each service offers. Raises UsageError or InterfaceError."""
    found: dict[tuple[str, int], Binding] = {}
    functions: dict[str, Any] = {}
    for service in services:
        if isinstance(service, type):
            raise UsageError(
                f"{service.__qualname__} is a class: serve an object of it, {service.__qualname__}()"
            )
        if isinstance(service, Function):
            functions[service.method.name] = service
            continue
        interfaces = (
            [interface_of(interface)] if interface is not None else list(interfaces_of(type(service)))
        )
        if not interfaces:
            raise UsageError(
                f"{type(service).__qualname__} is no Service and implements no Protocol or abstract class: derive it "
                "from one, or name its interface="
            )
        for each in interfaces:
            _check(service, each)
            if (each.name, each.version) in found:
                raise UsageError(f"two of these services are called {each.name!r} (version {each.version})")
            found[each.name, each.version] = Binding(each, service)
    if functions:
        methods = {name: each.method for name, each in functions.items()}
        found["", 1] = Binding(Interface("", 1, methods, ""), _Functions(functions))
    if not found:
        raise UsageError("nothing to serve: give an object of a Service")
    return list(found.values())


class _Functions:
    """Functions, as an object that has them as methods."""

    def __init__(self, functions: Mapping[str, Function[..., Any]]) -> None:
        for function in functions.values():
            setattr(self, function.method.attribute, function)


def _check(service: object, interface: Interface) -> None:
    missing = [each.attribute for each in interface.methods.values() if not hasattr(service, each.attribute)]
    if missing:
        raise UsageError(
            f"{type(service).__qualname__} has no {', '.join(missing)}, which {interface.name} declares"
        )
