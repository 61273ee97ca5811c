"""From annotated classes and functions to interfaces: what both sides of a call agree on.

Of a class, the public functions that are async or return an async iterator can be called by peers. All else
in it is local.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, ParamSpec, TypeVar, overload

from mp2p_rpc.errors import DeclaredError, InterfaceError, UnknownMethod
from mp2p_rpc.method import Method, MethodOptions, is_remote, read_method

__all__ = [
    "Function",
    "Interface",
    "Service",
    "function",
    "interface",
    "interface_of",
    "interfaces_of",
    "method",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: Final = "__mp2p_options__"
_INTERFACE: Final = "__mp2p_interface__"
_RESERVED: Final = "mp2p"
"""The service that every node has."""


@dataclass(frozen=True, slots=True)
class _Options:
    name: str
    version: int
    errors: tuple[type[DeclaredError], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Interface:
    """A service as both sides know it."""

    name: str
    version: int
    methods: Mapping[str, Method]
    doc: str

    def method(self, name: str) -> Method:
        """Find a method. Raises UnknownMethod."""
        found = self.methods.get(name)
        if found is None:
            raise UnknownMethod(f"{self.name} has no method {name!r}")
        return found


class Service:
    """Base of classes whose async methods peers may call.

        class Thermostat(Service):
            async def set_target(self, celsius: float) -> float: ...
            async def readings(self, count: int) -> AsyncIterator[Reading]: ...   # with yield

    `name` is the class's unless given; `version` is to change when callers of the old interface would not
    understand the new one; `errors` are the error classes that methods may raise. Raises `InterfaceError`
    when the class is defined, or, for an annotation that names something defined later, when it is first used.
    """

    def __init_subclass__(
        cls, *, name: str = "", version: int = 1, errors: Iterable[type[DeclaredError]] = (), **more: Any
    ) -> None:
        super().__init_subclass__(**more)
        _define(cls, name, version, errors)


class Function(Generic[P, R]):
    """A function that peers may call; calling it here runs it here. Comes from `function`."""

    def __init__(self, target: Callable[P, R], options: MethodOptions) -> None:
        self._target = target
        self.options = options
        self.__doc__ = target.__doc__
        self.__name__ = target.__name__
        self.interface = _interface_of_function(target, options)
        self.method = self.interface.methods[options.name or target.__name__]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here."""
        return self._target(*args, **kwargs)


def method(
    *, name: str = "", idempotent: bool = False, errors: Iterable[type[DeclaredError]] = ()
) -> Callable[[F], F]:
    """Say more about a method of an interface.

    name: on the wire, if not the function's. idempotent: calling twice does no harm, so a call whose outcome
    is unknown is made again by itself. errors: classes that it may raise, besides those of its class.
    """

    def decorate(target: F) -> F:
        setattr(target, _OPTIONS, MethodOptions(name, idempotent, tuple(errors)))
        return target

    return decorate


def interface(
    *, name: str = "", version: int = 1, errors: Iterable[type[DeclaredError]] = ()
) -> Callable[[type[T]], type[T]]:
    """Say more about a Protocol or ABC that is an interface: what `Service` takes as class arguments."""

    def decorate(cls: type[T]) -> type[T]:
        _define(cls, name, version, errors)
        return cls

    return decorate


@overload
def function(target: Callable[P, R], /) -> Function[P, R]: ...


@overload
def function(
    *, name: str = "", idempotent: bool = False, errors: Iterable[type[DeclaredError]] = ()
) -> Callable[[Callable[P, R]], Function[P, R]]: ...


def function(
    target: Callable[P, R] | None = None,
    /,
    *,
    name: str = "",
    idempotent: bool = False,
    errors: Iterable[type[DeclaredError]] = (),
) -> Function[P, R] | Callable[[Callable[P, R]], Function[P, R]]:
    """Let peers call a function: `@function` above it, then `node.serve(it)` and `peer.client(it)`.

    It has no service: its full name is its own.
    """
    options = MethodOptions(name, idempotent, tuple(errors))
    if target is not None:
        return Function(target, options)
    return lambda later: Function(later, options)


