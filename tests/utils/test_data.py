"""Datasets, samplers and `DataLoader` against PyTorch's: the same batches for the same seed."""

from __future__ import annotations

import threading
import time
import warnings
from collections import namedtuple

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torturous
from torturous.utils.data import on_next

LIBRARIES = [torturous, torch]


def plain(value):
    """Tensors as (dtype, nested lists), so that both libraries' can be compared."""
    if isinstance(value, (torch.Tensor, torturous.Tensor)):
        return str(value.dtype).split(".")[-1], value.tolist()
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [plain(entry) for entry in value]
    return value


def outcome(action, *args):
    try:
        return plain(action(*args))
    except Exception as error:
        return type(error).__name__


def rows(library, size, width=2):
    values = numpy.arange(size * width, dtype=numpy.float32).reshape(size, width)
    return library.tensor(values), library.tensor(numpy.arange(size))


# Order ------------------------------------------------------------------------------------------------------


def epochs(library, size, seed, own_generator, options, count=2):
    """The batches of some epochs, and the number that the generators give after them."""
    library.manual_seed(seed)
    generator = library.Generator().manual_seed(seed + 1) if own_generator else None
    dataset = library.utils.data.TensorDataset(*rows(library, size))
    loader = library.utils.data.DataLoader(dataset, generator=generator, **options)
    found = [plain(list(loader)) for _ in range(count)]
    after = [library.randint(0, 1000, (3,)).tolist()]
    if generator is not None:
        after.append(library.randint(0, 1000, (3,), generator=generator).tolist())
    return found, after, len(loader)


@settings(max_examples=60)
@given(
    st.integers(1, 20),
    st.integers(0, 2**31),
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={"batch_size": st.integers(1, 6), "shuffle": st.booleans(), "drop_last": st.booleans()},
    ),
)
def test_batches_are_those_of_pytorch(size, seed, own_generator, options):
    mine, theirs = (epochs(library, size, seed, own_generator, options) for library in LIBRARIES)
    assert mine == theirs


@settings(max_examples=15)
@given(st.integers(1, 20), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(1, 3))
def test_workers_change_nothing_but_the_speed(size, workers, shuffle, persistent, ahead):
    options = {"batch_size": 3, "shuffle": shuffle}
    alone = epochs(torturous, size, 5, True, options, 3)
    options |= {"num_workers": workers, "persistent_workers": persistent, "prefetch_factor": ahead}
    found, after, length = epochs(torturous, size, 5, True, options, 1 if persistent else 3)
    assert found == alone[0][: len(found)] and length == alone[2]
    if not persistent:
        # PyTorch's persistent workers take one base seed for all epochs.
        assert after == alone[1]


def test_persistent_workers_do_another_epoch():
    options = {"batch_size": 3, "shuffle": True, "num_workers": 2, "persistent_workers": True}
    found, _, _ = epochs(torturous, 10, 1, False, options, 4)
    assert all(sorted(sum((batch[1][1][1] for batch in epoch[1]), [])) == list(range(10)) for epoch in found)
    assert len({str(epoch) for epoch in found}) > 1


def sampled(library, make, seed):
    library.manual_seed(seed)
    sampler = make(library.utils.data, library)
    return list(sampler), list(sampler), len(sampler), library.randint(0, 1000, (3,)).tolist()


SAMPLERS = {
    "sequential": lambda data, lib, n, k: data.SequentialSampler(range(n)),
    "random": lambda data, lib, n, k: data.RandomSampler(range(n)),
    "some": lambda data, lib, n, k: data.RandomSampler(range(n), num_samples=k),
    "replaced": lambda data, lib, n, k: data.RandomSampler(range(n), replacement=True, num_samples=k),
    "own": lambda data, lib, n, k: data.RandomSampler(range(n), generator=lib.Generator().manual_seed(k)),
    "subset": lambda data, lib, n, k: data.SubsetRandomSampler([10 * i for i in range(n)]),
    "weighted": lambda data, lib, n, k: data.WeightedRandomSampler([i + 0.5 for i in range(n)], k),
    "weighted once": lambda data, lib, n, k: data.WeightedRandomSampler(
        [i + 0.5 for i in range(n)], min(n, k), replacement=False
    ),
    "batches": lambda data, lib, n, k: data.BatchSampler(data.RandomSampler(range(n)), k, False),
    "whole batches": lambda data, lib, n, k: data.BatchSampler(range(n), k, True),
}


