"""Checkpoints: PyTorch reads ours, we read PyTorch's, and files that want to do more than that are refused."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch as reference

import torturous as torch

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool")


def trained(library):
    """A checkpoint as programs make them."""
    library.manual_seed(0)
    net = library.nn.Sequential(library.nn.Conv2d(3, 4, 3), library.nn.BatchNorm2d(4), library.nn.Flatten(),
                                library.nn.Linear(36, 2))
    optimizer = library.optim.Adam(net.parameters(), lr=0.01)
    net(library.arange(150.0).reshape(2, 3, 5, 5) / 50).square().sum().backward()
    optimizer.step()
    return net, optimizer, {
        "epoch": 3, "best": 0.5, "name": "net", "shape": net[0].weight.shape, "kinds": [library.float16, None, True],
        "model": net.state_dict(), "optimizer": optimizer.state_dict(), "bytes": b"a\xff", "set": {1, 2}}


def values(t):
    if isinstance(t, int):
        return t
    return t.detach().to((reference if isinstance(t, reference.Tensor) else torch).float64).numpy()


@pytest.mark.parametrize("write, read", [(torch, reference), (reference, torch), (torch, torch)])
@pytest.mark.parametrize("weights_only", [True, False])
def test_a_checkpoint_goes_from_one_to_the_other(write, read, weights_only, tmp_path):
    net, optimizer, state = trained(write)
    write.save(state, tmp_path / "state.pt")
    back = read.load(tmp_path / "state.pt", weights_only=weights_only)
    assert (back["epoch"], back["best"], back["name"], back["bytes"], back["set"]) == (3, 0.5, "net", b"a\xff", {1, 2})
    assert back["shape"] == (4, 3, 3, 3) and type(back["shape"]) is read.Size
    assert back["kinds"] == [read.float16, None, True]
    other, theirs, _ = trained(read)
    for each in other.parameters():
        each.data.zero_()
    assert str(other.load_state_dict(back["model"])) == "<All keys matched successfully>"
    theirs.load_state_dict(back["optimizer"])
    for mine, its in zip(net.parameters(), other.parameters(), strict=True):
        assert np.array_equal(values(mine), values(its))
        for name, value in optimizer.state[mine].items():
            assert np.array_equal(values(value), values(theirs.state[its][name])), name
    # Training goes on alike.
    for module, each in ((net, optimizer), (other, theirs)):
        for parameter in module.parameters():
            parameter.grad = parameter.detach().clone()
        each.step()
    for mine, its in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(values(mine), values(its), 1e-5, 1e-6)


@pytest.mark.parametrize("write, read", [(torch, reference), (reference, torch)])
def test_dtypes_shapes_and_views(write, read, tmp_path):
    state = OrderedDict()
    for dtype in DTYPES:
        for shape in ((), (3,), (2, 3), (0, 4)):
            state[f"{dtype}{shape}"] = (write.arange(6)[:int(np.prod(shape))].reshape(shape) % 5).to(
                getattr(write, dtype))
    base = write.arange(24.0).reshape(2, 3, 4)
    views = {"base": base, "row": base[1], "turned": base.permute(2, 0, 1), "inner": base[:, 1:, ::2],
             "wide": write.ones(3, 1).expand(3, 4), "diagonal": base[0, :, :3].t()[1:]}
    state.update(views)
    state["leaf"] = write.ones(2, requires_grad=True)
    state["parameter"] = write.nn.Parameter(write.ones(2), requires_grad=False)
    write.save(state, tmp_path / "state.pt")
    back = read.load(tmp_path / "state.pt")
    assert type(back) is OrderedDict and list(back) == list(state)
    for name, value in state.items():
        assert tuple(back[name].shape) == tuple(value.shape) and str(back[name].dtype) == str(value.dtype)
        assert np.array_equal(values(back[name]), values(value)), name
    for name, value in views.items():
        assert tuple(back[name].stride()) == tuple(value.stride())
    assert back["leaf"].requires_grad and back["leaf"].is_leaf
    assert type(back["parameter"]) is read.nn.Parameter and not back["parameter"].requires_grad
    # What shared memory shares it again.
    back["base"][1, 1] = 100
    assert back["row"][1].tolist() == [100] * 4 and back["inner"][1, 0].tolist() == [100, 100]
    assert back["turned"][0, 1, 1].item() == 100


def test_what_is_the_same_stays_the_same(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2))
    torch.save([weight, {"tied": weight}], tmp_path / "x.pt")
    first, second = torch.load(tmp_path / "x.pt")
    assert first is second["tied"]


def test_a_slice_alone_reads_before_the_whole(tmp_path):
    base = reference.arange(12.0).reshape(3, 4)
    reference.save([base[1:, 2], base], tmp_path / "x.pt")
    part, whole = torch.load(tmp_path / "x.pt")
    assert part.tolist() == [6, 10]
    whole[2] = 0
    assert part.tolist() == [6, 0]


@pytest.mark.parametrize("library", [torch, reference])
def test_into_and_from_memory(library):
    file = io.BytesIO()
    library.save({"x": torch.ones(3) if library is torch else reference.ones(3)}, file)
    file.seek(0)
    assert torch.load(file)["x"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("library", [torch, reference])
def test_mapped_into_memory(library, tmp_path):
    path = tmp_path / "x.pt"
    library.save({"x": library.arange(1000.0), "half": library.ones(3).bfloat16()}, path)
    before = path.read_bytes()
    back = torch.load(path, mmap=True)
    assert back["x"].sum().item() == 499500 and back["half"].tolist() == [1, 1, 1]
    back["x"].zero_()
    assert back["x"].sum().item() == 0 and path.read_bytes() == before


def test_storages_are_aligned(tmp_path):
    torch.save([torch.ones(count) for count in range(1, 9)], tmp_path / "x.pt")
    content = (tmp_path / "x.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        for record in archive.infolist():
            name, extra = np.frombuffer(content, "<u2", 2, record.header_offset + 26)
            assert (record.header_offset + 30 + int(name) + int(extra)) % 64 == 0


class Weights:
    """Something that is no weight."""

    def __init__(self, number):
        self.number = number


def test_classes_are_made_where_they_are_trusted(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(Weights(3), path)
    with pytest.raises(pickle.UnpicklingError, match="Weights"):
        torch.load(path)
    assert torch.load(path, weights_only=False).number == 3
    with torch.serialization.safe_globals([Weights]):
        assert torch.serialization.get_safe_globals() == [Weights]
        assert torch.load(path).number == 3
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)


def test_modules_are_saved_whole_where_they_are_trusted(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    torch.save(net, tmp_path / "net.pt")
    with pytest.raises(pickle.UnpicklingError, match="Sequential"):
        torch.load(tmp_path / "net.pt")
    back = torch.load(tmp_path / "net.pt", weights_only=False)
    x = torch.ones(3)
    assert back(x).tolist() == net(x).tolist()
    reference.save(reference.nn.Linear(2, 2), tmp_path / "theirs.pt")
    with pytest.raises(NotImplementedError, match="state_dict"):
        torch.load(tmp_path / "theirs.pt", weights_only=False)


class Calls:
    """A pickle that calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def archived(path, pickled, **records):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, content in records.items():
            archive.writestr(f"x/data/{name}", content)
    return path


