"""The decoder of depth: a map per scale, each of its own or what differs from the next coarser one."""

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.networks import build_encoder
from medssl.networks.depth import DepthNetwork


def logits(refine: bool) -> tuple[DepthNetwork, list[Tensor]]:
    torch.manual_seed(0)
    encoder = build_encoder("unet", 3, 2, channels=(8, 8, 16), norm="group")
    network = DepthNetwork(encoder, maps=2, scales=2, widths=(4,), refine=refine).eval()
    with torch.no_grad():
        return network, [told.logit() for told in network(torch.rand(1, 3, 32, 48))]


def test_each_scale_begins_where_the_coarser_one_has_come_to() -> None:
    _, (own, coarse) = logits(refine=False)
    network, (refined, same) = logits(refine=True)
    torch.testing.assert_close(same, coarse)
    torch.testing.assert_close(refined, own + F.interpolate(coarse, scale_factor=2, mode="bilinear"), atol=1e-4, rtol=0)
    _, *finer = network.decoder.heads.values()
    with torch.no_grad():
        for parameter in (p for head in finer for p in head.parameters()):
            parameter.zero_()
        fine, coarse = network(torch.rand(1, 3, 32, 48))
    torch.testing.assert_close(fine.logit(), F.interpolate(coarse.logit(), scale_factor=2, mode="bilinear"))
