"""Pretrain an encoder: ``medssl pretrain`` with the settings of ``configs/<method>.yaml``, one file for each method."""

from medssl.commands.pretrain import pretrain as run

__all__ = ["run"]
