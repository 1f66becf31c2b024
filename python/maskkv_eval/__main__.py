# SPDX-License-Identifier: Apache-2.0
"""python -m maskkv_eval is maskkv-eval."""

from maskkv_eval.cli import main

main()
