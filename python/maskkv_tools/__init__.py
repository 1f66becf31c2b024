# SPDX-License-Identifier: Apache-2.0
"""Commands that make test data and pictures; nothing that the engine needs to run."""
