import torch

from swe_cli.statistics.running import parts


def tensors(**options):
    return {name: torch.ones(size, **options) for name, size in {"a": 2, "b": 3, "c": 4}.items()}


def test_on_a_cpu_tensor_by_tensor_and_the_states_themselves():
    weights, one, other = tensors(dtype=torch.bfloat16), tensors(), tensors()
    found = list(parts(weights, one, other))
    assert [[len(each) for each in part] for part in found] == [[1, 1, 1]] * 3
    for name, ((now,), (first,), (second,)) in zip(weights, found, strict=True):
        assert torch.equal(now, weights[name].float())
        assert now.dtype is torch.float32
        assert first is one[name]
        assert second is other[name]


def test_elsewhere_all_at_once():
    ((now, state),) = parts(tensors(device="meta"), tensors(device="meta"))
    assert len(now) == len(state) == 3