@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 70), st.integers(0, 2**31))
def test_samplers(name, size, count, seed):
    mine, theirs = (
        sampled(library, lambda data, lib: SAMPLERS[name](data, lib, size, count), seed)
        for library in LIBRARIES
    )
    assert mine == theirs


@settings(max_examples=40)
@given(
    st.integers(1, 30),
    st.lists(st.integers(0, 12), min_size=1, max_size=4)
    | st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.3, 1.2, -0.2]), min_size=1, max_size=4),
    st.booleans(),
)
def test_random_split(size, lengths, own_generator):
    found = []
    for library in LIBRARIES:
        library.manual_seed(size)
        options = {"generator": library.Generator().manual_seed(3)} if own_generator else {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            split = outcome(
                lambda split, options: [list(part) for part in split(range(size), lengths, **options)],
                library.utils.data.random_split,
                options,
            )
        found.append((split, len(caught)))
    assert found[0] == found[1]


# Datasets ---------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(-25, 25))
def test_concatenation(sizes, index):
    found = []
    for library in LIBRARIES:
        data = library.utils.data
        parts = [data.TensorDataset(*rows(library, size)) for size in sizes]
        whole = data.ConcatDataset(parts)
        found.append((len(whole), outcome(lambda whole: whole[index], whole)))
    # Beyond the end, both fail: PyTorch in the list of datasets, or in the last one.
    assert found[0] == found[1]


def test_datasets_add_up():
    for library in LIBRARIES:
        data = library.utils.data
        whole = data.TensorDataset(*rows(library, 2)) + data.TensorDataset(*rows(library, 3))
        assert isinstance(whole, data.ConcatDataset) and len(whole) == 5

        class Stream(data.IterableDataset):
            def __iter__(self):
                return iter(range(2))

        assert list(Stream() + Stream()) == [0, 1, 0, 1]
        with pytest.raises(AssertionError):
            data.ConcatDataset([Stream()])
        with pytest.raises(AssertionError):
            data.ConcatDataset([])
        with pytest.raises(AssertionError):
            list(data.ChainDataset([whole]))
        with pytest.raises(AssertionError, match="Size mismatch"):
            data.TensorDataset(*rows(library, 2), library.zeros(3))
        with pytest.raises(NotImplementedError):
            data.Dataset()[0]


def test_subset_takes_what_it_names():
    found = []
    for library in LIBRARIES:
        data = library.utils.data
        subset = data.Subset(data.TensorDataset(*rows(library, 6)), [4, 2, 2])
        found.append(plain([list(subset), list(data.DataLoader(subset, 2))]))
        assert len(subset) == 3
    assert found[0] == found[1]


class Counting(torturous.utils.data.Dataset):
    """Counts how it is asked."""

    def __init__(self, batched):
        self.single, self.batches = [], []
        if batched:
            self.__dict__["__getitems__"] = self.many

    def __len__(self):
        return 5

    def __getitem__(self, index):
        self.single.append(index)
        return index

    def many(self, indices):
        self.batches.append(indices)
        return list(indices)


def test_batches_are_fetched_with_one_call_where_the_dataset_can():
    for batched in (True, False):
        dataset = Counting(batched)
        loader = torturous.utils.data.DataLoader(dataset, 2)
        assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4]]
        assert dataset.batches == ([[0, 1], [2, 3], [4]] if batched else [])
        assert dataset.single == ([] if batched else [0, 1, 2, 3, 4])


