import torch

from ssgd_analysis import seeds


def test_derived_seeds_are_the_same_for_good():
    """Half of what ``printf "(0, 'batches')" | b2sum -l 64`` says, and so on: old runs repeat."""
    assert seeds.derive(0, "batches") == 0xDD9AF927B27DC6A8 // 2
    assert seeds.derive(7, "weight noise", 3, 1) == 0x470D99D7BE12955D // 2


def test_streams_differ_by_seed_by_name_and_by_step():
    streams = {
        seeds.derive(seed, name, step)
        for seed in range(20)
        for name in ("a", "b")
        for step in range(20)
    }
    assert len(streams) == 20 * 2 * 20
    # torch's CPU generator uses the low 32 bits alone: they must differ too
    assert len({stream % 2**32 for stream in streams}) == 20 * 2 * 20


def test_seeds_fit_what_torch_takes():
    assert all(0 <= seeds.derive(seed, "x") < 2**63 for seed in range(100))


def test_generators_are_apart_from_the_global_one():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    draws = [torch.rand(3, generator=seeds.generator(1, "a")) for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], torch.rand(3, generator=seeds.generator(1, "b")))
    assert torch.equal(torch.get_rng_state(), state)
