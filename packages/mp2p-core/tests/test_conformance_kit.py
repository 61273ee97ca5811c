"""The transport kit passes what keeps the contract, and names what does not."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from mp2p_core.testing.conformance import check_transport
from mp2p_core.testing.memory import MemoryChannel, MemoryHub, MemoryTransport
from mp2p_core.transport import Address, Listen, Path, RandomBytes, Reach, Train


@pytest.mark.anyio
async def test_the_memory_transport_passes() -> None:
    passed = await check_transport(MemoryHub().transport())
    assert passed[-1] == "two nodes talk"
    assert len(passed) == 12


@pytest.mark.anyio
async def test_a_lossy_transport_passes_too() -> None:
    hub = MemoryHub()
    state = {"n": 0}

    def drop(_datagram: bytes) -> bool:
        state["n"] += 1
        return state["n"] % 13 == 0

    hub.drop = drop
    assert await check_transport(hub.transport(), patience=0.05)


class _OldContract(MemoryTransport):
    api = 0


class _AlwaysTheSame(MemoryTransport):
    def create_address(
        self, *, key: bytes | None, reach: Reach, port: int, interfaces: Sequence[str], random: RandomBytes
    ) -> Address:
        return super().create_address(
            key=key or bytes(16), reach=reach, port=port, interfaces=interfaces, random=random
        )


class _AnswersAnywhere(MemoryTransport):
    def may_answer(self, _answer_to: Address, _heard_from: Address, _arrived_at: Address) -> bool:
        return True


class _Opens(MemoryTransport):
    """Opens channels of another class."""

    channel: type[MemoryChannel]

    async def open(self, listen: Listen) -> MemoryChannel:
        return self.channel(self._hub, listen.address)


class _CutsTrains(_Opens):
    class channel(MemoryChannel):  # noqa: N801 - stands in for an attribute
        def send(self, train: Train) -> bool:
            return super().send(Train(train.path, train.buffers[:1], train.segment_size))


class _HearsEverything(_Opens):
    class channel(MemoryChannel):  # noqa: N801
        def send(self, train: Train) -> bool:
            for other in self._hub.channels:
                super().send(train._replace(path=train.path._replace(remote=other.address)))
            return True


class _RaisesWhenSending(_Opens):
    class channel(MemoryChannel):  # noqa: N801
        def send(self, train: Train) -> bool:
            if train.path.remote[0] == 0:
                raise OSError("no route")
            return super().send(train)


class _ForgetsWhatItIsCalled(_Opens):
    class channel(MemoryChannel):  # noqa: N801
        def _deliver(self, datagram: bytes, source: Address) -> None:
            self._queue.append(Train(Path(source), (datagram,), max(len(datagram), 1)))
            self._arrived.set()


class _NeverEnds(_Opens):
    class channel(MemoryChannel):  # noqa: N801
        async def receive(self) -> Sequence[Train]:
            while not self._queue:
                self._arrived = anyio.Event()
                await self._arrived.wait()
            trains = list(self._queue)
            self._queue.clear()
            return trains


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (_OldContract, "api"),
        (_AlwaysTheSame, "same address twice"),
        (_AnswersAnywhere, "names no place"),
        (_CutsTrains, "never arrived"),
        (_HearsEverything, "another address"),
        (_RaisesWhenSending, "no route"),
        (_ForgetsWhatItIsCalled, "sent to"),
        (_NeverEnds, "closing ends"),
    ],
)
@pytest.mark.anyio
async def test_the_kit_names_what_is_wrong(broken: type[MemoryTransport], word: str) -> None:
    with pytest.raises((AssertionError, OSError, BaseExceptionGroup)) as failure:
        await check_transport(broken(MemoryHub()), patience=0.01)
    assert word in str(failure.value) or word in repr(failure.value)