def test_tensor_dataset_takes_a_batch_at_once_unless_told_otherwise():
    class Watched(torturous.utils.data.TensorDataset):
        taken: list = []

        def collated(self, indices):
            self.taken.append(list(indices))
            return super().collated(indices)

    dataset = Watched(*rows(torturous, 4))
    batch = next(iter(torturous.utils.data.DataLoader(dataset, 3)))
    assert Watched.taken == [[0, 1, 2]] and batch[1].tolist() == [0, 1, 2]
    # A batch is a copy: writing into it does not reach the dataset.
    batch[0].fill_(-1)
    assert dataset.tensors[0].min().item() == 0

    class Doubling(torturous.utils.data.TensorDataset):
        def __getitem__(self, index):
            return tuple(part * 2 for part in super().__getitem__(index))

    doubling = Doubling(*rows(torturous, 4))
    for wrapped in (doubling, torturous.utils.data.Subset(doubling, range(4))):
        batch = next(iter(torturous.utils.data.DataLoader(wrapped, 3)))
        assert batch[1].tolist() == [0, 2, 4]
    own = torturous.utils.data.DataLoader(dataset, 2, collate_fn=lambda samples: len(samples))
    assert list(own) == [2, 2]


# Collation --------------------------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")

SAMPLES = {
    "tensors": lambda lib: [lib.tensor([1.0, 2.0]), lib.tensor([3.0, 4.0])],
    "arrays": lambda lib: [numpy.ones(2, "float32"), numpy.zeros(2, "float32")],
    "scalars of arrays": lambda lib: [numpy.float32(1), numpy.float32(2)],
    "integers of arrays": lambda lib: [numpy.int64(1), numpy.int64(2)],
    "floats": lambda lib: [1.0, 2.5],
    "integers": lambda lib: [1, 2],
    "truths": lambda lib: [True, False],
    "text": lambda lib: ["a", "b"],
    "bytes": lambda lib: [b"a", b"b"],
    "dictionaries": lambda lib: [{"a": 1, "b": [1.0, "x"]}, {"a": 2, "b": [2.0, "y"]}],
    "named": lambda lib: [Point(1, 2.0), Point(3, 4.0)],
    "tuples": lambda lib: [(1, (2.0, "a")), (3, (4.0, "b"))],
    "lists": lambda lib: [[1, [2.0]], [3, [4.0]]],
    "unequal": lambda lib: [[1], [1, 2]],
    "unequal tensors": lambda lib: [lib.ones(1), lib.ones(2)],
    "objects": lambda lib: [object(), object()],
    "nothing": lambda lib: [None],
    "arrays of text": lambda lib: [numpy.array(["a"]), numpy.array(["b"])],
    "sets": lambda lib: [{1}, {2}],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_default_collate(name):
    mine, theirs = (
        outcome(library.utils.data.default_collate, SAMPLES[name](library)) for library in LIBRARIES
    )
    assert mine == theirs


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in ("objects", "sets")])
def test_default_convert(name):
    def converted(library):
        value = library.utils.data.default_convert(SAMPLES[name](library))
        return plain(value) if name != "arrays of text" else [type(entry).__name__ for entry in value]

    assert converted(torturous) == converted(torch)


def test_single_samples_without_batches():
    found = []
    for library in LIBRARIES:
        dataset = [numpy.ones(2, "float32"), numpy.zeros(2, "float32")]
        loader = library.utils.data.DataLoader(dataset, batch_size=None)
        found.append((plain(list(loader)), len(loader)))
    assert found[0] == found[1]


# Streams ----------------------------------------------------------------------------------------------------


def stream_of(library, size):
    class Stream(library.utils.data.IterableDataset):
        def __init__(self):
            self.start, self.end = 0, size

        def __iter__(self):
            info = library.utils.data.get_worker_info()
            step = 1 if info is None else info.num_workers
            start = self.start if info is None else self.start + info.id
            return iter(range(start, self.end, step))

        def __len__(self):
            return self.end - self.start

    return Stream()


@settings(max_examples=30)
@given(st.integers(0, 12), st.none() | st.integers(1, 4), st.booleans())
def test_streams(size, batch_size, drop_last):
    found = []
    for library in LIBRARIES:
        loader = library.utils.data.DataLoader(
            stream_of(library, size), batch_size, drop_last=drop_last and batch_size is not None
        )
        found.append((plain(list(loader)), plain(list(loader)), len(loader)))
    assert found[0] == found[1]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("size", [0, 1, 7, 10])
