"""A copy of storages in host memory, most of it made while the training computes.

An optimizer's parameters and its state change in its step alone. So they can be copied during the next forward and
backward pass, if the copy is over before the step: ``wait`` is called in front of it. Everything else is copied before
``start`` returns, because a forward pass may change it: buffers (the running statistics of BatchNorm), and parameters
that aren't trained (a teacher that follows its student).

What lies in host memory is copied by whoever waits first, which is the thread that writes, once it is told to: that is
behind the save. A copy takes all of the memory's bandwidth, and beside one a save takes about twice as long.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch

from vaultlayer_hf.state.capture.arena import Arena, needed

Storage = torch.UntypedStorage
_Pair = tuple[torch.Tensor, torch.Tensor]
"""Where to, and what."""


_SAMPLED = 64
"""Bytes of each tensor that are looked at behind the copy."""
_COMPARED = 2**26
"""Bytes that are compared at once: a GPU gets so much of a copy back."""


class TornError(Exception):
    """What was being copied changed meanwhile."""


class StateCopy:
    """One copy of a state, in an arena that nothing else uses until this is done with.

        copy = StateCopy(arena, storages, beside=changed_by_the_step)
        copy.start(watched=parameters)
        ...                   # forward and backward
        copy.wait()           # in front of the optimizer's step
        host = copy.of(storage)

    Args:
        arena: where to; ``size`` says how much of it is needed.
        storages: what to copy; one that comes twice is copied once.
        beside: those, by their addresses, that may be copied while the training computes.
    """

    def __init__(self, arena: Arena, storages: Iterable[Storage], *, beside: Collection[int] = ()) -> None:
        self._arena = arena
        self._sources = {_key(storage): storage for storage in storages}
        self._beside = beside
        self._copies: dict[tuple[int, int, str], Storage] = {}
        self._rest: list[_Pair] = []  # of the host, to be copied by whoever waits first
        self._events: list[Any] = []
        self._watched: list[tuple[torch.Tensor, int, int]] = []
        self._samples: list[tuple[list[torch.Tensor], torch.Tensor]] = []
        self._tried: list[_Pair] | None = None
        self._looking = threading.Lock()
        self._error: BaseException | None = None
        self._held = False  # a GPU's next work waits for it
        self._over = threading.Event()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes that it needs in its arena."""
        return needed([storage.nbytes() for storage in self._sources.values()])

    def start(self, watched: Sequence[torch.Tensor] = (), *, trial: bool = False) -> None:
        """Copy what a forward pass may change; the rest is copied by a GPU meanwhile, or by ``wait``.

        On the thread that trains.

        Args:
            watched: tensors of which ``wait`` finds out whether they were changed in place meanwhile. Torch doesn't
                count what changes their ``data`` (an average that is swapped in), so some bytes of each are compared.
            trial: everything is copied before this returns, and ``moved`` tells whether that was needed.
        """
        keys = list(self._sources)
        pieces = self._arena.cut([self._sources[key].nbytes() for key in keys])
        now: list[_Pair] = []
        later: list[_Pair] = []
        for key, piece in zip(keys, pieces, strict=True):
            self._copies[key] = piece.untyped_storage()
            if piece.numel():
                (later if key[0] in self._beside else now).append((piece, _bytes_of(self._sources[key])))
        if trial and later:
            self._tried, now, later = later, now + later, []
        self._watched = [(tensor, tensor._version, tensor.data_ptr()) for tensor in watched]
        self._samples = _samples(watched)
        self._copy(now)
        self._begin(later)
        if not self._rest and not self._events:
            self.wait()

    def wait(self) -> None:
        """Copy what isn't yet, and return once all is: the next step may change it. Any thread. Raises TornError."""
        with self._lock:
            if not self._over.is_set():
                self._finish()
                self._over.set()
        if self._error is not None:
            raise TornError(f"the state couldn't be copied: {self._error}") from self._error

    def give_up(self) -> None:
        """Wait until nothing is copied any more, for a copy that won't be used: it may be torn. Raises nothing."""
        with self._lock:
            if self._rest:
                self._rest, self._error = [], TornError("it was given up before all was copied")
        with contextlib.suppress(Exception):
            self.wait()

    def note_step(self) -> None:
        """Say that the optimizer has stepped: what isn't copied by now is torn.

        A fused step doesn't count as a change of its tensors, so looking at them doesn't tell.
        """
        # Without the lock: a thread that waits holds it until the copy is over, and this one would come too late.
        if not self._over.is_set() and not self._held:
            self._error = self._error or TornError("the optimizer stepped before the copy was over")

    def moved(self) -> bool | None:
        """Return whether a forward or backward pass has changed what was copied; None where this copy isn't the trial.

        In front of the optimizer's step.
        """
        tried, self._tried = self._tried, None
        if tried is None:
            return None
        self.wait()
        return not all(_same(to, source) for to, source in tried)

    def of(self, storage: Storage) -> Storage:
        """Return the host's copy of a storage; raises KeyError for another one."""
        return self._copies[_key(storage)]

    def later(self, tensor: torch.Tensor, *, frozen_itself: bool = False) -> Callable[[], torch.Tensor]:
        """Return a function that gives a tensor's content as it is now; any thread may call it, once the copy is over.

        Where the copy has the tensor's storage, that is a tensor in the copy. Any other tensor is cloned at once; with
        ``frozen_itself`` only one that is trained: a frozen one doesn't change, so it stands for itself, and the frozen
        model under an adapter may be many times as large as what is saved.
        """
        if type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided:
            content = self._copies.get(_key(tensor.untyped_storage()))
            if content is not None:
                place = tensor.storage_offset(), tensor.shape, tensor.stride()
                dtype = tensor.dtype
                return lambda: torch.empty(0, dtype=dtype).set_(content, *place)
        if frozen_itself and not tensor.requires_grad:
            return lambda: tensor
        found = tensor.detach().clone()
        return lambda: found

    def _finish(self) -> None:
        if self._rest:
            self.run(self._rest)
            self._rest = []  # not before: who sees none takes the copy for over, but for a GPU's part
        for event in self._events:
            event.synchronize()
        self._look()
        self._sources = {}

    def hold_device(self) -> None:
        """Let the GPU start its next work only when the copy is over, while the CPU goes on at once.

        Where the copy isn't made by the GPU alone, the same as ``wait``.
        """
        if self._rest or not self._events:
            self.wait()
            return
        for event in self._events:
            torch.cuda.current_stream(event.device).wait_event(event)
        self._held = True
        self._look()

    def _look(self) -> None:
        """Find out, once, whether what is watched was changed in place since the start."""
        with self._looking:  # whoever comes second waits: what it does next may be such a change
            changed = any(
                tensor.data_ptr() == place and tensor._version != version
                for tensor, version, place in self._watched
            ) or any(not torch.equal(torch.cat(views), before) for views, before in self._samples)
            self._watched, self._samples = [], []
        if changed:
            self._error = self._error or TornError("parameters were changed before the copy was over")

    def _copy(self, pairs: Sequence[_Pair]) -> None:
        """Copy now; on a GPU, in the stream that computes, behind the work that it already has."""
        gpu = [pair for pair in pairs if pair[1].device.type == "cuda"]
        _copy_all([pair for pair in pairs if pair[1].device.type != "cuda"])
        for device in {source.device for _, source in gpu}:
            with torch.cuda.device(device):
                _copy_all([pair for pair in gpu if pair[1].device == device], non_blocking=self._arena.pinned)
                self._note_event(device)

    def _begin(self, pairs: Sequence[_Pair]) -> None:
        """Begin to copy: on a GPU in a stream of its own; what is in host memory is left to ``wait``."""
        if not self._arena.pinned:
            gpu = [pair for pair in pairs if pair[1].device.type == "cuda"]
            self._copy(gpu)  # it would wait for each tensor, on whichever thread
            pairs = [pair for pair in pairs if pair[1].device.type != "cuda"]
        self._rest = [pair for pair in pairs if pair[1].device.type != "cuda"]
        for device in {source.device for _, source in pairs if source.device.type == "cuda"}:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                _copy_all([pair for pair in pairs if pair[1].device == device], non_blocking=True)
                self._note_event(device)

    def run(self, pairs: Sequence[_Pair]) -> None:
        """Copy what is in host memory; on the thread that waits for it."""
        try:
            _copy_all(pairs)
            self._look()  # at once: what changes them from here on does no harm
        except BaseException as error:  # told by ``wait``
            self._error = error

    def _note_event(self, device: torch.device) -> None:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        self._events.append(event)


