# SPDX-License-Identifier: Apache-2.0
"""The oracle: MaskKV and LLaDA's decoding in NumPy float64, written from the equations.

It shares no code with the C++ engine and is written to be read, not to be fast. Its results, with
error bounds derived in `bounds`, are the golden files under tests/data/golden.
"""
