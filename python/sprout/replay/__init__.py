# SPDX-License-Identifier: Apache-2.0
"""Trace-driven runs of the live decisions over measured requests and grids."""
