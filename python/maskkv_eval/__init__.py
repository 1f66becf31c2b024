# SPDX-License-Identifier: Apache-2.0
"""Evaluation of checkpoints under eviction policies."""
