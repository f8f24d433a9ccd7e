"""Every family of models that is built in; the only list of them."""

from collections.abc import Mapping

from apparate_jax.models.bert import BERT
from apparate_jax.models.family import Family

FAMILIES: Mapping[str, Family] = {family.kind: family for family in (BERT,)}
"""Families by their kind."""
