# SPDX-License-Identifier: Apache-2.0
"""The embedded model of maskkv: its world of documents and questions, tokenizer and trainer."""