def _key(storage: Storage) -> tuple[int, int, str]:
    return storage.data_ptr(), storage.nbytes(), str(storage.device)


def _bytes_of(storage: Storage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(
        storage, 0, (storage.nbytes(),), (1,)
    )


@torch.no_grad()
def _samples(tensors: Sequence[torch.Tensor]) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
    """Return views of some bytes of each tensor and what is in them now, by device.

    At odd distances, so that they come to stand at every place within a number: half of a number differs from it in its
    exponent alone.
    """
    views: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        whole = _bytes_of(tensor.untyped_storage())
        views.setdefault(tensor.device, []).append(whole[:: (whole.numel() // _SAMPLED) | 1])
    return [(found, torch.cat(found)) for found in views.values()]


@torch.no_grad()
def _copy_all(pairs: Sequence[_Pair], *, non_blocking: bool = False) -> None:
    # In one call: under a busy interpreter each call of its own waits for the lock, 0.3 to 0.5 s for a model's tensors
    # against 0.02 s.
    if pairs:
        torch._foreach_copy_([to for to, _ in pairs], [source for _, source in pairs], non_blocking)


@torch.no_grad()
def _same(to: torch.Tensor, source: torch.Tensor) -> bool:
    """Tell whether bytes are the same, as numbers of eight: one by one they take eight times as long."""
    whole = len(to) // 8 * 8
    pairs = [(to[whole:], source[whole:])]
    for begin in range(0, whole, _COMPARED):
        part = slice(begin, min(begin + _COMPARED, whole))
        pairs.append((to[part].view(torch.int64), source[part].view(torch.int64)))
    return all(torch.equal(one.to(other.device), other) for one, other in pairs)


def copied(tensor: torch.Tensor, copy_of: Callable[[Storage], Storage]) -> torch.Tensor:
    """Return a plain tensor on the host with the content that the copy of its storage has."""
    content = copy_of(tensor.untyped_storage())
    return torch.empty(0, dtype=tensor.dtype).set_(
        content, tensor.storage_offset(), tensor.shape, tensor.stride()
    )
