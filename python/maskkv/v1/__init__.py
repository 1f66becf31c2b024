# SPDX-License-Identifier: Apache-2.0
"""Messages and stubs generated from protos/maskkv/v1 (maskkv_build.py makes them)."""