def interface_of(target: type | Function[..., Any]) -> Interface:
    """Return the interface of a class or function. Raises InterfaceError."""
    if isinstance(target, Function):
        return target.interface
    known = target.__dict__.get(_INTERFACE)
    if isinstance(known, Interface):
        return known
    try:
        found = _read(target)
    except NameError as error:
        raise InterfaceError(
            f"{target.__qualname__}: {error}: annotations must name what the module has at run time, not only "
            "within a function or under TYPE_CHECKING"
        ) from error
    setattr(target, _INTERFACE, found)
    return found


def interfaces_of(cls: type) -> Iterator[Interface]:
    """Yield the interfaces that an object of this class serves: its own, and those that it inherits.

    Classes that derive from `Service` have one, and so have Protocols and abstract classes.
    """
    seen: set[int] = set()
    for base in cls.__mro__:
        if _declares(base):
            found = interface_of(base)
            if found.methods and id(found) not in seen:
                seen.add(id(found))
                yield found


def _declares(cls: type) -> bool:
    if cls is Service or cls.__module__.partition(".")[0] in sys.stdlib_module_names:
        return False
    if issubclass(cls, Service) or _OPTIONS in cls.__dict__:
        return True
    return inspect.isabstract(cls) or bool(cls.__dict__.get("_is_protocol"))


def _define(cls: type, name: str, version: int, errors: Iterable[type[DeclaredError]]) -> None:
    """Keep what was said about a class, and refuse at once what cannot work."""
    if (name == _RESERVED and cls.__module__ != "mp2p_rpc.directory") or "." in name:
        raise InterfaceError(
            f"a service cannot be called {name!r}: choose a name without dots, not {_RESERVED!r}"
        )
    if version < 1:
        raise InterfaceError(f"{cls.__qualname__}: version {version}: versions count from 1")
    setattr(cls, _OPTIONS, _Options(name, version, tuple(errors)))
    try:
        setattr(cls, _INTERFACE, _read(cls))
    except NameError:
        return  # an annotation names something defined later: `interface_of` will see


def _read(cls: type) -> Interface:
    said = cls.__dict__.get(_OPTIONS)
    options = said if isinstance(said, _Options) else _Options("", 1, ())
    functions = dict(_functions(cls))
    for base in cls.__mro__[1:]:
        # A class that adds nothing to an interface is that interface.
        if _declares(base) and dict(_functions(base)).keys() == functions.keys() and not options.name:
            return interface_of(base)
    name = options.name or cls.__name__
    errors = tuple(
        error
        for base in cls.__mro__
        if isinstance(own := base.__dict__.get(_OPTIONS), _Options)
        for error in own.errors
    )
    methods: dict[str, Method] = {}
    for target in functions.values():
        own = _said_about(cls, target)
        merged = MethodOptions(own.name, own.idempotent, (*own.errors, *errors))
        read = read_method(target, service=name, options=merged)
        if read.name in methods:
            raise InterfaceError(f"{name} has two methods called {read.name!r}")
        methods[read.name] = read
    return Interface(name, options.version, methods, inspect.cleandoc(cls.__dict__.get("__doc__") or ""))


def _said_about(cls: type, target: Callable[..., Any]) -> MethodOptions:
    """Find what a decorator says about a method, be it in the class that first had it."""
    for base in cls.__mro__:
        said = getattr(base.__dict__.get(target.__name__), _OPTIONS, None)
        if isinstance(said, MethodOptions):
            return said
    return MethodOptions()


def _functions(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the remote functions of a class and its bases, each name once."""
    hidden: set[str] = set()
    for base in cls.__mro__:
        if not _contributes(cls, base):
            continue
        for name, value in base.__dict__.items():
            if name not in hidden:
                hidden.add(name)
                if not name.startswith("_") and is_remote(value):
                    yield name, value


def _contributes(cls: type, base: type) -> bool:
    """Tell whether a class's interface has the functions of this base: what a service mixes in stays local."""
    if base.__module__.partition(".")[0] in sys.stdlib_module_names:
        return False
    if issubclass(cls, Service):
        return (
            issubclass(base, Service) or _OPTIONS in base.__dict__ or bool(base.__dict__.get("_is_protocol"))
        )
    return True


def _interface_of_function(target: Callable[..., Any], options: MethodOptions) -> Interface:
    if not is_remote(target):
        raise InterfaceError(f"{target.__qualname__} is not async: write `async def`")
    try:
        read = read_method(target, service="", options=options, bound=False)
    except NameError as error:
        raise InterfaceError(f"{target.__qualname__}: {error}: define it above the function") from error
    return Interface("", 1, {read.name: read}, read.doc)
