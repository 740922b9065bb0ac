# SPDX-License-Identifier: Apache-2.0
"""What the command line shows: one file per command that has something to show."""