@pytest.mark.parametrize("pickled", [
    pickle.dumps(Calls(exec, "raise SystemExit"), 2),
    pickle.dumps(Calls(getattr, "text", "upper"), 2),
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__K\x01sb.",
    b"\x80\x02ctorch\nSize\n}X\x01\x00\x00\x00aK\x01sb.",
    b"\x80\x02ctorch\nSize\n)R}X\x01\x00\x00\x00aK\x01sb.",
], ids=["exec", "getattr", "function's state", "class's state", "instance's state"])
def test_files_of_weights_run_nothing(pickled, tmp_path):
    with pytest.raises((pickle.UnpicklingError, AttributeError)):
        torch.load(archived(tmp_path / "x.pt", pickled))


@pytest.mark.parametrize("write, read", [(torch, reference), (reference, torch), (torch, torch)])
def test_attributes_of_parameters(write, read, tmp_path):
    parameter = write.nn.Parameter(write.ones(3))
    parameter.kind, parameter._group = "embedding", {"lr": 0.5}
    write.save({"p": parameter}, tmp_path / "p.pt")
    back = read.load(tmp_path / "p.pt")["p"]
    assert type(back) is read.nn.Parameter and back.tolist() == [1, 1, 1]
    assert (back.kind, back._group) == ("embedding", {"lr": 0.5})


