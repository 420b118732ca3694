"""Pretrain an encoder with any method, from one file of settings per method."""