@pytest.mark.parametrize("persistent", [True, False])
def test_streams_in_workers_take_turns(workers, size, persistent):
    loader = torturous.utils.data.DataLoader(
        stream_of(torturous, size), 2, num_workers=workers, persistent_workers=persistent
    )
    shares = [list(range(size))[worker::workers] for worker in range(workers)]
    turns = [share[start : start + 2] for start in range(0, size, 2) for share in shares]
    expected = [batch for batch in turns if batch]
    for _ in range(2):
        assert [batch.tolist() for batch in loader] == expected


def test_a_worker_changes_its_own_copy():
    dataset = stream_of(torturous, 8)

    def configure(worker):
        info = torturous.utils.data.get_worker_info()
        assert info.id == worker
        info.dataset.end = 4

    loader = torturous.utils.data.DataLoader(dataset, None, num_workers=2, worker_init_fn=configure)
    assert sorted(loader) == [0, 1, 2, 3] and dataset.end == 8


def test_a_wrong_length_warns():
    class Liar(torturous.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(3))

        def __len__(self):
            return 1

    loader = torturous.utils.data.DataLoader(Liar(), None)
    assert len(loader) == 1
    with pytest.warns(UserWarning, match="was reported to be 1"):
        list(loader)


# Workers ----------------------------------------------------------------------------------------------------


class Slow(torturous.utils.data.Dataset):
    def __init__(self, action):
        self.action = action

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.action(index)


def test_workers_are_threads_that_know_themselves():
    seen = {}

    def action(index):
        info = torturous.utils.data.get_worker_info()
        seen[index] = (info.id, info.seed, threading.current_thread() is threading.main_thread())
        time.sleep(0.01 * (index == 0))
        return index

    torturous.manual_seed(1)
    loader = torturous.utils.data.DataLoader(Slow(action), 1, num_workers=2)
    assert [batch.item() for batch in loader] == list(range(8))
    assert {index: entry[0] for index, entry in seen.items()} == {index: index % 2 for index in range(8)}
    seeds = {entry[0]: entry[1] for entry in seen.values()}
    assert seeds[1] == seeds[0] + 1 and not any(entry[2] for entry in seen.values())
    torturous.manual_seed(1)
    assert seeds[0] == torturous.empty((), dtype=torturous.int64).random_().item()
    assert torturous.utils.data.get_worker_info() is None


def test_errors_come_at_their_turn_and_the_rest_goes_on():
    def action(index):
        if index == 2:
            raise KeyError("two")
        return index

    loader = iter(torturous.utils.data.DataLoader(Slow(action), 1, num_workers=3))
    assert [next(loader).item(), next(loader).item()] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(loader)
    assert [batch.item() for batch in loader] == [3, 4, 5, 6, 7]

    def refuse(worker):
        raise ValueError("no worker")

    with pytest.raises(ValueError, match="no worker"):
        list(torturous.utils.data.DataLoader(Slow(action), 1, num_workers=1, worker_init_fn=refuse))


def test_timeout():
    release = threading.Event()
    loader = torturous.utils.data.DataLoader(
        Slow(lambda index: release.wait(5)), 1, num_workers=1, timeout=0.05
    )
    with pytest.raises(RuntimeError, match="timed out after 0.05 seconds"):
        next(iter(loader))
    release.set()


def test_workers_end_with_their_iterator():
    before = set(threading.enumerate())
    loader = torturous.utils.data.DataLoader(Slow(lambda index: index), 1, num_workers=2)
    iterator = iter(loader)
    next(iterator)
    workers = set(threading.enumerate()) - before
    assert len(workers) == 2
    del iterator
    list(loader)
    for worker in set(threading.enumerate()) - before:
        worker.join(5)
        assert not worker.is_alive()