@pytest.mark.parametrize("name", ["_offset", "_type", "steps", "__class__"])
def test_no_file_says_where_memory_is(name, tmp_path):
    parameter = reference.nn.Parameter(reference.ones(3))
    state = {"p": Calls(reference._utils._rebuild_parameter_with_state, parameter.detach(), True, OrderedDict(),
                        {name: 1 << 20})}
    reference.save(state, tmp_path / "p.pt")
    for weights_only in (True, False):
        with pytest.raises(pickle.UnpicklingError, match=name):
            torch.load(tmp_path / "p.pt", weights_only=weights_only)


@pytest.mark.parametrize("offset, size, stride", [(0, (5,), (1,)), (4, (1,), (1,)), (-1, (1,), (1,)), (0, (2,), (4,)),
                                                  (0, (2, 2), (1,)), (0, (-1,), (1,))])
def test_tensors_end_where_their_storage_ends(offset, size, stride, tmp_path):
    file = io.BytesIO()

    state = Calls(reference._utils._rebuild_tensor_v2, ..., offset, size, stride, False, OrderedDict())
    pickler = pickle._Pickler(file, 2)
    pickler.persistent_id = lambda obj: ("storage", reference.FloatStorage, "0", "cpu", 4) if obj is ... else None
    pickler.dump(state)
    path = archived(tmp_path / "x.pt", file.getvalue(), **{"0": np.arange(4, dtype=np.float32).tobytes()})
    with pytest.raises(RuntimeError, match="x.pt"):
        torch.load(path)


def test_places(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(torch.ones(2), path)
    for place in (None, "cpu", torch.device("cpu"), {"cuda:0": "cpu"}, lambda storage, location: storage):
        assert torch.load(path, map_location=place).tolist() == [1, 1]
    with pytest.raises((AssertionError, RuntimeError)):
        torch.load(path, map_location="cuda")
    on_gpu = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("x/data.pkl").replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
        archived(tmp_path / "gpu.pt", pickled, **{"0": archive.read("x/data/0")})
    assert b"cuda:0" not in on_gpu
    with pytest.raises(RuntimeError, match="map_location"):
        torch.load(tmp_path / "gpu.pt")
    assert torch.load(tmp_path / "gpu.pt", map_location="cpu").tolist() == [1, 1]
    assert torch.load(tmp_path / "gpu.pt", map_location={"cuda:0": "cpu"}).tolist() == [1, 1]


@pytest.mark.parametrize("damage", [lambda content: content[:len(content) // 2], lambda content: b"PK\x03\x04",
                                    lambda content: content.replace(b"data.pkl", b"date.pkl")])
def test_a_damaged_file_is_named(damage, tmp_path):
    path = tmp_path / "damaged.pt"
    torch.save({"x": torch.ones(100)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RuntimeError, match="damaged.pt"):
        torch.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.pt"
    torch.save({"x": torch.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        torch.save({"x": torch.zeros(2), "y": lambda: None}, path)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["kept.pt"]


@pytest.mark.parametrize("weights_only", [True, False])
def test_old_files_are_read(weights_only, tmp_path):
    path, base = tmp_path / "old.pt", reference.arange(12.0).reshape(3, 4)
    _, _, state = trained(reference)
    state |= {"part": base[1:, 2], "base": base, "parameter": reference.nn.Parameter(base[0]),
              "empty": reference.ones(0, 2), "half": reference.ones(3).bfloat16()}
    reference.save(state, path, _use_new_zipfile_serialization=False)
    back = torch.load(path, weights_only=weights_only)
    net, optimizer, _ = trained(torch)
    net.load_state_dict(back["model"])
    optimizer.load_state_dict(back["optimizer"])
    for name, value in state["model"].items():
        assert np.array_equal(values(net.state_dict()[name]), values(value))
    assert back["part"].tolist() == [6, 10] and back["half"].tolist() == [1, 1, 1] and back["empty"].shape == (0, 2)
    back["base"][2] = 0
    assert back["part"].tolist() == [6, 0] and back["parameter"].tolist() == [0, 1, 2, 3]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RuntimeError, match="old.pt"):
        torch.load(path, weights_only=weights_only)
    # Storages are sorted by address: whichever comes last, also one of which there is only the length.
    reference.save({"empty": reference.ones(0, 2)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RuntimeError, match="old.pt"):
        torch.load(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(RuntimeError, match="old.pt"):
        torch.load(path)


def test_old_files_of_weights_run_nothing(tmp_path):
    path = tmp_path / "old.pt"
    reference.save(Calls(exec, "raise SystemExit"), path, _use_new_zipfile_serialization=False)
    with pytest.raises(pickle.UnpicklingError, match="exec"):
        torch.load(path)
