"""Every family of models that is built in; the only list of them."""

from collections.abc import Mapping

from apparate_jax.models.bert import BERT
from apparate_jax.models.distilbert import DISTILBERT
from apparate_jax.models.efficientnet import EFFICIENTNET
from apparate_jax.models.family import Family
from apparate_jax.models.gpt2 import GPT2
from apparate_jax.models.resnet import RESNET
from apparate_jax.models.roberta import ROBERTA
from apparate_jax.models.vgg import VGG
from apparate_jax.models.vit import VIT

FAMILIES: Mapping[str, Family] = {
    family.kind: family
    for family in (
        BERT,
        DISTILBERT,
        ROBERTA,
        GPT2,
        RESNET,
        VGG,
        EFFICIENTNET,
        VIT,
    )
}
"""Families by their kind."""