def test_prefetching_is_bounded():
    taken = []

    class Noting(torturous.utils.data.Sampler):
        def __iter__(self):
            for index in range(8):
                taken.append(index)
                yield index

        def __len__(self):
            return 8

    loader = torturous.utils.data.DataLoader(
        Slow(lambda index: index), 1, sampler=Noting(), num_workers=2, prefetch_factor=1
    )
    iterator = iter(loader)
    assert len(taken) == 2
    next(iterator)
    assert len(taken) == 3


# Options ----------------------------------------------------------------------------------------------------

MISUSES = [
    {"num_workers": -1},
    {"timeout": -1},
    {"prefetch_factor": 2},
    {"num_workers": 1, "prefetch_factor": -1},
    {"persistent_workers": True},
    {"multiprocessing_context": "fork"},
    {"sampler": range(3), "shuffle": True},
    {"batch_sampler": [[0]], "batch_size": 2},
    {"batch_sampler": [[0]], "shuffle": True},
    {"batch_sampler": [[0]], "drop_last": True},
    {"batch_size": None, "drop_last": True},
    {"batch_size": 0},
    {"batch_size": 1.5},
    {"drop_last": 3},
]


@pytest.mark.parametrize("options", MISUSES, ids=str)
def test_misuse_raises_as_in_pytorch(options):
    found = [
        outcome(lambda lib: lib.utils.data.DataLoader(range(3), **options), library) for library in LIBRARIES
    ]
    assert found[0] == found[1] == "ValueError"


ORDERS = [{"shuffle": True}, {"sampler": range(2)}, {"batch_sampler": [[0]]}, {"shuffle": False}]


@pytest.mark.parametrize("options", ORDERS, ids=str)
def test_streams_have_no_order(options):
    found = [
        outcome(lambda lib: len(lib.utils.data.DataLoader(stream_of(lib, 3), **options)), library)
        for library in LIBRARIES
    ]
    assert found[0] == found[1]


SAMPLER_MISUSES = [
    lambda data: data.RandomSampler(range(0)),
    lambda data: data.RandomSampler(range(3), replacement=1),
    lambda data: data.RandomSampler(range(3), num_samples=0),
    lambda data: data.WeightedRandomSampler([1.0], True),
    lambda data: data.WeightedRandomSampler([1.0], 1, replacement=1),
    lambda data: data.WeightedRandomSampler([[1.0]], 1),
    lambda data: data.BatchSampler(range(3), 0, False),
    lambda data: data.BatchSampler(range(3), 2, 1),
]


@pytest.mark.parametrize("position", range(len(SAMPLER_MISUSES)))
def test_sampler_misuse(position):
    errors = []
    for library in LIBRARIES:
        with pytest.raises((ValueError, TypeError)) as caught:
            SAMPLER_MISUSES[position](library.utils.data)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_decides_on_the_batches_is_fixed(library):
    loader = library.utils.data.DataLoader(range(3))
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match="should not be set after"):
            setattr(loader, name, None)
    loader.timeout = 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_pinned_memory_warns(library):
    loader = library.utils.data.DataLoader(range(3), pin_memory=True)
    with pytest.warns(UserWarning, match="no accelerator is found"):
        list(loader)


def test_own_samplers_and_batches():
    found = []
    for library in LIBRARIES:
        data = library.utils.data
        found.append(
            [
                plain(list(data.DataLoader(range(9), 2, sampler=[4, 2, 8]))),
                plain(list(data.DataLoader(range(9), batch_sampler=[[1, 2], [3]]))),
                len(data.DataLoader(range(9), batch_sampler=[[1, 2], [3]])),
                data.DataLoader(range(9), batch_sampler=[[1]]).batch_size,
            ]
        )
    assert found[0] == found[1]


def test_outermost_requests_are_announced():
    seen = []
    inner = torturous.utils.data.DataLoader(range(2))
    outer = torturous.utils.data.DataLoader(Slow(lambda index: sum(batch.item() for batch in inner)), 4)
    on_next.append(seen.append)
    try:
        list(outer)
        list(inner)
    finally:
        on_next.clear()
    # Two batches and the end of each loader; what the dataset itself iterates over is not announced.
    assert seen == [outer] * 3 + [inner] * 3
